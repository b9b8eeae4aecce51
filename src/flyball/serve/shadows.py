"""Shadows: what is computed after the answer has left, on the event loop's thread, one at a time.

An answer never waits for more than the one shadow that is being computed when it comes. The queue is bounded, and what
does not fit is **dropped**: so is what the journal has no room or no disk for, and what is left when the process ends. All of
it is counted, and none of it makes a caller fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from flyball._kernel.clock import Clock
from flyball._kernel.errors import FlyballError
from flyball.serve.journal import Answer, Recorder
from flyball.serve.router import Router, Shadow
from flyball.serve.tally import Tally


class Shadows:
    """The queue of one process.

    Args:
        router: computes them.
        recorder: where they go, and attempts that failed.
        counts: what is kept, and what is dropped.
        limit: shadows that wait at most.
    """

    def __init__(self, router: Router, recorder: Recorder, counts: Tally, limit: int) -> None:
        self._router, self._recorder, self._tally, self._limit = router, recorder, counts, limit
        self._queue: deque[Shadow] = deque()
        self._pumping = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, pending: Iterable[Shadow]) -> None:
        """Compute them in later turns of the running event loop."""
        for each in pending:
            if len(self._queue) < self._limit:
                self._queue.append(each)
            else:
                self._tally.shadow_dropped += 1
        if self._queue and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def end(self, clock: Clock, seconds: float) -> int:
        """Compute what is left within so many seconds, and drop the rest; returns how many were dropped so far."""
        until = clock.monotonic() + seconds
        while self._queue and clock.monotonic() < until:
            self._next()
        self._tally.shadow_dropped += len(self._queue)
        self._queue.clear()
        return self._tally.shadow_dropped

    def failed(self, attempts: Iterable[Answer]) -> None:
        """Record attempts that failed; nobody waits for them."""
        for each in attempts:
            self._record(each, self._failed_done(each))

    def _pump(self) -> None:
        self._pumping = False
        if self._queue:
            self._next()
            self.add(())

    def _next(self) -> None:
        answer = self._router.shadow(self._queue.popleft())
        if answer is None:
            self._tally.shadow_dropped += 1
        else:
            self._record(answer, self._shadow_done(answer))

    def _record(self, attempt: Answer, done: Callable[[BaseException | None], None]) -> None:
        try:
            self._recorder.record(attempt, done)
        except FlyballError as problem:
            done(problem)

    def _shadow_done(self, answer: Answer) -> Callable[[BaseException | None], None]:
        who = (answer.model, answer.version, "failed" if answer.failed else "answered")

        def done(error: BaseException | None) -> None:
            if error is None:
                self._tally.shadows[who] += 1
            else:
                self._tally.shadow_dropped += 1

        return done

    def _failed_done(self, answer: Answer) -> Callable[[BaseException | None], None]:
        who = (answer.model, answer.version, answer.role)

        def done(error: BaseException | None) -> None:
            if error is None:
                self._tally.failed[who] += 1
            else:
                self._tally.failed_dropped += 1

        return done
