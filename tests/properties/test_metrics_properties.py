"""Metrics by their definitions: counting a row k times is repeating it k times, and pairs decide the ROC AUC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.learn.quality import metrics
from flyball.learn.quality.metrics import Panel

CLASSES = [m.name for m in metrics.CLASSIFICATION]
RANKED = ["roc_auc", "average_precision"]
FEW = settings(max_examples=150, deadline=None)


@st.composite
def rows(draw: st.DrawFn, numbers: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes, scores on a coarse grid (so that many tie) and how often each row counts."""
    n = draw(st.integers(1, 25))
    outcome: st.SearchStrategy[Any] = st.integers(-8, 8).map(float) if numbers else st.booleans()
    y = np.array(draw(st.lists(outcome, min_size=n, max_size=n)))
    s = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 8
    counts = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype=np.int64)
    return y, s, counts


def pairs(y: np.ndarray, s: np.ndarray) -> float:
    """The share of (true, false) pairs in the right order, ties counting half: ROC AUC as Mann and Whitney have it."""
    apart = s[y][:, None] - s[~y][None, :]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean()) if apart.size else np.nan


def steps(y: np.ndarray, s: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall that it adds."""
    if not y.any():
        return np.nan
    gained = 0.0
    for threshold in np.unique(s):
        gained += (y & (s == threshold)).sum() * y[s >= threshold].mean()
    return float(gained / y.sum())


@FEW
@given(rows())
def test_ranking_is_what_pairs_and_thresholds_say(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, s, counts = data
    found = Panel(RANKED, y, s)(np.array([counts, np.ones_like(counts)]))
    for column, c in enumerate((counts, np.ones_like(counts))):
        again = np.repeat(np.arange(len(y)), c)
        np.testing.assert_allclose(found[:, column], [pairs(y[again], s[again]), steps(y[again], s[again])], rtol=1e-12)


@FEW
@given(rows())
def test_counting_is_repeating(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, s, counts = data
    again = np.repeat(np.arange(len(y)), counts)
    names = [n for n in CLASSES if n != "calibration_error"]  # its bins stay those of the rows as they were
    weighed = Panel(names, y, s)(counts[None])[:, 0]
    np.testing.assert_allclose(weighed, Panel(names, y[again], s[again]).estimates, rtol=1e-12)


@FEW
@given(rows(numbers=True))
def test_counting_is_repeating_for_numbers(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, s, counts = data
    again = np.repeat(np.arange(len(y)), counts)
    names = [m.name for m in metrics.REGRESSION]
    weighed = Panel(names, y, s)(counts[None])[:, 0]
    np.testing.assert_allclose(weighed, Panel(names, y[again], s[again]).estimates, rtol=1e-9, atol=1e-12)


@FEW
@given(rows(), st.permutations(range(25)))
def test_neither_order_nor_scale_ranks(data: tuple[np.ndarray, np.ndarray, np.ndarray], shuffled: list[int]) -> None:
    y, s, _ = data
    order = np.array([k for k in shuffled if k < len(y)])
    before = Panel(CLASSES, y, s).estimates
    np.testing.assert_allclose(Panel(CLASSES, y[order], s[order]).estimates, before, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(Panel(RANKED, y, s**3 / 2).estimates, before[:2], rtol=1e-12)
    np.testing.assert_allclose(Panel(["roc_auc"], ~y, -s).estimates, before[:1], rtol=1e-12)


@FEW
@given(rows())
def test_a_panel_sees_its_rows_alone(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, s, counts = data
    part = np.flatnonzero(s > 0.4)
    inside = Panel(CLASSES, y, s, part)(counts[None])
    np.testing.assert_allclose(inside, Panel(CLASSES, y[part], s[part])(counts[part][None]), rtol=1e-12)


@FEW
@given(rows())
def test_calibration_error_is_bounded_and_zero_for_what_came_true(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    y, s, _ = data
    off = metrics.value("calibration_error", y, s)
    assert abs(y.mean() - s.mean()) - 1e-12 <= off <= np.abs(y - s).mean() + 1e-12
    assert metrics.value("calibration_error", y, y.astype(float)) == 0


@FEW
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_a_gap_is_max_minus_min_within_its_interval(values: list[float], seed: int) -> None:
    estimates = np.array(values)
    drawn = np.random.default_rng(seed).normal(estimates[:, None], 0.05, (len(values), 60))
    m = metrics.gap(estimates, drawn, 1)
    assert m is not None
    assert m.estimate == pytest.approx(estimates.max() - estimates.min())
    assert 0 <= m.low <= m.estimate <= m.high
    assert metrics.gap(estimates[::-1], drawn[::-1], 1) == m
