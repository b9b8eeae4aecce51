"""A compiled expression says what Polars says, to the last bit, or is not compiled: random expressions over random rows.

The rules of translation are held to it by themselves, without the proof that every closure passes before it answers; then both
together, with what is left to Polars.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.learn.features import compiled
from flyball.learn.features.closures import proof, times
from flyball.learn.features.closures.reading import Reading
from flyball.learn.features.closures.taking import take
from flyball.learn.features.closures.term import FAILURES, Unsure, Untranslated

SCHEMA: dict[str, pl.DataType] = {
    "i8": pl.Int8(),
    "i16": pl.Int16(),
    "i32": pl.Int32(),
    "i64": pl.Int64(),
    "u8": pl.UInt8(),
    "u32": pl.UInt32(),
    "u64": pl.UInt64(),
    "f32": pl.Float32(),
    "f64": pl.Float64(),
    "g64": pl.Float64(),
    "b": pl.Boolean(),
    "c": pl.Boolean(),
    "s": pl.String(),
    "r": pl.String(),
    "k": pl.Categorical(),
    "e": pl.Enum(["no", "a", "Zz", "-1"]),
    "d": pl.Date(),
    "d2": pl.Date(),
    "t": pl.Datetime("us", "UTC"),
    "z": pl.Datetime("us", "Europe/Berlin"),
    "w": pl.Datetime("us"),
    "w2": pl.Datetime("us"),
    "u": pl.Duration("us"),
    "x": pl.Decimal(10, 2),
    "ms": pl.Datetime("ms", "UTC"),
}
NUMBERS = ["i8", "i16", "i32", "i64", "u8", "u32", "u64", "f32", "f64", "g64", "f64", "i64"]
LITERALS: list[Any] = [0, 1, -1, 2, 3, 7, 10, 60, 300, -200, 2**40, 0.0, -0.0, 0.1, 0.5, 1.5, 3.0, -2.75, 1e300, 100.0]
TEXTS = ["", "a", "b", "no", "-1", "é", "Zz"]
ZONES = ["America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def number(draw: Draw, depth: int) -> pl.Expr:
    def deeper() -> pl.Expr:
        return number(draw, depth - 1)

    if depth <= 0 or draw(st.integers(0, 9)) == 0:
        literal = draw(st.integers(0, 3)) == 0
        return pl.lit(draw(st.sampled_from(LITERALS))) if literal else pl.col(draw(st.sampled_from(NUMBERS)))
    match draw(st.integers(0, 17)):
        case 0 | 1 | 2 | 3:
            left, right = deeper(), deeper()
            made = [left + right, left - right, left * right, left / right, left // right, left % right]
            return draw(st.sampled_from(made))
        case 4:
            x = deeper()
            return draw(st.sampled_from([-x, x.abs(), x.sign(), x.floor(), x.ceil(), x.round(), x.round(2)]))
        case 5:
            x = deeper()
            return draw(st.sampled_from([x.log(), x.log10(), x.log1p(), x.exp(), x.sqrt(), x.sin(), x.cos()]))
        case 6:
            return deeper() ** draw(st.sampled_from([0, 1, 2, 3, 0.5, 2.0, -1]))
        case 7 | 8:
            no = pl.lit(None) if draw(st.booleans()) else deeper()
            return pl.when(truth(draw, depth - 1)).then(deeper()).otherwise(no)
        case 9:
            kinds = [pl.Int8, pl.Int32, pl.Int64, pl.UInt8, pl.UInt64, pl.Float32, pl.Float64]
            return deeper().cast(draw(st.sampled_from(kinds)), strict=draw(st.booleans()))
        case 10:
            return truth(draw, depth - 1).cast(draw(st.sampled_from([pl.Int8, pl.UInt32, pl.Float64, pl.Float32])))
        case 11:
            low, high = draw(st.sampled_from([(0, 10), (-1.5, 2), (None, 5), (0, None), (0.0, 1.0), (-300, 300)]))
            return deeper().clip(low, high)
        case 12:
            return draw(st.sampled_from([pl.max_horizontal, pl.min_horizontal, pl.coalesce]))(
                deeper(), deeper(), deeper()
            )
        case 13:
            return deeper().fill_null(draw(st.sampled_from(LITERALS)))
        case 14:
            return deeper().fill_nan(draw(st.sampled_from([0, 0.0, -1.5])))
        case 15:
            x = text(draw, depth - 1)
            return draw(st.sampled_from([x.str.len_chars(), x.str.len_bytes(), pl.col("e").to_physical()]))
        case 16:
            x = moment(draw)
            calendar = ["weekday", "day", "month", "year", "ordinal_day", "quarter", "week", "iso_year"]
            shown = ["hour", "minute", "second", "millisecond", *calendar]
            return getattr(x.dt, draw(st.sampled_from(shown)))()
        case _:
            spans = ["total_days", "total_hours", "total_minutes", "total_seconds", "total_milliseconds"]
            span = getattr(duration(draw).dt, draw(st.sampled_from(spans)))
            return span(fractional=draw(st.booleans())) if draw(st.booleans()) else moment(draw).dt.epoch("s")


def truth(draw: Draw, depth: int) -> pl.Expr:
    if depth <= 0 or draw(st.integers(0, 9)) == 0:
        return pl.col(draw(st.sampled_from(["b", "c"]))) if draw(st.integers(0, 4)) else pl.lit(draw(st.booleans()))
    match draw(st.integers(0, 8)):
        case 0 | 1:
            return compared(draw, number(draw, depth - 1), number(draw, depth - 1))
        case 2:
            x, y = truth(draw, depth - 1), truth(draw, depth - 1)
            return draw(
                st.sampled_from([x & y, x | y, x ^ y, ~x, x == y, pl.any_horizontal(x, y), pl.all_horizontal(x, y)])
            )
        case 3:
            x = number(draw, depth - 1)
            asked = [x.is_null(), x.is_not_null(), x.is_nan(), x.is_not_nan(), x.is_finite(), x.is_infinite()]
            return draw(st.sampled_from(asked))
        case 4:
            x = number(draw, depth - 1)
            closed = draw(st.sampled_from(["both", "left", "right", "none"]))
            low, high = (draw(st.sampled_from(LITERALS)) for _ in "lh")
            listed = draw(st.sampled_from([[1, 2, 3], [0.0, 1.5], [], [1, None], [-1, 300], [math.nan]]))
            return draw(st.sampled_from([x.is_between(low, high, closed=closed), x.is_in(listed)]))
        case 5:
            x, what = text(draw, depth - 1), draw(st.sampled_from(TEXTS))
            found = [x.str.starts_with(what), x.str.ends_with(what), x.str.contains(what, literal=True)]
            return draw(st.sampled_from([*found, x.str.contains("a.")]))
        case 6:
            x = draw(st.sampled_from([text(draw, depth - 1), pl.col("e"), pl.col("k")]))
            if draw(st.booleans()):
                return compared(draw, x, pl.lit(draw(st.sampled_from(TEXTS))))
            return x.is_in(draw(st.lists(st.sampled_from(TEXTS))))
        case 7:
            return compared(draw, moment(draw), moment(draw))
        case _:
            return truth(draw, depth - 1).fill_null(draw(st.booleans()))


def compared(draw: Draw, x: pl.Expr, y: pl.Expr) -> pl.Expr:
    return draw(st.sampled_from([x == y, x != y, x < y, x <= y, x > y, x >= y, x.eq_missing(y), x.ne_missing(y)]))


def text(draw: Draw, depth: int) -> pl.Expr:
    if depth <= 0 or draw(st.integers(0, 4)) == 0:
        return pl.col(draw(st.sampled_from(["s", "r", "s", "r", "e", "k"])))
    x = text(draw, depth - 1)
    match draw(st.integers(0, 6)):
        case 0:
            return x + text(draw, depth - 1)
        case 1:
            return pl.concat_str(x, pl.lit("-"), text(draw, depth - 1), separator=draw(st.sampled_from(["", "/"])))
        case 2:
            start, length = draw(st.integers(-3, 3)), draw(st.sampled_from([None, 0, 1, 4]))
            return draw(st.sampled_from([x.str.slice(start, length), x.str.head(start), x.str.tail(start)]))
        case 3:
            return draw(st.sampled_from([x.str.to_lowercase(), x.str.to_uppercase(), x.str.strip_chars()]))
        case 4:
            return pl.when(truth(draw, depth - 1)).then(x).otherwise(pl.lit(draw(st.sampled_from(TEXTS))))
        case 5:
            return number(draw, depth - 1).cast(pl.String)
        case _:
            return x.fill_null(draw(st.sampled_from(TEXTS)))


def moment(draw: Draw) -> pl.Expr:
    match draw(st.integers(0, 7)):
        case 0:
            return pl.col(draw(st.sampled_from(["d", "d2"])))
        case 1 | 2:
            x = pl.col(draw(st.sampled_from(["t", "z"])))
            return x.dt.convert_time_zone(draw(st.sampled_from(ZONES)))
        case 3:
            return pl.col("z").dt.replace_time_zone(None)
        case 4:
            return pl.col(draw(st.sampled_from(["t", "z", "w"]))) + duration(draw)
        case 5:
            return pl.lit(
                draw(st.sampled_from([datetime(2020, 3, 1), datetime(2020, 3, 1, tzinfo=UTC), date(2024, 2, 29)]))
            )
        case 6:
            return pl.col(draw(st.sampled_from(["z", "w"]))).dt.date()
        case _:
            return pl.col(draw(st.sampled_from(["t", "w", "z", "ms"])))


def duration(draw: Draw) -> pl.Expr:
    pairs = [("w", "w2"), ("d", "d2"), ("t", "t"), ("t", "z"), ("d", "w")]
    match draw(st.integers(0, 3)):
        case 0:
            return pl.col("u")
        case 1:
            return pl.lit(timedelta(hours=1, microseconds=7))
        case _:
            left, right = draw(st.sampled_from(pairs))
            return pl.col(left) - pl.col(right)


@st.composite
def expressions(draw: Draw) -> pl.Expr:
    return draw(st.sampled_from([number, number, truth, text]))(draw, draw(st.integers(1, 4)))


def _rows() -> list[dict[str, Any]]:
    """Borders of all types beside each other, and moments in the zone of their column, twice told ones among them."""
    plain = {n: t for n, t in SCHEMA.items() if n not in ("x", "ms")}
    rows = proof.rows(plain, [])
    chance = random.Random(7)
    chance.shuffle(rows)
    for row in rows:
        if row["z"] is not None and datetime(2, 1, 1, tzinfo=UTC) < row["z"] < datetime(9998, 1, 1, tzinfo=UTC):
            row["z"] = row["z"].astimezone(ZoneInfo("Europe/Berlin"))
        row["f64"] = chance.choice([row["f64"], chance.randrange(-50, 50)])
        row["x"], row["ms"] = None, None
    return rows[:160]


ROWS = _rows()


def sure(expression: pl.Expr) -> tuple[list[int], list[Any]] | None:
    """Which rows the bare closure answers, and how; None if there is none."""
    try:
        term = Reading(FRAME.clear()).term(expression)
    except Untranslated:
        return None
    takes = {n: take(t) for n, t in SCHEMA.items() if n in expression.meta.root_names()}
    where, said = [], []
    for position, row in enumerate(ROWS):
        try:
            value = term.run({n: None if row[n] is None else taken(row[n]) for n, taken in takes.items()})
        except Unsure:
            continue
        where.append(position)
        said.append(value)
    return where, said


FRAME = pl.DataFrame([tuple(r[n] for n in SCHEMA) for r in ROWS], schema=SCHEMA, orient="row")


def canonical(found: pl.Series) -> list[Any]:
    return (found.to_physical() if found.dtype.is_temporal() else found).to_list()


@profile(400)
@given(expressions())
def test_the_rules_of_translation_are_exact(expression: pl.Expr) -> None:
    answered = sure(expression)
    if answered is None or not expression.meta.root_names() or not answered[0]:
        return
    where, said = answered
    try:
        found = FRAME[where].select(expression.alias("value"))["value"]
    except FAILURES:
        return  # fails for every row, so the proof refuses it
    differ = [(ROWS[p], a, b) for p, a, b in zip(where, said, canonical(found), strict=True) if not proof.equal(a, b)]
    assert not differ, (differ[0][1:], {n: differ[0][0][n] for n in expression.meta.root_names()})


@profile(150)
@given(st.lists(expressions(), min_size=1, max_size=4), st.integers(0, len(ROWS) - 1))
def test_a_request_is_answered_as_in_a_frame_of_many_rows(drawn: list[pl.Expr], position: int) -> None:
    """Whoever computes: closures, Polars, or both beside each other. Where Polars fails, so does the answer."""
    named = {str(i): e for i, e in enumerate(drawn) if valid(e)}
    answers = compiled.compile(named, SCHEMA)
    for row in (ROWS[position], ROWS[position - 1]):
        request = {n: v for n, v in row.items() if v is not None}  # a missing column is null
        frame = pl.DataFrame([tuple(row[n] for n in SCHEMA)] * 3, schema=SCHEMA, orient="row")
        try:
            found = frame.select(pl.lit(0).alias("rows"), **named).row(0)[1:]
        except FAILURES:
            with pytest.raises(FAILURES):
                answers(request)
            continue
        said = answers(request)
        assert len(said) == len(found)
        assert all(map(proof.equal, said, found)), [(str(e), a, b) for e, a, b in zip(drawn, said, found, strict=False)]


def valid(expression: pl.Expr) -> bool:
    """Whether Polars computes it at all: `meaning.check` refuses what it does not."""
    try:
        FRAME.clear().select(expression.alias("value"))
    except FAILURES:
        return False
    return True


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_offsets_of_a_zone_are_those_of_polars_at_every_change_and_between(zone: str) -> None:
    since, offset = times.offsets(zone)
    moments = sorted(
        {m for change in since[1:] for m in (change - 1, change, change + 1)} | set(range(0, times.LAST, 10**13))
    )
    at = times.offset_at(zone)
    utc = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    wall = utc.dt.convert_time_zone(zone).dt.replace_time_zone(None).to_physical()
    assert (wall - utc.to_physical()).to_list() == [at(m) for m in moments]
    assert len(since) == len(offset) > 20
