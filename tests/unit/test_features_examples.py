"""Examples: which version a question was asked with, what is learned and what is only counted; the same bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import DataError, StateError
from flyball._kernel.ids import digest
from flyball.data.contract import Contract, before, event_time, outcome, outcome_time, personal
from flyball.learn import examples
from flyball.learn.examples import Counts
from flyball.learn.features import notation
from flyball.learn.model import Model, model
from tests.oracles.histories import at, frame, ticks


class Order(Contract):
    order = dy.String(primary_key=True)
    ships = event_time(dy.Datetime(time_zone="UTC"), known=before(ticks(10)))
    promised = dy.Datetime(time_zone="UTC", nullable=True)
    shop = dy.Enum(["a", "b"])
    buyer = personal(dy.String(nullable=True))
    arrived = outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=ticks(30))
    days = outcome(dy.Float64(nullable=True))


FEATURES = notation.features(
    Order.shop,
    shop_days=notation.window(Order, Order.days.col.mean(), by=Order.shop, over=ticks(50)),
)


def learner(moment: Any = Order.ships, lead: int = 4) -> Model:
    @model(FEATURES, predicts=Order.days, asked=before(moment, ticks(lead)))
    def shipping() -> None: ...

    return shipping


def order(order: str, ships: int, batch: int = 1, arrived: int | None = None, **rest: Any) -> dict[str, Any]:
    row = {"order": order, "ships": at(ships), "promised": at(ships), "shop": "a", "buyer": f"of {order}"}
    row |= {"arrived": None if arrived is None else at(arrived), "days": None if arrived is None else float(arrived)}
    row |= {"_batch": batch, "_known": at(ships - 10), "_outcome_known": row["arrived"]}
    return row | rest


def build(*rows: dict[str, Any], cutoff: int = 1000, model: Model | None = None) -> examples.Examples:
    return examples.build(model or learner(), {"Order": frame(Order, rows).lazy()}, at(cutoff))


def asked(built: examples.Examples) -> list[tuple[Any, ...]]:
    moments = [moment.microsecond for moment in built.asked]
    return list(zip(built.request("order"), moments, built.request("shop"), built.label, strict=True))


def test_every_question_is_counted_once() -> None:
    rows = [
        order("learned", 20, arrived=50),
        order("settles at the cutoff", 20, arrived=100),
        order("settled without a value", 20, arrived=50, days=None),
        order("just void", 70),
        order("not yet void", 71),
        order("asked at the cutoff", 104),
        order("known at the cutoff", 110, arrived=50),
    ]
    built = build(*rows, cutoff=100)
    assert built.counts == Counts(learned=1, void=3, unsettled=1, unaskable=0)
    assert asked(built) == [("learned", 16, "a", 50.0)]
    assert [moment.microsecond for moment in built.settled] == [50]


def test_a_correction_before_the_question_moves_it() -> None:
    late = {"shop": "b", "_known": at(15)}
    assert asked(build(order("x", 20), order("x", 30, 2, 50, **late))) == [("x", 26, "b", 50.0)]


def test_a_correction_after_the_question_does_not() -> None:
    """But its outcome is the label, whatever the first one said."""
    late = {"shop": "b", "_known": at(16), "days": 7.0}
    assert asked(build(order("x", 20, arrived=40), order("x", 30, 2, 50, **late))) == [("x", 16, "a", 7.0)]


def test_a_row_that_came_late_was_carried_by_its_request() -> None:
    """As it came first, however it was corrected later."""
    rows = [order("x", 20, arrived=50, _known=at(60)), order("x", 90, 2, 50, shop="b", _known=at(70))]
    assert asked(build(*rows)) == [("x", 16, "a", 50.0)]
    assert build(*rows, cutoff=60).counts == Counts(learned=0, void=0, unsettled=0, unaskable=0)


def test_an_outcome_that_was_taken_back_is_not_learned() -> None:
    rows = [order("x", 20, arrived=30), order("x", 20, 2, _known=at(40))]
    assert asked(build(*rows, cutoff=40)) == [("x", 16, "a", 30.0)]
    assert build(*rows, cutoff=41).counts == Counts(learned=0, void=0, unsettled=1, unaskable=0)
    assert build(*rows, cutoff=50).counts == Counts(learned=0, void=1, unsettled=0, unaskable=0)


def test_what_nobody_would_have_asked() -> None:
    """No moment; a moment before the row was known by its own declaration; a moment that had passed when it was named."""
    by_promise = learner(Order.promised, 0)
    rows = [
        order("no moment", 20, arrived=50, promised=None),
        order("before it was known", 20, arrived=50, promised=at(9)),
        order("when it was known", 20, arrived=50, promised=at(10)),
        order("named when it passes", 20, arrived=50, promised=None),
        order("named when it passes", 20, 2, 50, promised=at(12), _known=at(12)),
        order("moved into the past", 20, promised=at(25)),
        order("moved into the past", 20, 2, 50, promised=at(11), _known=at(12)),
    ]
    built = build(*rows, model=by_promise)
    assert built.counts == Counts(learned=1, void=0, unsettled=0, unaskable=4)
    assert asked(built) == [("when it was known", 10, "a", 50.0)]


def test_examples_are_in_the_order_of_asking_and_then_of_the_key() -> None:
    built = build(
        order("c", 20, arrived=50), order("b", 21, arrived=50), order("a", 21, arrived=50), order("d", 19, arrived=50)
    )
    assert built.request("order").to_list() == ["d", "c", "a", "b"]


def test_people_are_left_out() -> None:
    built = build(order("x", 20, arrived=50))
    assert built.frame.columns == [
        "_asked",
        *(f"_request.{n}" for n in ("order", "ships", "promised", "shop")),
        "_label",
        "_settled",
        "shop",
        "shop_days",
    ]
    assert built.inputs.columns == list(built.features) == ["shop", "shop_days"]


def test_no_rows_are_no_examples() -> None:
    built = build()
    assert built.counts == Counts(learned=0, void=0, unsettled=0, unaskable=0)
    assert built.frame.schema == build(order("x", 20, arrived=50)).frame.schema
    assert examples.from_bytes(examples.to_bytes(built)).frame.equals(built.frame)


def test_a_table_is_needed() -> None:
    with pytest.raises(DataError, match="table-not-given"):
        examples.build(learner(), {}, at(0))


def many() -> examples.Examples:
    """Enough for several threads; nulls in features, and rows in an order that says nothing."""
    rows = [
        order(f"o{n}", n * 7919 % 20_011, arrived=n * 7919 % 20_011 + n % 40, shop="ab"[n % 3 % 2])
        for n in range(20_000)
    ]
    return build(*rows, cutoff=10**6)


def test_bytes_are_read_back_whole() -> None:
    built = many()
    data = examples.to_bytes(built)
    again = examples.from_bytes(data)
    assert (again.features, again.counts) == (built.features, built.counts)
    assert again.frame.schema == built.frame.schema
    assert again.frame.equals(built.frame)
    assert examples.to_bytes(again) == data


def test_the_same_examples_are_the_same_bytes_in_another_process() -> None:
    """On one thread, too."""
    code = (
        "from flyball._kernel.ids import digest; from flyball.learn import examples; "
        "from tests.unit.test_features_examples import many; print(digest(examples.to_bytes(many())))"
    )
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(examples.to_bytes(many()))


@pytest.mark.parametrize("metadata", [{}, {"flyball.examples": "{}"}, {"flyball.examples": "no JSON"}])
def test_other_bytes_are_refused(metadata: dict[str, str], tmp_path: Any) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other", metadata=metadata)
    with pytest.raises(StateError, match="examples-unreadable"):
        examples.from_bytes((tmp_path / "other").read_bytes())
    with pytest.raises(StateError, match="examples-unreadable"):
        examples.from_bytes(b"PAR1 and then something else PAR1")
