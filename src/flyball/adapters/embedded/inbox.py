"""The inbox in a folder: one file a body, which several server processes write and the loop empties.

A body is written aside, put on the disk, and then gets its name, all under one lock per source; so a file with a name is
whole, and one without is what a crash left. The name says everything that is asked of a waiting body but its rows:
its number, its size, its digest, and the two parts of its `File.name`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flyball._kernel.errors import AdapterError, RetryableError, StateError
from flyball.adapters.embedded import disk
from flyball.data.source import File
from flyball.serve.ingest import Body

BYTES: Final = 1 << 30
FILES: Final = 10_000
"""What may wait for one source."""

_BETWEEN, _NEW, _LOCK = "~", ".new", ".lock"


class FileInbox:
    """See `serve.ingest.Inbox`.

    Args:
        root: made with mode 0700 when the first body comes.
        most: bytes that may wait for one source.
        files: bodies that may.
    """

    def __init__(self, root: Path, most: int = BYTES, files: int = FILES) -> None:
        self._root, self._most, self._files = root, most, files
        self._seen: dict[str, dict[File, str]] = {}

    def accept(self, name: str, body: Body) -> bool:
        """Keep a body; see `Inbox`."""
        file = body.file
        with _explained(name), _locked(self._root / name, make=True) as folder:
            waiting = _waiting(folder)
            there = next((each for each in waiting.values() if each.name == file.name), None)
            if there is not None:
                if there != file:
                    raise _reused()
                return False
            if len(waiting) >= self._files or sum(each.size for each in waiting.values()) + file.size > self._most:
                raise _full(name)
            last = max((int(path.partition(_BETWEEN)[0]) for path in waiting), default=0)
            self._write(folder, _named(last + 1, file), body.rows)
            return True

    def files(self, name: str) -> tuple[File, ...]:
        """What waits, in order; see `Inbox`."""
        if not (self._root / name).exists():
            return ()
        with _explained(name), _locked(self._root / name) as folder:  # or a later body may show, and an earlier not yet
            waiting = _waiting(folder)
            self._seen[name] = {waiting[path]: path for path in sorted(waiting)}
            return tuple(self._seen[name])

    def read(self, name: str, file: File) -> bytes | None:
        """The rows of one; see `Inbox`."""
        with _explained(name):
            if file not in self._seen.get(name, {}):
                self.files(name)
            path = self._seen.get(name, {}).get(file)
            try:
                return (self._root / name / path).read_bytes() if path is not None else None
            except FileNotFoundError:
                return None

    def drop(self, name: str, files: Collection[File]) -> None:
        """These are ingested; see `Inbox`."""
        if not files or not (self._root / name).exists():
            return
        with _explained(name), _locked(self._root / name) as folder:
            done = set(files)
            for path, each in _waiting(folder).items():
                if each in done:
                    (folder / path).unlink()
            disk.sync(folder)

    @staticmethod
    def _write(folder: Path, name: str, rows: bytes) -> None:
        aside = folder / _NEW
        aside.unlink(missing_ok=True)  # what a crash left: we hold the lock
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(rows)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(folder / name)
        disk.sync(folder)


def _named(number: int, file: File) -> str:
    by, _, told = file.name.partition("/")
    return _BETWEEN.join((f"{number:012}", str(file.size), file.digest, by, told))


def _waiting(folder: Path) -> dict[str, File]:
    """Path -> the file that it is."""
    try:
        paths = os.listdir(folder)
    except FileNotFoundError:
        return {}
    found = {}
    for path in paths:
        parts = path.split(_BETWEEN)
        if len(parts) == 5:
            found[path] = File(f"{parts[3]}/{parts[4]}", parts[2], int(parts[1]))
    return found


@contextmanager
def _locked(folder: Path, *, make: bool = False) -> Iterator[Path]:
    """Alone in the folder of a source, among all processes and threads."""
    if make and not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.sync(folder.parent, folder.parent.parent)
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetryableError(
                "disk-full",
                f"There is no room on the disk for what is pushed to {name}.",
                why="Nothing of it was kept.",
                next="Free some room, then send it again.",
            ) from problem
        raise AdapterError(
            "inbox-unusable",
            f"The inbox of {name} cannot be used: {problem.strerror}.",
            why="Nothing of what was pushed was kept.",
            next="See that the home's folder `inbox` can be read and written.",
        ) from problem


def _reused() -> StateError:
    return StateError(
        "idempotency-key-reused",
        "Another body waits under this Idempotency-Key.",
        why="A key says that two requests are one, and their rows differ.",
        next="Send each body with a key of its own, or with none.",
    )


def _full(name: str) -> RetryableError:
    return RetryableError(
        "inbox-full",
        f"Too much waits in the inbox of {name}.",
        why="The loop has not ingested it yet, and what is taken must find room.",
        next="Send it again later; see that the loop runs (`flyball status`).",
    )
