"""The folder that backups lie in: files by their own SHA-256, shared between backups, and one signed document a backup.

    objects/ab/abcd...        the bytes of files, each once, readable by their owner only
    TIME-TX.backup.json       what one backup is made of; it appears last, so that a killed backup never looks whole
    .lock                     held while one is made (alone) or read (with others)

What is read back is believed only byte by byte: links, devices and pipes are not followed, sizes are those that were signed,
and a digest that differs is refused. The folder may lie on a network disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from flyball._kernel.errors import AdapterError, FlyballError, RetryableError, StateError
from flyball.adapters.embedded import disk
from flyball.cycle.backup import File

SUFFIX: Final = ".backup.json"
DATABASE: Final = ".sqlite"
"""How the databases of a home are named; each is written to where it lies, so it is never shared with a backup."""
LARGEST: Final = 256 * 1024 * 1024
"""Bytes of the document of one backup, at most; a million files have about half of it."""

_OBJECTS, _LOCK, _PART = "objects", ".lock", ".part-"
_BLOCK: Final = 1024 * 1024
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_NAME: Final = re.compile(r"\d{8}T\d{12}Z-\d{8,}" + re.escape(SUFFIX))


class Shelf:
    """A folder of backups.

    Raises:
        AdapterError: `backup-unwritable`.
        RetryableError: `backup-busy`, `disk-full`.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._objects = place / _OBJECTS

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make a backup, alone; the folder is made where missing."""
        with self._explained():
            self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._lock(descriptor, fcntl.LOCK_EX)
            with self._explained():
                yield
        finally:
            os.close(descriptor)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read backups that nobody takes away meanwhile; a folder without a lock, on a disk that is only read, will do."""
        descriptor = None
        with suppress(OSError):
            descriptor = os.open(self.place / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if descriptor is not None:
                self._lock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def backups(self) -> list[Path]:
        """The documents of all backups, oldest first."""
        return sorted(path for path in self.place.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))

    def part(self) -> Path:
        """A new empty file, to be filled and adopted."""
        descriptor, name = tempfile.mkstemp(dir=self._objects, prefix=_PART)
        os.close(descriptor)
        return Path(name)

    def add(self, source: Path) -> tuple[str, int]:
        """Keep the bytes of a plain file; returns their SHA-256 and number.

        Raises:
            FileNotFoundError: where it is not there, or is no plain file.
        """
        part = self.part()
        try:
            with _plain(source) as file, part.open("wb") as into:
                digest, size = _copy(file, into)
            self._name(part, digest)
        finally:
            part.unlink(missing_ok=True)
        return digest, size

    def adopt(self, part: Path) -> tuple[str, int]:
        """Keep a part that was filled; returns its SHA-256 and number of bytes."""
        with part.open("r+b") as file:
            digest, size = _copy(file, None)
            os.fsync(file.fileno())
        self._name(part, digest)
        part.unlink(missing_ok=True)
        return digest, size

    def has(self, file: File) -> bool:
        """Whether the bytes of a file are here, as far as their number tells."""
        try:
            return self._path(file.digest).lstat().st_size == file.size
        except FileNotFoundError:
            return False

    def publish(self, name: str, document: bytes) -> Path:
        """Have a backup exist."""
        part, path = self.part(), self.place / f"{name}{SUFFIX}"
        with part.open("wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        for folder in (*self._objects.iterdir(), self._objects):
            if folder.is_dir():
                disk.sync(folder)
        os.replace(part, path)
        disk.sync(self.place)
        return path

    def document(self, path: Path) -> bytes:
        """What a backup says of itself, not believed yet.

        Raises:
            StateError: `backup-damaged`, where there is no plain file, or an endless one.
        """
        try:
            with _plain(path) as file:
                data = file.read(LARGEST + 1)
        except OSError as error:
            raise _damaged(path.name, str(error)) from error
        if len(data) > LARGEST:
            raise _damaged(path.name, f"it is larger than {LARGEST:,} bytes")
        return data

    def fetch(self, file: File, to: Path, *, linked: bool = False) -> None:
        """Lay a file out at `to`, which must not be there, byte by byte as it was signed.

        Args:
            linked: let it be the very file of this folder, where that can be: for what is only read.

        Raises:
            StateError: `backup-damaged`.
        """
        source = self._path(file.digest)
        try:
            with _plain(source) as bytes_:
                if os.fstat(bytes_.fileno()).st_size != file.size:
                    raise _damaged(file.path, f"it has not {file.size:,} bytes, as was signed")
                with suppress(OSError):
                    if linked:
                        os.link(source, to, follow_symlinks=False)
                with _reader_or_new(to, there=to.exists()) as into:
                    found = _copy(bytes_, into, limit=file.size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._failed(error) from error
            raise _damaged(file.path, str(error)) from error
        if found != (file.digest, file.size):
            raise _damaged(file.path, "its bytes have another SHA-256 than was signed")

    def sweep(self, kept: Collection[str]) -> int:
        """Remove the bytes that no backup names, and what killed ones left; returns how many files went."""
        gone = 0
        for path in self._objects.rglob("*"):
            ours = _DIGEST.fullmatch(path.name) or path.name.startswith(_PART)
            if ours and path.name not in kept and not path.is_dir():
                path.unlink()
                gone += 1
        return gone

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise _damaged("a file", "its name is no SHA-256")
        return self._objects / digest[:2] / digest

    def _name(self, part: Path, digest: str) -> None:
        path = self._path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.replace(part, path)

    def _lock(self, descriptor: int, kind: int) -> None:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RetryableError(
                "backup-busy",
                f"Another process uses the backups in {self.place}.",
                why="A backup is made alone: it removes what none of those that are kept names.",
                next="Try again when it has ended.",
            ) from error
        except OSError as error:
            raise self._failed(error) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> FlyballError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RetryableError(
                "disk-full",
                f"There is no room left to write {error.filename or self.place}",
                why=str(error),
                next="free space on that disk and try again; no backup was made, and none was restored",
            )
        return AdapterError(
            "backup-unwritable",
            f"The backup in {self.place} cannot be written.",
            why=str(error),
            next="Check that the folder exists or can be made, that you own it, and that its disk answers.",
        )


@contextmanager
def aside(place: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `place`, removed at the end unless it has another name by then.

    It is locked for as long, so that the next to ask for this prefix tells it from those that killed processes left, and
    removes these.
    """
    for left in (path for path in place.iterdir() if path.name.startswith(prefix)):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    made = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
    try:
        with _locked(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def room(place: Path, needed: int) -> None:
    """Refuse to lay out more than a disk has room for.

    Raises:
        RetryableError: `disk-full`.
    """
    free = shutil.disk_usage(place).free
    if free < needed:
        raise RetryableError(
            "disk-full",
            f"There is no room left to write to {place}: {needed:,} bytes are needed, {free:,} are free",
            next="free space on that disk, or restore to another one; nothing was written",
        )


def _plain(path: Path) -> BinaryIO:
    """A plain file, neither followed nor waited for: a link or a pipe that someone put there must not leak or block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


@contextmanager
def _reader_or_new(path: Path, *, there: bool) -> Iterator[BinaryIO | None]:
    """A new file to write to; None where its bytes are there already."""
    if there:
        yield None
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _copy(file: BinaryIO, into: BinaryIO | None, limit: int | None = None) -> tuple[str, int]:
    """Read to the end, or one byte past a limit; what was read, as SHA-256 and number; what was written is on disk."""
    digest, size = hashlib.sha256(), 0
    while (limit is None or size <= limit) and (block := file.read(_BLOCK)):
        digest.update(block)
        size += len(block)
        if into is not None:
            into.write(block)
    if into is not None:
        into.flush()
        os.fsync(into.fileno())
    return digest.hexdigest(), size


def _damaged(name: str, why: str) -> StateError:
    return StateError(
        "backup-damaged",
        f"The backup cannot be used: {name}: {why}."[:1000],
        why="Every file is compared with the SHA-256 that was signed; the disk failed, or someone wrote to it.",
        next="Use another backup: `flyball backup --verify` says which of them hold.",
    )
