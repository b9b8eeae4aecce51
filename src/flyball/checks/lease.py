"""What every Lease does. Subclass `LeaseSuite`, supply the fixture `open_lease`, and run it with pytest."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from flyball._kernel.clock import Clock
from flyball._kernel.ports import Lease
from flyball.checks.clock import Wound

MINUTE = timedelta(minutes=1)


class LeaseSuite:
    """The behaviour of leases."""

    @pytest.fixture
    def open_lease(self) -> Callable[[Clock], Lease]:
        """Opens the same place of leases, anew at each call."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Wound:
        """What decides when a lease has run out."""
        return Wound()

    @pytest.fixture
    def lease(self, open_lease: Callable[[Clock], Lease], clock: Wound) -> Lease:
        """The leases under test, all free."""
        return open_lease(clock)

    def test_one_holder_at_a_time(self, lease: Lease, clock: Wound) -> None:
        """Each lease by its name."""
        until = clock.time + MINUTE
        assert lease.holder("loop") is None
        assert lease.acquire("loop", "a", until) == 1
        assert lease.acquire("loop", "b", until) is None
        assert lease.holder("loop") == "a"
        assert lease.acquire("compactor", "b", until) == 1
        assert lease.holder("compactor") == "b"

    def test_extending_keeps_the_token(self, lease: Lease, clock: Wound) -> None:
        """The holder has not changed, so nothing is fenced off."""
        token = lease.acquire("loop", "a", clock.time + MINUTE)
        clock.time += MINUTE / 2
        assert lease.acquire("loop", "a", clock.time + MINUTE) == token
        clock.time += MINUTE * 0.75
        assert lease.holder("loop") == "a"

    def test_a_lease_runs_out(self, lease: Lease, clock: Wound) -> None:
        """At its end and not before; then it is anyone's, with a greater token."""
        first = lease.acquire("loop", "a", clock.time + MINUTE)
        clock.time += MINUTE - timedelta(microseconds=1)
        assert lease.holder("loop") == "a"
        clock.time += timedelta(microseconds=1)
        assert lease.holder("loop") is None
        second = lease.acquire("loop", "b", clock.time + MINUTE)
        assert first is not None
        assert second is not None
        assert second > first
        assert lease.acquire("loop", "a", clock.time + MINUTE) is None

    def test_the_token_grows_when_a_lapsed_lease_is_taken_again(self, lease: Lease, clock: Wound) -> None:
        """Also by a holder of the same name: a process that was restarted must fence off the one that hung."""
        tokens = []
        for _ in range(3):
            tokens.append(lease.acquire("loop", "a", clock.time + MINUTE))
            clock.time += 2 * MINUTE
        assert tokens == [1, 2, 3]

    def test_releasing_frees(self, lease: Lease, clock: Wound) -> None:
        """At once, for anyone, with a greater token."""
        lease.acquire("loop", "a", clock.time + MINUTE)
        lease.release("loop", "a")
        assert lease.holder("loop") is None
        assert lease.acquire("loop", "b", clock.time + MINUTE) == 2

    def test_only_the_holder_releases(self, lease: Lease, clock: Wound) -> None:
        """What one does not have, one cannot give back."""
        lease.release("loop", "b")
        lease.acquire("loop", "a", clock.time + MINUTE)
        lease.release("loop", "b")
        assert lease.holder("loop") == "a"

    def test_the_past_cannot_be_held(self, lease: Lease, clock: Wound) -> None:
        """A lease that has run out when it is asked for is not given, and takes nothing away."""
        assert lease.acquire("loop", "a", clock.time) is None
        lease.acquire("loop", "a", clock.time + MINUTE)
        assert lease.acquire("loop", "a", clock.time) is None
        assert lease.holder("loop") == "a"

    def test_it_outlives_who_opened_it(self, open_lease: Callable[[Clock], Lease], clock: Wound) -> None:
        """Another process sees the same holder, and the next token."""
        open_lease(clock).acquire("loop", "a", clock.time + MINUTE)
        assert open_lease(clock).holder("loop") == "a"
        open_lease(clock).release("loop", "a")
        assert open_lease(clock).acquire("loop", "b", clock.time + MINUTE) == 2

    def test_a_race_has_one_winner(self, open_lease: Callable[[Clock], Lease], clock: Wound) -> None:
        """However many ask at once."""
        opened = [open_lease(clock) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            tokens = list(pool.map(lambda n: opened[n].acquire("loop", f"h{n}", clock.time + MINUTE), range(6)))
        assert sorted(token for token in tokens if token is not None) == [1]
        assert opened[0].holder("loop") == f"h{tokens.index(1)}"
