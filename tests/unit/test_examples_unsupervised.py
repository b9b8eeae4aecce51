"""What learns from no outcome also learns from questions that nothing came of; it is measured on the others alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dataframely as dy
import pytest

from flyball._kernel.errors import DataError
from flyball.data.contract import Contract, before, event_time, outcome, outcome_time
from flyball.learn import examples, split
from flyball.learn.examples import Counts
from flyball.learn.features import notation
from flyball.learn.model import model
from tests.oracles.histories import at, frame, ticks


class Payment(Contract):
    payment = dy.String(primary_key=True)
    paid = event_time(dy.Datetime(time_zone="UTC"))
    amount = dy.Float64()
    settled = outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=ticks(30))
    fraud = outcome(dy.Bool(nullable=True))


@model(
    notation.features(Payment.amount), predicts=Payment.fraud, asked=before(Payment.paid, ticks(0)), unsupervised=True
)
def odd() -> None: ...


@model(notation.features(Payment.amount), predicts=Payment.fraud, asked=before(Payment.paid, ticks(0)))
def taught() -> None: ...


def payment(name: str, paid: int, settled: int | None, fraud: bool | None) -> dict[str, Any]:
    row = {"payment": name, "paid": at(paid), "amount": float(paid), "fraud": fraud}
    row["settled"] = None if settled is None else at(settled)
    return row | {"_batch": 1, "_known": at(paid), "_outcome_known": row["settled"]}


ROWS = [
    payment("learned", 10, 20, False),
    payment("caught", 11, 21, True),
    payment("said later", 80, 200, True),
    payment("void", 12, None, None),
    payment("without a value", 13, 23, None),
    payment("unsettled", 85, None, None),
    payment("nonsense", 14, 14, True),
]


@pytest.fixture(scope="module")
def built() -> examples.Examples:
    return examples.build(odd, {"Payment": frame(Payment, ROWS).lazy()}, at(100))


def test_all_that_could_be_asked_is_there_with_the_label_that_was_known(built: examples.Examples) -> None:
    found = dict(zip(built.request("payment"), built.label, strict=True))
    assert found == {
        "learned": False,
        "caught": True,
        "void": None,
        "without a value": None,
        "said later": None,
        "unsettled": None,
    }
    assert built.counts == Counts(learned=2, void=2, unsettled=2, unaskable=1)
    assert built.settled.is_null().to_list() == built.label.is_null().to_list() == (~built.labelled).tolist()
    assert built.labels.dtype == bool and built.labels.sum() == 1
    again = examples.from_bytes(examples.to_bytes(built))
    assert again.frame.equals(built.frame)


def test_a_classifier_learns_from_what_came_of_it_alone() -> None:
    built = examples.build(taught, {"Payment": frame(Payment, ROWS).lazy()}, at(100))
    assert built.request("payment").to_list() == ["learned", "caught"]
    assert built.labelled.all() and built.counts == Counts(learned=2, void=2, unsettled=2, unaskable=1)


def test_they_train_and_are_never_measured() -> None:
    rows = [payment(f"{k}", k, k + 1 if k % 2 else None, k % 3 == 0 if k % 2 else None) for k in range(10, 90)]
    built = examples.build(odd, {"Payment": frame(Payment, rows).lazy()}, at(150))
    spans = split.cut(built, split.Bounds.between(at(60), at(90), split.by_time(ticks(20))))
    (fold,) = spans.folds
    assert (spans.fit.sum(), spans.test.sum(), fold.explore.sum(), fold.validation.sum()) == (49, 15, 29, 9)
    assert built.labelled[spans.test].all() and built.labelled[fold.validation].all()
    assert not built.labelled[spans.fit].all()


def test_without_any_outcome_it_is_said_that_some_are_needed(built: examples.Examples) -> None:
    blank = replace(built, frame=built.frame.with_columns(_label=None, _settled=None))
    with pytest.raises(DataError, match="None of 6 questions has an outcome") as refused:
        split.cut(blank, split.Bounds.before(at(100), split.by_time(ticks(10))))
    assert refused.value.code == "too-little-history"
