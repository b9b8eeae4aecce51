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

import msgspec
import numpy as np

from flyball._kernel import facts
from flyball._kernel.conditions import Measurement
from flyball.learn import encode, metrics, train
from flyball.learn import explore as exploring
from flyball.learn import model as models
from flyball.learn.examples import Examples
from flyball.learn.explore import Found
from flyball.learn.export import pack
from flyball.learn.export.predictor import Predictor
from flyball.learn.model import Model
from flyball.learn.search import Search
from flyball.learn.split import Bounds, cut

RIVALS = ("linear", "baseline")
"""Trained beside every model, on the same rows; their artifacts are named `linear/...` and `baseline/...`."""

SCORES, OFFERS = "scores.npy", "offers.json"
"""Artifacts: the test rows' scores, (models, rows), the declared model first; what was packed, and what not."""

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
    labels = examples.labels
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
    spans, outputs, labels = cut(examples, bounds), model.features.outputs(model.question), examples.labels
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


def read_scores(data: bytes) -> np.ndarray:
    """The scores that `train_all` left: float64, (models, rows)."""
    scores: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return scores


def _npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()
