"""What a training costs beside the fit itself, and what an interval costs beside one number.

fit-overhead     one LightGBM on 300,000 ready rows of 20 columns; ours is the whole `train` step: encode, fit, pack, prove
the export on 60,000 held-out rows, the linear rival and the baseline, artifacts stored, fact recorded
bootstrap-100k   1,000 replicates of ROC AUC, average precision and log loss on 100,000 rows, on one core; the limit is
the textbook loop (scikit-learn on redrawn rows) on a few replicates, scaled up; both must agree
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import lightgbm
import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import flyball as fb
from benchmarks.pairs import Case, measure
from flyball.adapters.memory import blobs as memory
from flyball.learn import examples
from flyball.learn import model as models
from flyball.learn.fit import fitting
from flyball.learn.quality import metrics
from flyball.learn.split import Bounds

ROWS = int(os.environ.get("FLYBALL_BENCH_ROWS", "300000"))
REPLICATES, LOOPS = 1000, 5
START = datetime(2024, 1, 1, tzinfo=UTC)


class Visit(fb.Contract):
    """Twenty numbers and what came of them."""

    id = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))
    x0, x1, x2, x3, x4 = (dy.Float64() for _ in range(5))
    x5, x6, x7, x8, x9 = (dy.Float64() for _ in range(5))
    x10, x11, x12, x13, x14 = (dy.Float64() for _ in range(5))
    x15, x16, x17, x18, x19 = (dy.Float64() for _ in range(5))


NAMES = [f"x{i}" for i in range(20)]


@fb.model(
    fb.features(*(getattr(Visit, name) for name in NAMES)),
    predicts=Visit.bought,
    asked=fb.before(Visit.at, timedelta(0)),
)
def buys() -> lightgbm.LGBMClassifier:
    """The very estimator that the limit fits."""
    return lightgbm.LGBMClassifier(n_estimators=100, n_jobs=2, deterministic=True, force_row_wise=True, verbose=-1)


def cases() -> Iterator[Case]:
    """Both cases."""
    yield overhead()
    yield bootstrap()


def _ready(rows: int) -> examples.Examples:
    """Examples as a step left them: 300,000 that train and a fifth as many that test."""
    n = rows + rows // 5 + rows // 5
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n, len(NAMES)))
    logit = values[:, 0] + values[:, 1] * values[:, 2] - 1
    asked = pl.Series("_asked", [START + timedelta(minutes=5) * i for i in range(n)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({name: values[:, i] for i, name in enumerate(NAMES)}).with_columns(
        _asked=asked,
        _settled=asked + pl.duration(minutes=1),
        _label=pl.Series(rng.random(n) < 1 / (1 + np.exp(-logit))),
        **{examples.REQUEST + "id": pl.Series(np.arange(n))},
    )
    counts = examples.Counts(learned=n, void=0, unsettled=0, unaskable=0)
    return examples.Examples(frame, tuple(NAMES), counts)


def overhead() -> Case:
    """The step `train`, and the fit alone on the same float32 matrix."""
    ready = _ready(ROWS)
    step = timedelta(minutes=5)
    cut = START + step * (ROWS + ROWS // 5)
    bounds = Bounds((START + step * ROWS,), cut, START + step * len(ready.asked))
    fit = ready.frame.filter(pl.col("_settled") < cut).head(ROWS + ROWS // 5)
    matrix = fit.select(NAMES).to_numpy().astype(np.float32)
    labels = fit["_label"].to_numpy()
    models.check(buys)

    def ours() -> float:
        started, store = time.perf_counter(), memory.MemoryBlobs()
        for data in fitting.train_all(buys, {}, ready, bounds).values():
            store.put(data)
        return time.perf_counter() - started

    def limit() -> float:
        started = time.perf_counter()
        assert buys.build is not None
        buys.build().fit(matrix, labels)
        return time.perf_counter() - started

    return measure("fit-overhead", "s", {"ours": ours, "limit": limit}, higher=False, turns=3)


def bootstrap() -> Case:
    """The same replicates; the loop is scaled from a few of them, and their values must be equal."""
    rng = np.random.default_rng(1)
    n = 100_000
    outcome = rng.random(n) < 0.3
    scores = np.clip(rng.beta(2, 4, n) + 0.15 * outcome, 1e-6, 1 - 1e-6)
    names = ["roc_auc", "average_precision", "log_loss"]
    draws = metrics.Draws(n, replicates=REPLICATES)
    loop = _loop(outcome, scores)

    def ours() -> float:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (values,) = metrics.replicate([metrics.Panel(names, outcome, scores)], draws)
        taken = time.perf_counter() - started
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert np.allclose(values[:, :LOOPS].T, loop[0], rtol=0, atol=1e-9), "the loop says otherwise"
        assert grown < 200_000, f"{grown} kB more"
        return taken

    return measure("bootstrap-100k", "s", {"ours": ours, "limit": lambda: loop[1]}, higher=False, turns=3)


def _loop(outcome: np.ndarray, scores: np.ndarray) -> tuple[Any, float]:
    counts = next(iter(metrics.Draws(len(outcome), replicates=LOOPS).chunks(len(outcome) * LOOPS)))
    started, found = time.perf_counter(), []
    for each in counts:
        rows = np.repeat(np.arange(len(outcome)), each)
        y, s = outcome[rows], scores[rows]
        found.append((roc_auc_score(y, s), average_precision_score(y, s), log_loss(y, s)))
    return np.array(found), (time.perf_counter() - started) / LOOPS * REPLICATES
