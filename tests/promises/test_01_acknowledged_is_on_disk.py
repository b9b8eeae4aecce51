"""Promise 1: an acknowledged prediction is on disk. Two attacks, each with a proof that it can hurt.

*Kill*: a process that answers under load is killed (SIGKILL) at a random moment; every id that it had acknowledged to
the world must be found, and every number that it handed out must be recorded or counted.

*Power cut*: a disk that keeps a write only once it was synced, and loses power at the n-th write or sync, for every n;
in a second run it also keeps, of what was not yet synced, a random part of the sectors, as real disks do.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from flyball._kernel.errors import AdapterError, FlyballError
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.checks.clock import Wound
from flyball.checks.journal import answer, spoken_for
from flyball.serve import journal
from flyball.serve.journal import Settings, WhenFull

SERVER = """
import functools, os, sys, threading
from datetime import timedelta
from pathlib import Path
from flyball._kernel import clock as kernel, ids
from flyball._kernel.errors import RetryableError
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.serve.journal import Answer, Settings

settings = Settings(durability=sys.argv[2], interval=timedelta(milliseconds=100), block=512, rows=700)
clock = SystemClock()
recorder = SqliteJournal(Path(sys.argv[1]), clock, settings).open("flights")
room = threading.Semaphore(64)

def answer():
    now = clock.now()
    return Answer(id=ids.uuid7(now), asked=kernel.micros(now), model="lateness", version="v7", epoch=3, role="champion",
                  within_tolerance=True, key="{}", inputs={"carrier": "UA"}, features={"hour": 12}, output=0.25,
                  latency_us=312, via="lightgbm")

def done(prediction, error):
    room.release()
    if error is None:
        os.write(1, f"acknowledged {prediction}\\n".encode())

def client():
    while True:
        asked = answer()
        room.acquire()
        try:
            number = recorder.record([asked], functools.partial(done, asked.id))
        except RetryableError:  # turned away: the disk is slow
            room.release()
            continue
        os.write(1, f"handed-out {recorder.process}/{number}\\n".encode())

for _ in range(2):
    threading.Thread(target=client, daemon=True).start()
threading.Event().wait()
"""


def killed(place: Path, durability: str, after: float) -> tuple[set[str], set[str]]:
    """Let a server answer for `after` seconds, kill it, and return the ids and the numbers that it let out."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(place), durability], stdout=subprocess.PIPE, bufsize=0
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        killer = threading.Timer(after, server.send_signal, [signal.SIGKILL])
        killer.start()
        said += server.stdout.read()
        killer.join()
    # What follows the last line's end was cut short: it was not said.
    lines = [line.split() for line in said.decode().split("\n")[:-1]]
    by_word: dict[str, set[str]] = {"acknowledged": set(), "handed-out": set()}
    for word, what in lines:
        by_word[word].add(what)
    return by_word["acknowledged"], by_word["handed-out"]


@dataclass(slots=True)
class Left:
    """What a killed server left in its journal."""

    ids: set[str]
    spoken_for: set[str]
    unknown: int


def left_in(place: Path) -> Left:
    at = SqliteJournal(place, SystemClock())
    entries, accounts = list(at.read()), at.recover()
    accounted = {f"{account.segment.split('.')[0]}/{n}" for account in accounts for n in spoken_for(account, ())}
    recorded = {f"{entry.process}/{entry.seq}" for entry in entries}
    assert len(recorded) == len(entries) == sum(account.recorded for account in accounts)
    assert not recorded & accounted
    return Left({entry.id for entry in entries}, recorded | accounted, sum(account.unknown for account in accounts))


def test_a_killed_server_has_recorded_what_it_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(1788)
    total = round_ = 0
    while round_ < 8 or total <= 1_000:
        assert round_ < 80
        place = tmp_path / str(round_)
        acknowledged, handed_out = killed(place, "acknowledged", chance.uniform(0.02, 0.35))
        left = left_in(place)
        assert acknowledged <= left.ids
        assert handed_out <= left.spoken_for
        assert 0 < left.unknown <= 512
        at = SqliteJournal(place, SystemClock())
        assert all(at.find(each) is not None for each in sorted(acknowledged)[-20:])
        total, round_ = total + len(acknowledged), round_ + 1


def test_the_kill_has_teeth(tmp_path: Path) -> None:
    """An answer that leaves before its commit is lost by it; and then it is counted."""
    lost = round_ = 0
    while round_ < 3 or not lost:  # on a slow machine it may come when nothing was new
        assert round_ < 30
        place = tmp_path / str(round_)
        answered, handed_out = killed(place, "interval", 0.25 + 0.03 * (round_ % 4))
        left = left_in(place)
        lost, round_ = lost + len(answered - left.ids), round_ + 1
        assert len(answered - left.ids) <= left.unknown <= 512
        assert handed_out <= left.spoken_for


