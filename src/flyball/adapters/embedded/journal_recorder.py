"""One process's pen: callers queue their answers, one thread writes them in group commits.

While one group is being synced to disk the next one gathers, so that all who wait share the cost of a sync.

The numbers reserved bound the queue, so there is one limit, not two. A group that cannot be written is refused to all
who wait for it (acknowledged), or kept with its numbers until the disk takes it (interval); the writer goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, FlyballError, RetryableError, StateError
from flyball.adapters.embedded import journal_segment
from flyball.serve import journal
from flyball.serve.journal import Answer, Deliver, Done, Settings


class Claim:
    """A process's place in the journal: a lock that says that it lives, and its way to open segments.

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

    def release(self) -> None:
        """The process writes no more."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


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


class SqliteRecorder:
    """See `serve.journal.Recorder`."""

    def __init__(self, claim: Claim, settings: Settings, clock: Clock, deliver: Deliver) -> None:
        self._claim, self._settings, self._clock, self._deliver = claim, settings, clock, deliver
        self._acknowledged = settings.durability == "acknowledged"
        self._segment, self._opened = claim.create(1), clock.monotonic()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        # Under the lock. The rows are the last numbers before _next, in order.
        self._rows: list[journal_segment.Row] = []
        self._waiting: list[Done] = []
        self._next, self._bound = 1, self._segment.bound
        self._closing = False
        # The cheapest bell is a lock, held while there is nothing to do: only the writer acquires it, and callers
        # release it only under _lock, so that ringing twice is ringing once.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._hurry = threading.Event()
        # The writer's own.
        self._refused = 0
        self._group: list[Done] = []
        self._failure: FlyballError | None = None
        self._writer = threading.Thread(target=self._run, name="flyball-journal", daemon=True)
        self._writer.start()

    @property
    def process(self) -> str:
        """The identity of this recorder."""
        return self._claim.process

    def record(self, answer: Answer, done: Done | None = None) -> int:
        """Number `answer` and hand it to the writer."""
        row = journal_segment.row(answer)
        with self._lock:
            if self._next > self._bound:
                self._await_room()
            if self._closing:
                raise StateError("journal-closed", "This recorder takes no more answers", next="open another one")
            seq = self._next
            self._next = seq + 1
            self._rows.append(row)
            if done is not None and self._acknowledged:
                self._waiting.append(done)
            self._ring(hurry=len(self._rows) > self._settings.block // 4)
        if done is not None and not self._acknowledged:
            done(None)
        return seq

    def close(self) -> None:
        """Commit what is in flight and end the segment."""
        with self._lock:
            again, self._closing = self._closing, True
            self._ring(hurry=True)
        self._writer.join()
        if self._failure is not None and not again:
            raise self._failure

    def _ring(self, *, hurry: bool) -> None:
        if self._bell.locked():
            self._bell.release()
        if hurry:
            self._hurry.set()

    def _await_room(self) -> None:
        # A failing disk uses numbers up while nothing waits to be written: the writer must try all the same.
        self._ring(hurry=True)
        patience = self._settings.patience.total_seconds()
        if not self._room.wait_for(lambda: self._next <= self._bound or self._closing, patience):
            raise RetryableError(
                "journal-full",
                f"Every reserved number is in flight, up to {self._bound:,}: the answer cannot be recorded",
                why=str(self._failure or "answers come faster than the disk takes them"),
                next="answer 503 with Retry-After; if it lasts, find out why the disk is slow, or raise Settings.block",
            )

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._end()
        finally:
            # Also when this thread dies of what nobody foresaw: nobody waits for ever, and nobody is acknowledged.
            with self._lock:
                self._closing = True
                left, self._waiting = self._group + self._waiting, []
                self._room.notify_all()
            self._segment.abandon()
            self._claim.release()
            self._tell(left, AdapterError("journal-write", "The writer of the journal has stopped"))

    def _turn(self) -> bool:
        """Write one group; returns whether there is another turn."""
        self._bell.acquire()
        if not self._acknowledged:
            self._hurry.wait(self._settings.interval.total_seconds())
        with self._lock:
            self._hurry.clear()
            rows, self._rows = self._rows, []
            self._group, self._waiting = self._waiting, []
            closing = self._closing
        before = self._segment
        try:
            if rows and self._is_full():
                self._segment, self._opened = self._claim.create(before.last + 1), self._clock.monotonic()
            self._segment.write(rows, self._refused, self._settings.block)
        except (sqlite3.Error, OSError, FlyballError) as error:
            self._refuse(rows, error)
        else:
            self._failure, self._refused = None, 0
            with self._lock:
                self._bound = self._segment.bound
                self._room.notify_all()
            self._settle(None)
        if before is not self._segment:
            # Should this fail, its account still holds: it ends where its successor begins.
            with contextlib.suppress(sqlite3.Error):
                before.finish()
        return not closing

    def _is_full(self) -> bool:
        at = self._segment
        return self._settings.full(at.recorded, at.size, self._clock.monotonic() - self._opened)

    def _refuse(self, rows: list[journal_segment.Row], cause: Exception) -> None:
        self._failure = AdapterError(
            "journal-write",
            f"The journal cannot be written ({len(rows):,} answers at this time)",
            why=str(cause),
            next="free space on its disk, or repair it; the next answers are tried again",
        )
        if self._acknowledged:
            self._refused += len(rows)
            self._settle(self._failure)
        else:
            # They have left already: they keep their numbers, and their turn.
            with self._lock:
                self._rows[:0] = rows
                self._ring(hurry=False)

    def _settle(self, error: BaseException | None) -> None:
        group, self._group = self._group, []
        self._tell(group, error)

    def _tell(self, waiting: list[Done], error: BaseException | None) -> None:
        if waiting:
            # A loop that is closed has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                self._deliver(functools.partial(journal.tell, waiting, error))

    def _end(self) -> None:
        if self._failure is None:
            try:
                self._segment.finish()
            except sqlite3.Error as error:
                self._refuse([], error)
