"""What follows the score of a version, and how it was made fair: learned on the last validation span, before the shipped fit.

Where a fairness condition is declared (`fb.mitigate`), the plain model is judged by it on the validation rows first. If it does
not pass, each declared method is tried on the same rows, and of those that pass the most accurate is taken; if none does, the
one with the smallest gap, and the gate on the test rows has the last word. What every candidate cost in accuracy is kept.

    reweighing  rows weigh so that group and outcome are independent (Kamiran and Calders, Knowledge and Information Systems
                33, 2012): w = P(group) P(outcome) / P(group, outcome)
    thresholds  each group has its own, at which the rate is equal (Hardt, Price and Srebro, NeurIPS 2016)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement, Outcome
from flyball.learn import gates, sampling
from flyball.learn.examples import REQUEST, Examples
from flyball.learn.finish import Finish
from flyball.learn.fit import finishing
from flyball.learn.fit.fold import Fold, Mask, groups
from flyball.learn.knobs import Knob
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.quality.evaluate import HeldOut
from flyball.learn.quality.measures import Array
from flyball.learn.split import Fold as Cut
from flyball.learn.task import Answers
from flyball.learn.treatment import Mitigate, Treatment

PARTS, MARGIN = (0.25, 0.5, 0.75, 1.0), 0.2
"""How far groups are moved towards equal rates, in this order, and what part of the limit is kept free."""
PLAIN, REWEIGHING = "none", "reweighing"
"""Methods: of the plain model, and the one that changes what is fitted."""
JUDGED = 20_000
"""Validation rows on which candidates are compared, at most; evenly from all. Thresholds are learned from all of them."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on the validation rows: the gap that is to be small, whether it passes, and what it costs."""

    method: str
    gap: Measurement | None
    passes: bool
    measurements: dict[str, Measurement]


