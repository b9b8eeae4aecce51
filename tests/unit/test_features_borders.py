"""Features at the borders of what Polars, numpy and a function of the user do: one row alone, spans without end, odd names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import DataError, DeclarationError
from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.memory.online import MemoryOnline
from flyball.data import contract, dataset
from flyball.data.contract import Contract, event_time, outcome, outcome_time, personal
from flyball.learn.features import batches, meaning, notation, offline
from flyball.learn.features.declare import FeatureSet
from flyball.learn.features.lookup import Lookup
from tests.oracles.histories import at, ticks


class Stay(Contract):
    stay = dy.Int64(primary_key=True)
    begun = event_time(dy.Datetime(time_zone="UTC"))
    town = dy.String(nullable=True)
    guest = personal(dy.String(nullable=True))
    nights = dy.Float64(nullable=True)
    paid_at = outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    paid = outcome(dy.Float64(nullable=True))


SPEC = contract.spec(Stay)
VALUES = [0.1 + 1.1 * n for n in range(60)]


def stay(n: int, *, batch: int = 1, known: int | None = None, **rest: Any) -> dict[str, Any]:
    row = {"stay": n, "begun": at(n), "town": "ab"[n % 2], "guest": "ann", "nights": VALUES[n % 60]}
    row |= {"paid_at": None, "paid": None, "_batch": batch, "_known": at(n if known is None else known)}
    row |= {"_outcome_known": None} | rest
    return row | {"_outcome_known": row["_outcome_known"] or row["paid_at"]}


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dataset.schema(SPEC))


def asked(*questions: dict[str, Any]) -> pl.DataFrame:
    schema = {c.name: c.dtype for c in SPEC.request} | {"_asked": pl.Datetime("us", "UTC")}
    return pl.DataFrame([{n: q.get(n) for n in schema} for q in questions], schema=schema)


def question(n: int, tick: int) -> dict[str, Any]:
    return stay(n) | {"_asked": at(tick)}


def of(**named: Any) -> FeatureSet:
    return notation.features(**named)


def over(value: Any, *spans: timedelta, **rest: Any) -> Any:
    return notation.window(Stay, value, by=Stay.town, over=spans or ticks(50), **rest)


def online(features: FeatureSet, rows: pl.DataFrame, questions: pl.DataFrame, *, store: Any = None) -> list[list[Any]]:
    """Row by row, as they come."""
    store = store or MemoryOnline()
    for batch in sorted(rows["_batch"].unique()):
        batches.update(store, features, {"Stay": rows.filter(pl.col("_batch") <= batch).lazy()})
    lookup = Lookup(features, Stay, store)
    return [lookup({k: v for k, v in row.items() if k != "_asked"}, row["_asked"]) for row in questions.to_dicts()]


LAID: dict[str, Callable[[pl.DataFrame, int], pl.DataFrame]] = {
    "new": lambda all_, n: pl.DataFrame({"x": [all_["x"][n]]}),
    "cut out": lambda all_, n: all_[n],
    "gathered twice": lambda all_, n: all_[[n, n]],
    "a chunk of its own": lambda all_, n: pl.concat([all_[n], all_], rechunk=False),
    "a constant": lambda all_, n: all_.with_columns(x=pl.lit(all_["x"][n])),
    "filtered": lambda all_, n: all_.lazy().filter(pl.col("x") == all_["x"][n]).collect(),
}


@pytest.mark.parametrize("laid", LAID)
def test_a_row_is_computed_alike_however_it_is_laid_out(laid: str) -> None:
    """Polars divides by a literal in two ways, which differ in the last bit."""
    all_ = pl.DataFrame({"x": VALUES})
    truth = all_.select(pl.col("x") / 3).to_series().to_list()
    frames = [LAID[laid](all_, n) for n in range(all_.height)]
    assert [meaning.of_each(frame, y=pl.col("x") / 3).item(0, 0) for frame in frames] == truth
    assert [meaning.of_each(frame, y=pl.col("x") / 3).height for frame in frames] == [f.height for f in frames]


def test_small_batches_make_what_history_makes(tmp_path: Path) -> None:
    rows = [stay(n, batch=n + 1) for n in range(40)]
    features = of(
        mean=over((Stay.nights.col / 3).mean()), most=over((Stay.nights.col / 7).max()), third=Stay.nights.col / 3
    )
    questions = asked(*(question(100 + n, n + 2) for n in range(40)))
    whole = offline.build(features, Stay, questions, {"Stay": table(*rows).lazy()})
    parts = pl.concat([table(row) for row in rows], rechunk=False)
    assert offline.build(features, Stay, questions, {"Stay": parts.lazy()}).rows() == whole.rows()
    assert online(features, parts, questions) == [list(row) for row in whole.rows()]
    store = SqlOnline(tmp_path / "online.sqlite")
    assert online(features, parts, questions, store=store) == [list(row) for row in whole.rows()]
    store.close()


@pytest.mark.parametrize("name", ["self", "rows", "exprs", "named", "given"])
def test_any_name_is_a_name(name: str) -> None:
    built = offline.build(of(**{name: Stay.nights.col + 1}), Stay, asked(question(1, 5)), {})
    assert built[name].to_list() == [VALUES[1] + 1]


def test_a_span_may_be_without_end() -> None:
    ever = timedelta.max
    features = of(
        sum=over(Stay.nights.col.count(), ever),
        max=over(Stay.nights.col.max(), ever),
        ago=over(notation.since_last(), ever),
        none=over(pl.len(), ever, gap=ever),
        last=notation.latest(Stay, by=Stay.town, max_age=ever, columns=[Stay.nights]),
    )
    rows, questions = table(*(stay(n) for n in range(6))), asked(question(8, 9), question(9, 9))
    built = offline.build(features, Stay, questions, {"Stay": rows.lazy()})
    assert built.rows() == [(3, VALUES[4], 5e-6, 0, VALUES[4]), (3, VALUES[5], 4e-6, 0, VALUES[5])]
    assert online(features, rows, questions) == [list(row) for row in built.rows()]


@pytest.mark.parametrize("value", [1e300, -(2.0**60)])
def test_what_is_counted_need_not_add_up(value: float) -> None:
    features = of(n=over(Stay.nights.col.count()))
    rows, questions = table(stay(1, nights=value), stay(3, nights=float("nan"))), asked(question(5, 9))
    assert offline.build(features, Stay, questions, {"Stay": rows.lazy()})["n"].to_list() == [1]
    assert online(features, rows, questions) == [[1]]


@pytest.mark.parametrize("how", ["max", "n_unique", "median"])
def test_a_row_that_turns_out_to_be_older_is_found_by_its_first_moment(how: str, tmp_path: Path) -> None:
    """A later batch holds an earlier version: the later one counts from then on, and from then on only."""
    value = getattr(Stay.nights.col, how)()
    features, questions = of(seen=over(value, ticks(8), ticks(30))), asked(*(question(9, t) for t in range(5, 40)))
    rows = table(stay(1, batch=1, known=20), stay(1, batch=2, known=10), stay(3, batch=1, known=12))
    built = offline.build(features, Stay, questions, {"Stay": rows.lazy()})
    store = SqlOnline(tmp_path / "online.sqlite")
    assert online(features, rows, questions) == [list(row) for row in built.rows()]
    assert online(features, rows, questions, store=store) == [list(row) for row in built.rows()]
    store.close()


def test_an_outcome_said_again_before_it_settles_counts_once_known() -> None:
    """What says the same twice is one, but not where only the second was known in time."""
    features, questions = of(paid=over(Stay.paid.col.sum(), ticks(99))), asked(*(question(9, t) for t in range(1, 40)))
    rows = table(
        stay(1, batch=1, known=2, paid=1.0, paid_at=at(5)),
        stay(1, batch=2, known=10, paid=2.0, paid_at=at(30)),
        stay(1, batch=3, known=20, paid=2.0, paid_at=at(20)),
    )
    built = offline.build(features, Stay, questions, {"Stay": rows.lazy()})
    assert online(features, rows, questions) == [list(row) for row in built.rows()]


# --- functions


def function(call: Callable[[pl.DataFrame], Any], returns: Any = pl.Float64, column: Any = Stay.nights) -> FeatureSet:
    return of(made=notation.function(call, column, returns=returns))


def made(features: FeatureSet, n: int = 40) -> list[Any]:
    return offline.build(features, Stay, asked(*(question(k, k) for k in range(n))), {})["made"].to_list()


def test_a_function_may_change_its_frame() -> None:
    assert made(function(lambda frame: frame.drop_in_place("nights")))[:2] == VALUES[:2]


def test_a_function_that_divides_is_row_wise() -> None:
    features = function(lambda frame: frame.select(pl.col("nights") / 3).to_series())
    questions = asked(*(question(k, k) for k in range(40)))
    assert [[v] for v in made(features)] == online(features, table(), questions)


def test_nothing_but_nulls_has_the_promised_type() -> None:
    assert made(function(lambda frame: pl.Series([v if v > 3 else None for v in frame["nights"]])), 3) == [None] * 3
    assert made(function(lambda frame: pl.Series(list(frame["nights"]))), 0) == []


def test_a_function_may_yield_one_of_a_few() -> None:
    few = pl.Enum(["a", "b"])
    assert made(function(lambda frame: frame["town"].cast(few), few, Stay.town), 3) == ["a", "b", "a"]


def test_a_function_that_fails_is_told_by_its_line_and_quotes_nobody() -> None:
    def fails(frame: pl.DataFrame) -> pl.Series:
        raise KeyError(frame["guest"][0])

    with pytest.raises(DeclarationError, match="function-failed") as caught:
        made(function(fails, column=Stay.guest))
    assert "KeyError" in str(caught.value)
    assert "ann" not in str(caught.value)
    assert f"{Path(__file__).name}:{fails.__code__.co_firstlineno + 1}" in str(caught.value)


@pytest.mark.parametrize(("columns", "returns"), [((), pl.Float64), ((Stay.town,), "number")])
def test_a_function_of_nothing_or_of_no_type_is_refused(columns: tuple[Any, ...], returns: Any) -> None:
    with pytest.raises(DeclarationError, match="feature-of-unknown-kind"):
        notation.function(lambda frame: frame["town"], *columns, returns=returns)


# --- declarations, and what is said of values


def test_a_latest_of_no_column_is_refused() -> None:
    with pytest.raises(DeclarationError, match="no-such-column"):
        meaning.check(of(last=notation.latest(Stay, by=Stay.town, columns=[])), Stay)


def test_a_pair_is_of_two() -> None:
    by: Any = (Stay.town, Stay.town, Stay.town)
    with pytest.raises(DeclarationError, match="no-such-column"):
        notation.latest(Stay, by=by)


def test_a_value_of_another_type_is_not_repeated() -> None:
    with pytest.raises(DataError, match="value-not-comparable") as caught:
        meaning.scalar(b"ann")
    assert "ann" not in str(caught.value)
