"""From examples to a trained version's artifacts: one function for `apply`, `evaluate` and `reproduce` alike.

    explore   try knobs on the rows before the validation span, compare them on it
    train     fit the declared model, the linear model and the baseline on all rows before the test span, and pack them

The artifacts of `train` follow from the examples, the bounds and the knobs alone, to the byte. What is measured (which exact
predictor is the fastest, how long one answer takes) is kept apart from them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import facts
from flyball._kernel.conditions import Measurement
from flyball._kernel.durations import hours
from flyball._kernel.errors import DataError
from flyball.learn import encode, metrics, train
from flyball.learn import explore as exploring
from flyball.learn import model as models
from flyball.learn import search as searching
from flyball.learn.examples import Examples
from flyball.learn.explore import Found
from flyball.learn.export import pack
from flyball.learn.export.predictor import Predictor
from flyball.learn.model import Model
from flyball.learn.search import Bounds, ByTime, Search, Spans

RIVALS = ("linear", "baseline")
"""Trained beside every model, on the same rows; their artifacts are named `linear/...` and `baseline/...`."""

SCORES, OFFERS = "scores.npy", "offers.json"
"""Artifacts: the test rows' scores, (models, rows), the declared model first; what was packed, and what not."""

SETTLED_ENOUGH = 100
"""Questions that are enough to measure how long outcomes take."""

CALLS = 2000
"""Single answers that the latency gate is judged on."""


def explore(
    model: Model, settings: Search, examples: Examples, bounds: Bounds, tell: Callable[[int, float], None]
) -> Found:
    """Search the knobs.

    Args:
        tell: called after each trial with its number and score.
    """
    spans = cut(examples, bounds)
    outputs = model.features.outputs(model.question)
    encoder = train.encoder(examples.frame.filter(spans.explore), outputs)
    early, late = (encoder.encode(examples.frame.filter(mask)) for mask in (spans.explore, spans.validation))
    labels = labels_of(examples)
    count = 0

    def score(knobs: Mapping[str, float]) -> float:
        nonlocal count
        fitted = train.fit(train.declared(model, knobs), early, labels[spans.explore])
        value = metrics.value(settings.optimize.name, labels[spans.validation], pack.answers(fitted, late))
        tell(count, value)
        count += 1
        return value

    return exploring.run(settings, model.knobs, score)


def train_all(model: Model, knobs: Mapping[str, float], examples: Examples, bounds: Bounds) -> dict[str, bytes]:
    """Fit the declared model and its rivals on the rows before the test span, and pack them: name -> bytes."""
    spans, outputs, labels = cut(examples, bounds), model.features.outputs(model.question), labels_of(examples)
    encoder = train.encoder(examples.frame.filter(spans.fit), outputs)
    rows, held_out = (encoder.encode(examples.frame.filter(mask)) for mask in (spans.fit, spans.test))
    binary = models.classifies(model)
    estimators = {
        "": train.declared(model, knobs),
        "linear/": train.linear(outputs, classifies=binary),
        "baseline/": train.baseline(classifies=binary),
    }
    made: dict[str, bytes] = {encode.ARTIFACT: encoder.to_bytes()}
    scores = []
    for prefix, estimator in estimators.items():
        fitted = train.fit(estimator, rows, labels[spans.fit])
        scores.append(pack.answers(fitted, held_out))
        packed = pack.pack(fitted, held_out)
        made |= {prefix + name: data for name, data in packed.artifacts.items()}
        made[prefix + OFFERS] = facts.encode(Offers(offers=packed.offers))
    made[SCORES] = _npy(np.stack(scores))
    return made


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """How each packed form compares with the estimator: shipped, or refused and why."""

    offers: tuple[pack.Offer, ...]


def choose(artifacts: Mapping[str, bytes], matrix: np.ndarray, timer: pack.Timer) -> pack.Choice:
    """The fastest exact predictor of the declared model, measured on rows of `matrix`."""
    offers = msgspec.json.decode(artifacts[OFFERS], type=Offers).offers
    own = {name: data for name, data in artifacts.items() if "/" not in name}
    return pack.fastest(pack.Packed(artifacts=own, offers=offers), matrix[:200], timer)


def latency(predictor: Predictor, matrix: np.ndarray, timer: pack.Timer) -> Measurement:
    """Seconds of one answer: the 99th percentile of `CALLS` single rows, with an interval from the order statistics.

    The interval is distribution-free (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2): the ranks around
    the 99th percentile between which it lies with 95 % confidence.
    """
    taken = np.empty(CALLS)
    for i in range(CALLS):
        row = matrix[i % len(matrix)]
        started = timer()
        predictor.row(row)
        taken[i] = timer() - started
    taken.sort()
    rank, reach = 0.99 * CALLS, 1.96 * (CALLS * 0.99 * 0.01) ** 0.5
    low, at, high = (min(CALLS - 1, max(0, math.ceil(r) - 1)) for r in (rank - reach, rank, rank + reach))
    return Measurement(estimate=float(taken[at]), low=float(taken[low]), high=float(taken[high]), n=CALLS)


def bounds_of(examples: Examples, cutoff: datetime, split: ByTime) -> Bounds:
    """The spans before the cutoff, ended early enough for outcomes to settle.

    A question that was asked just before the cutoff is among the examples only if its outcome came quickly, and what comes
    quickly may be of one kind (a parcel that is not sent back is settled late). So the last span ends one **lag** before the
    cutoff: the time within which 99 % of outcomes settle, measured on questions old enough for all of theirs to be there.
    """
    waits = (examples.settled - examples.asked).dt.total_microseconds()
    old = waits.filter(examples.asked < cutoff - 3 * split.span)
    longest = (old if len(old) >= SETTLED_ENOUGH else waits).quantile(0.99, "higher")
    hours_ = math.ceil((longest or 0) / 3.6e9)
    return Bounds.before(cutoff - hours(hours_), split)


def cut(examples: Examples, bounds: Bounds) -> Spans:
    """The spans of the examples.

    Raises:
        DataError: `too-little-history`; `one-class-only`, when a classifier would see, or be judged on, one outcome alone.
    """
    spans = searching.spans(examples.asked, examples.settled, bounds)
    labels = labels_of(examples)
    for name in ("explore", "validation", "test") if labels.dtype == np.bool_ else ():
        found = labels[getattr(spans, name)]
        if found.all() or not found.any():
            raise DataError(
                "one-class-only",
                f"All {len(found):,} outcomes of the {searching.NAMES[name]} span are {bool(found[0])}.",
                why="What never differs can be neither learned nor ranked.",
                next="Ingest more history, or declare a longer span: split=fb.by_time(days(60)).",
            )
    return spans


def labels_of(examples: Examples) -> np.ndarray:
    """(n,) what is predicted: Boolean for a classifier, float64 otherwise."""
    label = examples.label
    return label.to_numpy() if label.dtype == pl.Boolean else label.cast(pl.Float64).to_numpy()


def days(asked: pl.Series) -> np.ndarray:
    """(n,) the day on which each question was asked: rows of one day share its weather and its jams, so the bootstrap
    draws whole days (Künsch 1989; Cameron, Gelbach and Miller 2008); rows on their own would make intervals too narrow.
    """
    return asked.dt.epoch("d").cast(pl.Int64).to_numpy()


def read_scores(data: bytes) -> np.ndarray:
    """The scores that `train_all` left: float64, (models, rows)."""
    scores: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return scores


def _npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()
