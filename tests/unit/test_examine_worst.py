"""Worst groups: what is planted is found, and named; where nothing is, nothing is found."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from flyball.learn.examine import groups, worst
from flyball.learn.examine.subject import Rows
from flyball.learn.examine.worst import Worst
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

SEED = 1788


def _frame(n: int, rng: np.random.Generator) -> pl.DataFrame:
    numbers = {f"x{i}": rng.normal(size=n) for i in range(3)}
    return pl.DataFrame(numbers | {f"c{i}": rng.choice(list("abcd"), n) for i in range(3)})


def _found(task: Task, frame: pl.DataFrame, outcome: np.ndarray, answers: np.ndarray, days: int = 30) -> Worst:
    blocks = np.arange(len(outcome)) % days
    return worst.worst(
        task, Rows(np.zeros((len(outcome), 1), np.float32), outcome, blocks), answers, groups.cut(frame), SEED
    )


def _null(seed: int, n: int = 600) -> Worst:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(size=n)))
    return _found(BINARY, _frame(n, rng), rng.random(n) < p, p)


def test_where_nothing_is_wrong_next_to_nothing_is_found() -> None:
    tried = [_null(seed) for seed in range(40)]
    assert sum(bool(found.slices) for found in tried) <= 3
    assert sum(found.tried for found in tried) > 20  # it looked: the first half alone saw much that is nothing


def test_a_planted_group_is_found_and_only_it() -> None:
    rng = np.random.default_rng(SEED)
    n = 3000
    frame = _frame(n, rng)
    score = rng.normal(size=n) * 1.5 - 1
    bad = (frame["c1"] == "b").to_numpy()
    outcome = rng.random(n) < 1 / (1 + np.exp(-np.where(bad, -score, score)))
    found = _found(BINARY, frame, outcome, 1 / (1 + np.exp(-score)))
    assert {s.worse for s in found.slices} == {"harder", "further off"}
    assert all("c1" in s.columns and "b" in s.groups for s in found.slices)
    whole = next(s for s in found.slices if s.columns == ("c1",))
    assert whole.p < 0.001 and whole.difference.low > 0 and whole.loss > whole.rest
    assert whole.lean is not None and whole.lean.low > 0  # the answers are low, where the truth is turned round


def test_a_pair_is_found_where_neither_column_tells() -> None:
    rng = np.random.default_rng(SEED)
    n = 4000
    frame = _frame(n, rng).with_columns(pl.when(pl.col("x0") > 1.2).then(None).otherwise(pl.col("x0")).alias("x0"))
    bad = frame["x0"].is_null().to_numpy() & (frame["c0"] == "a").to_numpy()
    answers = rng.normal(size=n)
    found = _found(REGRESSION, frame, answers + rng.normal(size=n) * np.where(bad, 6, 1), answers)
    assert (("x0", "c0"), ("(none)", "a")) in {(s.columns, s.groups) for s in found.slices}


def test_of_anomalies_the_overlooked_ones_are_found() -> None:
    rng = np.random.default_rng(SEED)
    n = 4000
    frame = _frame(n, rng)
    outcome = rng.random(n) < 0.2
    bad = (frame["c2"] == "d").to_numpy()
    answers = rng.normal(size=n) + np.where(outcome & ~bad, 2.0, 0.0)
    (first, *_) = _found(ANOMALY, frame, outcome, answers).slices
    assert (first.columns, first.groups, first.lean) == (("c2",), ("d",), None)


def test_classes_and_quantiles_have_worst_groups_too() -> None:
    rng = np.random.default_rng(SEED)
    n = 3000
    frame = _frame(n, rng)
    bad = (frame["c0"] == "c").to_numpy()
    several = rng.dirichlet(np.ones(3) * 0.5, n)
    codes = (rng.random(n)[:, None] > several.cumsum(axis=1)).sum(axis=1)
    codes = np.where(bad, (codes + 1) % 3, codes)
    task = Task(kind="multiclass", classes=("a", "b", "c"))
    assert {s.columns for s in _found(task, frame, codes, several).slices} == {("c0",)}
    y = rng.normal(size=n) * np.where(bad, 4, 1)
    task = Task(kind="quantile", quantiles=(0.1, 0.9))
    assert ("c0",) in {s.columns for s in _found(task, frame, y, np.tile([-1.3, 1.3], (n, 1))).slices}


@pytest.mark.parametrize("n", [30, 200])
def test_few_rows_are_no_proof(n: int) -> None:
    found = _found(BINARY, _frame(n, np.random.default_rng(1)), np.arange(n) % 2 == 0, np.full(n, 0.5), days=3)
    assert found.why and not found.slices


def test_groups_are_named_alike_whatever_the_order_of_the_rows() -> None:
    frame = pl.DataFrame(
        {
            "text": ["b", "a", None, "b"],
            "truth": [True, False, None, True],
            "few": [1, 2, None, 2],
            "when": [None, None, None, None],
            "list": [[1], [2], [3], [4]],
        },
        schema_overrides={"when": pl.Datetime},
    )
    columns = {c.name: [c.labels[k] for k in c.codes] for c in groups.cut(frame)}
    assert columns == {
        "text": ["b", "a", "(none)", "b"],
        "truth": ["yes", "no", "(none)", "yes"],
        "few": ["1", "2", "(none)", "2"],
    }
    wide = groups.cut(pl.DataFrame({"n": np.arange(100.0), "key": [f"k{i}" for i in range(100)]}))
    assert wide[0].labels == ("≤ 19.8", "19.8 to 39.6", "39.6 to 59.4", "59.4 to 79.2", "> 79.2")
    assert len(wide[1].labels) == groups.LEVELS and np.count_nonzero(wide[1].codes < 0) == 100 - groups.LEVELS
