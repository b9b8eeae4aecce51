"""What a home may lie on: SQLite's write-ahead log needs memory that its processes share, which no network file system has.

Some of them take the log all the same and lose commits later, so a home is refused by the *kind* of what it lies on, before
anything is opened. On Linux /proc/self/mountinfo says it (proc_pid_mountinfo(5)), else statfs(2) by its magic number; on macOS
`mount` does. What is unknown is allowed: containers and new file systems have names that no list knows.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from flyball._kernel.errors import AdapterError

NETWORK: Final = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "smbnetfs", "afs", "afpfs", "ncpfs", "coda", "davfs",
        "webdav", "ceph", "lustre", "gpfs", "beegfs", "beegfs_nodev", "pvfs2", "orangefs", "glusterfs",
        "gfs", "gfs2", "ocfs2", "acfs", "panfs", "vboxsf", "vmhgfs", "prl_fs",
    )
)  # fmt: skip
"""Types of file systems that another machine (or another kernel) writes as well."""

FUSE: Final = frozenset(
    (
        "sshfs", "s3fs", "goofys", "gcsfuse", "blobfuse", "blobfuse2", "rclone", "davfs", "davfs2",
        "curlftpfs", "smbnetfs", "glusterfs", "ceph", "juicefs", "mfs", "moosefs", "lizardfs", "seaweedfs",
        "weed", "mount-s3", "mountpoint-s3", "geesefs", "afpfs", "cernvm", "cvmfs2", "dfs", "hdfs",
        "vmhgfs-fuse", "grpcfuse", "osxfs",
    )
)  # fmt: skip
"""Network file systems by the name that a FUSE mount has after `fuse.`."""

_MAGIC: Final = {
    0x6969: "nfs",
    0x517B: "smbfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb3",
    0x5346414F: "afs",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
}
"""statfs(2), `f_type`."""


class Mount(NamedTuple):
    """A place where a file system is mounted."""

    point: str
    kind: str
    options: str


def refuse_network(home: Path, mountinfo: str | None = None) -> None:
    """Refuse a home that lies on a network file system; what cannot be told is allowed.

    Args:
        home: need not exist yet: what lies nearest above it counts.
        mountinfo: the text of /proc/self/mountinfo; read where None.

    Raises:
        AdapterError: `home-on-a-network`, naming the mount point and its type.
    """
    place = os.path.realpath(home)
    found = under(place, parse(mountinfo)) if mountinfo is not None else _lies_on(place)
    if found is None or not is_network(found):
        return
    raise AdapterError(
        "home-on-a-network",
        f"The home {home} lies on a network file system: {found.point} is {found.kind}.",
        why="SQLite's processes share memory beside its write-ahead log; over a network commits would be lost, not refused.",
        next="Put the home on a local disk (--home), and copy it elsewhere with `flyball backup --to`, which may be one.",
    )


def is_network(mount: Mount) -> bool:
    """Whether other machines write to what is mounted there, as far as its type tells."""
    kind = mount.kind.lower()
    if kind == "9p":
        # A sandbox's own root may be 9p over a descriptor; over a network, or from another system's disk, it is not ours alone.
        return bool(re.search(r"trans=(tcp|rdma|unix|virtio)|aname=drvfs", mount.options))
    _, _, name = kind.partition("fuse.")
    return kind in NETWORK or name in FUSE


def parse(mountinfo: str) -> Iterator[Mount]:
    """The mounts of a /proc/self/mountinfo, in the order in which they were made."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        parts, after = fields.split(" "), rest.split(" ")
        if len(parts) >= 6 and len(after) >= 2:
            # Blanks, tabs, newlines and backslashes in names are written in octal.
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), parts[4])
            yield Mount(point, after[0], after[2] if len(after) > 2 else "")


def parse_mac(told: str) -> Iterator[Mount]:
    """The mounts of what `mount` says on macOS: `//me@host/share on /Volumes/share (smbfs, nodev)`."""
    for line in told.splitlines():
        if found := re.fullmatch(r".* on (/.*) \(([^,)]+)(.*)\)", line):
            yield Mount(found[1], found[2], found[3])


def under(place: str, mounts: Iterator[Mount]) -> Mount | None:
    """The mount that a path lies on: the longest above it, and of several at one point the last, which hides the others."""
    best: Mount | None = None
    for each in mounts:
        above = each.point == "/" or place == each.point or place.startswith(each.point + "/")
        if above and (best is None or len(each.point) >= len(best.point)):
            best = each
    return best


def _lies_on(place: str) -> Mount | None:
    os.path.exists(place)  # has an automounter mount what it promises there
    try:
        if sys.platform == "darwin":
            told = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False, timeout=10).stdout
            return under(place, parse_mac(told))
        return under(place, parse(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")))
    except (OSError, subprocess.SubprocessError):
        return _by_magic(place)


def _by_magic(place: str) -> Mount | None:
    """What statfs(2) says of the nearest existing folder; None where there is no such call, or it fails."""
    while not os.path.exists(place):
        place = os.path.dirname(place)
    # `f_type` comes first and is a long on every Linux that Python runs on; the rest is given room and not read.
    room = ctypes.create_string_buffer(1024)
    try:
        failed = ctypes.CDLL(None).statfs(os.fsencode(place), room)
    except (OSError, AttributeError):
        return None
    magic = ctypes.c_ulong.from_buffer(room).value & 0xFFFFFFFF
    return None if failed or magic not in _MAGIC else Mount(place, _MAGIC[magic], "")
