"""What the frame of features looks like, and what is refused; that the values are right is for the oracle."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from flyball._kernel.errors import DataError, DeclarationError
from flyball.learn.features import notation, offline
from tests.oracles import histories
from tests.oracles.histories import ABOUT_TRIPS, Job, Reading, Trip, at, frame, ticks


def trip(n: int, tick: int, **rest: Any) -> dict[str, Any]:
    row = {"trip": n, "leg": "p", "leaves": at(9), "place": "a", "team": "red", "miles": n, "_asked": at(tick)}
    return row | rest


TABLES = {c.__name__: frame(c, []).lazy() for c in (Reading, Trip, Job)}


def build(*questions: dict[str, Any], tables: Any = TABLES) -> pl.DataFrame:
    return offline.build(ABOUT_TRIPS, Trip, histories.asking(Trip, questions), tables)


def test_one_row_for_each_question_in_their_order() -> None:
    built = build(trip(3, 5), trip(1, 9), trip(2, -1), trip(1, 9))
    assert built["miles"].to_list() == [3, 1, 2, 1]
    assert built["far"].to_list() == [True, False, False, False]
    assert built["tick"].to_list() == [12, 10, 11, 10]


def test_types_do_not_depend_on_the_rows() -> None:
    """No questions, no rows, nothing but nulls: the columns are the same."""
    empty, some = build(), build(trip(1, 5, team=None, miles=None))
    assert empty.height == 0
    assert empty.schema == some.schema
    assert some.schema["reading_kind"] == pl.Enum(["x", "y"])
    assert [some.schema[n] for n in ("late_rate_3us", "delayed", "trips", "levels_4us", "costs", "sizes")] == [
        pl.Float64,
        pl.Float64,
        pl.Int64,
        pl.Float64,
        pl.Float64,
        pl.Int64,
    ]
    assert some.columns == [o.name for o in ABOUT_TRIPS.outputs(Trip)]


def test_an_empty_window_has_no_mean_and_sums_up_to_nothing() -> None:
    row = build(trip(1, 5)).row(0, named=True)
    assert (row["late_rate_3us"], row["delayed"], row["trips"]) == (None, 0.0, 0)


def test_a_constant_is_a_column() -> None:
    features = notation.features(one=pl.lit(1.5))
    built = offline.build(features, Trip, histories.asking(Trip, [trip(1, 5), trip(2, 6)]), {})
    assert built["one"].to_list() == [1.5, 1.5]


@pytest.mark.parametrize("lost", ["_known", "_batch", "_outcome_known", "team"])
def test_a_table_without_a_column_is_refused(lost: str) -> None:
    with pytest.raises(DataError, match="column-not-given") as raised:
        build(trip(1, 5), tables={**TABLES, "Trip": frame(Trip, []).lazy().drop(lost)})
    assert lost in str(raised.value)


@pytest.mark.parametrize("lost", ["_asked", "leg", "place", "miles"])
def test_questions_without_a_column_are_refused(lost: str) -> None:
    questions = histories.asking(Trip, [trip(1, 5)]).drop(lost)
    with pytest.raises(DataError, match="column-not-given") as raised:
        offline.build(ABOUT_TRIPS, Trip, questions, TABLES)
    assert lost in str(raised.value)


def test_columns_that_no_feature_reads_may_lack() -> None:
    features = notation.features(Trip.miles)
    questions = histories.asking(Trip, [trip(1, 5)]).select("trip", "leg", "miles", "_asked")
    assert offline.build(features, Trip, questions, {})["miles"].to_list() == [1]


def test_a_table_is_needed() -> None:
    with pytest.raises(DataError, match="table-not-given"):
        build(trip(1, 5), tables={n: t for n, t in TABLES.items() if n != "Job"})


def test_two_versions_in_one_batch_are_refused() -> None:
    row = {"job": "a", "due": at(5), "team": "red", "size": 1.0, "done": None, "cost": None}
    row |= {"_batch": 7, "_known": at(2), "_outcome_known": None}
    with pytest.raises(DataError, match="two-versions-at-once") as raised:
        build(trip(1, 5), tables={**TABLES, "Job": frame(Job, [row, row | {"size": 2.0}]).lazy()})
    assert "Batch 7" in str(raised.value)


def test_declarations_are_checked_first() -> None:
    features = notation.features(f=notation.latest(Reading, by=Trip.place, columns=[Trip.miles]))
    with pytest.raises(DeclarationError, match="no-such-column"):
        offline.build(features, Trip, histories.asking(Trip, []), {})


def test_numbers_too_large_to_be_exact_are_refused() -> None:
    row = {"place": "a", "seen": at(1), "level": 1e300, "kind": None, "_batch": 1, "_known": at(1)}
    with pytest.raises(DataError, match="number-too-large"):
        build(trip(1, 5), tables={**TABLES, "Reading": frame(Reading, [row]).lazy()})


def test_whole_numbers_add_up_beyond_64_bits() -> None:
    """2**62 three times is beyond them; a mean of them is not."""
    rows = [
        {"job": f"j{n}", "due": at(5), "team": "red", "size": 1.0, "done": at(5), "cost": 2**62}
        | {"_batch": 1, "_known": at(2), "_outcome_known": at(5)}
        for n in range(3)
    ]
    tables = {**TABLES, "Job": frame(Job, rows).lazy()}
    assert build(trip(1, 6), tables=tables)["costs"].to_list() == [float(3 * 2**62)]
    features = notation.features(mean=notation.window(Job, Job.cost.col.mean(), by=Trip.team, over=ticks(5)))
    assert offline.build(features, Trip, histories.asking(Trip, [trip(1, 6)]), tables)["mean"].to_list() == [2.0**62]
