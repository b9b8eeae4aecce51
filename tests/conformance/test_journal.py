"""The journals of the house, and the SQLite one's own duties: full disks, other processes, damage, an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flyball._kernel import ids
from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, DeclarationError, RetryableError, StateError
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.memory.journal import MemoryJournal
from flyball.checks.clock import START, Wound
from flyball.checks.journal import SETTINGS, Bench, answer, recorded
from flyball.checks.journal_erasing import ErasingSuite
from flyball.serve import journal
from flyball.serve.journal import Journal, Settings
from tests.disks import Disk


class Folders:
    """A crash leaves the files as they are: copies of them, which nobody has locked."""

    def __init__(self, root: Path) -> None:
        self.root, self.numbers = root, count()
        self.made: dict[int, tuple[Path, Clock, Settings]] = {}

    def journal(self, clock: Clock, settings: Settings, path: Path | None = None) -> Journal:
        place = path or self.root / f"journal {next(self.numbers)}?#"
        made = SqliteJournal(place, clock, settings)
        self.made[id(made)] = place, clock, settings
        return made

    def crashed(self, left: Journal) -> Journal:
        place, clock, settings = self.made[id(left)]
        copy = self.root / f"copy {next(self.numbers)}"
        shutil.copytree(place, copy)
        return self.journal(clock, settings, copy)


class Images:
    def journal(self, clock: Clock, settings: Settings) -> Journal:
        return MemoryJournal(clock, settings)

    def crashed(self, left: Journal) -> Journal:
        assert isinstance(left, MemoryJournal)
        return left.image()


class TestSqliteJournal(ErasingSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return Folders(tmp_path)


class TestMemoryJournal(ErasingSuite):
    @pytest.fixture
    def bench(self) -> Bench:
        return Images()


BULK = {"inputs": {"x": "x" * 20_000}}


def test_the_journal_is_its_owners(place: Path, clock: Wound) -> None:
    recorder = SqliteJournal(place, clock, SETTINGS).open("flights")
    recorded(recorder, [answer(clock)])
    modes = {"".join(each.suffixes[2:]) or each.suffix: stat.S_IMODE(each.stat().st_mode) for each in place.iterdir()}
    assert modes == dict.fromkeys([".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock"], 0o600)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    recorder.close()
    assert [each.suffix for each in place.iterdir()] == [".sqlite"]


def test_a_full_disk_acknowledges_nothing_and_is_survived(place: Path, clock: Wound, disk: Disk) -> None:
    at = SqliteJournal(place, clock, SETTINGS, disk.connect)
    recorder = at.open("flights")
    recorded(recorder, [answer(clock)])
    disk.full = True
    refused = [answer(clock, **BULK) for _ in range(3)]
    for each in refused:
        with pytest.raises(AdapterError, match="journal-write") as raised:
            recorded(recorder, [each])
        assert "full" in raised.value.why
    disk.full = False
    assert recorded(recorder, [answer(clock)]) == [5]
    assert [entry.seq for entry in at.read()] == [1, 5]
    recorder.close()
    (account,) = at.recover()
    assert (account.closed, account.recorded, account.refused, account.gaps) == (True, 2, 3, ())


def test_a_disk_that_takes_nothing_uses_up_the_block_and_recovers(place: Path, clock: Wound, disk: Disk) -> None:
    settings = replace(SETTINGS, block=4, patience=timedelta(seconds=0.02), rows=2)
    at = SqliteJournal(place, clock, settings, disk.connect)
    recorder = at.open("flights")
    recorded(recorder, [answer(clock), answer(clock)])
    disk.broken = True
    codes = []
    for _ in range(10):
        with pytest.raises(AdapterError) as raised:
            recorded(recorder, [answer(clock, **BULK)])
        codes.append(raised.value.code)
    assert set(codes[:2]) == {"journal-write"}
    assert set(codes[-5:]) == {"journal-full"}
    disk.broken = False
    while True:  # the first one wakes the writer
        with contextlib.suppress(RetryableError):
            recorder.record([answer(clock)])
            break
    recorder.close()
    accounts = at.recover()
    assert [account.unknown for account in accounts] == [0] * len(accounts)
    handed_out = max(entry.seq for entry in at.read())
    assert sum(account.recorded + account.refused for account in accounts) == handed_out


def test_what_has_left_is_kept_until_the_disk_takes_it(place: Path, clock: Wound, disk: Disk) -> None:
    settings = replace(SETTINGS, durability="interval", interval=timedelta(milliseconds=2))
    settings = replace(settings, patience=timedelta(seconds=0.05))
    at = SqliteJournal(place, clock, settings, disk.connect)
    recorder = at.open("flights")
    disk.full = True
    for handed_out in range(1, settings.block + 1):
        assert recorder.record([answer(clock, **BULK)]) == handed_out
    with pytest.raises(RetryableError, match="journal-full") as raised:
        recorder.record([answer(clock, **BULK)])
    assert "journal-write" in raised.value.why
    disk.full = False
    recorder.close()
    assert [entry.seq for entry in at.read()] == list(range(1, handed_out + 1))
    assert [(account.closed, account.unknown) for account in at.recover()] == [(True, 0)]


@pytest.mark.parametrize("durability", ["acknowledged", "interval"])
def test_closing_on_a_full_disk_says_so(place: Path, clock: Wound, disk: Disk, durability: Any) -> None:
    at = SqliteJournal(place, clock, replace(SETTINGS, durability=durability), disk.connect)
    recorder = at.open("flights")
    recorded(recorder, [answer(clock)] if durability == "acknowledged" else [])
    disk.gate.clear()
    disk.full = True
    told: list[BaseException | None] = []
    handed_out = recorder.record([answer(clock, **BULK)], told.append)
    disk.gate.set()
    with pytest.raises(AdapterError, match="journal-write"):
        recorder.close()
    recorder.close()
    (account,) = at.recover()
    assert not account.closed
    assert account.gaps[0][0] == handed_out
    assert [type(each) for each in told] == [AdapterError if durability == "acknowledged" else type(None)]


@pytest.mark.parametrize("patience", [timedelta(0), timedelta(seconds=0.02)])
def test_a_slow_disk_turns_away(place: Path, clock: Wound, disk: Disk, patience: timedelta) -> None:
    recorder = SqliteJournal(place, clock, replace(SETTINGS, block=4, patience=patience), disk.connect).open("flights")
    disk.gate.clear()
    futures: list[Future[None]] = [Future() for _ in range(4)]
    for future in futures:
        recorder.record([answer(clock)], journal.resolve(future))
    with pytest.raises(RetryableError, match="journal-full"):
        recorder.record([answer(clock)])
    disk.gate.set()
    assert [future.result(timeout=30) for future in futures] == [None] * 4
    recorder.close()


def test_a_slow_disk_is_waited_for(place: Path, clock: Wound, disk: Disk) -> None:
    at = SqliteJournal(place, clock, replace(SETTINGS, block=4), disk.connect)
    recorder = at.open("flights")
    disk.gate.clear()
    for _ in range(4):
        recorder.record([answer(clock)])
    threading.Timer(0.01, disk.gate.set).start()
    recorded(recorder, [answer(clock)])
    recorder.close()
    assert [entry.seq for entry in at.read()] == [1, 2, 3, 4, 5]


def test_a_large_group_is_one_transaction(place: Path, clock: Wound, disk: Disk) -> None:
    at = SqliteJournal(place, clock, replace(SETTINGS, block=4096), disk.connect)
    groups: list[Callable[[], None]] = []
    recorder = at.open("flights", deliver=groups.append)
    disk.gate.clear()
    recorder.record([answer(clock)], lambda _: None)
    while recorder._rows:  # the writer has taken the first one, and stands before the gate
        threading.Event().wait(0.001)
    for _ in range(2345):
        recorder.record([answer(clock)], lambda _: None)
    disk.gate.set()
    recorder.close()
    assert len(groups) == 2
    assert [entry.seq for entry in at.read()] == list(range(1, 2347))


def test_an_event_loop_is_woken_once_for_each_commit(place: Path, clock: Wound) -> None:
    async def serve() -> tuple[int, int, int]:
        loop = asyncio.get_running_loop()
        wakings = 0

        def deliver(acknowledge: Callable[[], None]) -> None:
            nonlocal wakings
            wakings += 1
            loop.call_soon_threadsafe(acknowledge)

        recorder = SqliteJournal(place, clock, replace(SETTINGS, block=1024)).open("flights", deliver=deliver)
        waiting = [loop.create_future() for _ in range(300)]
        for future in waiting:
            recorder.record([answer(clock)], journal.resolve(future))
        waiting[7].cancel()  # a client that has gone
        done = await asyncio.gather(*waiting, return_exceptions=True)
        recorder.close()
        return wakings, done.count(None), sum(isinstance(each, asyncio.CancelledError) for each in done)

    wakings, acknowledged, cancelled = asyncio.run(serve())
    assert (acknowledged, cancelled) == (299, 1)
    assert wakings < 100


def test_a_loop_that_has_gone_stops_nobody(place: Path, clock: Wound) -> None:
    loop = asyncio.new_event_loop()
    at = SqliteJournal(place, clock, SETTINGS)
    recorder = at.open("flights", deliver=loop.call_soon_threadsafe)
    loop.close()
    recorder.record([answer(clock)], lambda _: None)
    recorder.close()
    assert [account.recorded for account in at.recover()] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_leaves_nobody_waiting(place: Path, clock: Wound) -> None:
    def rude(_: BaseException | None) -> None:
        raise ValueError("an acknowledgement must not raise")

    at = SqliteJournal(place, clock, SETTINGS)
    recorder = at.open("flights")
    recorder.record([answer(clock)], rude)
    recorder._writer.join(timeout=30)
    with pytest.raises(StateError, match="journal-closed"):
        recorder.record([answer(clock)])
    recorder.close()
    assert [(account.closed, account.recorded) for account in at.recover()] == [(False, 1)]


READER = """
import sys
from pathlib import Path
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
place = SqliteJournal(Path(sys.argv[1]), SystemClock())
print(len(place.recover()), *(entry.seq for entry in place.read()))
for prediction in sys.argv[2:]:
    print(place.find(prediction).seq)
