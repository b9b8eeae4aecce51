"""Trials: an A/B test, measured on what left: the mean over the answers of one arm against that of the other.

Unlike guards, which compare both versions on every question, only the answers that somebody saw count here, with what came of
those questions: so an answer that changes its own outcome (an offer, a warning) is tested, where `outcome_mean` decides.

An entity belongs to the version if its lot says so, whoever answered it: the champion, because the version failed or a breaker
had taken it out, or a fallback of both. Who was meant to be treated is compared, not who could be. What was asked in the first
minute of a stage, while servers follow, is left out. The sums are kept from then on (`watch.arms`), however many come.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

import numpy as np

from flyball._kernel import conditions
from flyball._kernel.clock import micros
from flyball._kernel.conditions import Condition, Measurement, Metric, Verdict
from flyball._kernel.errors import DeclarationError
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.reference import Says
from flyball.learn.task import Kind
from flyball.release.policy import Release
from flyball.release.rollout import Rollout, Trial
from flyball.watch import quality, sequential
from flyball.watch.arms import OUTCOME, Arms, Compared
from flyball.watch.live import Live
from flyball.watch.sequential import BURN

MEANS: Final = frozenset(
    {
        "accuracy",
        "brier",
        "cost",
        "log_loss",
        "mean_absolute_error",
        "pinball_loss",
        "coverage",
        "width",
        "selection_rate",
    }
)
"""Metrics that are a mean over questions, so that an entity has one of its own."""


def measurable(kind: Kind) -> tuple[str, ...]:
    """What an A/B test of such a task can be decided by."""
    own = [m.name for m in metrics.measurable(kind) if m.name in MEANS]
    return (*own, *(() if kind == "multiclass" else (OUTCOME,)))


def check(release: Release, model: Model) -> None:
    """Refuse A/B tests that the answers of a model could not decide.

    Raises:
        DeclarationError: `test-not-measurable`, `condition-upside-down`.
    """
    names = measurable(models.task(model).kind)
    for test in (stage.test for stage in release.stages if stage.test is not None):
        name = test.decides.metric.name.removesuffix(".live")
        if name not in names:
            raise DeclarationError(
                "test-not-measurable",
                f"An A/B test of {model.name!r} cannot be decided by {test.decides.metric}.",
                where=test.decides.place,
                why=f"It compares means over entities: {', '.join(names)}.",
                next="Take one of them; what is no mean, such as roc_auc, can be a guard: .live(over=...) .on(champion).",
            )
        if name != OUTCOME:  # whether more of it is good, only the app knows
            quality.check_direction(test.decides)


def of(state: Rollout) -> Compared | None:
    """What the present stage compares; None where it is no A/B test."""
    began = state.began or state.entered
    if state.trial is None or began is None:
        return None
    start = micros(began + quality.GRACE)
    return Compared(state.candidate, state.champion, state.trial.metric, state.share, start)


def follow(live: Live, state: Rollout, now: datetime) -> None:
    """Let what is folded from now on count for the A/B test that a model is in; forget one that is over."""
    compared = of(state)
    if live.arms is not None and live.arms.compared == compared:
        return
    live.arms = None
    if compared is None or _unknown(live, compared):
        return
    arms, since = Arms(compared, partial(_says, live, compared.metric)), live.since()
    forgotten = live.dropped > 0 and since is not None and micros(since) > compared.start
    arms.whole = compared.start >= micros(now - live.keeps) and not forgotten
    live.compare(arms)


def judged(live: Live, state: Rollout, trial: Trial) -> Verdict:
    """The verdict of the A/B test that a rollout is in, at this look, named as the test."""
    metric = Metric(trial.metric, "higher" if trial.op == ">=" else "lower")
    condition = Condition(metric, trial.op, trial.margin, conditions.champion)
    found, reason = measure(live, of(state), trial.error_rate)
    verdict = conditions.judge(condition, found, reason=reason)
    return Verdict(
        condition=str(trial),
        outcome=verdict.outcome,
        measurement=verdict.measurement,
        threshold=trial.margin,
        reason=verdict.reason,
    )


def measure(live: Live, compared: Compared | None, error_rate: float) -> quality.Found:
    """The mean of the candidate's arm minus that of the champion's, with an interval that holds at every look."""
    arms = live.arms
    if compared is not None and (version := _unknown(live, compared)):
        return None, f"{version} has no reference, which tells what its answers are made of"
    if compared is None or arms is None or arms.compared != compared:
        return None, "it is looked at from the next look on"
    if not arms.whole:
        # What slides is a new test at every look, and the error rate would hold for none of them.
        return None, "its beginning was forgotten: it reaches further back than answers are read again"
    mine, theirs = arms.sides()
    said = f"{arms.given_up:,} answers were let go before their outcomes came" if arms.given_up else ""
    if min(mine.entities, theirs.entities) < BURN:
        few = f"outcomes of {mine.entities:,.0f} and {theirs.entities:,.0f} entities, and each arm needs {BURN}"
        return None, "; ".join(filter(None, (few, said)))
    found = sequential.difference(mine.arm, theirs.arm, error_rate)
    if not np.isfinite(found.low):
        return None, "; ".join(
            filter(None, ("answers are all alike, or a few entities weigh as much as the rest", said))
        )
    n = mine.answers + theirs.answers
    return Measurement(estimate=float(found.estimate), low=float(found.low), high=float(found.high), n=n), said


def _unknown(live: Live, compared: Compared) -> str:
    """The version of which nobody knows what its answers are made of; "" for neither."""
    versions = (compared.candidate, compared.champion)
    return next((v for v in versions if quality.says(live, v, compared.metric) is None), "")


def _says(live: Live, metric: str, version: str) -> Says | None:
    return quality.says(live, version, metric)