class Mitigation(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried, the plain model first; `chosen` is its method."""

    until: str
    by: str
    chosen: str
    tried: tuple[Tried, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """How the shipped model is fitted and finished.

    Attributes:
        endings: prefix of a model -> what follows its score, as the validation span taught.
        plain: what follows that of the model without mitigation.
        chosen: the method, "" for none; `by`: the column of its groups.
        told: what was tried; None where nothing had to be.
    """

    endings: Mapping[str, Finish] = field(default_factory=dict)
    plain: Finish = field(default_factory=Finish)
    chosen: str = ""
    by: str = ""
    told: Mitigation | None = None

    def weights(self, examples: Examples, rows: Mask) -> Array | None:
        """(rows,) what mitigation adds to the weights of training rows."""
        return reweighing(examples, rows, self.by) if self.chosen == REWEIGHING else None

    def finish(self, prefix: str, fold: Fold, fitted: Any) -> Finish:
        """What follows the score of one of the shipped models."""
        if fold.task.kind == "quantile":
            return Finish(ascending=True)
        found = self.endings.get(prefix, Finish())
        if fold.task.kind == "anomaly" and prefix == "":
            return msgspec.structs.replace(found, calibration=finishing.usual(fold.known(fitted)))
        return found


def choose(model: Model, knobs: Mapping[str, Knob], examples: Examples, cut: Cut) -> Way:
    """Learn on the rows of `cut`: what follows each model's score, and by which method the declared one is made fair."""
    if not model.treatment.finishes:
        return Way()
    fold = Fold.of(model, examples, cut.explore, cut.validation)
    plain = _learned(fold, fold.fit(knobs), model.treatment)
    endings = {"": plain[0]}
    for prefix, estimator in (("linear/", fold.linear()), ("baseline/", fold.baseline())):
        # A constant is not calibrated: it is the share already.
        treatment = model.treatment if prefix == "linear/" else Treatment(decide=model.treatment.decide)
        if estimator is not None and fold.task.kind == "binary":
            endings[prefix] = _learned(fold, estimator, treatment)[0]
    wanted = model.treatment.mitigate
    if wanted is None:
        return Way(endings)
    first = _tried(PLAIN, wanted, fold, plain)
    if first.passes:
        return Way(endings, told=_told(wanted, (first,), first))
    return _mitigated(wanted, (model, knobs, examples, cut), (fold, plain, first), endings)


def _mitigated(
    wanted: Mitigate,
    given: tuple[Model, Mapping[str, Knob], Examples, Cut],
    plainly: tuple[Fold, tuple[Finish, Answers], Tried],
    endings: dict[str, Finish],
) -> Way:
    model, knobs, examples, cut = given
    fold, plain, first = plainly
    ways: dict[str, Finish] = {}
    tried = [first]
    for method in wanted.methods:
        if method == "thresholds":
            ways[method], each = _moved(wanted, fold, plain)
        else:
            extra = reweighing(examples, cut.explore, wanted.by)
            weighed = Fold.of(model, examples, cut.explore, cut.validation, extra)
            found = _learned(weighed, weighed.fit(knobs), model.treatment)
            ways[method], each = found[0], _tried(method, wanted, fold, found)
        tried.append(each)
    best = min(tried, key=_order)
    told = _told(wanted, tuple(tried), best)
    if best is first:
        return Way(endings, told=told)
    return Way({**endings, "": ways[best.method]}, plain[0], best.method, wanted.by, told)


def _moved(wanted: Mitigate, fold: Fold, plain: tuple[Finish, Answers]) -> tuple[Finish, Tried]:
    """Thresholds that move the groups' rates no further than they must: each step towards equal rates costs accuracy.

    The interval must keep `MARGIN` of the limit free, since the gate is judged on other rows.
    """
    seen = (fold.outcome, plain[1], fold.groups(wanted.by))
    limit = wanted.until.threshold * (1 - MARGIN)
    for part in PARTS:
        ending = finishing.of_groups(wanted.rate, plain[0], wanted.by, seen, part=part)
        tried = _tried("thresholds", wanted, fold, (ending, plain[1]))
        if tried.gap is not None and tried.gap.high <= limit:
            break
    return ending, tried


def _order(tried: Tried) -> tuple[bool, float]:
    """Those that pass by their accuracy, then the others by their gap."""
    if tried.passes:
        return False, -tried.measurements[named.accuracy.name].estimate
    return True, tried.gap.high if tried.gap is not None else np.inf


def _learned(fold: Fold, fitted: Any, treatment: Treatment) -> tuple[Finish, Answers]:
    scores = fold.answers(fitted)
    if fold.task.kind == "anomaly":
        scores = Finish(calibration=finishing.usual(fold.known(fitted))).answers(scores)
    found = finishing.learn(treatment, fold.task, fold.outcome, scores)
    return found, found.answers(scores)


def _tried(method: str, wanted: Mitigate, fold: Fold, found: tuple[Finish, Answers]) -> Tried:
    ending, answers = found
    at = sampling.evenly(len(answers), JUDGED)
    rows = HeldOut(
        outcome=fold.outcome[at],
        scores={method: answers[at]},
        slices={wanted.by: fold.asked[REQUEST + wanted.by].alias(wanted.by)[at]},
        task=fold.task,
        decided={method: ending.decided(answers[at], groups(fold.asked[at], wanted.by))},
    )
    verdict = gates.judge_all((wanted.until,), rows).verdicts[0]
    names = (named.accuracy.name, named.roc_auc.name, wanted.rate)
    measured = metrics.measure(names, rows.outcome, answers[at], rows.draws, rows.terms(method))
    return Tried(
        method=method,
        gap=verdict.measurement,
        passes=verdict.outcome is Outcome.PASS,
        measurements={name: m for name, m in measured.items() if m is not None},
    )


def _told(wanted: Mitigate, tried: tuple[Tried, ...], best: Tried) -> Mitigation:
    return Mitigation(until=str(wanted.until), by=wanted.by, chosen=best.method, tried=tried)


def reweighing(examples: Examples, rows: Mask, by: str) -> Array:
    """(rows that are true,) what each weighs, so that among them group and outcome are independent."""
    seen = pl.DataFrame({"group": examples.frame[REQUEST + by], "outcome": examples.labels}).filter(pl.Series(rows))
    n = pl.len().cast(pl.Float64)  # counts of 32 bits would overflow when multiplied
    weight = n.over("group") * n.over("outcome") / (n.over("group", "outcome") * n)
    return seen.select(weight).to_series().to_numpy()
