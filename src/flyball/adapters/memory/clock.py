"""Time that moves only when it is told to: the clock of rehearsals in one process, and of tests."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

from flyball._kernel.clock import EPOCH


def drawn(seed: int, median: float = 0.0002, spread: float = 0.5) -> Callable[[], float]:
    """Durations of a rehearsal, in seconds: log-normal, as latencies are, and the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable is what it must be
    return lambda: chance.lognormvariate(math.log(median), spread)


class VirtualClock:
    """A clock that stands still until someone advances it or sleeps.

    Args:
        start: the present, aware and in UTC.
        draw: how long it takes from one look at `monotonic` to the next, in seconds; no time by default.
    """

    def __init__(self, start: datetime = EPOCH, draw: Callable[[], float] | None = None) -> None:
        self._start = self._now = start
        self._draw, self._spent = draw, 0.0
        self._lock = Lock()

    def now(self) -> datetime:
        """The present, aware and in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Virtual seconds since the start, and what was drawn; what was drawn moves no `now`."""
        if self._draw is not None:
            with self._lock:
                self._spent += self._draw()
        return (self._now - self._start).total_seconds() + self._spent

    def sleep(self, seconds: float) -> None:
        """Advance, and return at once."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, duration: timedelta) -> datetime:
        """Move on by `duration`; returns the new present.

        Raises:
            ValueError: if it is negative.
        """
        if duration < timedelta(0):
            raise ValueError("time does not go back")
        with self._lock:
            self._now += duration
            return self._now
