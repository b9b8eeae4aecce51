"""The digests of files that were not touched since they were last looked at, so that they need not be read again.

A file is the same while its times, size and inode are. Times are coarse: a file may be written twice at what looks like one
moment, so a young one is not believed. They are kept in a file of the home, for the next process; whatever is wrong with that
file, it is as if there were none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from flyball.adapters.embedded.clock import SystemClock

_COARSE = 2.0
"""Seconds: more than any file system's clock is coarse."""
_CLOCK = SystemClock()
"""Says how old a file is: in real time, also while a rehearsal steps the time of the app."""

_Known = dict[str, tuple[tuple[int, ...], str]]


class Digests:
    """SHA-256 by path.

    Args:
        kept: the file that they are kept in; by default they live as long as this process.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self._kept = kept
        self._known: _Known | None = None
        self._new = False

    def of(self, path: Path) -> tuple[str, int]:
        """The digest and the size of a file as of now.

        Raises:
            OSError: it cannot be read.
        """
        if self._known is None:
            self._known = self._load()
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        known = self._known.get(str(path))
        if known is not None and known[0] == stamp:
            return known[1], found.st_size
        settled = _CLOCK.now().timestamp() - max(found.st_mtime, found.st_ctime) > _COARSE
        digest = read(path)
        if settled:
            self._known[str(path)] = stamp, digest
            self._new = True
        return digest, found.st_size

    def keep(self) -> None:
        """Write down what is new for the next process, where there is a home to write to."""
        if self._kept is None or not self._new or not self._kept.parent.parent.is_dir():
            return
        with suppress(OSError):  # the next process reads the files again
            self._kept.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor, made = tempfile.mkstemp(dir=self._kept.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self._known))
            Path(made).replace(self._kept)
            self._new = False

    def _load(self) -> _Known:
        if self._kept is not None:
            with suppress(OSError, msgspec.MsgspecError):
                return msgspec.json.decode(self._kept.read_bytes(), type=_Known)
        return {}


def read(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
