"""The journal's accounts: for every history of commits, failures, rotations and crashes, no number is left out."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball._kernel import ids
from flyball._kernel.clock import from_micros
from flyball._kernel.errors import AdapterError, FlyballError
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.memory.journal import MemoryJournal
from flyball.checks.clock import Wound
from flyball.checks.journal import answer, recorded, spoken_for
from flyball.serve import body, journal
from flyball.serve.journal import Segment, Settings

numbers = st.integers(1, 40)
spans = st.lists(st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair))), max_size=6)
moments = st.integers(0, 2**46)
segments = st.lists(st.builds(Segment, st.sampled_from(["a", "b"]), numbers, moments), max_size=8, unique=True)


def covered(several: Any) -> set[int]:
    return {n for first, last in several for n in range(first, last + 1)}


@given(numbers, st.integers(0, 45), spans)
def test_gaps_are_what_the_spans_leave(first: int, end: int, known: list[tuple[int, int]]) -> None:
    missing = journal.gaps(first, end, known)
    assert covered(missing) == set(range(first, end + 1)) - covered(known)
    assert all(a <= b for a, b in missing)
    assert all(b + 1 < c for (_, b), (c, _) in pairwise(missing))


@given(st.integers(1, 50), st.lists(st.integers(1, 60)))
def test_at_most_one_block_is_reserved_and_never_taken_back(block: int, groups: list[int]) -> None:
    last, bound = 0, block
    for asked in groups:
        last = min(last + asked, bound)  # nobody hands out more than is reserved
        following = journal.reserve(last, bound, block)
        assert bound <= following <= last + block
        assert following > last  # one can go on
        bound = following


@given(segments)
def test_a_segment_ends_before_its_successor(several: list[Segment]) -> None:
    ends = dict(journal.ends(several))
    assert list(ends) == sorted(several)
    for each, end in ends.items():
        later = [other.first for other in several if other.process == each.process and other > each]
        assert end == (min(later) - 1 if later else math.inf)


@given(segments)
def test_names_sort_as_segments_do_and_are_read_back(several: list[Segment]) -> None:
    names = [str(each) for each in several]
    assert [Segment.parse(name) for name in names] == several
    assert sorted(names) == [str(each) for each in sorted(several)]


@pytest.mark.parametrize("name", ["", "a", "a.1", "a.1.2.3", ".1.2", "a.x.2", "a.1.-2"])
def test_other_names_are_no_segments(name: str) -> None:
    assert Segment.parse(name) is None


@given(segments, moments)
def test_the_likely_segments_are_all_and_begin_with_the_latest_before(several: list[Segment], moment: int) -> None:
    wanted = journal.packed(ids.uuid7(from_micros(moment)))
    assert wanted is not None
    order = journal.likely(several, wanted)
    assert sorted(order) == sorted(several)
    before = [each.started for each in several if each.started <= moment // 1000 * 1000 + 999]
    if before:
        assert order[0].started == max(before)


@given(st.uuids())
def test_ids_are_packed_and_read_back(prediction: UUID) -> None:
    packed = journal.packed(str(prediction))
    assert packed == prediction.bytes == journal.packed(prediction.hex)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text()
    | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
        lambda time: time.replace(fold=0)
    )
)


@given(st.dictionaries(st.text(), scalars), st.dictionaries(st.text(), scalars))
def test_inputs_and_features_come_back(inputs: dict[str, Any], features: dict[str, Any]) -> None:
    given_ = answer(Wound(), inputs=inputs, features=features)
    (back,) = body.answers(body.page([body.pack(given_)[2]]))
    assert back is not None
    # The text tells NaN, the sign of zero, and True from 1.
    assert repr((back.inputs, back.features)) == repr((inputs, features))


class Flaky:
    """Real connections to a disk that refuses every write while it is broken, and stands still for a picture."""

    def __init__(self) -> None:
        self.broken = False
        self.still = threading.Lock()

    def connect(self, path: str) -> journal_segment.Connection:
        disk, real = self, journal_segment.connect(path)

        class Refusing:
            def execute(self, sql: str, parameters: Any = (), /) -> journal_segment.Cursor:
                with disk.still:
                    real.execute(f"PRAGMA query_only={disk.broken}").fetchall()
                    return real.execute(sql, parameters)

            def close(self) -> None:
                with disk.still:
                    real.close()

        return Refusing()


steps = st.lists(st.sampled_from(["answer", "answers", "break", "mend", "wait"]), max_size=12)


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - fast where there is one: what is tested is the account, not the sync
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@given(steps, st.sampled_from(["acknowledged", "interval"]), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_number_is_accounted_for(room: Path, history: list[str], durability: Any, rows: int, block: int) -> None:
    """Whatever the disk did, before the crash and after a clean end."""
    place = Path(tempfile.mkdtemp(dir=room))
    clock, disk = Wound(), Flaky()
    rules = Settings(
        durability, timedelta(milliseconds=1), block, timedelta(milliseconds=5), rows, age=timedelta(hours=1)
    )
    at = SqliteJournal(place / "live", clock, rules, disk.connect)
    recorder = at.open("flights")
    handed_out, let_out = set[int](), set[str]()
    for step in history:
        disk.broken = {"break": True, "mend": False}.get(step, disk.broken)
        clock.sleep(3600 if step == "wait" else 1)
        for _ in range({"answer": 1, "answers": 3}.get(step, 0)):
            given_, future = answer(clock), Future[None]()
            with contextlib.suppress(FlyballError):
                handed_out.add(recorder.record([given_], journal.resolve(future)))
                if future.exception(timeout=30) is None:
                    let_out.add(given_.id)
    with disk.still:
        shutil.copytree(place / "live", place / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    committed = let_out if durability == "acknowledged" else set[str]()
    check(SqliteJournal(place / "crashed", clock), handed_out, committed, block)
    disk.broken = False
    with contextlib.suppress(AdapterError):
        recorder.close()
    check(at, handed_out, let_out, block)
    shutil.rmtree(place)


def check(left: SqliteJournal, handed_out: set[int], let_out: set[str], block: int) -> None:
    entries, accounts = list(left.read()), left.recover()
    seqs = [entry.seq for entry in entries]
    assert len(set(seqs)) == len(seqs) == sum(account.recorded for account in accounts)
    assert let_out <= {entry.id for entry in entries}
    known = set(seqs).union(*(spoken_for(account, ()) for account in accounts))
    refused = sum(account.refused for account in accounts)
    assert len(handed_out - known) <= refused
    assert sum(account.unknown for account in accounts) <= block
    if all(account.closed for account in accounts):
        assert len(handed_out) == len(entries) + refused


@given(steps, st.integers(1, 4))
def test_the_memory_journal_reads_as_the_other_does(history: list[str], rows: int) -> None:
    """A cursor at any point leaves exactly what follows."""
    clock = Wound()
    at = MemoryJournal(clock, Settings(rows=rows, block=4))
    recorder = at.open("flights")
    many = sum({"answer": 1, "answers": 3}.get(step, 0) for step in history)
    assert recorded(recorder, [answer(clock) for _ in range(many)]) == list(range(1, many + 1))
    for after in range(many + 1):
        assert [entry.seq for entry in at.read({recorder.process: after})] == list(range(after + 1, many + 1))
    assert all(msgspec.msgpack.encode(entry) for entry in at.read())
