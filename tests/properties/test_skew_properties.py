"""The audit finds what the oracle finds: on random histories, answered by a store that lags behind, and no value more or less.

What is asked goes through the journal's bytes, so a cell that came back as another value would show as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball._kernel import ids
from flyball._kernel.clock import micros
from flyball.adapters.memory.online import MemoryOnline
from flyball.cycle import recalled, skew
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn.features import batches
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.features.lookup import Lookup
from flyball.serve import body, protocol
from flyball.serve.journal import Answer
from tests.oracles import histories
from tests.oracles.histories import ABOUT_JOBS, ABOUT_TRIPS, History, Job, Trip


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def answer(inputs: Mapping[str, Any], features: Mapping[str, Any], asked: datetime) -> Answer:
    """As it comes back from the journal."""
    made = Answer(
        id=ids.uuid7(asked + timedelta(days=1)),
        asked=micros(asked),
        model="m",
        version="m-1",
        epoch=1,
        role="champion",
        within_tolerance=True,
        key="",
        inputs=inputs,
        features=features,
        output=0.5,
        latency_us=1,
        via="test",
    )
    (kept,) = body.answers(body.page([body.pack(made)[2]]))
    assert kept is not None
    return msgspec.structs.replace(made, inputs=kept.inputs, features=kept.features)


def needed(features: FeatureSet, question: type[Contract]) -> dict[str, pl.DataType]:
    spec = contract.spec(question)
    return {n: t for n, t in spec.dtypes.items() if n in {*spec.key, *features.reads(question)}}


def lagging(history: History, features: FeatureSet, question: type[Contract], stops: list[int]) -> list[Answer]:
    """Every question of the history, asked in turn of a store that holds the batches up to each of the stops."""
    asked = history.trips if question is Trip else history.jobs
    store, answers = MemoryOnline(), []
    for n, stop in enumerate(sorted(stops)):
        batches.update(store, features, history.tables(upto=stop))
        lookup = Lookup(features, question, store)
        for row in asked[n :: len(stops)]:
            request = {name: value for name, value in row.items() if name != "_asked"}
            found = dict(zip(lookup.names, lookup(request, row["_asked"]), strict=True))
            answers.append(answer(request, found, row["_asked"]))
    return answers


@profile(25)
@example(histories.moved_back, [1, 2])
@example(histories.tied, [0, 9])
@given(histories.histories, st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_the_audit_finds_what_the_oracle_says_differs(history: History, stops: list[int]) -> None:
    for features, question in ((ABOUT_TRIPS, Trip), (ABOUT_JOBS, Job)):
        answers = lagging(history, features, question, stops)
        frame, places = recalled.questions(needed(features, question), answers, {})
        assert places == list(range(len(answers)))
        found = {
            (place, column)
            for _, column, compared, wrong in skew.differing(features, question, (frame, answers), history.tables())
            for place, _, _ in wrong
            if compared == len(answers)
        }
        columns = [o.name for f in features.features if isinstance(f, Latest | Window) for o in f.outputs(question)]
        expected = set()
        for place, each in enumerate(answers):
            said = histories.expected(features, question, _row(question, each), history.rows)
            logged = [each.features[name] for name in columns]
            expected |= {(place, c) for c, a, b in zip(columns, logged, said, strict=True) if repr(a) != repr(b)}
        assert found == expected


def _row(question: type[Contract], each: Answer) -> dict[str, Any]:
    return {**each.inputs, "_asked": histories.START + timedelta(microseconds=each.asked - micros(histories.START))}


class Everything(fb.Contract):
    """A column of every type that a request may carry."""

    key = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    there = dy.Datetime(time_zone="America/New_York", nullable=True)
    wall = dy.Datetime(nullable=True)
    coarse = dy.Datetime(time_unit="ms", time_zone="UTC", nullable=True)
    day = dy.Date(nullable=True)
    hour = dy.Time(nullable=True)
    took = dy.Duration(nullable=True)
    kind = dy.Enum(["a", "b", "ä"], nullable=True)
    name = dy.String(nullable=True)
    tiny = dy.Int8(nullable=True)
    huge = dy.UInt64(nullable=True)
    half = dy.Float32(nullable=True)
    whole = dy.Float64(nullable=True)
    so = dy.Bool(nullable=True)


moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
zoned = moments.map(lambda moment: moment.replace(tzinfo=UTC))
floats = st.floats(allow_nan=False, allow_infinity=False)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "there": zoned,
    "wall": moments,
    "coarse": zoned.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)),
    "day": st.dates(date(1700, 1, 1), date(2300, 1, 1)),
    "hour": st.times(),
    "took": st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    "kind": st.sampled_from(["a", "b", "ä"]),
    "name": st.text(st.characters(codec="utf-8")),
    "tiny": st.integers(-128, 127),
    "huge": st.integers(0, 2**64 - 1),
    "half": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "whole": floats | st.just(-0.0),
    "so": st.booleans(),
}
rows = st.fixed_dictionaries(
    {"key": st.integers(-(2**63), 2**63 - 1), "at": zoned, **{n: st.none() | cells for n, cells in CELLS.items()}}
)
DTYPES = contract.spec(Everything).dtypes
DECODE = protocol.decoder(Everything, frozenset(DTYPES))


@profile(60)
@given(st.lists(rows, min_size=1, max_size=4))
def test_a_question_comes_back_as_it_was_asked(asked: list[dict[str, Any]]) -> None:
    """From the request's bytes, through the journal's, to the very frame that a server computes its features on."""
    decoded, _ = DECODE(msgspec.json.encode(asked))
    frame, places = recalled.questions(DTYPES, [answer(row, {}, histories.START) for row in decoded], {})
    assert places == list(range(len(asked)))
    for name, dtype in DTYPES.items():
        wanted = pl.Series(name, [row[name] for row in decoded], dtype=dtype)
        assert frame[name].dtype == wanted.dtype
        assert [repr(cell) for cell in frame[name]] == [repr(cell) for cell in wanted]


STRANGE: dict[str, list[Any]] = {
    "tiny": [128, 1.0, True, "1"],
    "half": [0.1, 1, "0.5", True],
    "whole": [1, True, "1.0"],
    "so": [1, 0, "true"],
    "kind": ["c", 1],
    "name": [1, b"a", True],
    "day": ["2025-13-01", 5, 1.5],
    "there": [5, "soon", time(1)],
    "huge": [-1, 1.5],
}


def test_a_cell_of_another_type_is_left_out_and_never_coerced() -> None:
    for name, cells in STRANGE.items():
        for cell in cells:
            given_ = [answer({"key": 1, name: each}, {}, histories.START) for each in (None, cell, None)]
            frame, places = recalled.questions(DTYPES, given_, {})
            assert (places, frame.height) == ([0, 2], 2), (name, cell)


def test_a_recorded_hash_becomes_whom_it_means_and_a_stranger_nobody() -> None:
    known, stranger = "a" * 64, "b" * 64
    given_ = [answer({"key": 1, "name": name}, {}, histories.START) for name in (known, stranger, "plain", None)]
    frame, places = recalled.questions(DTYPES, given_, {"name": {known: "ann"}})
    assert places == [0, 1, 2, 3]
    assert frame["name"].to_list() == ["ann", None, "plain", None]
