"""Quality of what is served: one Condition, measured on the live traffic of one version.

    error_rate      its attempts that gave no answer; Wilson's interval
    invalid_rate    its attempts whose answer cannot be right (`always.impossible`), likewise
    p99_latency     seconds of its attempts; an interval from order statistics, exact where they are few; shadows, computed
                    one by one where callers' questions may be computed together, speak for a version, and never against it
    disagreement    and prediction_shift, against the champion on the same questions: see `beside`
    roc_auc.live    answered questions whose outcome is known by now; redrawn by days, or by hours where there are few days
    .on(champion)   the paired difference on questions that both answered, on the same draws

Everything lies between `start` (when a rollout began, or nothing for a monitor) and now, and no further back than `over`.
What cannot be measured is None with the reason, never a guess: a guard then holds, and a monitor is blind.
Refused when the app is checked: guards and monitors that no traffic could ever show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from flyball._kernel import conditions
from flyball._kernel import metrics as named
from flyball._kernel.clock import EPOCH
from flyball._kernel.conditions import Condition, Measurement, Metric, Outcome, Verdict
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data.interval import Z, wilson
from flyball.learn import gates
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.reference import Says
from flyball.learn.task import BINARY, REGRESSION
from flyball.release.policy import Release
from flyball.watch import always, beside, settled
from flyball.watch.live import HOUR, OWN, Live
from flyball.watch.monitor import DRIFTS, Monitor

Found = tuple[Measurement | None, str]

FEW_DAYS = 10
"""Days from which on whole days are redrawn; below, hours: so few days drawn again would look like certainty."""
EXACT = 20_000
"""Attempts up to which the ranks of a latency are exact; beyond, the normal approximation errs by less than a rank."""
TAIL = 0.01
GRACE = timedelta(minutes=1)
"""For servers to follow a route: they look ten times a second, and compile a version in a second or two."""
COVERED = 0.9
FEW = 20
"""Questions below which nothing is said about how many of them were computed."""

ALONE = (
    "its shadows are too slow, but those are computed one by one: how long callers wait is seen when it answers them"
)
"""Why nothing is said of a latency, where a version answers nobody yet."""

_COUNTED = (conditions.error_rate.name, named.invalid_rate.name, conditions.p99_latency.name)


def measure(
    live: Live,
    condition: Condition,
    version: str,
    *,
    champion: str | None = None,
    start: datetime | None = None,
    now: datetime,
) -> Found:
    """What the condition compares with its threshold, or None, and what should be said about it.

    Args:
        version: whose attempts are measured.
        champion: the version that `on(champion)` means.
        start: nothing asked earlier counts.
        now: nothing asked, or known, at or after it counts.
    """
    over = condition.metric.over
    begin = start or EPOCH
    if over is not None:
        begin = max(begin, now - over)
    rows = live.frame(version, begin, now, now).filter(pl.col("role").is_in(OWN))
    name = _plain(condition.metric)
    if name in _COUNTED and not rows.height:
        return None, f"{version} was asked nothing yet"
    if name == conditions.error_rate.name:
        return _share(rows, pl.col("failed") != "")
    if name == named.invalid_rate.name:
        return _share(rows, always.impossible(live, version))
    if name == conditions.p99_latency.name:
        return _latency(rows, condition)
    mine = says(live, version, name)
    if mine is None:
        return None, f"{version} has no reference, which tells what its answers are made of"
    if condition.whom is None and name not in beside.NAMES:
        return _quality(name, mine, rows, None)
    if champion is None:
        return None, gates.FIRST
    other = says(live, champion, name)
    if other is None or other.task != mine.task:
        return None, f"the answers of {champion} are made of something else"
    theirs = live.frame(champion, begin, now, now).filter(pl.col("role").is_in(OWN))
    return beside.measure(name, mine, rows, theirs) if name in beside.NAMES else _quality(name, mine, rows, theirs)


def coverage(live: Live, version: str, start: datetime, now: datetime) -> Verdict:
    """Whether a candidate computed the questions of its stage: the guard that every rollout has.

    One that its breaker took out, or that no server can compile, makes no further attempt: no faults, no latency, and no proof
    of anything. Shadows that are dropped under load are missing too, so only less than half is a failure.

    Args:
        start: when it entered the stage; servers have `GRACE` from then on to follow.
    """
    asked, computed = live.covered(version, min(start + GRACE, now), now)
    condition = f"computed >= {COVERED:g} of the questions"
    if asked < FEW:
        return Verdict(condition=condition, outcome=Outcome.PASS, measurement=None, threshold=COVERED)
    low, high = wilson(computed, asked)
    outcome = Outcome.FAIL if high < COVERED / 2 else Outcome.PASS if high >= COVERED else Outcome.INCONCLUSIVE
    return Verdict(
        condition=condition,
        outcome=outcome,
        measurement=Measurement(estimate=computed / asked, low=low, high=high, n=asked),
        threshold=COVERED,
        reason="" if outcome is Outcome.PASS else "taken out by its breaker, dropped, or no server can compute it",
    )


def check_guards(release: Release, model: Model) -> None:
    """Refuse guards of a rollout that its traffic could never show.

    Raises:
        DeclarationError: `guard-not-measurable`, `condition-upside-down`.
    """
    quality = _quality_names(model)
    for guard in release.abort_unless:
        metric, name = guard.metric, _plain(guard.metric)
        counted = name in (*_COUNTED, *beside.NAMES) and guard.whom is None
        live = name in quality and metric.name == f"{name}.live" and guard.whom in (None, conditions.champion)
        if not (counted or (live and metric.over is not None)):
            raise DeclarationError(
                "guard-not-measurable",
                f"{guard} cannot be measured on the traffic of a rollout of {model.name!r}.",
                where=guard.place,
                why=f"A guard is judged while the version answers: on {', '.join((*_COUNTED, *beside.NAMES))}, and "
                f"{', '.join(quality)} as .live(over=...), alone or .on(champion).",
                next="Make it a gate if held-out data can show it, or a monitor if it needs weeks.",
            )
        check_direction(guard)


def check_monitors(monitors: Sequence[Monitor], model: Model) -> None:
    """Refuse monitors that the traffic of a version that answers could never show.

    Raises:
        DeclarationError: `monitor-not-measurable`, `monitor-without-threshold`, `condition-upside-down`.
    """
    quality = _quality_names(model)
    features = {f.name for f in model.features.features}
    for monitor in monitors:
        watched = monitor.watches
        metric = watched.metric if isinstance(watched, Condition) else watched
        name = _plain(metric)
        drifts = metric.name in DRIFTS and bool(metric.subject) and features.issuperset(metric.subject)
        live = name in _COUNTED or (name in quality and metric.name == f"{name}.live")
        relative = isinstance(watched, Condition) and watched.whom is not None
        if not (drifts or live) or metric.over is None or relative:
            raise DeclarationError(
                "monitor-not-measurable",
                f"The monitor {monitor.name!r} watches {watched}, which the traffic of {model.name!r} cannot show.",
                where=_place(monitor),
                why="A monitor looks at the version that answers, over a window: at fb.psi or fb.js of its own features, "
                f"at {', '.join(_COUNTED)} and {', '.join(quality)} as .live(over=...).",
                next="Write such a window: roc_auc.live(over=days(30)) >= 0.62.",
            )
        if isinstance(watched, Condition):
            check_direction(watched)
        elif not drifts:
            raise DeclarationError(
                "monitor-without-threshold",
                f"The monitor {monitor.name!r} watches {metric} and says no threshold.",
                where=monitor.place,
                why="Only drift is calibrated from a version's own history; what is good enough, you say.",
                next=f"Compare it: fb.Monitor({monitor.name!r}, {metric} {'>=' if metric.better == 'higher' else '<='} ...).",
            )


def _share(rows: pl.DataFrame, faulty: pl.Expr) -> Found:
    """The share of faulty attempts, by Wilson (1927): a few attempts without a fault are no proof that none has one."""
    n, bad = rows.height, rows.filter(faulty).height
    low, high = wilson(bad, n)
    return Measurement(estimate=bad / n, low=low, high=high, n=n), ""


def _latency(rows: pl.DataFrame, condition: Condition) -> Found:
    """The slowest hundredth of all attempts, if that is fast enough; else of those that callers waited for."""
    found, reason = _tail(rows, condition)
    waited = rows.filter(pl.col("role") != "shadow")
    if found is None or found.high <= condition.threshold or waited.height == rows.height:
        return found, reason
    return _tail(waited, condition) if waited.height else (None, ALONE)


def _tail(rows: pl.DataFrame, condition: Condition) -> Found:
    """Where few attempts leave the upper end open, a version that is certainly too slow is still found to be so."""
    taken = np.sort(rows["latency"].to_numpy()) / 1e6
    n = len(taken)
    low, high = ranks(n)
    least = float(taken[low - 1]) if low else 0.0
    at = float(taken[math.ceil((1 - TAIL) * n) - 1])
    if high is None and least <= condition.threshold:
        return None, f"{n} attempts, too few to bound their slowest hundredth"
    most = float(taken[high - 1]) if high is not None else float(taken[-1])
    return Measurement(estimate=at, low=least, high=most, n=n), ""


def ranks(n: int) -> tuple[int, int | None]:
    """The order statistics (from 1) between which the 99th percentile lies with 95 % confidence.

    Distribution-free (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). The number of values beyond the
    percentile is binomial. Zero, and None: no value is surely below it, and above it.
    """
    if n > EXACT:
        middle, reach = (1 - TAIL) * n, Z * math.sqrt(n * TAIL * (1 - TAIL))
        return math.floor(middle - reach), min(n, math.ceil(middle + reach) + 1)
    beyond = above = 0
    mass, summed, high = (1 - TAIL) ** n, 0.0, None
    for beyond in range(n + 1):
        summed += mass
        if summed <= (1 - metrics.LEVEL) / 2:
            above, high = beyond, n - beyond
        if summed >= (1 + metrics.LEVEL) / 2:
            break
        mass *= (n - beyond) / (beyond + 1) * TAIL / (1 - TAIL)
    return n - beyond, None if high is None else n - above


def says(live: Live, version: str, name: str) -> Says | None:
    """What a version's answers are made of; where they are one number, the metric's name tells it, or else the model."""
    reference = live.references.get(version)
    if reference is not None and reference.says is not None:
        return reference.says
    if live.task is not None and live.task.width == 1:
        return Says(task=live.task)
    alone = next((t for t in (BINARY, REGRESSION) if name in {m.name for m in metrics.measurable(t.kind)}), None)
    return Says(task=alone) if alone is not None else None


def _quality(name: str, says: Says, rows: pl.DataFrame, theirs: pl.DataFrame | None) -> Found:
    """A metric on settled questions; with `theirs`, the difference on those that both answered."""
    mine = settled.known(rows, says.task)
    both = (mine,) if theirs is None else settled.paired(mine, settled.answered(theirs, says.task))
    y = settled.outcome(both[0], says.task)
    blocks = _blocks(both[0]["asked"])
    if reason := metrics.unmeasurable(y, blocks):
        return None, f"settled questions: {reason}"
    panels = []
    for each in both:
        answers = settled.scores(each, says.task)
        metrics.check(y, answers)
        panels.append(metrics.Panel([name], y, answers, terms=settled.terms(each, says)))
    drawn = metrics.replicate(panels, metrics.Draws(len(y), blocks=blocks))
    estimate, values, said = panels[0].estimates[0], drawn[0][0], name
    if theirs is not None:
        # Without the metric's name: what its interval corrects for cancels in a difference.
        estimate, values, said = estimate - panels[1].estimates[0], values - drawn[1][0], ""
    found = metrics.interval(said, float(estimate), values, len(y))
    return found, "" if found is not None else gates.UNDEFINED


def _blocks(asked: pl.Series) -> metrics.Blocks:
    """(n,) the day of each question, or its hour where there are few days: what shares a cause is redrawn together."""
    hours = asked.to_numpy() // HOUR
    days = hours // 24
    return days if len(np.unique(days)) >= FEW_DAYS else hours


def _plain(metric: Metric) -> str:
    return metric.name.removesuffix(".live")


def _quality_names(model: Model) -> tuple[str, ...]:
    return tuple(m.name for m in metrics.measurable(models.task(model).kind))


def _place(monitor: Monitor) -> Place:
    return (monitor.watches.place if isinstance(monitor.watches, Condition) else None) or monitor.place


def check_direction(condition: Condition) -> None:
    """Refuse a condition that asks for what is worse.

    Raises:
        DeclarationError: `condition-upside-down`.
    """
    if (condition.op == ">=") != (condition.metric.better == "higher"):
        raise DeclarationError(
            "condition-upside-down",
            f"{condition} asks for the worse direction.",
            where=condition.place,
            why=f"{condition.metric.name} is better when it is {condition.metric.better}.",
            next=f"Turn it round: {condition.metric} {'>=' if condition.op == '<=' else '<='} {condition.threshold:g}.",
        )
