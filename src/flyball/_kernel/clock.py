"""Time comes from a Clock, and from nowhere else.

`now()` is what decisions and records are made from: aware, in UTC, of microseconds, as every stored time is.
`monotonic()` measures durations, which are never part of what is said, only of what was measured. A test holds that no
other module reads the wall clock, so a rehearsal on a virtual clock is the same code as the real loop.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """The present, aware and in UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


def micros(moment: datetime) -> int:
    """Whole microseconds since 1970-01-01 UTC, exactly (a float would lose some after 2004)."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    """The moment that is `value` microseconds after 1970-01-01 UTC."""
    return EPOCH + timedelta(microseconds=value)


def in_utc(moment: datetime) -> datetime:
    """The same instant in UTC; a time without a zone is taken to be UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
