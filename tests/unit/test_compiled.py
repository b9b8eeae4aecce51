"""What must be compiled is; what must not, is not; and either way the value is that of many rows in Polars."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from flyball.learn.features import compiled
from flyball.learn.features.closures import proof
from flyball.learn.features.closures.reading import Reading
from flyball.learn.features.closures.taking import take
from flyball.learn.features.closures.term import Unsure

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "i": pl.Int64(),
    "i32": pl.Int32(),
    "i8": pl.Int8(),
    "f": pl.Float64(),
    "g": pl.Float64(),
    "f32": pl.Float32(),
    "b": pl.Boolean(),
    "b2": pl.Boolean(),
    "s": pl.String(),
    "k": pl.Categorical(),
    "e": pl.Enum(["AA", "BB", "CC"]),
    "d": pl.Date(),
    "d2": pl.Date(),
    "t": pl.Datetime("us", "UTC"),
    "t2": pl.Datetime("us", "UTC"),
    "w": pl.Datetime("us"),
    "z": pl.Datetime("us", "Europe/Berlin"),
    "u": pl.Duration("us"),
    "x": pl.Decimal(10, 2),
}
C = pl.col
HOUR = C.t.dt.convert_time_zone("America/New_York").dt.hour()
COMMON: dict[str, pl.Expr] = {
    "hour of a zone": HOUR,
    "hour on a circle": (HOUR * (2 * math.pi / 24)).sin(),
    "hour on a circle, cosine": (HOUR * 2 * math.pi / 24).cos(),
    "weekday": C.t.dt.weekday(),
    "weekend": C.t.dt.weekday() >= 6,
    "daypart": HOUR.is_between(6, 11).cast(pl.Int8),
    "minute of the day": C.t.dt.hour().cast(pl.Int32) * 60 + C.t.dt.minute(),
    "month": C.z.dt.month(),
    "year": C.z.dt.year(),
    "day of the year": C.z.dt.ordinal_day(),
    "quarter": C.z.dt.quarter(),
    "week": C.z.dt.week(),
    "minute of a wall": C.w.dt.minute(),
    "holidays": (C.d.dt.month() == 12) & (C.d.dt.day() >= 24),
    "lead": (C.t2 - C.t).dt.total_minutes(),
    "days between": (C.d - C.d2).dt.total_days(),
    "days to its date": (C.z.dt.date() - C.d).dt.total_days(),
    "hours": C.u.dt.total_hours(),
    "hours with a fraction": C.u.dt.total_hours(fractional=True),
    "since": (C.t - pl.lit(datetime(2020, 1, 1, tzinfo=UTC))).dt.total_seconds(),
    "later": C.t2 > C.t,
    "ratio": C.f / C.g,
    "third": C.f / 3,
    "whole by whole": C.i / C.i32,
    "sum": C.i + C.i32,
    "wraps round": C.i8 * C.i8 + C.i8,
    "modulus": C.i % 7,
    "whole division": C.i // 60,
    "float modulus": C.f % 3,
    "float modulus of columns": C.f % C.g,
    "float division": C.f // 3,
    "square": C.f**2,
    "whole square": C.i32**2,
    "root": C.f.sqrt(),
    "distance": (C.f - C.g).abs(),
    "negated": -C.i8,
    "greatest": pl.max_horizontal("f", "g"),
    "least": pl.min_horizontal("f", "g"),
    "coalesce": pl.coalesce("f", "g", pl.lit(0.0)),
    "clip": C.f.clip(0, 100),
    "logarithm": (C.f.clip(0) + 1).log(),
    "log1p": C.f.log1p(),
    "log10": C.f.log10(),
    "exponential": C.f.exp(),
    "round": C.f.round(2),
    "round to whole": C.f.round(),
    "floor": C.f.floor(),
    "ceil": C.f.ceil(),
    "single": C.f32 * 1.1,
    "single by literal": C.f32 / 3,
    "single and double": C.f32 + C.f,
    "single compared": C.f32 > 0.1,
    "whole and float compared": C.i > C.f,
    "fill": C.f.fill_null(0),
    "fill whole": C.i.fill_null(-1),
    "fill nan": C.f.fill_nan(0.0),
    "is null": C.f.is_null(),
    "is nan": C.f.is_nan(),
    "truth as number": C.b.cast(pl.Int8),
    "number as float": C.i.cast(pl.Float64),
    "between": C.i.is_between(1, 5),
    "half-open": C.f.is_between(1, 5.5, closed="left"),
    "and": C.b & (C.f > 1),
    "or not": C.b | ~C.b2,
    "xor": C.b ^ C.b2,
    "one of": C.s.is_in(["a", "b"]),
    "one of numbers": C.i8.is_in([1, 2]),
    "one of members": C.e.is_in(["AA", "CC"]),
    "member": C.e == "AA",
    "order of members": C.e > "AA",
    "place of a member": C.e.to_physical(),
    "category": C.k == "a",
    "length": C.s.str.len_chars(),
    "bytes": C.s.str.len_bytes(),
    "starts": C.s.str.starts_with("X"),
    "ends": C.s.str.ends_with("X"),
    "holds": C.s.str.contains("b", literal=True),
    "lower": C.s.str.to_lowercase(),
    "piece": C.s.str.slice(0, 2),
    "head": C.s.str.head(3),
    "route": C.s + "-" + C.id,
    "joined": pl.concat_str("s", "id", separator="-"),
    "flag": pl.when(C.f > 10).then(1).otherwise(0),
    "steps": pl.when(C.f > 100).then(pl.lit("hi")).when(C.f > 10).then(pl.lit("mid")).otherwise(pl.lit("lo")),
    "named": C.f.alias("other"),
}
LEFT: dict[str, pl.Expr] = {
    "a pattern": C.s.str.contains("a.b"),
    "an aggregate": C.f.mean(),
    "a running sum": C.f.cum_sum(),
    "a decimal": C.x * 2,
    "a literal": pl.lit(1),
    "a time": C.t.dt.date(),
    "another mode": C.f.round(2, mode="half_away_from_zero"),
    "a power": C.f**0.3,
    "a sine in single precision": C.f32.sin(),
    "a Python function": C.f.map_batches(lambda v: v + 1, return_dtype=pl.Float64, is_elementwise=True),
    "a wrapping cast": C.i.cast(pl.Int8, wrap_numerical=True),
    "unlike signs": C.i.cast(pl.UInt64) > C.i,
}


def asked(expression: pl.Expr, request: dict[str, Any], rows: int = 2) -> object:
    row = tuple(request.get(n) for n in SCHEMA)
    return pl.DataFrame([row] * rows, schema=SCHEMA, orient="row").select(expression.alias("value"))["value"][0]


def test_common_expressions_are_compiled() -> None:
    found = compiled.compile(COMMON, SCHEMA)
    assert [name for name, closure in found.closures.items() if closure is None] == []


def test_what_is_not_known_is_left_to_polars() -> None:
    found = compiled.compile(LEFT, SCHEMA)
    assert [name for name, closure in found.closures.items() if closure is not None] == []


def test_closures_and_polars_answer_beside_each_other_in_order() -> None:
    named = {"a": C.f * 2, "b": C.s.str.contains("a.b"), "c": C.i + 1, "d": C.f**0.3}
    found = compiled.compile(named, SCHEMA)
    request = {"f": 1.5, "s": "xaxb", "i": 4}
    assert list(found(request)) == [3.0, True, 5, asked(named["d"], request)]
    assert list(found({})) == [None, None, None, None]


def test_a_node_that_a_later_polars_may_write_otherwise_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = json.loads((C.f + 1).meta.serialize(format="json"))
    for changed in ("Add", "plus", 3, None, ["Plus"]):
        node = {"BinaryExpr": {**written["BinaryExpr"], "op": changed}}
        monkeypatch.setattr("flyball.learn.features.closures.reading.json.loads", lambda _, node=node: node)
        found = compiled.compile({"a": C.f + 1}, SCHEMA)
        assert found.closures["a"] is None
        assert list(found({"f": 1.0})) == [2.0]


def test_a_closure_that_differs_once_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof by itself: rules that are wrong for one value only."""
    plain = Reading.term

    def wrong(self: Reading, expression: pl.Expr) -> Any:
        term = plain(self, expression)
        object.__setattr__(term, "run", lambda row, run=term.run: 0.0 if row["f"] == 7.25 else run(row))
        return term

    assert compiled.compile({"a": C.f > 7.25}, SCHEMA).closures["a"] is not None
    monkeypatch.setattr(Reading, "term", wrong)
    assert compiled.compile({"a": C.f > 7.25}, SCHEMA).closures["a"] is None


