"""Metrics equal scikit-learn's, their bootstrap equals the textbook loop, and what cannot be measured is said, not guessed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from flyball._kernel.errors import Bug, DataError
from flyball.learn.quality import metrics
from flyball.learn.quality.metrics import Draws, Panel

CLASSES = [m.name for m in metrics.CLASSIFICATION]
NUMBERS = [m.name for m in metrics.REGRESSION]


def answers(n: int = 400, decimals: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and probabilities; few decimals make ties."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 5, n)
    return rng.random(n) < p, np.round(np.clip(p + rng.normal(0, 0.1, n), 0, 1), decimals)


PEERS: dict[str, Callable[..., float]] = {
    "roc_auc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "log_loss": sk.log_loss,
    "brier": sk.brier_score_loss,
    "accuracy": lambda y, s, **kw: sk.accuracy_score(y, s > 0.5, **kw),
    "mean_absolute_error": sk.mean_absolute_error,
    "root_mean_squared_error": sk.root_mean_squared_error,
    "r2": sk.r2_score,
}


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("name", [n for n in CLASSES if n in PEERS])
def test_classification_equals_scikit_learn(name: str, decimals: int) -> None:
    y, s = answers(decimals=decimals)
    assert metrics.value(name, y, s) == pytest.approx(PEERS[name](y, s), rel=1e-12)


@pytest.mark.parametrize("name", NUMBERS)
def test_regression_equals_scikit_learn(name: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(1e4, 3, 300)
    s = y + rng.normal(0, 2, 300)
    assert metrics.value(name, y, s) == pytest.approx(PEERS[name](y, s), rel=1e-9)


@pytest.mark.parametrize("decimals", [8, 2])
def test_the_bootstrap_equals_the_textbook_loop(decimals: int) -> None:
    y, s = answers(decimals=decimals)
    names = ["roc_auc", "average_precision", "log_loss", "brier", "accuracy"]
    draws = Draws(len(y), replicates=40)
    (ours,) = metrics.replicate([Panel(names, y, s)], draws)
    counts = np.concatenate(list(draws.chunks()))
    loop = [[PEERS[name](y, s, sample_weight=c) for c in counts] for name in names]
    np.testing.assert_allclose(ours, loop, rtol=1e-12)
    found = metrics.measure(names, y, s, draws)
    for row, name in enumerate(names):
        low, high = np.quantile(loop[row], [0.025, 0.975])
        m = found[name]
        assert m is not None
        assert (m.low, m.high, m.n) == (pytest.approx(low), pytest.approx(high), len(y))


def test_draws_do_not_depend_on_how_they_are_cut() -> None:
    draws = Draws(97, replicates=50)
    whole = np.concatenate(list(draws.chunks(10**6)))
    assert whole.shape == (50, 97)
    assert (whole.sum(axis=1) == 97).all()
    np.testing.assert_array_equal(whole, np.concatenate(list(draws.chunks(100))))


def test_blocks_are_drawn_whole() -> None:
    blocks = np.array([7, 7, 3, 9, 3, 7])
    counts = np.concatenate(list(Draws(6, replicates=30, blocks=blocks).chunks()))
    for block in (3, 7, 9):
        assert (np.ptp(counts[:, blocks == block], axis=1) == 0).all()
    assert (counts[:, 0] + counts[:, 2] + counts[:, 3] == 3).all()


def test_rows_that_share_a_day_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    day = np.repeat(np.arange(40), 50)
    y = rng.random(2000) < (0.3 + 0.2 * rng.normal(size=40).clip(-1, 1))[day]
    s = np.full(2000, 0.3)
    alone = metrics.measure(["brier"], y, s)["brier"]
    together = metrics.measure(["brier"], y, s, Draws(2000, blocks=day))["brier"]
    assert alone is not None
    assert together is not None
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_two_versions_share_the_draw() -> None:
    y, s = answers()
    mine, same = metrics.replicate([Panel(CLASSES, y, s), Panel(CLASSES, y, s)], Draws(len(y), replicates=20))
    np.testing.assert_array_equal(mine, same)


def test_memory_is_bounded() -> None:
    y, s = answers(30_000)
    panel, draws = Panel(CLASSES, y, s), Draws(len(y), replicates=40)
    metrics.replicate([panel], draws)
    tracemalloc.start()
    metrics.replicate([panel], draws)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 8 * metrics.CELLS  # all counts at once would be 9.6 MB, with the copies of them 90


def test_calibration_error_by_hand() -> None:
    """Two scores, so two bins: off by 0.3 on a fifth of the rows, and by 0.05 on the rest."""
    s = np.repeat([0.8, 0.2], [20, 80])
    y = np.r_[np.arange(20) < 10, np.arange(80) < 20]
    assert metrics.value("calibration_error", y, s) == pytest.approx(0.2 * 0.3 + 0.8 * 0.05)


def test_noise_alone_does_not_fail_a_calibrated_model() -> None:
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p = rng.beta(2, 6, 2000)
        found = metrics.measure(["calibration_error"], rng.random(2000) < p, p, Draws(2000, replicates=100))
        m = found["calibration_error"]
        assert m is not None
        assert m.low <= m.estimate <= m.high
        wrong += m.low > 0.015  # the plain percentile interval starts above 0.02 in most of these
    assert wrong <= 1


def test_gap_of_two_groups_is_the_usual_interval_of_a_difference() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal([[0.7], [0.6]], 0.01, (2, 4000))
    m = metrics.gap(np.array([0.7, 0.6]), values, 10)
    assert m is not None
    assert m.estimate == pytest.approx(0.1)
    assert (m.low, m.high) == (pytest.approx(0.1 - 1.96 * 0.01 * 2**0.5, abs=2e-3), pytest.approx(0.1277, abs=2e-3))


def test_many_small_groups_do_not_make_a_gap() -> None:
    """Twenty alike groups: the greatest difference looks like 0.15, and yet nothing is wrong."""
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        estimates = rng.normal(0.7, 0.04, 20)
        m = metrics.gap(estimates, rng.normal(estimates[:, None], 0.04, (20, 300)), 1)
        assert m is not None
        assert m.estimate > 0.08
        wrong += m.low > 0
    assert wrong <= 3


def test_gap_needs_two_groups_and_defined_draws() -> None:
    assert metrics.gap(np.array([0.7]), np.full((1, 50), 0.7), 1) is None
    assert metrics.gap(np.array([0.7, np.nan]), np.full((2, 50), 0.7), 1) is None
    half = np.full((2, 50), 0.7)
    half[1, :25] = np.nan
    assert metrics.gap(np.array([0.7, 0.7]), half, 1) is None
    same = metrics.gap(np.array([0.7, 0.7]), np.full((2, 50), 0.7), 1)
    assert same is not None
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (np.ones(20, dtype=bool), "20 rows, fewer than 50"),
        (np.ones(80, dtype=bool), "0 rows with the outcome false, fewer than 10"),
        (np.arange(80) < 9, "9 rows with the outcome true, fewer than 10"),
        (np.zeros(49), "49 rows, fewer than 50"),
    ],
)
def test_too_little_is_not_measured(outcome: np.ndarray, why: str) -> None:
    assert metrics.unmeasurable(outcome) == why
    name = "brier" if outcome.dtype == bool else "r2"
    assert metrics.measure([name], outcome, np.full(len(outcome), 0.5)) == {name: None}


def test_one_block_is_no_certainty() -> None:
    y, s = answers()
    blocks = np.repeat(np.arange(4), 100)
    assert metrics.unmeasurable(y, blocks) == "rows of 4 blocks, fewer than 5"
    assert metrics.measure(["roc_auc"], y, s, Draws(400, blocks=blocks)) == {"roc_auc": None}


def test_undefined_is_nan_as_a_value_and_none_as_a_measurement() -> None:
    assert np.isnan(metrics.value("roc_auc", np.ones(5, dtype=bool), np.full(5, 0.5)))
    assert np.isnan(metrics.value("average_precision", np.zeros(5, dtype=bool), np.full(5, 0.5)))
    assert np.isnan(metrics.value("r2", np.full(60, 0.1), np.arange(60.0)))
    assert np.isnan(metrics.value("log_loss", np.zeros(0, dtype=bool), np.zeros(0)))
    assert metrics.measure(["r2"], np.full(60, 0.1), np.arange(60.0)) == {"r2": None}


def test_a_sure_and_wrong_answer_costs_much_but_not_infinity() -> None:
    for kind in (np.float64, np.float32):
        assert metrics.value("log_loss", np.array([False, True]), np.array([1, 1], dtype=kind)) == pytest.approx(
            18, abs=0.1
        )


def test_bad_scores_are_refused() -> None:
    y, s = answers()
    with pytest.raises(DataError, match="2 of 400 scores") as not_finite:
        metrics.check(y, np.r_[s[:-2], np.nan, np.inf])
    assert not_finite.value.code == "scores-not-finite"
    with pytest.raises(DataError) as not_probable:
        metrics.check(y, s * 2)
    assert not_probable.value.code == "scores-not-probabilities"
    with pytest.raises(Bug) as other:
        metrics.check(y, s[1:])
    assert other.value.code == "scores-of-other-rows"
    with pytest.raises(Bug):
        metrics.check(np.r_[np.nan, np.zeros(399)], s)
    with pytest.raises(Bug, match="p99"):
        Panel(["p99"], y, s)
