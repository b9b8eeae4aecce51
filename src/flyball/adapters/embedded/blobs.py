"""Artifacts as files named by their own SHA-256, in 256 directories: written once, verified at every load.

A name that is not 64 lowercase hexadecimal digits never reaches the file system: nothing is stored under it. Files are
complete or absent (written aside, synced, renamed, and the directory synced), and readable by their owner only. What a
crash leaves aside is never read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from flyball._kernel import ids
from flyball._kernel.errors import AdapterError, FlyballError, RetryableError, StateError
from flyball.adapters.embedded import disk

_DIGEST: Final = re.compile("[0-9a-f]{64}")
_ASIDE: Final = ".aside-"
"""How the names of files begin that are being written."""


class FileBlobs:
    """A directory of artifacts.

    Args:
        root: the directory, made by the first `put` with mode 0700.

    Raises:
        AdapterError: `artifacts-unusable`, from `put`, `get` and `drop`.
        RetryableError: `disk-full`, from `put`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256 in hexadecimal. What is there already is kept, if it is still sound."""
        digest = ids.digest(data)
        path = self.root / digest[:2] / digest
        try:
            if _read(path) != data:
                _directory(path.parent)
                _write(path, data)
        except OSError as error:
            raise self._unusable(error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is `digest`; see `ports.Blobs`."""
        try:
            data = _read(self.root / digest[:2] / digest) if _DIGEST.fullmatch(digest) else None
        except OSError as error:
            raise self._unusable(error) from error
        if data is None:
            raise StateError(
                "no-such-artifact",
                f"There is no artifact {digest!r} in {self.root}",
                next="restore it from a backup, or let `flyball apply` make it again",
            )
        if ids.digest(data) != digest:
            raise StateError(
                "artifact-changed",
                f"The artifact {digest} in {self.root} is not what was stored",
                why="Its bytes no longer have the SHA-256 that is its name: the disk failed or someone wrote to it",
                next="delete that file, then restore it from a backup or let `flyball apply` make it again",
            )
        return data

    def has(self, digest: str) -> bool:
        """Whether `digest` is stored; its bytes are verified only when they are loaded."""
        return bool(_DIGEST.fullmatch(digest)) and (self.root / digest[:2] / digest).is_file()

    def names(self) -> Iterator[str]:
        """The digests of all that is stored, in order."""
        yield from sorted(path.name for path in self.root.glob("??/*") if self.has(path.name))

    def drop(self, digests: Collection[str]) -> int:
        """Remove these, and what crashes left aside; see `ports.Blobs`."""
        wanted = [self.root / digest[:2] / digest for digest in digests if self.has(digest)]
        aside = list(self.root.glob(f"??/{_ASIDE}*"))
        try:
            for path in (*wanted, *aside):
                path.unlink(missing_ok=True)
            for directory in {path.parent for path in (*wanted, *aside)}:
                disk.sync(directory)
        except OSError as error:
            raise self._unusable(error) from error
        return len(wanted)

    def _unusable(self, error: OSError) -> FlyballError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RetryableError(
                "disk-full",
                f"There is no room left to write to {self.root}",
                why=str(error),
                next="free space on that disk and try again; nothing was written",
            )
        return AdapterError(
            "artifacts-unusable",
            f"The artifacts in {self.root} cannot be read or written",
            why=str(error),
            next="check that the path is a directory that you own",
        )


def _open(path: str, flags: int) -> int:
    """Neither followed nor waited for: a link or a pipe that someone put in the store must not leak or block."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(path: Path) -> bytes | None:
    """The bytes of a regular file; None where there is nothing, b"" where there is something else."""
    try:
        with open(path, "rb", opener=_open) as file:
            return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_ASIDE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    disk.sync(path.parent)


def _directory(path: Path) -> None:
    if not path.is_dir():
        _directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        disk.sync(path.parent)
