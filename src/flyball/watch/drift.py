"""Drift: how far the questions of a window lie from the reference of the version that answers them.

For each feature, and for the answers, two distances between the spread in the window and in the reference:

    psi   the population stability index: J-divergence of the shares (Jeffreys 1946; Siddiqi, Credit Risk Scorecards, 2006)
    js    the Jensen-Shannon distance: the root of the divergence in nats (Lin 1991; a metric: Endres and Schindelin 2003)

Missing values, categories that the reference does not know and numbers beyond its range are places like any other. Two
samples of one spread also lie apart, the further the smaller they are; what is expected of them (Yurdakul and Naranjo 2020) is
taken off, so that one threshold suits a quiet and a busy week. A monitor's estimate is the greatest over its features.

**Calibrating** finds the limits of a monitor that was given no threshold, from the version's own history: see `calibrate`.
Refused: a window that is mostly not there, or has few questions (None: the monitor is blind).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.clock import micros
from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.durations import short
from flyball.data.expectations.distance import distances
from flyball.data.profile import Counts
from flyball.learn.quality import metrics
from flyball.learn.reference import Column, Reference
from flyball.watch.live import HOUR, Live
from flyball.watch.monitor import FalseAlarms
from flyball.watch.quality import Found

Array = npt.NDArray[np.float64]

MIN_QUESTIONS = 200
"""Fewer questions in a window are not compared: noise alone would then differ by a tenth (23 places)."""
SEEN = 0.9
"""The share of the window that must lie after its first question: a Monday is no week."""
REPLICATES = 500
SURE = 0.05
"""The greatest chance of an alarm by sampling noise alone that a calibrated threshold leaves to one window."""
BESIDE = 30
"""Days on either side of a window that are left out with it, at most a quarter of the history: the days beside a window are
like it, and of the time to come no such days are known."""
BEYOND = 1.25
"""What comes goes farther than what was: in w independent windows of the past, the next one breaks the record of one column
with the chance 1 / (w + 1), and there are many columns. Half a year has 26 windows of a week."""
MATTERS = 0.02
"""The least limit of psi: with thousands of questions less is certain, and nothing. A share of 50 % becomes one of 57 %."""
RARE = 1e-4
"""The least such chance: a budget of nothing would ask for an endless threshold."""
DAY = timedelta(days=1)


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column has moved."""

    name: str
    n: int
    psi: Measurement
    js: Measurement


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a monitor, and how they came about.

    Attributes:
        limits: column -> the greatest distance that is no alarm; empty where there is too little history.
        windows: of the history, at daily steps.
        episodes: alarms that the limits would have raised in it; `allowed`: as many as the budget gave.
        reason: what should be said about it.
    """

    limits: dict[str, float] = {}
    windows: int = 0
    episodes: int = 0
    allowed: int = 0
    reason: str = ""

    @property
    def threshold(self) -> float | None:
        """What `measure` with these limits is held against: 1, the limit itself. None: the monitor is blind."""
        return 1.0 if self.limits else None


def measure(
    live: Live, version: str, metric: Metric, now: datetime, limits: Mapping[str, float] | None = None
) -> Found:
    """The greatest distance over the metric's features, and which of them it is.

    The interval covers the greatest of all: it ends at the greatest of their ends. See `_redrawn` for how it is drawn.

    Args:
        limits: of a calibration: each distance is told as a multiple of its limit, and a column without one is passed over.
    """
    reference, over = live.references.get(version), metric.over
    columns = reference.of(metric.subject) if reference is not None else ()
    columns = tuple(c for c in columns if limits is None or c.name in limits)
    if not columns or over is None:
        return None, f"{version} has no reference of what is watched"
    found = [_shift(live, version, column, over, now) for column in columns]
    seen = [(each, _scaled(each, metric, limits)) for each in found if isinstance(each, Shift)]
    unseen = [each for each in found if isinstance(each, str)]
    if not seen:
        return None, unseen[0]
    worst, most = max(seen, key=lambda each: each[1].estimate)
    low, high = max(m.low for _, m in seen), max(m.high for _, m in seen)
    said = f"most of all {worst.name}: {metric.name} {_of(worst, metric).estimate:.3g}"
    said += f", limit {limits[worst.name]:.3g}" if limits is not None else ""
    said += f"; {len(unseen)} of {len(found)} cannot be told: {unseen[0]}" if unseen else ""
    return Measurement(estimate=most.estimate, low=low, high=high, n=worst.n), said


def calibrate(reference: Reference, metric: Metric, budget: FalseAlarms, monitors: int = 1) -> Calibration:
    """The smallest limits that would have kept the budget in the version's own history.

    Every window of `over` that the reference holds, at daily steps, is compared with the reference without it and without the
    days beside it (`BESIDE`): left out by subtraction. A column's limit is one share, the same for all columns, of the greatest
    distance that it was ever seen at: what varies with the season then hides nothing in what does not. Windows in a row of
    which some column is beyond its limit are one **episode**, and one more for each `over` that it lasts, since by then the
    window is another. The share is the least one that, with all greater ones, makes no more episodes than the budget for that
    length, shared by the `monitors` that are calibrated; a quarter is added (`BEYOND`). No limit is less than what matters, or
    than what sampling noise alone reaches in a window with the chance that the budget leaves to it, or `SURE`.

    What it cannot promise: that the time to come resembles the reference. A season that the reference has not seen is drift
    to it, and is told as such. With a history shorter than the budget's span no episode is allowed at all, so the limits are
    the greatest distances that were ever seen: of few windows, that is little to go by, and `reason` says so.
    An alarm needs the whole interval beyond a limit, not only the estimate, so there are fewer rather than more.
    """
    over = metric.over or timedelta()
    span = math.ceil(over / DAY)
    columns = [c for c in reference.of(metric.subject) if c.days]
    if not columns or over < DAY:
        return Calibration(reason=f"a reference is kept by the day, and cannot show {short(over)}")
    first, end = min(c.days[0] for c in columns), max(c.days[-1] for c in columns) + 1
    apart = np.full((len(columns), max(0, end - first - span + 1)), np.nan)
    floors = np.zeros(len(columns))
    chance = min(SURE, max(RARE, budget.count * (over / budget.per) / monitors))
    for k, column in enumerate(columns):
        found, n = _leave_one_out(column, span, metric)
        apart[k, column.days[0] - first :][: len(found)] = found
        floors[k] = _noise(column, n, chance / len(columns), metric)
    told = np.isfinite(apart).sum(axis=1) >= 2 * span
    if not told.any():
        why = f"{end - first} days of history are too few, or too quiet, to know what is usual in {short(over)}"
        return Calibration(windows=apart.shape[1], reason=why)
    columns = [c for c, enough in zip(columns, told.tolist(), strict=True) if enough]
    apart, floors = apart[told], floors[told]
    greatest = np.maximum(np.nanmax(apart, axis=1), floors)
    ratios = np.nan_to_num(apart / greatest[:, None]).max(axis=0)
    allowed = int(budget.count * (len(ratios) * DAY / budget.per) / monitors)
    limits = np.maximum(BEYOND * _least(ratios, span, allowed) * greatest, floors)
    beyond = (np.nan_to_num(apart) > limits[:, None]).any(axis=0)
    brief = f"; shorter than {short(budget.per)}, so little to go by" if len(ratios) * DAY < budget.per else ""
    return Calibration(
        limits={c.name: float(limit) for c, limit in zip(columns, limits.tolist(), strict=True)},
        windows=len(ratios),
        episodes=episodes(beyond, span),
        allowed=allowed,
        reason=f"from {len(ratios)} windows of {short(over)}{brief}",
    )


def episodes(above: npt.NDArray[np.bool_], span: int) -> int:
    """How many alarms days in a row make: one for each run, and one more for each `span` days that it lasts."""
    ends = np.flatnonzero(np.diff(np.r_[False, above, False].astype(np.int8)))
    return int(sum(-(-(end - begin) // span) for begin, end in ends.reshape(-1, 2).tolist()))


def _shift(live: Live, version: str, column: Column, over: timedelta, now: datetime) -> Shift | str:
    hours, counts = live.hourly(version, column, now - over, now)
    n = int(counts.sum())
    if n < MIN_QUESTIONS:
        return f"{n} questions in {short(over)}, fewer than {MIN_QUESTIONS}"
    began = int(hours[0]) * HOUR
    if (micros(now) - began) < SEEN * (over / timedelta(microseconds=1)):
        return f"questions are seen for {(micros(now) - began) / HOUR:.0f}h of {short(over)}"
    past = np.array(column.whole.counts, dtype=np.int64)
    if not past.sum():
        return f"the reference has no values of {column.name}"
    psi, js, own, theirs = distances(counts.sum(axis=0), past)
    again, js_again, own_again, _ = distances(_redrawn(hours, counts), past)
    # Drawn again from a sample, the window's own noise is in it twice.
    values, js_values = again - own_again - own - theirs, js_again - (own_again + own + theirs) / 8
    return Shift(
        name=column.name,
        n=n,
        psi=_interval(float(psi - own - theirs), values, n),
        js=_interval(float(js - (own + theirs) / 8), js_values, n, root=True),
    )


def _redrawn(hours: Counts, counts: Counts) -> Array:
    """(replicates, width) counts of the window with its hours drawn again: those of one hour of the day among themselves.

    The questions of an hour share their cause, and what is asked at night differs from what is asked at noon: were hours
    drawn from all alike, a window with a second midnight in place of its noon would pass for noise. Where a window has too few
    days for that, all hours are drawn alike, which errs to the wide side.
    """
    rng = np.random.default_rng(metrics.SEED)
    clock = hours % 24
    if len(hours) < metrics.MIN_BLOCKS * len(np.unique(clock)):
        clock = np.zeros_like(clock)
    weights = np.zeros((REPLICATES, len(hours)))
    for each in np.unique(clock):
        at = np.flatnonzero(clock == each)
        weights[:, at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)), size=REPLICATES)
    return np.asarray(weights @ counts)


def _interval(estimate: float, values: Array, n: int, *, root: bool = False) -> Measurement:
    """Percentiles, no narrower than the estimate; distances are not negative."""
    low, high = (float(q) for q in np.quantile(values, [(1 - metrics.LEVEL) / 2, (1 + metrics.LEVEL) / 2]))
    ends = [max(0.0, each) for each in (estimate, min(low, estimate), max(high, estimate))]
    estimate, low, high = (math.sqrt(each) if root else each for each in ends)
    return Measurement(estimate=estimate, low=low, high=high, n=n)


def _leave_one_out(column: Column, span: int, metric: Metric) -> tuple[Array, float]:
    """Each window of a column against the reference without it and the days beside it, and the usual number of questions.

    NaN where either side has too few questions.
    """
    summed = np.concatenate([np.zeros((1, column.edges.width), dtype=np.int64), np.cumsum(column.counts(), axis=0)])
    windows = summed[span:] - summed[:-span]
    begins, beside = np.arange(len(windows)), min(BESIDE, (len(summed) - 1) // 4)
    ends = np.minimum(len(summed) - 1, begins + span + beside)
    rest = summed[-1] - (summed[ends] - summed[np.maximum(0, begins - beside)])
    n = windows.sum(axis=1)
    enough = (n >= MIN_QUESTIONS) & (rest.sum(axis=1) >= MIN_QUESTIONS)
    psi, js, own, theirs = distances(windows, rest)
    found = psi - own - theirs if metric.name == "psi" else np.sqrt(np.maximum(0.0, js - (own + theirs) / 8))
    return np.where(enough, np.maximum(found, 0.0), np.nan), float(np.median(n[enough])) if enough.any() else 0.0


def _least(ratios: Array, span: int, allowed: int) -> float:
    """The smallest threshold that, with all greater ones, makes no more episodes."""
    threshold = float(ratios.max())
    for candidate in np.unique(ratios)[::-1]:
        if episodes(ratios > candidate, span) > allowed:
            break
        threshold = float(candidate)
    return threshold


def _noise(column: Column, n: float, chance: float, metric: Metric) -> float:
    """How far n questions lie from the reference by sampling alone, but for a chance; less what is expected. Or `MATTERS`.

    Without drift n times psi is nearly chi-squared (Yurdakul and Naranjo 2020); its quantile by Wilson and Hilferty (1931).
    """
    whole = np.array(column.whole.counts)
    free = max(1, int((whole > 0).sum()) - 1)
    part = 2 / (9 * free)
    quantile = free * (1 - part + NormalDist().inv_cdf(1 - chance) * math.sqrt(part)) ** 3
    noise = max(0.0, quantile - free) * (1 / max(n, MIN_QUESTIONS) + 1 / max(1, int(whole.sum())))
    least = max(noise, MATTERS)
    return least if metric.name == "psi" else math.sqrt(least / 8)


def _of(shift: Shift, metric: Metric) -> Measurement:
    return shift.psi if metric.name == "psi" else shift.js


def _scaled(shift: Shift, metric: Metric, limits: Mapping[str, float] | None) -> Measurement:
    found = _of(shift, metric)
    by = limits[shift.name] if limits is not None else 1.0
    return Measurement(estimate=found.estimate / by, low=found.low / by, high=found.high / by, n=found.n)
