"""Metrics of decisions, classes and quantiles equal scikit-learn's, and counting a row k times is repeating it k times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from flyball.learn.quality import metrics
from flyball.learn.quality.measures import FINISH, RANKED, Terms
from flyball.learn.quality.metrics import Draws, Panel

QUANTILES = (0.1, 0.5, 0.9)
COSTS = (2.0, 7.0)
Rows = tuple[Any, Any, Terms]


def binary(n: int = 300) -> Rows:
    rng = np.random.default_rng(0)
    p = rng.beta(2, 4, n)
    return rng.random(n) < p, np.round(p, 2), Terms(decided=p >= 0.31, costs=COSTS)


def classes(n: int = 300) -> Rows:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1.0, 2.0, 0.7, 1.0], n)
    return np.array([rng.choice(4, p=row) for row in p], dtype=np.int64), p, Terms()


def quantiles(n: int = 300) -> Rows:
    rng = np.random.default_rng(2)
    y = rng.normal(50, 4, n)
    return y, np.sort(rng.normal(50, 4, (n, 3)), axis=1), Terms(quantiles=QUANTILES)


def _brier(y: Any, s: Any, w: Any) -> float:
    return float(np.average(np.square(s - np.eye(4)[y]).sum(axis=1), weights=w))


def _cost(y: Any, d: Any, w: Any) -> float:
    return float(np.average(np.where(d & ~y, COSTS[0], 0) + np.where(y & ~d, COSTS[1], 0), weights=w))


DECIDED: dict[str, Callable[[Any, Any, Any], float]] = {
    "f1": lambda y, d, w: sk.f1_score(y, d, sample_weight=w),
    "precision": lambda y, d, w: sk.precision_score(y, d, sample_weight=w),
    "recall": lambda y, d, w: sk.recall_score(y, d, sample_weight=w),
    "false_positive_rate": lambda y, d, w: 1 - sk.recall_score(~y, ~d, sample_weight=w),
    "selection_rate": lambda y, d, w: float(np.average(d, weights=w)),
    "balanced_accuracy": lambda y, d, w: sk.balanced_accuracy_score(y, d, sample_weight=w),
    "matthews": lambda y, d, w: sk.matthews_corrcoef(y, d, sample_weight=w),
    "accuracy": lambda y, d, w: sk.accuracy_score(y, d, sample_weight=w),
    "cost": _cost,
}
CLASSES: dict[str, Callable[[Any, Any, Any], float]] = {
    "accuracy": lambda y, s, w: sk.accuracy_score(y, s.argmax(axis=1), sample_weight=w),
    "macro_f1": lambda y, s, w: sk.f1_score(y, s.argmax(axis=1), average="macro", sample_weight=w),
    "log_loss": lambda y, s, w: sk.log_loss(y, s, sample_weight=w),
    "brier": _brier,
    # scikit-learn takes weights of two classes alone here, so each class against the rest.
    "macro_roc_auc": lambda y, s, w: float(
        np.mean([sk.roc_auc_score(y == c, s[:, c], sample_weight=w) for c in range(4)])
    ),
}
BANDS: dict[str, Callable[[Any, Any, Any], float]] = {
    "pinball_loss": lambda y, s, w: float(
        np.mean([sk.mean_pinball_loss(y, s[:, k], alpha=q, sample_weight=w) for k, q in enumerate(QUANTILES)])
    ),
    "coverage": lambda y, s, w: float(np.average((s[:, 0] <= y) & (y <= s[:, 2]), weights=w)),
    "width": lambda y, s, w: float(np.average(s[:, 2] - s[:, 0], weights=w)),
    "mean_absolute_error": lambda y, s, w: sk.mean_absolute_error(y, s[:, 1], sample_weight=w),
    "r2": lambda y, s, w: sk.r2_score(y, s[:, 1], sample_weight=w),
}
CASES = [
    (name, peer, rows, judged)
    for peers, rows, judged in ((DECIDED, binary, "decided"), (CLASSES, classes, ""), (BANDS, quantiles, ""))
    for name, peer in peers.items()
]


def test_every_metric_has_a_peer_here_or_in_test_metrics() -> None:
    elsewhere = {"roc_auc", "average_precision", "calibration_error", "root_mean_squared_error"}
    assert {name for name, *_ in CASES} | elsewhere == set(FINISH) | set(RANKED)


@pytest.mark.parametrize(("name", "peer", "rows", "judged"), CASES)
def test_it_equals_scikit_learn_counted_once_and_as_redrawn(name: str, peer: Any, rows: Any, judged: str) -> None:
    y, s, terms = rows()
    said = terms.decided if judged else s
    assert metrics.value(name, y, s, terms) == pytest.approx(peer(y, said, np.ones(len(y))), rel=1e-9)
    panel, draws = Panel([name], y, s, terms=terms), Draws(len(y), replicates=5)
    (values,) = metrics.replicate([panel], draws)
    counts = np.concatenate(list(draws.chunks()))
    np.testing.assert_allclose(values[0], [peer(y, said, each) for each in counts], rtol=1e-9)


def test_a_panel_of_some_rows_takes_their_decisions() -> None:
    y, s, terms = binary()
    rows = np.arange(40, 200)
    (found,) = Panel(["recall"], y, s, rows, terms).estimates
    assert found == pytest.approx(sk.recall_score(y[rows], terms.decided[rows]))


def test_without_a_threshold_a_decision_is_above_one_half() -> None:
    y, s, _ = binary()
    assert metrics.value("f1", y, s) == pytest.approx(sk.f1_score(y, s > 0.5))


def test_what_no_row_shows_is_undefined() -> None:
    y, s, _ = binary()
    nobody = Terms(decided=np.zeros(len(y), dtype=bool))
    assert np.isnan(metrics.value("precision", y, s, nobody)) and np.isnan(metrics.value("matthews", y, s, nobody))
    assert metrics.value("f1", y, s, nobody) == metrics.value("recall", y, s, nobody) == 0
    measured = metrics.measure(["precision", "recall"], y, s, terms=nobody)
    assert measured["precision"] is None and measured["recall"] is not None


def test_a_class_that_is_nowhere_counts_in_no_mean() -> None:
    y, s, _ = classes()
    wide = np.hstack([s, np.zeros((len(y), 1))])
    for name in ("macro_f1", "macro_roc_auc", "brier"):
        assert metrics.value(name, y, wide) == pytest.approx(metrics.value(name, y, s), rel=1e-12)
