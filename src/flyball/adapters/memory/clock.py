"""Time that moves only when it is told to: the clock of rehearsals in one process, and of tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Lock

from flyball._kernel.clock import EPOCH


class VirtualClock:
    """A clock that stands still until someone advances it or sleeps.

    Args:
        start: the present, aware and in UTC.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = self._now = start
        self._lock = Lock()

    def now(self) -> datetime:
        """The present, aware and in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return (self._now - self._start).total_seconds()

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