def test_a_division_by_a_literal_is_that_of_many_rows() -> None:
    """Polars divides one row otherwise than many. A model learned from many."""
    third = C.f / 3
    answers = compiled.compile({"third": third, "length": C.s.str.len_chars()}, SCHEMA)
    value = next(v for v in map(float, range(1, 100)) if asked(third, {"f": v}, 1) != asked(third, {"f": v}, 2))
    many = pl.DataFrame({"f": [value] * 1000}).select(third)["f"]
    assert set(many) == {answers({"f": value})[0]}
    assert list(answers({"f": value, "s": 17})) == [many[0], 2]  # no text: the row goes to Polars whole


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("f", 3, 3.0),
        ("f", True, 1.0),
        ("f", 2**60 + 1, float(2**60 + 1)),
        ("f32", 0.1, 0.10000000149011612),
        ("f32", 1e300, math.inf),
        ("i", 2.0, 2),
        ("b", 1, True),
        ("s", 5, "5"),
    ],
)
def test_a_value_becomes_what_its_column_holds(column: str, value: object, said: object) -> None:
    same = C(column).cast(pl.Int8) if column == "b" else C(column)
    answers = compiled.compile({"a": same, "b": C(column).is_null()}, SCHEMA)
    assert answers.closures["a"] is not None
    assert proof.equal(answers({column: value})[0], int(said) if column == "b" else said)  # type: ignore[call-overload]