class PowerCutError(apsw.IOError):
    """The disk is gone."""


@dataclass(slots=True)
class File:
    """A file as its process sees it, and what of that was never synced: (offset, bytes), or (size, None) to truncate."""

    path: str
    seen: bytearray
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)


SECTOR = 512


class Disk(apsw.VFS):
    """Forwards to the machine's files what was synced, and nothing else.

    Args:
        name: of this disk, among SQLite's.
        power: writes and syncs that it does before its power is cut.
        chance: decides which sectors that were not synced survive all the same; None: not one does.
        heals: whether it fails that once only, and keeps what it has.
    """

    def __init__(self, name: str, power: int, chance: random.Random | None = None, heals: bool = False) -> None:
        super().__init__(name, "")
        self.name, self.power, self.chance, self.heals = name, power, chance, heals
        self.files: dict[str, File] = {}

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's word
        opened = DiskFile("", name, flags)
        opened.begin(self, name)
        return opened

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.spend()
        self.files.pop(name, None)
        super().xDelete(name, sync)

    def spend(self) -> None:
        """One more event; or the cut."""
        self.power -= 1
        if self.power == 0 and not self.heals:
            for file in self.files.values():
                if self.chance is not None:
                    keep(file.path, survivors(file.unsynced, self.chance))
        if self.power == 0 or (self.power < 0 and not self.heals):
            raise PowerCutError

    def stop(self) -> None:
        """The process has ended: what a disk that has power did not sync yet, it does now."""
        self.unregister()
        if self.heals:
            for file in self.files.values():
                keep(file.path, file.unsynced)


