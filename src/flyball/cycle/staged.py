"""Staged: everything that is said of whoever is on the way, or was just promoted: guards, and what the present stage needs.

    the questions of its stage are computed      `quality.coverage`       always
    no faults, no answer that cannot be right    `always.sound`           always
    what the release declares                    `quality.measure`
    answers and outcomes of the stage            `always.enough`          where the stage asks for them
    the word of a person                         `approval`, said since the stage began
    the A/B test                                 `trials`

All are verdicts, and `moves.decide` knows no other: what is not there yet is inconclusive, and so is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

import msgspec

from flyball._kernel import conditions
from flyball._kernel.conditions import Outcome, Verdict
from flyball.cycle.session import Session
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.release import approval
from flyball.release.policy import ANYBODY
from flyball.release.rollout import Rollout
from flyball.watch import always, beside, quality, trials
from flyball.watch.live import Live


def verdicts(session: Session, model: Model, live: Live, state: Rollout, now: datetime) -> Iterator[Verdict]:
    """What is said of the candidate; or, for a while after its promotion, of the champion; nothing where neither is judged."""
    policy = session.app.release
    if state.candidate and (entered := state.entered) is not None:
        whose, against, start = state.candidate, state.champion, state.started or entered
        computed = [quality.coverage(live, whose, each, now) for each in (entered, max(entered, now - always.LATELY))]
        yield max(computed, key=lambda verdict: verdict.outcome is Outcome.FAIL)
    elif state.promoted is not None and state.previous and now < state.promoted + policy.patience:
        whose, against, start = state.champion, "", state.promoted
    else:
        return
    yield from always.sound(live, whose, against or state.previous, start, now, always.looser(policy))
    for guard in policy.abort_unless:
        if against or (guard.whom is None and guard.metric.name not in beside.NAMES):
            found, reason = quality.measure(live, guard, whose, champion=against or None, start=start, now=now)
            verdict = conditions.judge(guard, found, reason=reason)
            # A stage in which no caller waits for it cannot show that one would wait too long, however long it lasts.
            waits = reason == quality.ALONE and not state.share
            yield msgspec.structs.replace(verdict, outcome=Outcome.PASS) if waits else verdict
    if against:
        yield from _stage(session, model, live, state, now)


def _stage(session: Session, model: Model, live: Live, state: Rollout, now: datetime) -> Iterator[Verdict]:
    step, began = state.stages[state.stage], state.began or state.entered or now
    yield from always.enough(live, state.candidate, step, began, now)
    if step.approval:
        gate = approval.approval(by="" if step.approval == ANYBODY else step.approval)
        words = approval.said(session.facts, session.app.name, model.name, state.candidate)
        # What was said before, of a gate or an earlier stage, was not said of what this stage has shown.
        found, reason = approval.told(gate, [w for w in words if w.epoch >= state.epoch], state.candidate)
        yield conditions.judge(gate, found, reason=reason)
    if step.trial is not None:
        yield trials.judged(live, state, step.trial)


def bounds(model: Model) -> tuple[float, float]:
    """Between which an answer must lie: chances between 0 and 1, numbers as the outcome's column is declared."""
    task = models.task(model)
    if task.truth or task.classes:
        return 0.0, 1.0
    column = model.question.columns()[model.predicts.name]
    least = [getattr(column, name, None) for name in ("min", "min_exclusive")]
    most = [getattr(column, name, None) for name in ("max", "max_exclusive")]
    return (
        max((float(x) for x in least if x is not None), default=-math.inf),
        min((float(x) for x in most if x is not None), default=math.inf),
    )
