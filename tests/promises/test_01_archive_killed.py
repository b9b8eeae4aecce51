"""Promise 1 goes on in the archive: whoever moves, joins, erases or drops may die at any write, and every answer is there once.

Attacked with a process that ends between any two writes of each change, and with one that is killed for good.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball.adapters.embedded import delta_files, journal_archive, journal_index, journal_moves, journal_pages
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.journal_archive import DeltaArchive
from flyball.adapters.embedded.journal_files import Files
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, answer, recorded
from flyball.checks.journal_archiving import EVER, archive
from flyball.serve.journal import Entry
from tests.loops import Crash, Fuse

WRITES: list[tuple[Any, str]] = [
    (journal_index.Index, "_intend"),
    (Files, "write"),
    (Files, "commit"),
    (delta_files, "vacuum"),
    (delta_files, "commit"),
    (journal_pages, "erase"),
    (journal_moves, "remove"),
    (Path, "unlink"),
]


@pytest.fixture
def clock() -> Wound:
    return Wound()


@pytest.fixture
def lived(tmp_path: Path, clock: Wound) -> Path:
    """Two archived segments of one day, which are enough to be joined, and one of the next that waits."""
    place = tmp_path / "journal"
    at = SqliteJournal(place, clock, SETTINGS)
    for n in range(3):
        recorder = at.open("flights")
        recorded(recorder, [answer(clock, key=f"k{m}") for m in range(3)])
        recorder.close()
        if n:
            clock.sleep(86_400)
        if n < 2:
            at.compact({account.segment for account in at.recover()}, EVER)
    return place


@contextmanager
def falling(fuse: Fuse) -> Iterator[None]:
    """A process that ends at a write."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WRITES:
            real = getattr(owner, name)

            def write(*args: Any, real: Any = real, name: str = name, **named: Any) -> Any:
                return fuse.write(name, lambda: real(*args, **named))

            patch.setattr(owner, name, write)
        yield


def is_theirs(entry: Entry) -> bool:
    return entry.key == "k1"


def sums(at: SqliteJournal) -> tuple[int, ...]:
    found = at.recover()
    return tuple(sum(getattr(each, name) for each in found) for name in ("recorded", "erased", "dropped", "unknown"))


CHANGES: dict[str, Callable[[SqliteJournal, Wound], object]] = {
    "move": lambda at, _: at.compact({account.segment for account in at.recover()}, EVER),
    "join": lambda at, _: at.compact((), EVER),
    "erase": lambda at, _: at.erase(is_theirs),
    "drop": lambda at, clock: at.drop(clock.now().date() - timedelta(days=1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_process_that_dies_at_any_write_loses_nothing(
    lived: Path, clock: Wound, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carried_out(place: Path, fuse: Fuse) -> list[Entry]:
        with falling(fuse):
            CHANGES[change](SqliteJournal(place, clock), clock)
        return list(SqliteJournal(place, clock).read())

    monkeypatch.setattr(journal_archive, "_MANY", 2)
    at = SqliteJournal(lived, clock)
    before, accounts, fuse = list(at.read()), sums(at), Fuse()
    shutil.copytree(lived, lived.with_name("whole"))
    after = carried_out(lived.with_name("whole"), fuse)
    expected = sums(SqliteJournal(lived.with_name("whole"), clock))
    assert len(fuse.written) >= 3
    # Of what is written again and again (files that go), the first; after one is before the next.
    writes = sorted({fuse.written.index(name) for name in fuse.written})
    for write, late in [(0, False), *((write, True) for write in writes)]:
        place = lived.with_name(f"at-{write}-{late}")
        shutil.copytree(lived, place)
        with pytest.raises(Crash):
            carried_out(place, Fuse(write, after=late))
        left = SqliteJournal(place, clock)
        assert [entry for entry in before if entry in [*left.read()]] == [*left.read()], fuse.written[write]
        assert all(entry in [*left.read()] for entry in after)
        assert all(a <= b <= c for a, b, c in zip(accounts, sums(left), expected, strict=True))
        CHANGES[change](left, clock)  # the same again does the rest
        if change == "move":
            left.erase(lambda _: False)  # vacuums, as every erasure does
        assert (list(left.read()), sums(left)) == (after, expected), fuse.written[write]
        files = {path.relative_to(place / "archive").as_posix() for path in place.rglob("*=*/*.parquet")}
        assert change == "join" or files == {each.path for each in Files(place / "archive").state().files}
        assert {path.name.partition(".sqlite")[0] for path in place.glob("*-*")}.isdisjoint(DeltaArchive(place).names())


MOVER = """
import sys
from pathlib import Path
from flyball.adapters.embedded import journal_moves
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal

remove = journal_moves.remove
def said(path):
    print(path.name, flush=True)
    if len(sys.argv) < 3:
        sys.stdin.read()  # it is killed here: archived, and not removed
    remove(path)
journal_moves.remove = said
at = SqliteJournal(Path(sys.argv[1]), SystemClock())
accounted = {account.segment for account in at.recover()}
while at.compact(accounted, 2**62):
    pass
"""


def test_a_mover_that_is_killed_leaves_a_segment_that_counts_once(lived: Path) -> None:
    """With kill -9, holding the lock: the next one goes on."""
    at = SqliteJournal(lived, SystemClock())
    before = list(at.read())
    with subprocess.Popen(
        [sys.executable, "-c", MOVER, str(lived)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as mover:
        assert mover.stdout is not None
        named = mover.stdout.readline().strip()
        mover.send_signal(signal.SIGKILL)
    assert (lived / named).exists()
    assert named.removesuffix(".sqlite") in DeltaArchive(lived).names()
    assert list(at.read()) == before
    archive(at)
    assert not (lived / named).exists()
    assert list(at.read()) == before