class DiskFile(apsw.VFSFile):
    """Locks and shared memory are the machine's own."""

    def begin(self, disk: Disk, name: Any) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.disk = disk
        self.file = disk.files.setdefault(path, File(path, bytearray(Path(path).read_bytes())))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self.file.seen[offset : offset + amount])

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.file.seen)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.spend()
        change(self.file.seen, offset, bytes(data))
        self.file.unsynced.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.disk.spend()
        change(self.file.seen, size, None)
        self.file.unsynced.append((size, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.spend()
        keep(self.file.path, self.file.unsynced)
        self.file.unsynced = []


def change(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    if data is not None:
        content[offset : offset + len(data)] = data


def keep(path: str, changes: list[tuple[int, bytes | None]]) -> None:
    """Put `changes` where a process that comes later will see them."""
    if not changes:
        return  # and perhaps no file: it was synced, closed and renamed
    content = bytearray(Path(path).read_bytes())
    for offset, data in changes:
        change(content, offset, data)
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate(len(content))


def survivors(changes: list[tuple[int, bytes | None]], chance: random.Random) -> list[tuple[int, bytes | None]]:
    """Some of the changes, in some order, torn between sectors."""
    torn: list[tuple[int, bytes | None]] = []
    for offset, data in changes:
        if data is None:
            torn.append((offset, None))
        else:
            cuts = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
            torn += [(offset + a, data[a:b]) for a, b in itertools.pairwise(cuts)]
    return chance.sample(torn, chance.randint(0, len(torn)))


class OnDisk:
    """A connection of apsw, with the manners of the driver that the adapter uses."""

    def __init__(self, path: str, disk: Disk, broken: bool) -> None:
        self.broken = broken and path.endswith(journal_segment.SUFFIX)  # its header is safe: what follows is at stake
        with self.errors():
            self.real = apsw.Connection(path, vfs=disk.name)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        if self.broken and sql == "PRAGMA synchronous=FULL":
            sql = "PRAGMA synchronous=OFF"
        with self.errors():
            return Rows(list(self.real.execute(sql, parameters)))

    def close(self) -> None:
        with self.errors():
            self.real.close(True)


class Rows:
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[Any]:
        return self.rows


@dataclass(slots=True)
class Outcome:
    """What the world was told before the power went, and what the disk says."""

    acknowledged: set[str] = field(default_factory=set)
    handed_out: set[int] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    spoken_for: set[int] = field(default_factory=set)
    intact: bool = True
    unknown: int = 0
    refused: int = 0
    unlogged: int = 0
    finished: bool = False


def run(place: Path, disk: Disk, broken: bool = False, when_full: WhenFull = "refuse") -> Outcome:
    """Answer a few questions on `disk`, then look at what is left."""
    clock, outcome = Wound(), Outcome()

    def connect(path: str) -> journal_segment.Connection:
        return OnDisk(path, disk, broken)

    settings = Settings(block=4, rows=4, patience=timedelta(0), when_full=when_full)
    with contextlib.suppress(FlyballError):
        recorder = SqliteJournal(place, clock, settings, connect).open("flights")
        try:
            for group in (1, 2, 1, 3):
                answers = [answer(clock) for _ in range(group)]
                futures: list[Future[None]] = [Future() for _ in answers]
                for each, future in zip(answers, futures, strict=True):
                    outcome.handed_out.add(recorder.record([each], journal.resolve(future)))
                for each, future in zip(answers, futures, strict=True):
                    if future.exception(timeout=30) is None:
                        outcome.acknowledged.add(each.id)
        finally:
            recorder.close()
    outcome.finished = disk.power > 0
    disk.stop()
    look(place, outcome)
    return outcome


def look(place: Path, outcome: Outcome) -> None:
    """Open what is left as a machine does that has just started: without shared memory."""
    for shared in place.glob("*-shm"):
        shared.unlink()
    at = SqliteJournal(place, Wound())
    try:
        entries, accounts = list(at.read()), at.recover()
    except AdapterError:
        outcome.intact = False
    else:
        outcome.ids = {entry.id for entry in entries}
        outcome.spoken_for = {entry.seq for entry in entries}
        for account in accounts:
            outcome.spoken_for |= spoken_for(account, ())
        outcome.unknown = sum(account.unknown for account in accounts)
        outcome.refused = sum(account.refused for account in accounts)
        outcome.unlogged = sum(account.unlogged for account in accounts)
    for path in place.glob("*.sqlite"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            try:
                outcome.intact &= connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            except sqlite3.DatabaseError:
                outcome.intact = False


def every_cut(
    root: Path, disk: Callable[[str, int], Disk], broken: bool = False, when_full: WhenFull = "refuse"
) -> Iterator[Outcome]:
    """The outcome of each cut, up to the first disk that had power enough."""
    for power in range(1, 2_000):
        outcome = run(root / str(power), disk(f"{root.name}-{power}", power), broken, when_full)
        yield outcome
        if outcome.finished:
            return
    raise AssertionError("the work never came to its end")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """In memory where the machine has such a folder: what these disks keep is decided here, so real syncs add nothing."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def forgetful(name: str, power: int) -> Disk:
    return Disk(name, power)


def tearing(name: str, power: int) -> Disk:
    return Disk(name, power, random.Random(power))


def healing(name: str, power: int) -> Disk:
    return Disk(name, power, heals=True)


@pytest.mark.parametrize("disk", [forgetful, tearing])
def test_a_power_cut_leaves_what_was_acknowledged(room: Path, disk: Callable[[str, int], Disk]) -> None:
    outcomes = list(every_cut(room, disk))
    for power, outcome in enumerate(outcomes, start=1):
        assert outcome.intact, power
        assert outcome.acknowledged <= outcome.ids, power
        assert outcome.handed_out <= outcome.spoken_for, power
        assert outcome.unknown <= 4, power
    assert len(outcomes) > 50
    assert {len(outcome.acknowledged) for outcome in outcomes} >= {0, 1, 4, 7}


def test_a_failure_of_the_disk_is_survived(room: Path) -> None:
    """Each write and sync fails once: nothing that was acknowledged is lost, and what comes after is recorded."""
    outcomes = list(every_cut(room, healing))
    for power, outcome in enumerate(outcomes, start=1):
        assert outcome.intact, power
        assert outcome.acknowledged <= outcome.ids, power
        assert not outcome.handed_out or len(outcome.acknowledged) >= 4, power
        assert len(outcome.handed_out) <= len(outcome.spoken_for) + outcome.refused, power
        assert outcome.unknown <= 4, power
    assert any(outcome.refused for outcome in outcomes)


@pytest.mark.parametrize("disk", [forgetful, healing])
def test_what_leaves_unlogged_is_counted_whatever_the_disk_does(room: Path, disk: Callable[[str, int], Disk]) -> None:
    """Acknowledged = on disk + counted as unlogged: only the disk of the segments fails here, and not the claim's."""
    outcomes = list(every_cut(room, disk, when_full="unlogged"))
    for power, outcome in enumerate(outcomes, start=1):
        assert outcome.intact, power
        assert len(outcome.acknowledged - outcome.ids) <= outcome.unlogged, power
        assert len(outcome.handed_out - outcome.spoken_for) <= outcome.unlogged, power
        assert outcome.unknown <= 4 and outcome.refused == 0, power
    assert any(outcome.unlogged for outcome in outcomes)


def test_the_power_cut_has_teeth(room: Path) -> None:
    """A writer that does not wait for its syncs loses what it acknowledged."""
    outcomes = every_cut(room, forgetful, broken=True)
    assert any(not outcome.acknowledged <= outcome.ids for outcome in outcomes if outcome.intact)
