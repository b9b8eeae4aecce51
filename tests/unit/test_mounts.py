"""A home is refused on what other machines write to as well, by what the system says is mounted there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import mounts

LOCAL = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /home rw - btrfs /dev/vdb rw
41 27 0:41 / /tmp rw - tmpfs tmpfs rw
42 27 0:42 / /containers rw - overlay overlay rw,lowerdir=/a,upperdir=/b
"""


def at(place: str, line: str) -> None:
    mounts.refuse_network(Path(place), LOCAL + line + "\n")


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "ceph",
        "lustre",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "afs",
        "gpfs",
        "NFS4",
    ],
)
def test_a_network_file_system_is_refused_with_its_place(kind: str) -> None:
    with pytest.raises(AdapterError, match="home-on-a-network") as raised:
        at("/mnt/share/app/.flyball", f"50 27 0:50 / /mnt/share rw - {kind} server:/export rw,vers=4")
    assert "/mnt/share" in str(raised.value) and kind in str(raised.value) and "flyball backup" in raised.value.next


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse.ntfs-3g", "fuseblk", "virtiofs", "never-heard-of"]
)
def test_what_is_local_or_unknown_is_allowed(kind: str) -> None:
    at("/mnt/disk/app/.flyball", f"50 27 0:50 / /mnt/disk rw - {kind} /dev/x rw")


def test_the_nearest_mount_above_counts() -> None:
    share = "50 27 0:50 / /data rw - nfs4 server:/export rw"
    at("/database/.flyball", share)  # a name that only begins alike
    at("/data/local/.flyball", share + "\n51 50 0:51 / /data/local rw - ext4 /dev/vdc rw")
    with pytest.raises(AdapterError):
        at(
            "/data/local/.flyball",
            "51 50 0:51 / /data/local rw - ext4 /dev/vdc rw\n52 51 0:50 / /data/local rw - nfs s:/ rw",
        )
    at("/data/.flyball", share + "\n53 27 0:53 / /data rw - xfs /dev/vdd rw")  # mounted over it
    with pytest.raises(AdapterError):
        at("/srv/.flyball", "54 1 0:54 / / rw - nfs4 server:/export rw")


def test_blanks_in_a_name_are_written_in_octal() -> None:
    with pytest.raises(AdapterError):
        at("/mnt/my share/x", r"50 27 0:50 / /mnt/my\040share rw - cifs //s/x rw")


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("rw,trans=virtio,version=9p2000.L", True),
        ("rw,trans=tcp", True),
        (r"rw,aname=drvfs;path=C:\134,trans=fd", True),
        ("rw,trans=fd,rfd=4,wfd=4,cache=remote_revalidating", False),
    ],
)
def test_a_sandbox_root_is_not_a_share(options: str, refused: bool) -> None:
    mount = mounts.Mount("/x", "9p", options)
    assert mounts.is_network(mount) is refused


def test_links_are_followed_to_where_a_home_lies(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/mnt/share")
    with pytest.raises(AdapterError):
        at(str(tmp_path / "link" / "home"), "50 27 0:50 / /mnt/share rw - nfs4 server:/export rw")


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense", "1 2 3 - ", "a b c d / f - nfs", "27 1 254:0 / / rw - "])
def test_what_cannot_be_told_is_allowed(text: str) -> None:
    mounts.refuse_network(Path("/anywhere"), text)


def test_what_mount_says_on_a_mac() -> None:
    told = "/dev/disk3s1 on / (apfs, local)\n//me@host/my share on /Volumes/my share (smbfs, nodev, nosuid)\n"
    found = mounts.under("/Volumes/my share/x", mounts.parse_mac(told))
    assert found is not None and found.kind == "smbfs" and mounts.is_network(found)
    local = mounts.under("/Users/me", mounts.parse_mac(told))
    assert local is not None and not mounts.is_network(local)


def test_this_machine_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files of this system, and statfs where there is no /proc: a place for tests is local."""
    mounts.refuse_network(tmp_path / "not" / "there" / "yet")
    assert mounts._by_magic(str(tmp_path / "not" / "there")) is None
    told = subprocess.run(["stat", "-f", "-c", "%t", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    number = int(told, 16)
    monkeypatch.setitem(mounts._MAGIC, number, "nfs")
    found = mounts._by_magic(str(tmp_path / "not" / "there"))
    assert found == mounts.Mount(str(tmp_path), "nfs", ""), "statfs was read where the type lies"


def test_an_app_does_not_open_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flyball import runtime
    from tests.loops import APP

    monkeypatch.setattr(mounts, "_lies_on", lambda _: mounts.Mount(str(tmp_path), "nfs4", ""))
    with pytest.raises(AdapterError, match="home-on-a-network"):
        runtime.open(APP, runtime.Placement(root=tmp_path, home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()
