"""The archive gives back the very answer that it was given, whatever may be recorded; and its pieces leave no number out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.adapters.embedded import journal_archive, journal_rows
from flyball.adapters.embedded.journal_index import Archived
from flyball.serve import body
from flyball.serve.journal import Answer, Entry, Segment

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
whole = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | whole | st.floats() | texts | moments
cells = scalars | st.lists(scalars, max_size=2) | st.binary(max_size=4) | st.dates() | st.times()
small = st.integers(-(2**63), 2**63 - 1)

answers = st.builds(
    Answer,
    id=st.uuids().map(str),
    asked=small,
    model=texts,
    version=texts,
    epoch=small,
    role=texts,
    within_tolerance=st.booleans(),
    key=texts,
    inputs=st.dictionaries(texts, cells, max_size=4),
    features=st.dictionaries(texts, scalars, max_size=4),
    output=st.floats(),
    latency_us=small,
    via=texts,
    failed=texts,
    outputs=st.lists(st.floats(), max_size=3).map(tuple),
    decision=st.none() | st.booleans() | texts,
)
ODD: dict[str, Any] = {
    "nan": float("nan"),
    "-0": -0.0,
    "inf": float("-inf"),
    "big": 2**64 - 1,
    "time": datetime.now(UTC),
}


def recorded(answer: Answer) -> Entry:
    """As a journal gives it back, which is what is archived."""
    (kept,) = body.answers(body.page([body.pack(answer)[2]]))
    assert kept is not None
    return Entry(**msgspec.structs.asdict(kept), app="flights", process="p", segment="p.000000000001.1", seq=1)


@settings(max_examples=60)
@given(st.lists(answers, min_size=1, max_size=4))
@example([Answer(**(msgspec.structs.asdict(a) | {"inputs": ODD, "features": ODD})) for a in [answers.example()]])
def test_a_row_is_the_very_answer(given_: list[Answer]) -> None:
    entries = [recorded(each) for each in given_]
    rows = journal_rows.frame(entries)
    assert dict(rows.schema) == dict(journal_rows.SCHEMA)
    parts = [part for _, part in journal_rows.days(rows)]
    # repr tells what == does not: a NaN from another value, -0.0 from 0.0, 1 from 1.0 and True.
    assert [repr(each) for each in journal_rows.entries(rows)] == [repr(each) for each in entries]
    assert sum(part.height for part in parts) == rows.height


def test_every_field_of_an_answer_has_a_column() -> None:
    """Whoever adds one to `Answer` finds out here."""
    others = {"decided", "marks", "exact"}
    assert {*Entry.__struct_fields__} == {*journal_rows.SCHEMA} - others


def test_json_is_plain_where_it_says_it_all() -> None:
    """What times and numbers that are none are marked, the rest is not kept twice."""
    rows = journal_rows.frame([recorded(a) for a in (plain({"x": 1.5}), plain(ODD), plain({"x": [1]}))])
    assert rows["exact"].is_null().to_list() == [True, True, False]
    assert rows["marks"].is_null().to_list() == [True, False, True]
    assert rows["inputs"][0] == '{"x":1.5}'


def plain(inputs: dict[str, Any]) -> Answer:
    usual = {"model": "m", "version": "v", "epoch": 1, "role": "champion", "within_tolerance": True, "key": "{}"}
    rest = {"features": {}, "output": 0.5, "latency_us": 1, "via": "onnx", "asked": 0, "inputs": inputs}
    return Answer(id="00000000-0000-7000-8000-000000000000", **usual, **rest)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 70_000), st.integers(0, 70_000)), max_size=6))
def test_pages_are_all_the_numbers_once(given_: list[tuple[int, int]]) -> None:
    wanted = [(Archived(Segment("p", 1, n), last), after) for n, (last, after) in enumerate(given_)]
    pages = list(journal_archive._pages(wanted))
    assert all(sum(w.last - w.first + 1 for w in page) <= journal_archive.PAGE for page in pages)
    flat = [window for page in pages for window in page]
    for (segment, last), after in wanted:
        own = [w for w in flat if w.segment == str(segment)]
        assert sum(w.last - w.first + 1 for w in own) == max(0, last - after)
        assert [w.first for w in own] == [after + 1, *(w.last + 1 for w in own[:-1])][: len(own)]
    assert sorted(flat) == flat
    assert pl.DataFrame(flat, orient="row").height == len(flat)
