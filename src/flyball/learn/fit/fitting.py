"""From examples to a trained version's artifacts: one function for `apply`, `evaluate` and `reproduce` alike.

    explore   try knobs on the rows before each validation span, compare them on it
    train     fit the declared model, the linear model and the baseline on all rows before the test span, and pack them

The artifacts of `train` follow from the examples, the bounds and the knobs alone, to the byte. What is measured (which exact
predictor is the fastest, how long one answer takes) is kept apart from them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import facts
from flyball._kernel.conditions import Measurement
from flyball.learn import finish, held, split
from flyball.learn import model as models
from flyball.learn.encoding import encode
from flyball.learn.examples import Examples
from flyball.learn.export import pack
from flyball.learn.export.predictor import Predictor
from flyball.learn.fit import mitigation, rungs
from flyball.learn.fit.fold import Fold, scored
from flyball.learn.knobs import Knob
from flyball.learn.model import Model
from flyball.learn.search import Search
from flyball.learn.split import Bounds
from flyball.learn.trying import explore as exploring
from flyball.learn.trying.explore import Course, Found

RIVALS = ("unmitigated", "linear", "baseline")
"""Compared with every model on the same rows, where they are there; their artifacts are named `linear/...`. What a mitigation
gave up is told by the model without it, which is compared and never answers."""

SCORES, OFFERS, MITIGATION = "scores.npy", "offers.json", "mitigation.json"
"""Artifacts: the test rows' answers, (models, rows) or (models, rows, width), the declared model first and the baseline last;
what was packed, and what not; and what was tried to make the model fair."""

CALLS, FEWEST, PATIENCE = 2000, 300, 1.0
"""Single answers that the latency gate is judged on, at most and at least, and seconds for them."""


def explore(model: Model, settings: Search, examples: Examples, bounds: Bounds, course: Course | None = None) -> Found:
    """Search the knobs: the mean of the metric over the validation spans.

    A trial has a stage for each span; where there is one span and the search prunes, one for each of its `rungs`.

    Args:
        course: what an earlier process tried, and who is told; see `explore.Course`.

    Raises:
        DataError: `too-little-history`, `one-class-only`, `no-trial-has-a-score`.
    """
    spans, task = split.cut(examples, bounds), models.task(model)
    split.check_classes(examples, spans, task)
    folds = tuple(Fold.of(model, examples, each.explore, each.validation) for each in spans.folds)
    climbs = settings.prune and len(folds) == 1
    if climbs:
        folds = rungs.folds(folds[0], examples.asked.filter(pl.Series(spans.folds[0].explore)))

    def score(knobs: Mapping[str, Knob]) -> Iterator[float]:
        values: list[float] = []
        for fold in folds:
            values.append(scored(model, settings.optimize, fold, fold.fit(knobs)))
            yield values[-1] if climbs else float(np.mean(values))

    return exploring.run(settings, model.knobs, score, course, stages=len(folds))


def train_all(model: Model, knobs: Mapping[str, Knob], examples: Examples, bounds: Bounds) -> dict[str, bytes]:
    """Fit the declared model and its rivals on the rows before the test span, and pack them: name -> bytes."""
    spans, task = split.cut(examples, bounds), models.task(model)
    split.check_classes(examples, spans, task)
    last = spans.folds[-1]
    way = mitigation.choose(model, knobs, examples, last)
    fold = Fold.of(model, examples, spans.fit, spans.test, way.weights(examples, spans.fit))
    made: dict[str, bytes] = {encode.ARTIFACT: fold.encoder.to_bytes(), held.ARTIFACT: held.to_bytes(spans)}
    fitted = {"": fold.fit(knobs), "linear/": fold.linear(), "baseline/": fold.baseline()}
    answers = {}
    for prefix, estimator in fitted.items():
        if estimator is None:
            continue
        ending = way.finish(prefix, fold, estimator)
        packed = pack.pack(estimator, fold.sample(), task)
        made |= {prefix + name: data for name, data in packed.artifacts.items()}
        made[prefix + OFFERS] = facts.encode(Offers(offers=packed.offers))
        made[prefix + finish.ARTIFACT] = facts.encode(ending)
        answers[prefix] = ending.answers(fold.answers(estimator))
    if way.chosen:
        # Thresholds change what is decided by the same scores; other weights make another model.
        scores = fold.answers(fitted[""])
        if way.chosen != "thresholds":
            plain = Fold.of(model, examples, spans.fit, spans.test)
            scores = plain.answers(plain.fit(knobs))
        answers["unmitigated/"] = way.plain.answers(scores)
        made["unmitigated/" + finish.ARTIFACT] = facts.encode(way.plain)
    if way.told is not None:
        made[MITIGATION] = facts.encode(way.told)
    made[SCORES] = _npy(np.stack([answers[p] for p in ("", *(f"{r}/" for r in RIVALS)) if p in answers]))
    return made


def rivals(artifacts: Mapping[str, object]) -> tuple[str, ...]:
    """Which of `RIVALS` stand beside a version, in the order of its scores."""
    return tuple(r for r in RIVALS if f"{r}/{finish.ARTIFACT}" in artifacts or f"{r}/{OFFERS}" in artifacts)


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """How each packed form compares with the estimator: shipped, or refused and why."""

    offers: tuple[pack.Offer, ...]


def choose(artifacts: Mapping[str, bytes], matrix: np.ndarray, timer: pack.Timer) -> pack.Choice:
    """The fastest exact predictor of the declared model, measured on rows of `matrix`."""
    offers = msgspec.json.decode(artifacts[OFFERS], type=Offers).offers
    own = {name: data for name, data in artifacts.items() if "/" not in name}
    return pack.fastest(pack.Packed(artifacts=own, offers=offers), matrix[:200], timer)


def latency(predictor: Predictor, matrix: np.ndarray, timer: pack.Timer) -> Measurement:
    """Seconds of one answer: the 99th percentile of up to `CALLS` single rows, with an interval from the order statistics.

    A slow one is called for `PATIENCE` seconds, and never less than `FEWEST` times.

    The interval is distribution-free (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2): the ranks around
    the 99th percentile between which it lies with 95 % confidence.
    """
    spent: list[float] = []
    begun = timer()
    while len(spent) < CALLS and (len(spent) < FEWEST or timer() - begun < PATIENCE):
        row = matrix[len(spent) % len(matrix)]
        started = timer()
        predictor.row(row)
        spent.append(timer() - started)
    taken, n = sorted(spent), len(spent)
    rank, reach = 0.99 * n, 1.96 * (n * 0.99 * 0.01) ** 0.5
    low, at, high = (min(n - 1, max(0, math.ceil(r) - 1)) for r in (rank - reach, rank, rank + reach))
    return Measurement(estimate=taken[at], low=taken[low], high=taken[high], n=n)


def read_scores(data: bytes) -> np.ndarray:
    """The answers that `train_all` left: float64, (models, rows) or (models, rows, width)."""
    scores: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return scores


def _npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()
