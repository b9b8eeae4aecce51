"""How a model learns beyond its estimator: what is refused where it is declared, and what rows weigh."""

from __future__ import annotations

from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import metrics
from flyball._kernel.errors import DataError, DeclarationError
from flyball.learn import model as models
from flyball.learn.fit import fold
from flyball.learn.model import Model
from flyball.learn.quality.measures import PLAIN


class Loan(fb.Contract):
    """A loan."""

    loan = dy.String(primary_key=True)
    asked = fb.event_time(dy.Datetime(time_zone="UTC"))
    amount = dy.Float64(nullable=True)
    region = dy.Enum(["n", "s"])
    postcode = dy.String()
    age = dy.Int32()
    name = fb.personal(dy.String())
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    repaid = fb.outcome(dy.Bool(nullable=True))
    rating = fb.outcome(dy.Enum(["a", "b", "c"], nullable=True))
    paid = fb.outcome(dy.Float64(nullable=True))


def model(predicts: Any = Loan.repaid, **declared: Any) -> Model:
    @fb.model(
        fb.features(Loan.amount, Loan.region), predicts=predicts, asked=fb.before(Loan.asked, fb.hours(0)), **declared
    )
    def loans() -> LGBMClassifier:
        return LGBMClassifier()

    return loans


GAP = metrics.selection_rate.gap(by=Loan.region) <= 0.1


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda: fb.costs(false_positive=0, false_negative=1), "costs-not-positive"),
        (lambda: fb.costs(false_positive=1, false_negative=float("inf")), "costs-not-positive"),
        (lambda: fb.best(metrics.roc_auc), "decides-by-other-metric"),
        (lambda: fb.best(metrics.recall), "decides-by-other-metric"),
        (lambda: fb.best(metrics.cost), "decides-by-other-metric"),
        (lambda: fb.best(metrics.f1.gap(by=Loan.region)), "decides-by-other-metric"),
        (lambda: fb.best("f1"), "decides-by-other-metric"),
        (lambda: fb.mitigate(metrics.selection_rate <= 0.1), "mitigation-without-groups"),
        (lambda: fb.mitigate(metrics.recall.gap(by=Loan.region) >= 0.1), "mitigation-without-groups"),
        (lambda: fb.mitigate(metrics.macro_f1.gap(by=Loan.region) <= 0.1), "mitigation-without-groups"),
        (lambda: fb.mitigate(fb.expect.unchanged(Loan.age).gap(by=Loan.region) <= 0.1), "mitigation-without-groups"),
        (lambda: fb.mitigate(GAP, "prayer"), "mitigation-without-groups"),  # type: ignore[arg-type]
        (lambda: model(mitigate=fb.mitigate(metrics.recall.gap(by=Loan.name) <= 0.1)), "mitigation-without-groups"),
        (lambda: model(mitigate=fb.mitigate(metrics.recall.gap(by=Loan.repaid) <= 0.1)), "mitigation-without-groups"),
        (lambda: model(mitigate=fb.mitigate(metrics.recall.gap(by=Loan.age) <= 0.1)), "mitigation-without-groups"),
        (lambda: model(mitigate=fb.mitigate(fb.roc_auc.gap(by=Loan.region) <= 0.1)), "mitigation-of-other-rate"),
        (lambda: model(Loan.rating, calibrate="sigmoid"), "treatment-of-other-task"),
        (lambda: model(Loan.paid, decide=fb.best(metrics.f1)), "treatment-of-other-task"),
        (lambda: model(Loan.rating, mitigate=fb.mitigate(GAP)), "treatment-of-other-task"),
        (lambda: model(unsupervised=True, calibrate="isotonic"), "treatment-of-other-task"),
        (lambda: model(Loan.paid, weights="balanced"), "treatment-of-other-task"),
        (lambda: model(weights=Loan.region.col), "weights-do-not-fit"),
        (lambda: model(weights=Loan.paid.col), "weights-do-not-fit"),
        (lambda: model(weights=Loan.name.col.str.len_chars()), "weights-do-not-fit"),
        (lambda: model(Loan.paid, quantiles=(0.1, 1.0)), "quantiles-out-of-range"),
        (lambda: model(quantiles=(0.1, 0.9)), "quantiles-out-of-range"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(wrong: Any, code: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        models.check(wrong())
    assert caught.value.code == code and caught.value.where is not None


def test_what_can_be_is_not() -> None:
    models.check(model(weights="balanced", calibrate="isotonic", decide=fb.best(metrics.f1), mitigate=fb.mitigate(GAP)))
    models.check(model(mitigate=fb.mitigate(fb.roc_auc.gap(by=Loan.region) <= 0.1, "reweighing")))
    models.check(model(unsupervised=True, decide=fb.costs(false_positive=1, false_negative=9)))
    models.check(model(Loan.paid, quantiles=(0.9, 0.1), weights=Loan.amount.col.fill_null(1.0)))
    models.check(model(Loan.rating, weights="balanced"))


FRAME = pl.DataFrame({"_request.amount": [1.0, 2.0, None, 4.0], "amount": [9.0] * 4})
LABELS = np.array([True, False, False, False])


def test_weights() -> None:
    assert fold.weights(model(), FRAME, LABELS) is None
    balanced = fold.weights(model(weights="balanced"), FRAME, LABELS)
    assert balanced is not None and balanced.tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    own = fold.weights(model(weights=Loan.amount.col.fill_null(0.5)), FRAME, LABELS)
    assert own is not None and own.tolist() == [1, 2, 0.5, 4], "of the request, not of a feature of that name"
    one = fold.weights(model(weights=pl.lit(3)), FRAME, LABELS)
    assert one is not None and one.tolist() == [3] * 4


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (Loan.amount.col, "1 of 4 training rows are missing"),
        (-Loan.amount.col.fill_null(1.0), "4 of 4"),
        (Loan.amount.col.fill_null(1.0) / 0, "4 of 4"),
        (Loan.amount.col.fill_null(1.0) * 0, "All weights are zero"),
    ],
)
def test_a_weight_says_how_much(weights: pl.Expr, said: str) -> None:
    with pytest.raises(DataError, match="weights-not-positive") as caught:
        fold.weights(model(weights=weights), FRAME, LABELS)
    assert said in caught.value.what


def test_costs_are_those_of_the_metric() -> None:
    declared = model(decide=fb.costs(false_positive=1, false_negative=9))
    assert fold.terms(declared, models.task(declared), None).costs == (1.0, 9.0)
    assert fold.terms(model(), models.task(model()), None).costs == PLAIN.costs
