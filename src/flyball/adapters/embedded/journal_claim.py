"""A process's place in the journal: a file that is locked while it lives, and a note in it of what its segments cannot hold.

When the disk is full, a segment cannot be told which numbers are handed out. The note can: it has its bytes from the beginning,
so that to write it anew needs no room. Without it answers could not leave unlogged for longer than a block of numbers lasts,
since nobody could say afterwards how many they were.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.journal_pages import Noted
from flyball.adapters.embedded.journal_segment import Missed
from flyball.serve.journal import Standing

_note = struct.Struct("<qq")


class Claim:
    """A lock that says that a process lives, and its way to open segments.

    Args:
        path: the file to lock; made here, removed when released.
        process: the identity of the recorder.
        create: makes the segment that begins with a number.
    """

    def __init__(self, path: Path, process: str, create: Callable[[int], journal_segment.OpenSegment]) -> None:
        self.process, self.create = process, create
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            self.note(Noted())
        except OSError:
            self.release()
            raise

    def note(self, noted: Noted) -> None:
        """Write the note anew; on disk when it returns.

        Raises:
            OSError: the disk takes not even that.
        """
        os.pwrite(self._descriptor, _note.pack(*noted), 0)
        os.fsync(self._descriptor)

    def release(self, *, keep: bool = False) -> None:
        """The process writes no more.

        Args:
            keep: leave the note, since no segment speaks for what it says.
        """
        if not keep:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Misses:
    """What the disk did not take: the spans that no segment was told of yet, and how many in all. The writer's own.

    Args:
        claim: where the numbers are noted of what left all the same.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.spans: list[Missed] = []
        self.standing = Standing()

    @property
    def left(self) -> bool:
        """Whether answers left of which no segment was told yet."""
        return any(span.left for span in self.spans)

    def told(self) -> None:
        """A segment speaks for all of them now."""
        self.spans = []
        self.standing = self.standing._replace(failure="")

    def because(self, cause: Exception) -> None:
        """Why the last commit failed."""
        self.standing = self.standing._replace(failure=str(cause))

    def give_up(self, last: int, many: int, *, left: bool) -> None:
        """So many answers more are not recorded; `last` is the number up to which the segment speaks."""
        if many:
            before = self.spans[-1].last if self.spans else last
            joins = bool(self.spans) and self.spans[-1].left == left
            first = self.spans.pop().first if joins else before + 1
            self.spans.append(Missed(first, before + many, left))
            refused, unlogged, failure = self.standing
            self.standing = Standing(refused + many * (not left), unlogged + many * left, failure)

    def let_go(self, last: int, many: int, block: int) -> int | None:
        """Give up answers that leave, and reserve a block after them: up to which number; None where it cannot be noted."""
        through = (self.spans[-1].last if self.spans else last) + many
        try:
            self._claim.note(Noted(through, through + block))
        except OSError:
            return None
        self.give_up(last, many, left=True)
        return through + block


def lives(path: Path) -> bool:
    """Whether a process holds the lock; asked with a shared one, so that two who ask do not see each other."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def noted(path: Path) -> Noted:
    """What the process left; nothing where its file is gone, or of an earlier release."""
    try:
        said = path.read_bytes()
    except FileNotFoundError:
        return Noted()
    return Noted(*_note.unpack(said)) if len(said) == _note.size else Noted()
