"""Shadows: what is computed after the answer has left, on the event loop's thread, one at a time.

They give way. Between two of them the loop turns, so that what came is read first; and while a request is in progress they
**rest** as long as the last one took, so that an answer waits for the one that is being computed when it comes, and for another
only if its own way takes longer than that. So they get half of a busy thread at most, and never nothing.

The queue is bounded, and what does not fit is **dropped**: so is what the journal has no room or no disk for, and what is left
when the process ends. So few are in flight to the disk at a time that they never take the room of an answer. All of it is
counted, by version, and none of it makes a caller fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from flyball._kernel.clock import Clock
from flyball._kernel.errors import FlyballError
from flyball.serve.journal import Answer, Recorder
from flyball.serve.router import Router, Shadow
from flyball.serve.tally import Tally

IN_FLIGHT: Final = 64
"""Shadows that are recorded and not yet committed, at most: few of the thousands of answers that a journal has room for."""

LATER: Final = 0.001
"""Seconds after which a shadow that could not be computed is tried again."""


class Shadows:
    """The queue of one process.

    Args:
        router: computes them.
        recorder: where they go, and attempts that failed.
        counts: what is kept, and what is dropped.
        limit: shadows that wait at most.
        clock: measures how long they take.
    """

    def __init__(self, router: Router, recorder: Recorder, counts: Tally, limit: int, clock: Clock) -> None:
        self._router, self._recorder, self.tally, self._limit = router, recorder, counts, limit
        self._clock = clock
        self._queue: deque[Shadow] = deque()
        self._pumping = False
        self.asking = 0
        """Requests in progress; counted by whoever answers them."""
        self._in_flight = 0
        self._rests = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, pending: Iterable[Shadow]) -> None:
        """Compute them in later turns of the running event loop."""
        for each in pending:
            if len(self._queue) < self._limit:
                self._queue.append(each)
            else:
                self._drop(each)
        if self._queue and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self, seconds: float) -> int:
        """Compute what is left within so many seconds, and drop the rest; returns how many were dropped so far."""
        until = self._clock.monotonic() + seconds
        while self._queue and self._clock.monotonic() < until:
            self._next()
        while self._queue:
            self._drop(self._queue.popleft())
        return self.tally.dropped.total()

    def failed(self, attempts: Iterable[Answer]) -> None:
        """Record attempts that failed; nobody waits for them."""
        for each in attempts:
            self._record(each, self._failed_done(each))

    def _turn(self) -> None:
        # One turn of the loop more: what was read in this one is begun before the next shadow is.
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        began = self._clock.monotonic()
        if self._queue and (self._in_flight >= IN_FLIGHT or (self.asking and began < self._rests)):
            asyncio.get_running_loop().call_later(LATER, self._pump)
            return
        self._pumping = False
        if self._queue:
            self._next()
            ended = self._clock.monotonic()
            self._rests = ended + (ended - began)
            self.add(())

    def _next(self) -> None:
        pending = self._queue.popleft()
        answer = self._router.shadow(pending)
        if answer is None:
            self._drop(pending)
        else:
            self._in_flight += 1
            self._record(answer, self._shadow_done(answer))

    def _drop(self, pending: Shadow) -> None:
        self.tally.dropped[pending.plan.model, pending.plan.version] += 1

    def _record(self, attempt: Answer, done: Callable[[BaseException | None], None]) -> None:
        try:
            self._recorder.record([attempt], done)
        except FlyballError as problem:
            done(problem)

    def _shadow_done(self, answer: Answer) -> Callable[[BaseException | None], None]:
        who = (answer.model, answer.version, "failed" if answer.failed else "answered")

        def done(error: BaseException | None) -> None:
            self._in_flight -= 1
            if error is None:
                self.tally.shadows[who] += 1
            else:
                self.tally.dropped[answer.model, answer.version] += 1

        return done

    def _failed_done(self, answer: Answer) -> Callable[[BaseException | None], None]:
        who = (answer.model, answer.version, answer.role)

        def done(error: BaseException | None) -> None:
            if error is None:
                self.tally.failed[who] += 1
            else:
                self.tally.failed_dropped += 1

        return done
