"""The leases of the house; between processes only one of many that ask at once has it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flyball._kernel.clock import Clock
from flyball._kernel.ports import Lease
from flyball.adapters.embedded import lease as adapter
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.lease import SqlLease
from flyball.adapters.memory.lease import MemoryLease
from flyball.checks.clock import Wound
from flyball.checks.lease import LeaseSuite


class TestSqlLease(LeaseSuite):
    @pytest.fixture
    def open_lease(self, tmp_path: Path) -> Iterator[Callable[[Clock], Lease]]:
        opened: list[SqlLease] = []

        def open_(clock: Clock) -> Lease:
            opened.append(SqlLease(tmp_path / "facts.sqlite", clock))
            return opened[-1]

        yield open_
        for each in opened:
            each.close()


class TestMemoryLease(LeaseSuite):
    @pytest.fixture
    def open_lease(self, clock: Wound) -> Callable[[Clock], Lease]:
        lease = MemoryLease(clock)
        return lambda _: lease


RACE = """
import sys
from datetime import timedelta
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.lease import SqlLease
clock = SystemClock()
print("ready", flush=True)
sys.stdin.readline()
lease = SqlLease(sys.argv[1], clock)
for _ in range(30):
    if (token := lease.acquire("loop", sys.argv[2], clock.now() + timedelta(minutes=1))) is not None:
        print(token, flush=True)
        lease.release("loop", sys.argv[2])
lease.close()
"""


def test_no_two_processes_ever_have_one_token(tmp_path: Path) -> None:
    """They also create the database at once."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "facts.sqlite"), f"p{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [[int(line) for line in racer.communicate(timeout=30)[0].split()] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    tokens = [token for own in won for token in own]
    assert sorted(tokens) == list(range(1, len(tokens) + 1))
    assert all(own == sorted(own) for own in won)


HOLD = """
import os, sys, time
from datetime import timedelta
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.lease import SqlLease
clock = SystemClock()
lease = SqlLease(sys.argv[1], clock)
print(lease.acquire("loop", "victim", clock.now() + timedelta(hours=6)), flush=True)
time.sleep(60)
"""


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease for six hours."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "facts.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_holds_nothing(tmp_path: Path, victim: subprocess.Popen[str]) -> None:
    """At once, though nobody has waited for it yet: what its parent left unburied is dead all the same."""
    clock = SystemClock()
    lease = SqlLease(tmp_path / "facts.sqlite", clock)
    assert lease.holder("loop") == "victim"
    assert lease.acquire("loop", "heir", clock.now() + timedelta(minutes=1)) is None
    victim.kill()
    until = clock.monotonic() + 10
    while lease.holder("loop") is not None and clock.monotonic() < until:
        clock.sleep(0.01)
    assert lease.holder("loop") is None
    assert victim.returncode is None
    assert lease.acquire("loop", "heir", clock.now() + timedelta(minutes=1)) == 2
    lease.close()


def test_a_process_of_the_same_number_is_not_the_same(
    tmp_path: Path, victim: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are reused: what counts is when the process started, and on which boot of the machine."""
    lease = SqlLease(tmp_path / "facts.sqlite", SystemClock())
    assert lease.holder("loop") == "victim"
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "_started", lambda _: "1")
        assert lease.holder("loop") is None
    with monkeypatch.context() as patch:
        host, _, namespace = adapter._where()
        patch.setattr(adapter, "_where", lambda: (host, "another boot", namespace))
        assert lease.holder("loop") is None
    lease.close()


@pytest.mark.parametrize(("part", "name"), [(0, "another host"), (2, "pid:[1]")])
def test_what_cannot_be_looked_at_is_believed_to_live(
    tmp_path: Path, victim: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, part: int, name: str
) -> None:
    """On another machine, or in another container of this one, its end alone decides."""
    here = list(adapter._where())
    here[part] = name
    monkeypatch.setattr(adapter, "_where", lambda: tuple(here))
    victim.kill()
    victim.wait()
    lease = SqlLease(tmp_path / "facts.sqlite", SystemClock())
    assert lease.holder("loop") == "victim"
    lease.close()


def test_without_proc_the_number_alone_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(adapter, "_PROC", tmp_path / "no such folder")
    clock = SystemClock()
    lease = SqlLease(tmp_path / "facts.sqlite", clock)
    assert lease.acquire("loop", "us", clock.now() + timedelta(minutes=1)) == 1
    assert lease.holder("loop") == "us"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(adapter.os, "getpid", lambda: ended.pid)
    assert lease.acquire("loop", "us", clock.now() + timedelta(minutes=1)) == 1
    assert lease.holder("loop") is None
    lease.close()
