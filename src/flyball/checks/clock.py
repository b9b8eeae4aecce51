"""What every Clock does. Subclass `ClockSuite`, supply the fixture `clock`, and run it with pytest.

`Wound` is the clock that the other suites wind by hand, also backwards, as a machine's clock may go.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flyball._kernel.clock import Clock, from_micros, micros

START = datetime(2013, 1, 1, 12, tzinfo=UTC)


class Wound:
    """A clock at whatever `time` a check sets."""

    def __init__(self, time: datetime = START) -> None:
        self.time = time

    def now(self) -> datetime:
        """The moment that was set."""
        return self.time

    def monotonic(self) -> float:
        """Seconds since 1970, as set."""
        return micros(self.time) / 1e6

    def sleep(self, seconds: float) -> None:
        """Wind on."""
        self.time += timedelta(seconds=seconds)


class ClockSuite:
    """The behaviour of a Clock."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock under test; something must move it on while it sleeps."""
        raise NotImplementedError

    def test_now_is_aware_and_in_utc(self, clock: Clock) -> None:
        """A naive time, or one in another zone, would be recorded as another moment."""
        assert clock.now().tzinfo is UTC

    def test_now_survives_storage(self, clock: Clock) -> None:
        """Microseconds hold all of it."""
        now = clock.now()
        assert from_micros(micros(now)) == now

    def test_monotonic_never_goes_back(self, clock: Clock) -> None:
        """Nor does it while time passes."""
        seen = []
        for _ in range(5):
            seen.append(clock.monotonic())
            clock.sleep(0.001)
        assert seen == sorted(seen)

    def test_sleeping_takes_its_time(self, clock: Clock) -> None:
        """After a sleep, at least that much later."""
        before = clock.now()
        clock.sleep(0.01)
        assert clock.now() - before >= timedelta(seconds=0.01)

    def test_not_sleeping_takes_none(self, clock: Clock) -> None:
        """Zero seconds return."""
        clock.sleep(0)
