"""One process's pen: callers queue their answers, one thread writes them in group commits.

While one group is being synced to disk the next one gathers, so that all who wait share the cost of a sync.

The numbers reserved bound the queue, so there is one limit, not two. A group that cannot be written is refused to all
who wait for it (acknowledged), or kept with its numbers until the disk takes it (interval); the writer goes on. Where
answers shall leave although the disk is full, they are counted in the claim, which needs no room, and told to the next segment
that can be written: `unlogged`.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Sequence
from typing import Final

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, DataError, FlyballError, RetryableError, StateError
from flyball.adapters.embedded.journal_claim import Claim, Misses
from flyball.serve import body as bodies
from flyball.serve import journal
from flyball.serve.body import Packed
from flyball.serve.journal import Answer, Deliver, Done, Settings, Standing

TOLD: Final = 10.0
"""Seconds after which a segment that speaks for unlogged answers is over, so that its account raises the alarm."""


class SqliteRecorder:
    """See `serve.journal.Recorder`."""

    def __init__(self, claim: Claim, settings: Settings, clock: Clock, deliver: Deliver) -> None:
        self._claim, self._settings, self._clock, self._deliver = claim, settings, clock, deliver
        self._acknowledged = settings.durability == "acknowledged"
        self._segment, self._opened = claim.create(1), clock.monotonic()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        # Under the lock. The rows are the last numbers before _next, in order; _limit is the first number that is not
        # reserved, and 0 when nothing is taken any more.
        self._rows: list[Packed] = []
        self._waiting: list[Done] = []
        self._next, self._limit = 1, self._segment.bound + 1
        self._closing = self._crowded = False
        # The cheapest bell is a lock, held while there is nothing to do: only the writer acquires it, and callers
        # release it only under _lock, so that ringing twice is ringing once.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._hurry = threading.Event()
        self._most, self._hasty = settings.at_once, settings.block // 4
        # The writer's own.
        self._misses = Misses(claim)
        self._group: list[Done] = []
        self._failure: FlyballError | None = None
        self._writer = threading.Thread(target=self._run, name="flyball-journal", daemon=True)
        self._writer.start()

    @property
    def process(self) -> str:
        """The identity of this recorder."""
        return self._claim.process

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        """Number `answers` and hand them to the writer."""
        rows = list(map(bodies.pack, answers))
        many = len(rows)
        if many > self._most:
            raise DataError(
                "unrecordable-answer",
                f"{many:,} answers cannot be recorded at once, at most {self._most:,} can",
                why="Numbers are reserved by the block, and all of a call are handed out together",
                next="ask for fewer at a time, or raise Settings.block",
            )
        with self._lock:
            if self._next + many > self._limit:
                self._await_room(many)
            first = self._next
            self._next = first + many
            self._rows += rows
            if self._acknowledged:
                if done is not None:
                    self._waiting.append(done)
            elif len(self._rows) > self._hasty:
                self._hurry.set()
            if self._bell.locked():
                self._bell.release()
        if done is not None and not self._acknowledged:
            done(None)
        return first

    def standing(self) -> Standing:
        """What was refused and what left unlogged."""
        return self._misses.standing

    def close(self) -> None:
        """Commit what is in flight and end the segment."""
        with self._lock:
            again, self._closing, self._limit = self._closing, True, 0
            self._ring(hurry=True)
        self._writer.join()
        if self._failure is not None and not again:
            raise self._failure

    def _ring(self, *, hurry: bool) -> None:
        if self._bell.locked():
            self._bell.release()
        if hurry:
            self._hurry.set()

    def _await_room(self, many: int) -> None:
        if not self._closing:
            # A failing disk uses numbers up while nothing waits to be written: the writer must try all the same.
            self._crowded = True
            self._ring(hurry=True)
            patience = self._settings.patience.total_seconds()
            if not self._room.wait_for(lambda: self._next + many <= self._limit or self._closing, patience):
                raise RetryableError(
                    "journal-full",
                    f"Every reserved number is in flight, up to {self._limit - 1:,}: the answer cannot be recorded",
                    why=str(self._failure or "answers come faster than the disk takes them"),
                    next="answer 503 with Retry-After; if it lasts, find out why the disk is slow, or raise Settings.block",
                )
        if self._closing:
            raise StateError("journal-closed", "This recorder takes no more answers", next="open another one")

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._end()
        finally:
            # Also when this thread dies of what nobody foresaw: nobody waits for ever, and nobody is acknowledged.
            with self._lock:
                self._closing, self._limit = True, 0
                left, self._waiting = self._group + self._waiting, []
                self._room.notify_all()
            self._segment.abandon()
            self._claim.release(keep=self._misses.left)
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
            self._segment.write(rows, self._misses.spans, self._settings.block)
        except (sqlite3.Error, OSError, FlyballError) as error:
            self._miss(rows, error)
        else:
            self._failure = None
            self._misses.told()
            self._make_room(self._segment.bound)
            self._settle(None)
        if before is not self._segment:
            # Should this fail, its account still holds: it ends where its successor begins.
            with contextlib.suppress(sqlite3.Error):
                before.finish()
        return not closing

    def _is_full(self) -> bool:
        at, age = self._segment, self._clock.monotonic() - self._opened
        return self._settings.full(at.recorded, at.size, age) or (at.unlogged > 0 and age >= TOLD)

    def _make_room(self, bound: int) -> None:
        with self._lock:
            if not self._closing:
                self._limit, self._crowded = max(self._limit, bound + 1), False
            self._room.notify_all()

    def _miss(self, rows: list[Packed], cause: Exception) -> None:
        """The disk did not take `rows`."""
        self._failure = AdapterError(
            "journal-write",
            f"The journal cannot be written ({len(rows):,} answers at this time)",
            why=str(cause),
            next="free space on its disk, or repair it; the next answers are tried again",
        )
        self._misses.because(cause)
        if self._acknowledged:
            left = self._lets_go(rows)
            if not left:
                self._misses.give_up(self._segment.last, len(rows), left=False)
            self._settle(None if left else self._failure)
        elif not (self._crowded or len(rows) > self._hasty) or not self._lets_go(rows):
            # They have left already: they keep their numbers, and their turn.
            with self._lock:
                self._rows[:0] = rows
                self._ring(hurry=False)

    def _lets_go(self, rows: list[Packed]) -> bool:
        """Whether `rows` may be given up although they leave, or have left: only if they, and those after them, are noted."""
        if self._settings.when_full != "unlogged":
            return False
        bound = self._misses.let_go(self._segment.last, len(rows), self._settings.block)
        if bound is not None:
            self._make_room(bound)
        return bound is not None

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
                self._miss([], error)
