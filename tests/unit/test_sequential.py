"""An A/B test may be looked at after every entity: how often it then decides wrongly, and how soon rightly, is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flyball.watch import arms, sequential
from flyball.watch.sequential import BURN, Arm

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
TESTS = 2000
STEPS = 1500
"""Entities of a test, after each of which it is looked at."""


def arm(y: np.ndarray, mine: np.ndarray) -> Arm:
    """The units of one arm after each entity, of many tests at once; by sums of powers, unlike `trials`."""
    n = mine.cumsum(1).astype(np.float64)
    one, two, three = ((y**k * mine).cumsum(1) for k in (1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = one / n
        return Arm(n, mean, (two - n * mean**2) / (n - 1), three / n - 3 * mean * two / n + 2 * mean**3)


def decided(
    draw: Draw, share: float, *, effect: float = 0.0, tests: int = TESTS, seed: int = 7
) -> tuple[int, int, int]:
    """Of so many tests looked at after every entity: those that decide, those that are for the candidate, when half had."""
    rng, when, right = np.random.default_rng(seed), [], 0
    for _ in range(tests // 250):
        mine = rng.random((250, STEPS)) < share
        y = draw(rng, mine.shape) + effect * mine
        found = sequential.difference(arm(y, mine), arm(y, ~mine), 0.05)
        sure = (found.low > 0) | (found.high < 0)
        rows = np.flatnonzero(sure.any(axis=1))
        first = sure.argmax(axis=1)[rows]
        right += int((found.low[rows, first] > 0).sum())
        when += first.tolist()
    return len(when), right, int(np.median(when)) if when else STEPS


def often(share: float) -> Draw:
    return lambda rng, shape: (rng.random(shape) < share).astype(np.float64)


@pytest.mark.parametrize(
    ("draw", "share"),
    [
        (often(0.3), 0.5),
        (often(0.03), 0.5),
        (often(0.03), 0.1),
        (lambda rng, shape: rng.lognormal(0, 1, shape), 0.5),
    ],
    ids=["often", "seldom", "seldom, a tenth", "skewed"],
)
def test_where_arms_are_alike_looking_at_every_step_decides_no_more_often_than_stated(draw: Draw, share: float) -> None:
    false, _, _ = decided(draw, share)
    # By chance alone so many, if the error rate were exactly what is stated: more happen once in a thousand runs.
    assert false <= stats.binom(TESTS, 0.05).ppf(0.999)


def test_looking_at_every_step_by_an_interval_of_one_look_would_decide_wrongly_far_more_often() -> None:
    rng = np.random.default_rng(7)
    mine = rng.random((500, STEPS)) < 0.5
    y = often(0.3)(rng, mine.shape)
    one, other = arm(y, mine), arm(y, ~mine)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(np.subtract(one.mean, other.mean)) / np.sqrt(one.variance / one.n + other.variance / other.n)
    assert (z[:, 2 * BURN :] > 1.96).any(axis=1).mean() > 0.15, "the test above can fail"


def test_an_effect_is_found_in_nearly_every_test_and_never_the_wrong_way() -> None:
    """A quarter of a standard deviation, of which a test with one look needs 674 entities for a power of 90 %."""
    found, right, when = decided(lambda rng, shape: rng.normal(0, 1, shape), 0.5, effect=0.25, tests=500)
    assert found >= 0.93 * 500 and right == found
    assert when < 700


UNEVEN = 1 / np.arange(5, 505) ** 0.8
"""How often entities ask, against each other: those at the end some fiftieth as often as the first."""


@pytest.mark.parametrize(
    ("own", "rates", "times", "grows"),
    [(0.0, np.ones(240), 500, False), (0.5, UNEVEN, 60, False), (1.0, np.ones(600), 6, True)],
    ids=["alike", "own means, some seldom", "more and more of them"],
)
def test_entities_that_go_on_answering_are_no_more_often_decided_wrongly(
    own: float, rates: np.ndarray, times: int, *, grows: bool
) -> None:
    """Whether all that is known of an entity is known by its first answer, or by its thousandth; a look at each 6 % more."""
    rng, tests = np.random.default_rng(3), 120
    mean = rng.normal(0, own, (tests, len(rates)))
    mine = rng.random(mean.shape) < 0.5
    counts, sums, squares = np.zeros(mean.shape, np.int64), np.zeros(mean.shape), np.zeros(mean.shape)
    sure, n, end = np.zeros(tests, dtype=bool), 0.0, float(len(rates) * times)
    while n < end:
        step = max(60.0, 0.06 * n)
        there = np.arange(len(rates)) < len(rates) * (n + step) / end if grows else np.ones(len(rates), dtype=bool)
        came = rng.poisson(step * rates * there / (rates * there).sum(), mean.shape)
        noise = rng.normal(0, 1, mean.shape) * np.sqrt(came)
        counts, sums, n = counts + came, sums + mean * came + noise, n + step
        # Of the squares only their sum counts, which is nearly its mean: of each the variance, and the own mean's.
        squares += mean**2 * came + 2 * mean * noise + came
        (one, many), (other, others) = (
            arms.worth(counts * side, sums * side, (squares * side).sum(1)) for side in (mine, ~mine)
        )
        found = sequential.difference(one, other, 0.05)
        sure |= ((found.low > 0) | (found.high < 0)) & (np.minimum(many, others) >= BURN)
    assert sure.sum() <= stats.binom(tests, 0.05).ppf(0.999)


def test_the_interval_is_that_of_the_paper() -> None:
    """Theorem 2.2, written down once more from the paper: rho is the root of `mixture`, t the number of units."""
    alpha, t, rho, deviation = 0.05, 900.0, math.sqrt(sequential.mixture(0.05)), 2.0
    reach = deviation * math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha))
    mine, theirs = Arm(450, 1.5, 1.0, 0.0), Arm(450, 1.0, 1.0, 0.0)  # of both together, the variance of a unit is four
    found = sequential.difference(mine, theirs, alpha)
    assert float(found.estimate) == 0.5
    assert float(found.high - found.estimate) == pytest.approx(reach)


@pytest.mark.parametrize(
    "mine",
    [Arm(BURN - 1, 0.5, 0.25, 0.0), Arm(500, 0.5, 0.0, 0.0), Arm(500, 0.02, 0.0196, 0.0188)],
    ids=["few", "all alike", "ten of them"],
)
def test_what_is_not_known_well_enough_decides_nothing(mine: Arm) -> None:
    found: Any = sequential.difference(mine, Arm(5000, 0.02, 0.0196, 0.0188), 0.05)
    assert math.isinf(found.low) and math.isinf(found.high)
    assert math.isfinite(
        sequential.difference(Arm(2000, 0.02, 0.0196, 0.0188), Arm(5000, 0.02, 0.0196, 0.0188), 0.05).low
    )
