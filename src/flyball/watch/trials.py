"""Trials: an A/B test, measured on what left. Each entity was answered by one arm; a unit is the mean over its questions.

Unlike guards, which compare both versions on every question, only the answers that somebody saw count here, with what came of
those questions: so an answer that changes its own outcome (an offer, a warning) is tested, where `outcome_mean` decides.

An entity belongs to the version if its lot says so, also where the champion had to answer in its place, because the version
failed or a breaker had taken it out: who was meant to be treated is compared, not who could be. What was asked in the first
minute of a stage, while servers follow, is left out.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from flyball._kernel import conditions
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Condition, Measurement, Metric, Verdict
from flyball._kernel.errors import DeclarationError
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.learn.quality import measures, metrics
from flyball.learn.reference import Says
from flyball.learn.task import Kind, Task
from flyball.release.policy import Release
from flyball.release.rollout import Trial
from flyball.serve import router
from flyball.watch import quality, sequential, settled
from flyball.watch.live import Live
from flyball.watch.sequential import BURN, Arm

OUTCOME: Final = named.outcome_mean.name

_lot = functools.lru_cache(1 << 18)(router.lot)
"""A test draws the lots of the same entities at every look."""

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


def judged(
    live: Live, trial: Trial, candidate: str, champion: str, span: tuple[datetime, datetime], share: float = 0.0
) -> Verdict:
    """The verdict of an A/B test at this look, named as the test; arguments as of `measure`."""
    metric = Metric(trial.metric, "higher" if trial.op == ">=" else "lower")
    condition = Condition(metric, trial.op, trial.margin, conditions.champion)
    found, reason = measure(live, trial, candidate, champion, span, share)
    verdict = conditions.judge(condition, found, reason=reason)
    return Verdict(
        condition=str(trial),
        outcome=verdict.outcome,
        measurement=verdict.measurement,
        threshold=trial.margin,
        reason=verdict.reason,
    )


def measure(
    live: Live, trial: Trial, candidate: str, champion: str, span: tuple[datetime, datetime], share: float = 0.0
) -> quality.Found:
    """The candidate's mean over its entities minus the champion's over its own, with an interval that holds at every look.

    Args:
        span: when its stage began, and now.
        share: of the entities that are the candidate's by their lot, asked or not.
    """
    start, now = min(span[0] + quality.GRACE, span[1]), span[1]
    since = live.since()
    if start < now - live.keeps or (live.dropped and since is not None and since > start):
        # What slides is a new test at every look, and the error rate would hold for none of them.
        return None, f"it reaches further back than attempts are kept ({live.most:,} of them at most)"
    asked = live.frame(candidate, start, now, now).filter(role="canary")
    units = []
    for version, rows in (
        (candidate, asked),
        (champion, live.frame(champion, start, now, now).filter(role="champion")),
    ):
        says = quality.says(live, version, trial.metric)
        if says is None:
            return None, f"{version} has no reference, which tells what its answers are made of"
        units.append(_scored(trial.metric, says, rows))
    each = pl.concat(units).group_by("entity", maintain_order=True).agg(pl.col("score").mean())
    drawn = [_lot(candidate, whose) < share for whose in each["entity"]]
    treated = each["entity"].is_in(asked["entity"].unique().implode()) | pl.Series(drawn, dtype=pl.Boolean)
    arms = _arm(each.filter(treated)["score"]), _arm(each.filter(~treated)["score"])
    few = min(int(arms[0].n), int(arms[1].n))
    if few < BURN:
        return None, f"outcomes of {arms[0].n:,} and {arms[1].n:,} entities, and each arm needs {BURN}"
    found = sequential.difference(*arms, trial.error_rate)
    if not np.isfinite(found.low):
        return None, "the entities of an arm are all alike, or a few of them weigh as much as the rest"
    n = int(arms[0].n) + int(arms[1].n)
    return Measurement(estimate=float(found.estimate), low=float(found.low), high=float(found.high), n=n), ""


def _scored(metric: str, says: Says, rows: pl.DataFrame) -> pl.DataFrame:
    """The settled answers of one version: whom each was about, and what it adds to the metric."""
    known = settled.known(rows, says.task)
    return known.select("entity").with_columns(
        score=pl.Series(_score(metric, says.task, says, known), dtype=pl.Float64)
    )


def _score(metric: str, task: Task, says: Says, known: pl.DataFrame) -> measures.Array:
    if not known.height:
        return np.empty(0)
    y = settled.outcome(known, task)
    if metric == OUTCOME:
        return y.astype(np.float64)
    answers = settled.scores(known, task)
    metrics.check(y, answers)
    (column,) = measures.READS[metric]
    return measures.columns((metric,), y, answers, settled.terms(known, says))[column]


def _arm(scores: pl.Series) -> Arm:
    """Units, and their moments; without two of them nothing is known."""
    x = scores.to_numpy()
    if len(x) < 2:
        return Arm(len(x), 0.0, 0.0, 0.0)
    return Arm(len(x), float(x.mean()), float(x.var(ddof=1)), float(((x - x.mean()) ** 3).mean()))
