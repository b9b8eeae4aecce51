"""The clocks of the house, and what is particular to the stepped one: a rehearsal's processes follow its driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded.clock import SteppedClock, SystemClock, step
from flyball.adapters.memory.clock import VirtualClock
from flyball.checks.clock import START, ClockSuite

MS = timedelta(milliseconds=1)


class TestSystemClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()


class TestVirtualClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> Clock:
        return VirtualClock(START)

    def test_it_stands_still(self, clock: VirtualClock) -> None:
        assert clock.now() == clock.now() == START
        assert clock.advance(timedelta(days=400)) == clock.now() == START + timedelta(days=400)
        assert clock.monotonic() == 400 * 86_400

    def test_it_does_not_go_back(self, clock: VirtualClock) -> None:
        with pytest.raises(ValueError, match="go back"):
            clock.advance(-MS)
        with pytest.raises(ValueError, match="go back"):
            clock.sleep(-1)
        assert clock.now() == START


class TestSteppedClock(ClockSuite):
    @pytest.fixture
    def clock(self, tmp_path: Path) -> Iterator[Clock]:
        stop, path = threading.Event(), tmp_path / "instant"
        step(path, START)

        def drive() -> None:
            moment = START
            while not stop.wait(0.001):
                moment += MS
                step(path, moment)

        driver = threading.Thread(target=drive)
        driver.start()
        yield SteppedClock(path)
        stop.set()
        driver.join()


def test_a_step_is_seen_by_every_clock(tmp_path: Path) -> None:
    """Also when several fall into one tick of the file system, whose inode numbers are reused."""
    path = tmp_path / "instant"
    step(path, START)
    clocks = [SteppedClock(path), SteppedClock(path)]
    for n in range(300):
        step(path, START)
        step(path, START + n * MS)
        assert path.stat().st_mtime_ns == micros(START + n * MS) * 1_000
        assert [clock.now() for clock in clocks] == [START + n * MS] * 2


def test_a_stepped_clock_does_not_go_back(tmp_path: Path) -> None:
    path = tmp_path / "instant"
    step(path, START)
    clock = SteppedClock(path)
    assert clock.now() == START
    step(path, START - MS)
    assert clock.now() == START
    step(path, START + MS)
    assert clock.now() == START + MS


def test_an_instant_is_one_moment_in_any_zone(tmp_path: Path) -> None:
    path = tmp_path / "instant"
    step(path, datetime(2013, 7, 1, 2, 0, 0, 1, tzinfo=timezone(timedelta(hours=2))))
    assert SteppedClock(path).now() == datetime(2013, 7, 1, 0, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "soon", "\xff"])
def test_an_unreadable_instant_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "instant"
    if text is not None:
        path.write_text(text, "latin-1")
    with pytest.raises(AdapterError, match="instant-unreadable") as raised:
        SteppedClock(path).now()
    assert str(path) in str(raised.value)