"""


def test_another_process_reads_while_one_writes(place: Path, clock: Wound) -> None:
    recorder, given = SqliteJournal(place, clock, SETTINGS).open("flights"), [answer(clock) for _ in range(2)]
    recorded(recorder, given)
    command = [sys.executable, "-c", READER, str(place), *(each.id for each in given)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0 1 2\n1\n2\n"
    assert recorded(recorder, [answer(clock)]) == [3]
    recorder.close()


@pytest.fixture
def segment(place: Path, clock: Wound) -> Path:
    """A closed segment with one answer."""
    recorder = SqliteJournal(place, clock, SETTINGS).open("flights")
    recorded(recorder, [answer(clock)])
    recorder.close()
    (path,) = place.glob("*.sqlite")
    return path


def test_a_damaged_segment_is_named(place: Path, clock: Wound, segment: Path) -> None:
    segment.write_bytes(b"flights,weather\n" * 400)
    at = SqliteJournal(place, clock)
    for use in (at.recover, lambda: list(at.read()), lambda: at.find(ids.uuid7(START))):
        with pytest.raises(AdapterError, match="journal-unreadable") as raised:
            use()
        assert segment.name in str(raised.value)
    assert segment.read_bytes() == b"flights,weather\n" * 400


def test_what_is_accounted_for_is_not_opened_again(place: Path, clock: Wound, segment: Path) -> None:
    """A loop asks every second, of a folder that only grows."""
    at = SqliteJournal(place, clock)
    (account,) = at.recover()
    segment.write_bytes(b"flights,weather\n" * 400)
    assert at.recover({account.segment}) == []


def test_a_damaged_answer_is_named(place: Path, clock: Wound, segment: Path) -> None:
    with contextlib.closing(sqlite3.connect(segment, isolation_level=None)) as connection:
        connection.execute("UPDATE pages SET body = x'93'")
    with pytest.raises(AdapterError, match="journal-unreadable"):
        list(SqliteJournal(place, clock).read())


def test_a_segment_of_a_later_release_is_refused(place: Path, clock: Wound, segment: Path) -> None:
    with contextlib.closing(sqlite3.connect(segment, isolation_level=None)) as connection:
        connection.execute("""UPDATE header SET said = '{"format": 4, "surprise": []}'""")
    with pytest.raises(StateError, match="journal-is-newer"):
        list(SqliteJournal(place, clock).read())


def test_a_segment_that_was_never_begun_is_passed_over(place: Path, clock: Wound, segment: Path) -> None:
    (place / f"{journal.Segment('0' * 8, 1, 1)}.new").touch()
    (place / "notes.sqlite").touch()
    at = SqliteJournal(place, clock)
    assert [entry.seq for entry in at.read()] == [1]
    assert [account.recorded for account in at.recover()] == [1]


def test_what_cannot_hold_a_journal_is_named(tmp_path: Path, clock: Wound, disk: Disk) -> None:
    (tmp_path / "file").touch()
    disk.full = True
    for place, connect in ((tmp_path / "file", journal_segment.connect), (tmp_path / "full", disk.connect)):
        with pytest.raises(AdapterError, match="journal-write") as raised:
            SqliteJournal(place, clock, SETTINGS, connect).open("flights")
        assert str(place) in str(raised.value)
    assert list((tmp_path / "full").iterdir()) == []


def test_settings_are_checked() -> None:
    for wrong in (
        {"block": 0},
        {"rows": 0},
        {"size": 0},
        {"interval": timedelta(-1)},
        {"patience": timedelta(-1)},
        {"slow": timedelta(-1)},
        {"when_full": "drop"},
    ):
        with pytest.raises(DeclarationError, match="journal-settings"):
            Settings(**wrong)
