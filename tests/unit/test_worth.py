"""Worth: what decides is worth a lot, noise nothing that could be told, and the interval holds what it should."""

from __future__ import annotations

import numpy as np
import pytest

from flyball._kernel import conditions
from flyball._kernel.conditions import Measurement, Metric
from flyball.learn.quality import worth
from flyball.learn.quality.metrics import Array, Outcome
from flyball.learn.quality.worth import Matrix, Rows

SEED = 7
FEATURES = {"signal": [0], "noise": [1], "unread": [2]}


def _answer(matrix: Matrix) -> Array:
    """A model that knows the signal, and believes a little in the noise."""
    return np.asarray(1 / (1 + np.exp(-2.0 * matrix[:, 0] - 0.2 * matrix[:, 1])), dtype=np.float64)


def _rows(n: int = 2000, seed: int = SEED, blocks: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 3)).astype(np.float32)
    outcome = rng.random(n) < 1 / (1 + np.exp(-2.0 * matrix[:, 0]))
    return Rows(matrix, outcome, rng.integers(0, blocks, n) if blocks else None)


def _measured(found: dict[str, Measurement | None], name: str) -> Measurement:
    measured = found[name]
    assert measured is not None
    return measured


@pytest.mark.parametrize(
    "metric", [conditions.average_precision, conditions.roc_auc, conditions.log_loss, conditions.brier]
)
def test_what_decides_is_worth_a_lot_and_noise_nothing_that_could_be_told(metric: Metric) -> None:
    found = worth.worth(_answer, _rows(), FEATURES, metric)
    signal, noise = _measured(found, "signal"), _measured(found, "noise")
    assert worth.tells(signal) == "worth" and signal.low > 0.03
    assert worth.tells(noise) == "nothing"
    assert signal.low <= signal.estimate <= signal.high and signal.n == 2000


def test_what_the_model_does_not_read_is_worth_exactly_nothing() -> None:
    unread = _measured(worth.worth(_answer, _rows(), FEATURES, conditions.roc_auc), "unread")
    assert (unread.estimate, unread.low, unread.high) == (0.0, 0.0, 0.0)
    assert worth.tells(unread) == "nothing"


def test_what_misleads_does_harm() -> None:
    rng = np.random.default_rng(SEED)
    matrix = rng.normal(size=(3000, 2)).astype(np.float32)
    outcome = rng.random(3000) < 1 / (1 + np.exp(-matrix[:, 0] + matrix[:, 1]))
    wrong = worth.worth(
        lambda m: np.asarray(1 / (1 + np.exp(-m[:, 0] - m[:, 1])), dtype=np.float64),
        Rows(matrix, outcome),
        {"turned round": [1]},
        conditions.log_loss,
    )
    assert worth.tells(_measured(wrong, "turned round")) == "harm"


def test_the_same_seed_says_the_same_and_another_nearly() -> None:
    rows = _rows(blocks=20)
    one, two = (worth.worth(_answer, rows, FEATURES, conditions.roc_auc, seed=SEED) for _ in range(2))
    other = worth.worth(_answer, rows, FEATURES, conditions.roc_auc, seed=SEED + 1)
    assert one == two != other
    assert _measured(one, "signal").estimate == pytest.approx(_measured(other, "signal").estimate, abs=0.02)


def test_a_feature_is_worth_the_same_whoever_else_is_asked_about() -> None:
    rows = _rows()
    alone = worth.worth(_answer, rows, {"signal": [0]}, conditions.roc_auc)
    assert alone["signal"] == worth.worth(_answer, rows, FEATURES, conditions.roc_auc)["signal"]


def test_outputs_of_a_feature_are_shuffled_together() -> None:
    """One number and its double, of which the model reads the difference to be expected: shuffled as one, it stays nothing."""
    rng = np.random.default_rng(SEED)
    one = rng.normal(size=1000).astype(np.float32)
    matrix = np.stack([one, 2 * one, rng.normal(size=1000).astype(np.float32)], axis=1)
    outcome = rng.random(1000) < 0.5 + 0.4 * np.tanh(matrix[:, 2])

    def answer(m: Matrix) -> Array:
        return np.asarray(1 / (1 + np.exp(-m[:, 2] - 5.0 * (2 * m[:, 0] - m[:, 1]))), dtype=np.float64)

    found = worth.worth(answer, Rows(matrix, outcome), {"both": [0, 1], "first": [0]}, conditions.roc_auc)
    assert _measured(found, "both").estimate == 0.0
    assert _measured(found, "first").low > 0


def test_a_regressor_is_told_in_its_own_metric() -> None:
    rng = np.random.default_rng(SEED)
    matrix = rng.normal(size=(1500, 3)).astype(np.float32)
    outcome: Outcome = 3.0 * matrix[:, 0].astype(np.float64) + rng.normal(size=1500)

    def answer(m: Matrix) -> Array:
        return 3.0 * m[:, 0].astype(np.float64)

    for metric in (conditions.r2, conditions.mean_absolute_error, conditions.root_mean_squared_error):
        found = worth.worth(answer, Rows(matrix, outcome), FEATURES, metric)
        assert worth.tells(_measured(found, "signal")) == "worth"
        assert _measured(found, "unread").high == 0.0


def test_too_few_rows_say_nothing_and_many_are_sampled() -> None:
    assert worth.worth(_answer, _rows(20), FEATURES, conditions.roc_auc) == dict.fromkeys(FEATURES)
    sampled = _rows(500).sample(100, SEED)
    assert len(sampled.outcome) == len(sampled.matrix) == 100
    whole = _rows(500).matrix
    assert all((whole == row).all(axis=1).any() for row in sampled.matrix)


def test_the_interval_covers_the_true_worth_about_as_often_as_it_says() -> None:
    """The truth from a sample two hundred times as large; 60 test sets, each with its own interval."""
    big = _rows(100_000, seed=99)
    rng, shuffled = np.random.default_rng(1), big.matrix.copy()
    shuffled[:, 0] = shuffled[rng.permutation(len(shuffled)), 0]
    losses = []
    for matrix in (big.matrix, shuffled):
        p = _answer(matrix)
        losses.append(float(np.mean((p - big.outcome) ** 2)))
    truth, held = losses[1] - losses[0], 0
    for seed in range(60):
        found = worth.worth(_answer, _rows(500, seed=seed), {"signal": [0]}, conditions.brier, seed=seed)
        measured = _measured(found, "signal")
        held += measured.low <= truth <= measured.high
    assert held >= 52, held  # 95 % of 60 is 57; fewer than 52 would happen once in 200 times
