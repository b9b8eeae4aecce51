"""The journal with its archive: every suite over it, and the archive's own duties: other readers, bytes, joins, damage."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import journal_archive, journal_moves
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, Bench, answer, recorded
from flyball.checks.journal_archiving import EVER, ArchivingSuite, archive
from flyball.checks.journal_erasing import ErasingSuite
from flyball.serve.journal import Entry, Journal, Recovery, Settings
from tests.conformance.test_journal import Folders, Images


class TestSqliteArchive(ArchivingSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return Folders(tmp_path)


class TestMemoryArchive(ArchivingSuite):
    @pytest.fixture
    def bench(self) -> Bench:
        return Images()


class Eager(SqliteJournal):
    """Archives all that is over before anybody reads."""

    def find(self, prediction: str) -> Entry | None:
        archive(self)
        return super().find(prediction)

    def read(self, after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        archive(self)
        return super().read(after)

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        archive(self)
        return super().erase(chosen)


class EagerFolders(Folders):
    def journal(self, clock: Clock, settings: Settings, path: Path | None = None) -> Journal:
        made = super().journal(clock, settings, path)
        eager = Eager(self.made[id(made)][0], clock, settings)
        self.made[id(eager)] = self.made[id(made)]
        return eager


class TestArchivedJournal(ErasingSuite):
    """Nobody can tell which of the two an answer lies in."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return EagerFolders(tmp_path)


def a_year(place: Path, clock: Wound, segments: int = 4, answers: int = 3) -> SqliteJournal:
    """A journal of so many processes that are over, a day after another, with so many answers each."""
    at = SqliteJournal(place, clock, SETTINGS)
    for _ in range(segments):
        recorder = at.open("flights")
        recorded(recorder, [answer(clock, key=f"who-{n}") for n in range(answers)])
        recorder.close()
        clock.sleep(86_400)
    return at


def test_anybody_reads_it_with_polars(tmp_path: Path, clock: Wound) -> None:
    archive(a_year(tmp_path, clock))
    rows = pl.scan_delta(str(tmp_path / "archive"))
    assert rows.select("day").unique().collect().height == 4
    found = rows.select(
        pl.col("inputs").str.json_path_match("$.distance").cast(pl.Int64).alias("distance"),
        pl.col("features").str.json_path_match("$.hour").cast(pl.Int64).alias("hour"),
        "asked",
        "output",
    ).collect()
    assert found["distance"].to_list() == [1400] * 12
    assert found["hour"].to_list() == [12] * 12
    assert found.schema["asked"] == pl.Datetime("us", "UTC")


def test_a_segment_goes_and_only_its_account_stays(tmp_path: Path, clock: Wound) -> None:
    at = a_year(tmp_path, clock, segments=1)
    archive(at)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "archive.lock", "archive.sqlite"]
    assert oct((tmp_path / "archive.sqlite").stat().st_mode)[-3:] == "600"
    assert oct((tmp_path / "archive").stat().st_mode)[-3:] == "700"


def test_small_files_of_days_that_are_over_are_joined(tmp_path: Path, clock: Wound) -> None:
    at = SqliteJournal(tmp_path, clock, replace(SETTINGS, rows=2))
    recorder = at.open("flights")
    recorded(recorder, [answer(clock) for _ in range(20)])
    recorder.close()
    before = list(at.read())
    assert archive(at) == 10  # of today: nothing is joined yet
    shared, late = journal_archive.DeltaArchive(tmp_path), SqliteJournal(tmp_path, clock)
    assert shared.size()[:2] == (10, 20)
    clock.sleep(86_400)
    moved = at.compact((), EVER)
    assert moved is not None
    assert (moved.segment, moved.answers, moved.files, moved.into) == ("", 20, 10, 1)
    assert shared.size()[:2] == (1, 20)
    assert len(list((tmp_path / "archive").rglob("*.parquet"))) == 2  # and a checkpoint
    assert list(late.read()) == before
    assert at.compact((), EVER) is None


