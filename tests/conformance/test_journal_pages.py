"""The pages of the SQLite journal: what is found in them, erased out of them, and read of the formats before them."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball._kernel import facts, ids
from flyball._kernel.errors import DataError
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, answer, recorded
from flyball.serve import body, journal
from flyball.serve.journal import Answer, Header, Segment

BEFORE = """
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, asked INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    epoch INTEGER NOT NULL, role TEXT NOT NULL, within_tolerance INTEGER NOT NULL, key TEXT NOT NULL,
    output REAL, latency_us INTEGER NOT NULL, via TEXT NOT NULL, failed TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX answers_by_id ON answers (id);
CREATE TABLE refused (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE header (
    segment TEXT PRIMARY KEY, process TEXT NOT NULL, started INTEGER NOT NULL, said BLOB NOT NULL,
    bound INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0, last INTEGER, recorded INTEGER, refused INTEGER);
PRAGMA journal_mode=WAL;
"""
"""A segment as it was until format 2."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def before(place: Path, written: int, given: list[Answer], *, closed: bool) -> None:
    """A segment that format 1 or 2 wrote: a refused answer lies between the first and the second of `given`."""
    segment = Segment("0190aaaa-0000-7000-8000-000000000000", 1, 1_000)
    place.mkdir(mode=0o700)
    header = {"format": written, "app": "flights", "durability": "acknowledged", "head": facts.START}
    with opened(place / f"{segment}.sqlite") as connection:
        connection.executescript(BEFORE)
        numbers = [1, *range(3, len(given) + 2)]
        for seq, each in zip(numbers, given, strict=True):
            parts = (each.inputs, each.features) + ((list(each.outputs), each.decision) if written == 2 else ())
            row = (seq, journal.packed(each.id), each.asked, each.model, each.version, each.epoch, each.role)
            row += (int(each.within_tolerance), each.key, each.output, each.latency_us, each.via, each.failed)
            row += (msgspec.msgpack.encode(parts),)
            connection.execute(f"INSERT INTO answers VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("INSERT INTO refused VALUES (2, 2)")
        ended = (1, numbers[-1], len(given), 1) if closed else (0, None, None, None)
        bound = numbers[-1] if closed else 64
        said = msgspec.json.encode(header)
        connection.execute(
            "INSERT INTO header VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (str(segment), segment.process, segment.started, said, bound, *ended),
        )


@pytest.mark.parametrize("written", [1, 2])
@pytest.mark.parametrize("closed", [True, False])
def test_segments_of_earlier_releases_are_read_found_in_and_accounted_for(
    place: Path, clock: Wound, written: int, closed: bool
) -> None:
    several: dict[str, Any] = {"outputs": (0.5, 0.25), "decision": "late"} if written == 2 else {}
    failed = answer(clock, output=math.nan, failed="timed-out")
    given = [answer(clock), answer(clock, **several), failed]
    before(place, written, given, closed=closed)
    at = SqliteJournal(place, clock, SETTINGS)
    entries = list(at.read())
    assert [entry.seq for entry in entries] == [1, 3, 4]
    for entry, each in zip(entries, given, strict=True):
        found = at.find(each.id)
        assert repr(found) == repr(entry)
        for field in Answer.__struct_fields__:
            assert repr(getattr(entry, field)) == repr(getattr(each, field)), field
    (account,) = at.recover()
    gaps = () if closed else ((5, 64),)
    assert (account.recorded, account.refused, account.unlogged, account.gaps) == (3, 1, 0, gaps)
    assert account.header.head_is_stale is False


@pytest.mark.parametrize("closed", [True, False])
def test_out_of_segments_of_earlier_releases_is_erased(place: Path, clock: Wound, closed: bool) -> None:
    given = [answer(clock, key=f"zq{n}") for n in range(3)]
    before(place, 2, given, closed=closed)
    at = SqliteJournal(place, clock, SETTINGS)
    (account,) = at.recover()
    assert at.erase(lambda entry: entry.key == "zq1") == 1
    assert [entry.seq for entry in at.read()] == [1, 4]
    assert at.recover() == [msgspec.structs.replace(account, erased=1)]
    assert not any(b"zq1" in path.read_bytes() for path in place.iterdir())


def test_a_large_group_lies_in_bounded_pages(place: Path, clock: Wound, monkeypatch: pytest.MonkeyPatch) -> None:
    """By answers and by bytes; an answer that is larger than a page has one of its own. All are read from anywhere."""
    monkeypatch.setattr(journal_segment, "_MANY", 8)
    monkeypatch.setattr(journal_segment, "_LARGE", 5_000)
    at = SqliteJournal(place, clock, replace(SETTINGS, block=256))
    recorder = at.open("flights")
    given = [answer(clock, inputs={"x": "x" * size}) for size in [10] * 20 + [2_000] * 9 + [10_000] * 2 + [10] * 3]
    recorder.record(given)
    recorder.close()
    (path,) = place.glob("*.sqlite")
    with opened(path) as connection:
        pages = connection.execute("SELECT first, last, length(body) FROM pages ORDER BY first").fetchall()
    assert [first for first, _, _ in pages] == [1, *(last + 1 for _, last, _ in pages[:-1])]
    assert all(last - first < 8 for first, last, _ in pages)
    assert all(size <= 5_100 or first == last for first, last, size in pages)
    assert len(pages) < len(given) / 2
    assert [entry.id for entry in at.read()] == [each.id for each in given]
    for after in (0, 1, 7, 8, 9, 30, 33, 34):
        assert [entry.seq for entry in at.read({recorder.process: after})] == list(range(after + 1, 35))
    assert [entry and entry.seq for entry in (at.find(each.id) for each in given)] == list(range(1, 35))


def test_pages_whose_ids_overlap_are_all_looked_at(place: Path, clock: Wound) -> None:
    """Of a clock that goes back, and of callers that were slow to record."""
    at = SqliteJournal(place, clock, SETTINGS)
    recorder, given = at.open("flights"), [answer(clock) for _ in range(12)]
    for several in (given[0::3], given[1::3], given[2::3][::-1], []):
        recorded(recorder, [answer(clock)])  # a commit of its own: the next ones lie in another page
        recorder.record(several)
    recorder.close()
    assert all((entry := at.find(each.id)) is not None and entry.id == each.id for each in given)
    assert at.find(ids.uuid7(clock.now())) is None


def test_what_is_erased_out_of_a_page_leaves_no_byte(place: Path, clock: Wound) -> None:
    """Nor its id or moment in the bounds of the page; one that lost all its answers still speaks for their numbers."""
    at = SqliteJournal(place, clock, SETTINGS)
    recorder = at.open("flights")
    given = [answer(clock, key=f"zq{n}", asked=n + 1) for n in range(6)]
    recorder.record(given)
    recorder.close()
    (path,) = place.glob("*.sqlite")
    for gone in ({"zq0", "zq5"}, {"zq3"}, {"zq1", "zq2", "zq4"}):
        assert at.erase(lambda entry, gone=gone: entry.key in gone) == len(gone)  # type: ignore[misc]
        kept = [entry.key for entry in at.read()]
        assert not any(key.encode() in path.read_bytes() for key in gone)
        hidden = [journal.packed(each.id) or b"" for each in given if each.key not in kept]
        assert not any(each in path.read_bytes() for each in hidden)
        with opened(path) as connection:
            bounds = connection.execute("SELECT min(least_asked), max(greatest_asked) FROM pages").fetchone()
        assert bounds == ((2, 5) if len(kept) > 1 else (0, 0))
        (account,) = at.recover()
        assert (account.recorded, account.erased, account.unknown) == (6, 6 - len(kept), 0)
        assert [at.find(each.id) is not None for each in given] == [each.key in kept for each in given]


PAGE = bytes.fromhex(
    "92dc0010d92430313930616161612d303030302d373030302d383030302d30303030303030303030303105a16da36d2d3103a86368616d70696f6e"
    "c3a17b81a178cb400000000000000081a179c0cb3fd000000000000007a46f6e6e78a092cb3fe0000000000000cb3fe0000000000000a46c617465c0"
)
"""Two items as this release's first build wrote them: an answer, and one that was erased."""


def test_the_bytes_of_a_page_stay_what_they_are() -> None:
    """Items are arrays in the order of `Answer`: a field may be added at the end, with a default, and nowhere else."""
    given = Answer(
        id="0190aaaa-0000-7000-8000-000000000001",
        asked=5,
        model="m",
        version="m-1",
        epoch=3,
        role="champion",
        within_tolerance=True,
        key="{",
        inputs={"x": 2.0},
        features={"y": None},
        output=0.25,
        latency_us=7,
        via="onnx",
        outputs=(0.5, 0.5),
        decision="late",
    )
    assert body.page([body.pack(given)[2], body.ERASED]) == PAGE
    kept, erased = body.answers(PAGE)
    assert (kept, erased) == (body.Kept(**msgspec.structs.asdict(given)), None)
    assert body.Kept.__struct_fields__ == Answer.__struct_fields__
    header = Header(format=3, app="a", durability="interval", head=facts.START)
    segment = Segment("p", 1, 2)
    placed = msgspec.structs.asdict(body.entry(given, header, segment, str(segment), 9))
    own = {"app": "a", "process": "p", "segment": str(segment), "seq": 9}
    assert placed == msgspec.structs.asdict(given) | own


class More(Answer, frozen=True):
    """An answer with a field of somebody else's."""

    more: int = 7


class Listed(msgspec.Struct, array_like=True):
    """What is written as a list of its fields."""

    y: None = None


GIVEN = Answer(
    "0190aaaa-0000-7000-8000-000000000001", 5, "m", "m-1", 3, "champion", True, "{", {"x": 2.0}, {}, 0.5, 7, ""
)


def test_whatever_kind_of_answer_is_recorded_its_item_is_the_same() -> None:
    """What was read is an `Entry`; to write it as it is would make the other answers of its page unreadable."""
    fields, item = msgspec.structs.asdict(GIVEN), body.pack(GIVEN)[2]
    placed = body.entry(GIVEN, Header(format=3, app="a", durability="interval", head=facts.START), SEGMENT, "s", 9)
    for each in (placed, body.Kept(**fields), More(**fields)):
        assert body.pack(each)[2] == item


@pytest.mark.parametrize("field", ["inputs", "features"])
@pytest.mark.parametrize("wrong", [None, [1], "x", 5, Listed()])
def test_what_is_not_told_by_names_is_not_recorded(field: str, wrong: Any) -> None:
    with pytest.raises(DataError, match="unrecordable-answer"):
        body.pack(msgspec.structs.replace(GIVEN, **{field: wrong}))


SEGMENT = Segment("p", 1, 2)