def test_what_polars_refuses_is_refused() -> None:
    answers = compiled.compile({"e": C.e == "AA", "i": C.i8 + 1, "cast": C.f.cast(pl.Int8)}, SCHEMA)
    assert all(answers.closures.values())
    assert list(answers({"e": "AA", "i8": 127, "f": -1.9})) == [True, -128, -1]
    for request in ({"e": "DD"}, {"i8": 128}, {"f": 300.0}, {"f": math.nan}):
        with pytest.raises(pl.exceptions.PolarsError):
            answers(request)


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2024, 3, 31, 1, 59, 59, 999_999, tzinfo=BERLIN),
        datetime(2024, 3, 31, 3, 0, tzinfo=BERLIN),
        datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
        datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime(1800, 1, 1, tzinfo=BERLIN),
        datetime(2150, 7, 1, 12, tzinfo=BERLIN),
    ],
)
def test_clocks_of_a_zone(moment: datetime) -> None:
    shown = {"hour": C.z.dt.hour(), "minute": C.z.dt.minute(), "day": C.z.dt.day(), "year": C.z.dt.year()}
    answers = compiled.compile(shown, SCHEMA)
    assert all(answers.closures.values())
    assert list(answers({"z": moment})) == [asked(e, {"z": moment}) for e in shown.values()]


def test_a_wall_time_that_is_skipped_is_no_moment() -> None:
    skipped = datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN)
    with pytest.raises(Unsure):
        take(SCHEMA["z"])(skipped)
    with pytest.raises(ValueError, match="timezone"):
        compiled.compile({"hour": C.z.dt.hour()}, SCHEMA)({"z": skipped})


def test_years_that_zones_are_not_known_for_are_left_to_polars_by_row() -> None:
    answers = compiled.compile({"hour": C.z.dt.hour()}, SCHEMA)
    run = answers.closures["hour"]
    assert run is not None
    assert run({"z": 0}) == 1
    for moment in (-1, 4_102_444_800_000_000):
        with pytest.raises(Unsure):
            run({"z": moment})


def test_dates_and_spans_are_taken_as_they_are() -> None:
    spans = {"days": (C.d - C.d2).dt.total_days(), "hours": C.u.dt.total_hours()}
    answers = compiled.compile(spans, SCHEMA)
    request = {"d": date(2024, 3, 1), "d2": date(2024, 2, 1), "u": -timedelta(hours=1, minutes=59)}
    assert list(answers(request)) == [29, -1]