def test_a_reader_of_files_that_are_joined_meanwhile_looks_again(
    tmp_path: Path, clock: Wound, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = SqliteJournal(tmp_path, clock, replace(SETTINGS, rows=2))
    recorder = at.open("flights")
    recorded(recorder, [answer(clock) for _ in range(20)])
    recorder.close()
    before = list(at.read())
    archive(at)
    clock.sleep(86_400)
    reader = journal_archive.DeltaArchive(tmp_path)
    segments, scan, times = reader.segments(), reader._files.scan, 0

    def joined(files: Any) -> pl.LazyFrame:
        nonlocal times
        times += 1
        lazy = scan(files)
        if times == 1:
            assert at.compact((), EVER) is not None
        return lazy

    monkeypatch.setattr(reader._files, "scan", joined)
    assert list(reader.read([(each, 0) for each in segments])) == before
    assert times == 2


def test_a_segment_that_goes_while_it_is_opened_is_read_from_the_archive(
    tmp_path: Path, clock: Wound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, and archived before it was opened: by each of those who read."""
    mover = a_year(tmp_path, clock, segments=3)
    before, accounts = list(mover.read()), mover.recover()
    known = [account.segment for account in accounts]

    def opened(path: Path, segment: Any) -> Any:
        monkeypatch.undo()
        assert mover.compact(known, EVER) is not None
        return reading(path, segment)

    reading = journal_moves.reading
    reads: list[Callable[[SqliteJournal], Any]] = [
        lambda late: list(late.read()) == before,
        lambda late: late.find(before[5].id) == before[5],
        lambda late: late.recover() == accounts,
    ]
    for read in reads:
        monkeypatch.setattr(journal_moves, "reading", opened)
        assert read(SqliteJournal(tmp_path, clock))
    assert not list(tmp_path.glob(f"*{known[0]}*"))


def test_no_byte_of_what_is_erased_or_dropped_is_left(tmp_path: Path, clock: Wound) -> None:
    at = SqliteJournal(tmp_path, clock, SETTINGS)
    for who in ("Quentina", "Ysolde"):
        recorder = at.open("flights")
        recorded(recorder, [answer(clock, key=who), answer(clock, inputs={"x": who}, key="other")])
        recorder.close()
        clock.sleep(86_400)
    archive(at)
    assert at.erase(lambda entry: "Quentina" in (entry.key, entry.inputs.get("x"))) == 2
    assert at.erase(lambda _: False) == 0
    assert not holds(tmp_path, b"Quentina")
    assert [entry.key for entry in at.read()] == ["Ysolde", "other"]
    assert at.drop(clock.now().date()).answers == 2
    assert not holds(tmp_path, b"Ysolde")
    assert [(account.erased, account.dropped) for account in at.recover()] == [(2, 0), (0, 2)]


def holds(place: Path, what: bytes) -> bool:
    """Whether a value is in any file; those of Parquet are compressed, so they are read."""
    files = [path for path in place.rglob("*") if path.is_file()]
    texts = [
        str(pl.read_parquet(p, hive_partitioning=False).to_dicts()).encode() for p in files if p.suffix == ".parquet"
    ]
    return any(what in data for data in [*texts, *(path.read_bytes() for path in files)])


def test_one_at_a_time_changes_the_archive(tmp_path: Path, clock: Wound, monkeypatch: pytest.MonkeyPatch) -> None:
    at = a_year(tmp_path, clock, segments=2)
    done = list[int]()
    with journal_moves.alone(tmp_path):
        other = threading.Thread(target=lambda: done.append(archive(at)))
        other.start()
        other.join(0.1)
        assert other.is_alive()
        monkeypatch.setattr(journal_moves, "_PATIENCE", 0.0)
        with pytest.raises(AdapterError, match="store-busy"):
            at.erase(lambda _: True)
    other.join()
    assert done == [2]


def test_what_cannot_be_read_is_named(tmp_path: Path, clock: Wound) -> None:
    at = a_year(tmp_path, clock)
    archive(at)
    for path in (tmp_path / "archive").rglob("*.parquet"):
        path.write_bytes(b"flights,weather\n")
    with pytest.raises(AdapterError, match="journal-unreadable"):
        list(at.read())
    (tmp_path / "archive.sqlite").write_bytes(b"flights,weather\n" * 400)
    with pytest.raises(AdapterError, match="journal-unreadable"):
        at.recover()


def test_a_disk_that_takes_nothing_keeps_the_segment(
    tmp_path: Path, clock: Wound, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = a_year(tmp_path, clock, segments=1)
    before = list(at.read())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(pl.LazyFrame, "sink_parquet", full)
        with pytest.raises(AdapterError, match="archive-not-written"):
            archive(at)
    assert list(at.read()) == before
    assert archive(at) == 1
    assert list(at.read()) == before


def test_a_log_that_was_not_folded_goes_with_its_segment(tmp_path: Path, clock: Wound) -> None:
    """Of a process that died, the answers may lie in the log alone."""
    folders = Folders(tmp_path)
    place = folders.journal(clock, SETTINGS)
    recorder = place.open("flights")
    recorded(recorder, [answer(clock) for _ in range(5)])
    left = folders.crashed(place)
    recorder.close()
    home = folders.made[id(left)][0]
    (segment,) = home.glob("*.sqlite")
    with closing(sqlite3.connect(segment)) as slow:  # somebody reads on: the segment stays until that is over
        before, accounts = list(left.read()), left.recover()
        slow.execute("BEGIN")
        slow.execute("SELECT count(*) FROM header").fetchone()
        archive(left)
        assert list(left.read()) == before
    known: Collection[str] = ()
    assert left.compact(known, EVER) is None
    assert not segment.exists()
    assert list(left.read()) == before
    found: list[Recovery] = left.recover()
    assert found == accounts
