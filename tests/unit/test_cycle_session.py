"""The lease under which an apply works: renewed while it lasts, given back when it ends, and lost with an error."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from flyball._kernel.errors import RetryableError
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.lease import MemoryLease
from flyball.cycle import session as sessions
from flyball.cycle.session import Session, held, still_held


class Counting(MemoryLease):
    """Counts, and tells when it has been renewed twice; every other renewal fails, as on a busy disk."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.asked, self.renewed = 0, threading.Event()

    def acquire(self, name: str, holder: str, until: datetime) -> int | None:
        self.asked += 1
        if self.asked % 2 == 0:
            raise RetryableError("store-busy", "Locked by another process")
        if self.asked > 4:
            self.renewed.set()
        return super().acquire(name, holder, until)


def opened(clock: VirtualClock, lease: MemoryLease, holder: str) -> Session:
    """As much of a session as holding a lease needs."""
    parts = SimpleNamespace(app=SimpleNamespace(name="flights"), clock=clock, lease=lease, holder=holder)
    return cast("Session", parts)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_it_is_held_inside_and_free_outside(clock: VirtualClock) -> None:
    lease = MemoryLease(clock)
    with held(opened(clock, lease, "one"), "apply"):
        assert lease.holder("flights/apply") == "one"
        with pytest.raises(RetryableError) as refused, held(opened(clock, lease, "two"), "apply"):
            pytest.fail("two are at it")
        assert refused.value.code == "somebody-else-is-at-it"
        assert "one" in refused.value.why
        with held(opened(clock, lease, "two"), "erase"):
            pass
    assert lease.holder("flights/apply") is None


def test_a_failure_gives_it_back(clock: VirtualClock) -> None:
    lease = MemoryLease(clock)
    with pytest.raises(ZeroDivisionError), held(opened(clock, lease, "one"), "apply"):
        _ = 1 / 0
    assert lease.holder("flights/apply") is None
    assert not [t for t in threading.enumerate() if t.name.startswith("lease")]


def test_it_is_renewed_however_long_a_step_takes(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "TERM", timedelta(milliseconds=20))
    lease = Counting(clock)
    with held(opened(clock, lease, "one"), "apply"):
        clock.sleep(0.015)
        assert lease.renewed.wait(60)
        clock.sleep(0.015)
        assert lease.holder("flights/apply") == "one"


def test_a_lapsed_lease_is_taken_again_if_nobody_else_has_it(clock: VirtualClock) -> None:
    lease = MemoryLease(clock)
    one = opened(clock, lease, "one")
    with held(one, "apply"):
        clock.sleep(10 * sessions.TERM.total_seconds())
        still_held(one, "apply")
        assert lease.holder("flights/apply") == "one"


def test_what_was_decided_under_a_lost_lease_is_not_written(clock: VirtualClock) -> None:
    """The process was stopped for too long, and another one took over."""
    lease = MemoryLease(clock)
    one = opened(clock, lease, "one")
    with held(one, "apply"):
        clock.sleep(10 * sessions.TERM.total_seconds())
        lease.acquire("flights/apply", "two", clock.now() + timedelta(hours=1))
        with pytest.raises(RetryableError) as refused:
            still_held(one, "apply")
    assert refused.value.code == "somebody-else-is-at-it"
    assert lease.holder("flights/apply") == "two", "and it is not given back by whom it does not belong to"
