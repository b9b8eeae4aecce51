"""Intervals and comparisons of an examination, against scikit-learn, SciPy and the textbook."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import log_loss, mean_pinball_loss, roc_auc_score

from flyball.learn.examine import losses, means, paired, trust
from flyball.learn.examine.subject import Rows
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

MANY = Task(kind="multiclass", classes=("a", "b", "c"))
QUANTILES = Task(kind="quantile", quantiles=(0.1, 0.5, 0.9))


def _rows(outcome: np.ndarray, blocks: np.ndarray | None = None) -> Rows:
    return Rows(np.zeros((len(outcome), 1), np.float32), outcome, blocks)


def _binary(n: int = 400, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, n)
    return rng.random(n) < p, p


def test_losses_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    y, p = _binary()
    assert losses.of_rows(BINARY, y, p).mean() == pytest.approx(log_loss(y, p))
    # Ties, since a rank is where they go wrong.
    coarse = np.round(p, 1)
    assert losses.of_rows(ANOMALY, y, coarse).mean() == pytest.approx(1 - roc_auc_score(y, coarse))
    several = rng.dirichlet(np.ones(3), 300)
    codes = rng.integers(0, 3, 300)
    assert losses.of_rows(MANY, codes, several).mean() == pytest.approx(log_loss(codes, several))
    numbers, answers = rng.normal(size=200), np.sort(rng.normal(size=(200, 3)), axis=1)
    each = [mean_pinball_loss(numbers, answers[:, k], alpha=q) for k, q in enumerate(QUANTILES.quantiles)]
    assert losses.of_rows(QUANTILES, numbers, answers).mean() == pytest.approx(np.mean(each))


def test_an_answer_that_admits_its_doubt_has_no_surplus() -> None:
    y, p = _binary(20_000)
    held = means.mean(losses.surplus(BINARY, y, p))
    sure = means.mean(losses.surplus(BINARY, y, np.where(p > 0.5, 0.95, 0.05)))
    assert held is not None and held.low < 0 < held.high
    assert sure is not None and sure.low > 0.1


def test_a_mean_of_blocks_is_as_sure_as_its_blocks() -> None:
    rng = np.random.default_rng(3)
    blocks = np.repeat(np.arange(20), 50)
    shared = rng.normal(size=20)[blocks]
    alone, together = means.mean(shared), means.mean(shared, blocks)
    assert alone is not None and together is not None
    assert together.high - together.low > 5 * (alone.high - alone.low)
    assert means.mean(shared[:100], blocks[:100]) is None  # two blocks


def test_intervals_of_blocks_hold_what_they_promise() -> None:
    rng = np.random.default_rng(4)
    blocks = np.repeat(np.arange(15), 20)
    held = 0
    for _ in range(200):
        found = means.mean(rng.normal(size=15)[blocks] + rng.normal(size=300), blocks)
        held += found is not None and found.low <= 0 <= found.high
    assert held >= 183  # 190 expected, less three standard errors


def test_delong_is_the_textbook() -> None:
    y, p = _binary(150)
    other = np.round(np.clip(p + np.random.default_rng(5).normal(0, 0.2, 150), 0, 1), 1)
    found = paired.delong(y, p, other, _rows(y))
    assert found.ours == pytest.approx(roc_auc_score(y, p))
    assert found.theirs == pytest.approx(roc_auc_score(y, other))
    # Every pair, as DeLong, DeLong and Clarke-Pearson wrote it.
    ten, one = [], []
    for scores in (p, other):
        wins = np.sign(scores[y][:, None] - scores[~y][None]) / 2 + 0.5
        ten.append(wins.mean(axis=1))
        one.append(wins.mean(axis=0))
    covariance = np.cov(ten) / y.sum() + np.cov(one) / (~y).sum()
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error)


@pytest.mark.parametrize(("ours", "theirs"), [(8, 2), (5, 5), (0, 4), (0, 0)])
def test_mcnemar_is_the_binomial(ours: int, theirs: int) -> None:
    right = np.r_[np.ones(ours), np.zeros(theirs), np.ones(90)].astype(bool)
    other = np.r_[np.zeros(ours), np.ones(theirs), np.ones(90)].astype(bool)
    found = paired.mcnemar(right, other, _rows(right))
    both, fewer = ours + theirs, min(ours, theirs)
    assert (found.ours, found.theirs) == (ours, theirs)
    if not both:
        assert (found.exact, found.mid) == (1, 1)
        return
    assert found.exact == pytest.approx(binomtest(ours, both).pvalue)
    # Mid-p: the observed outcome counts half, on the one side and on the other.
    tail = binom.cdf(fewer - 1, both, 0.5) + binom.pmf(fewer, both, 0.5) / 2
    assert found.mid == pytest.approx(2 * tail)


def test_a_better_version_is_told_from_the_champion_and_an_equal_one_is_not() -> None:
    y, p = _binary(1500)
    blocks = np.arange(1500) % 30
    worse = np.clip(p + np.random.default_rng(6).normal(0, 0.25, 1500), 0.01, 0.99)
    found = paired.paired(BINARY, _rows(y, blocks), p, worse, (p > 0.5, worse > 0.5))
    assert found.difference is not None and found.difference.high < 0
    assert found.redrawn is not None and found.redrawn.high < 0
    assert found.redrawn.low == pytest.approx(found.difference.low, rel=0.25)
    assert found.roc_auc is not None and found.roc_auc.p < 0.001 and found.roc_auc.difference.low > 0
    assert found.decisions is not None and found.decisions.mid < 0.05
    same = paired.paired(BINARY, _rows(y, blocks), p, p, (p > 0.5, p > 0.5))
    assert same.difference is not None and (same.difference.low, same.difference.high) == (0, 0)
    assert same.decisions is not None and same.decisions.exact == 1
    assert paired.paired(BINARY, _rows(y), p, np.stack([p, p], axis=1)).why


def test_calibration_finds_answers_that_are_too_sure_and_leaves_honest_ones() -> None:
    y, p = _binary(4000)
    logit = np.log(p) - np.log1p(-p)
    extreme = 1 / (1 + np.exp(-(2 * logit + 1)))
    honest, sure = (trust.trust(BINARY, _rows(y), answers).lines[0] for answers in (p, extreme))
    assert honest.slope is not None and honest.slope.low < 1 < honest.slope.high
    assert honest.intercept.low < 0 < honest.intercept.high
    assert sure.slope is not None and sure.slope.low < 0.5 < sure.slope.high < 1
    assert sure.intercept.high < 0
    assert trust.trust(BINARY, _rows(y), y.astype(float)).why  # parted: no line
    assert "rank" in trust.trust(ANOMALY, _rows(y), p).why


def test_calibration_of_the_other_tasks() -> None:
    rng = np.random.default_rng(7)
    several = rng.dirichlet(np.ones(3), 2000)
    codes = (rng.random(2000)[:, None] > several.cumsum(axis=1)).sum(axis=1)
    lines = trust.trust(MANY, _rows(codes), several).lines
    assert {line.of for line in lines} == {"a", "b", "c"}
    assert all(line.slope is not None and line.slope.estimate == pytest.approx(1, abs=0.15) for line in lines)
    y = rng.normal(size=1000)
    narrow = trust.trust(QUANTILES, _rows(y), np.tile([-0.5, 0.0, 0.5], (1000, 1))).lines
    assert narrow[0].intercept.low > 0.1 and narrow[2].intercept.high < -0.1
    (half,) = trust.trust(REGRESSION, _rows(y), 2 * y + 1).lines
    assert half.slope is not None and half.slope.estimate == pytest.approx(0.5)
    assert half.intercept.high < -0.9
