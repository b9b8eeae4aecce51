"""Contracts that change: which changes are compatible, which break, and which the stored rows decide."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dataframely as dy
import msgspec
import polars as pl
import pytest

import flyball as fb
from flyball._kernel.errors import DeclarationError
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.data.evolution import evolve

TIME = datetime(2020, 1, 1, tzinfo=UTC)


def made(**columns: dy.Column) -> type[Contract]:
    usual = {"id": dy.String(primary_key=True), "t": fb.event_time(dy.Datetime(time_zone="UTC"))}
    return type(Contract)("Flight", (Contract,), {**usual, "distance": dy.Int32(min=1, max=100), **columns})


def kinds(old: type[Contract], new: type[Contract]) -> dict[str, str]:
    return {f"{c.column}: {c.what}": c.kind for c in evolve.diff(evolve.shape(old), evolve.shape(new))}


@pytest.mark.parametrize(
    ("columns", "said", "kind"),
    [
        ({"more": dy.Int32(nullable=True, min=3)}, "more: added, nullable", "compatible"),
        ({"more": dy.Int32()}, "more: added, not nullable", "breaking"),
        ({"distance": dy.Int32(min=1, max=200)}, "distance: max 100 -> 200", "compatible"),
        ({"distance": dy.Int32(min=2, max=100)}, "distance: min 1 -> 2", "narrowing"),
        ({"distance": dy.Int32(min=1)}, "distance: rule max dropped", "compatible"),
        ({"id": dy.String(primary_key=True, regex="^[A-Z]$")}, "id: rule regex added", "narrowing"),
        ({"distance": dy.Int64(min=1, max=100)}, "distance: Int32 -> Int64", "breaking"),
        ({"distance": dy.Int32(min=1, max=100, nullable=True)}, "distance: nullable now", "compatible"),
        ({"distance": dy.Int32(min=1, max=100, primary_key=True)}, "key: key id -> id, distance", "breaking"),
        ({"distance": fb.personal(dy.Int32(min=1, max=100))}, "distance: now personal", "compatible"),
    ],
)
def test_each_change_is_judged(columns: dict[str, dy.Column], said: str, kind: str) -> None:
    assert kinds(made(), made(**columns)) == {said: kind}


def test_spans_of_time_compare_by_their_length() -> None:
    two, ten = made(span=dy.Duration(min=timedelta(days=2))), made(span=dy.Duration(min=timedelta(days=10)))
    assert list(kinds(two, ten).values()) == ["narrowing"]
    assert list(kinds(ten, two).values()) == ["compatible"]


def test_what_is_taken_away_is_judged_too() -> None:
    wide = made(more=dy.Int32(), kind=dy.Enum(["a", "b"]))
    assert kinds(wide, made(kind=dy.Enum(["a", "b"]))) == {"more: removed": "breaking"}
    narrower = made(more=dy.Int32(), kind=dy.Enum(["a"]))
    assert kinds(wide, narrower) == {"kind: values narrowed: without b": "narrowing"}
    assert kinds(narrower, wide) == {"kind: values widened: also b": "compatible"}
    nullable = made(more=dy.Int32(nullable=True), kind=dy.String())
    assert kinds(nullable, made(more=dy.Int32(), kind=dy.String())) == {"more: no longer nullable": "narrowing"}
    assert kinds(nullable, nullable) == {}


def test_stored_rows_decide_on_a_narrowing() -> None:
    old = made(kind=dy.Enum(["a", "b"]), more=dy.Int32(nullable=True))
    new = made(kind=dy.Enum(["a"]), more=dy.Int32(), distance=dy.Int32(min=10, max=50))
    changes = evolve.diff(evolve.shape(old), evolve.shape(new))
    schema = evolve.stored_as(evolve.shape(old))
    cells = [("A", TIME, 10, "a", 1), ("B", TIME, 50, "a", 1), ("C", TIME, 60, "b", 1)]
    rows = pl.DataFrame(cells, schema=schema, orient="row").lazy()
    broken = evolve.breaks(rows, evolve.shape(old), new, changes)
    assert broken == {"distance|min": 0, "distance|max": 1, "kind|dtype": 1, "more|nullability": 0}
    settled = {c.rule: (c.kind, c.rows) for c in evolve.judged(changes, broken)}
    assert settled["distance|min"] == ("compatible", 0)
    assert settled["distance|max"] == ("breaking", 1)
    assert settled["kind|dtype"] == ("breaking", 1)


def test_a_rule_over_several_columns_is_compared_by_what_it_says() -> None:
    class Flight(Contract):
        id = dy.String(primary_key=True)
        t = fb.event_time(dy.Datetime(time_zone="UTC"))
        distance = dy.Int32(min=1, max=100)

        @dy.rule()
        def short(cls) -> pl.Expr:
            return cls.distance.col < 90

    assert kinds(made(), Flight) == {"short: rule short added": "narrowing"}
    assert kinds(Flight, made()) == {"short: rule short dropped": "compatible"}


def test_a_shape_survives_being_written() -> None:
    types = [
        pl.Enum(["a"]),
        pl.Datetime("ms", "UTC"),
        pl.List(pl.Struct({"x": pl.Array(pl.Int8(), 2)})),
        pl.Decimal(9, 2),
    ]
    assert [evolve.read_type(evolve.written(t)) for t in types] == types
    shape = evolve.shape(made(kind=dy.Enum(["a"])))
    assert msgspec.json.decode(msgspec.json.encode(shape), type=evolve.Shape) == shape


def test_versions_have_tables_of_their_own() -> None:
    def same(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows

    class Flight(fb.Contract, version=3, migrate={1: same, 2: same}):
        id = dy.String(primary_key=True)
        t = fb.event_time(dy.Datetime(time_zone="UTC"))

    assert (contract.spec(Flight).name, contract.spec(Flight).title) == ("Flight__3", "Flight")
    with pytest.raises(DeclarationError, match="migration-out-of-range"):

        class Wrong(fb.Contract, migrate=same):
            id = dy.String(primary_key=True)
