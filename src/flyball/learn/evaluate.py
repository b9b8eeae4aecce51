"""An evaluation: how well a version, and what it is compared with, did on held-out rows, as a value that can be stored.

**Held out**: rows that no estimator has seen, their settled outcomes, and one score per row from each model; the first model
is the one that is evaluated, the others are compared with it on the same rows and the same draws (`metrics`).
A **slice** is a column by whose groups the metrics are measured again. Numbers with many values are cut at their quintiles.
A group that is too small to say anything is named in `left_out` with the reason, and measured nowhere.

Nothing here draws, and nothing holds a row: curves and histograms are summaries of bounded size (`POINTS`, `BARS`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.errors import DataError, bounded
from flyball.learn import metrics
from flyball.learn.metrics import Array, Blocks, Outcome, Panel

POINTS = 200
"""Points of a curve, at most."""
BARS = 40
"""Bars of a histogram."""
LEVELS = 24
"""Groups of a slice, at most (the hours of a day); the rest is named as one."""
SLICE_REPLICATES = 250
"""Draws behind a slice's interval: enough to show it, at a quarter of the time. Gates on groups use them all."""
LABEL = 60
"""Characters of a group's name."""
NONE = "(none)"
"""The group of rows that have no value."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out rows, as everything in `learn` that measures quality wants them.

    Attributes:
        outcome: (n,) Boolean for a classifier, numbers for a regressor; settled, so never null.
        scores: model -> (n,) probability of true, or predicted number; the first is the one that is evaluated.
        slices: column -> (n,) values of any type.
        blocks: (n,) int, rows with the same number are redrawn together; None redraws each on its own.

    Raises:
        DataError: `nothing-held-out`, `scores-not-finite`, `scores-not-probabilities`.
    """

    outcome: Outcome
    scores: Mapping[str, Array]
    slices: Mapping[str, pl.Series] = field(default_factory=dict)
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        if not len(self.outcome):
            raise DataError(
                "nothing-held-out",
                "No held-out row has a settled outcome.",
                why="Metrics and gates are measured on rows that training has not seen.",
                next="Ingest more history, or hold out a longer span: split=fb.by_time(days(60)).",
            )
        for scores in self.scores.values():
            metrics.check(self.outcome, scores)

    @property
    def main(self) -> str:
        """The model that is evaluated."""
        return next(iter(self.scores))

    @property
    def classifies(self) -> bool:
        """Whether the outcome is Boolean."""
        return self.outcome.dtype == np.bool_

    @property
    def draws(self) -> metrics.Draws:
        """The draws that every measurement on these rows shares."""
        return metrics.Draws(len(self.outcome), blocks=self.blocks)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What was not measured, and why. `slice` and `group` are "" for the rows as a whole."""

    slice: str = ""
    group: str = ""
    metric: str = ""
    n: int
    why: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group of one slice: metric -> measurement of the main model."""

    slice: str
    group: str
    n: int
    measurements: dict[str, Measurement]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its metrics, and (but for the main model itself) the paired differences, this minus the main one."""

    name: str
    measurements: dict[str, Measurement]
    differences: dict[str, Measurement]


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of similar score: the mean score, the mean outcome and its 95 % interval."""

    n: int
    score: float
    outcome: float
    low: float
    high: float


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts between `edges` (bars + 1): of scores by outcome for a classifier, of errors (outcome - score) otherwise."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How well the main model did. Stored as deterministic JSON (`facts.encode`).

    Attributes:
        base_rate: the mean outcome.
        measurements: metric -> measurement of the main model.
        models: the main model first.
        units: what was drawn: as many as `n` are rows, fewer are blocks of rows.
        roc: (false positive rate, true positive rate), empty for a regressor; `precision_recall`: (recall, precision).
    """

    model: str
    classifies: bool
    n: int
    base_rate: float
    measurements: dict[str, Measurement]
    models: tuple[Compared, ...]
    slices: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]
    calibration: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    histogram: Histogram
    replicates: int
    units: int
    seed: int


def evaluate(held_out: HeldOut, measured: Sequence[Metric]) -> Evaluation:
    """Measure every model on all rows, and the main model on every group of every slice; on the same draws.

    Args:
        held_out: the rows.
        measured: plain metrics that suit the outcome (`gates.measurable`).
    """
    names = [m.name for m in measured]
    y, main = held_out.outcome, held_out.scores[held_out.main]
    reason = metrics.unmeasurable(y, held_out.blocks)
    left_out = [LeftOut(n=len(y), why=reason)] if reason else []
    groups: list[tuple[str, str, Rows]] = []
    if not reason:
        for slice_ in held_out.slices:
            kept, left = grouped(held_out, slice_)
            groups += [(slice_, label, rows) for label, rows in kept]
            left_out += left
    models = [] if reason else _compare(names, held_out)
    slices = []
    panels = [Panel(names, y, main, rows) for _, _, rows in groups]
    drawn = metrics.replicate(panels, replace(held_out.draws, replicates=SLICE_REPLICATES))
    for (slice_, label, rows), panel, values in zip(groups, panels, drawn, strict=True):
        found = _measured(panel, values)
        slices.append(Group(slice=slice_, group=label, n=len(rows), measurements=found))
        missing = [m for m in names if m not in found]
        left_out += [LeftOut(slice=slice_, group=label, metric=m, n=len(rows), why="undefined") for m in missing]
    return Evaluation(
        model=held_out.main,
        classifies=held_out.classifies,
        n=len(y),
        base_rate=float(y.mean()),
        measurements=models[0].measurements if models else {},
        models=tuple(models),
        slices=tuple(slices),
        left_out=tuple(left_out),
        calibration=_calibration(y, main),
        roc=_roc(y, main) if held_out.classifies else (),
        precision_recall=_precision_recall(y, main) if held_out.classifies else (),
        histogram=_histogram(y, main),
        replicates=held_out.draws.replicates,
        units=held_out.draws.units,
        seed=held_out.draws.seed,
    )


def grouped(held_out: HeldOut, name: str) -> tuple[list[tuple[str, Rows]], list[LeftOut]]:
    """The groups of a slice that can be measured, (label, row indices) in reading order, and those that cannot."""
    series, blocks = held_out.slices[name], held_out.blocks
    labels = _quintiles(series) if series.dtype.is_numeric() and series.n_unique() > LEVELS else series
    frame = pl.DataFrame({"value": labels}).with_row_index("row")
    found = frame.group_by("value").agg(pl.col("row"), n=pl.len()).sort("value", nulls_last=True)
    big = found["n"].rank("ordinal", descending=True) <= LEVELS
    kept: list[tuple[str, Rows]] = []
    left: list[LeftOut] = []
    for value, rows, n in found.filter(big).iter_rows():
        label = NONE if value is None else bounded(str(value), LABEL)
        index = np.sort(np.asarray(rows, dtype=np.intp))
        why = metrics.unmeasurable(held_out.outcome[index], None if blocks is None else blocks[index])
        if why:
            left.append(LeftOut(slice=name, group=label, n=n, why=why))
        else:
            kept.append((label, index))
    rest = found.filter(~big)
    if rest.height:
        why = f"beyond the {LEVELS} largest groups"
        left.append(LeftOut(slice=name, group=f"{rest.height:,} more groups", n=int(rest["n"].sum()), why=why))
    return kept, left


def _quintiles(series: pl.Series) -> pl.Series:
    """Each number's fifth of the rows, as an ordered label; ties are never cut apart."""
    values = series.cast(pl.Float64).fill_nan(None)
    edges = np.unique(np.nanquantile(values.to_numpy(), [0.2, 0.4, 0.6, 0.8]))
    names = [
        f"≤ {edges[0]:g}",
        *(f"{a:g} to {b:g}" for a, b in pairwise(edges)),
        f"> {edges[-1]:g}",
    ]
    fifth = np.searchsorted(edges, values.fill_null(0.0).to_numpy(), side="left")
    labels = pl.Series([names[k] for k in fifth], dtype=pl.Enum(list(dict.fromkeys(names))))
    return pl.select(pl.when(values.is_not_null()).then(labels)).to_series()


def _measured(panel: Panel, values: Array) -> dict[str, Measurement]:
    each = {m: metrics.interval(m, panel.estimates[k], values[k], panel.n) for k, m in enumerate(panel.names)}
    return {m: found for m, found in each.items() if found is not None}


def _compare(names: Sequence[str], held_out: HeldOut) -> list[Compared]:
    panels = [Panel(names, held_out.outcome, scores) for scores in held_out.scores.values()]
    drawn = metrics.replicate(panels, held_out.draws)
    models = []
    for name, panel, values in zip(held_out.scores, panels, drawn, strict=True):
        estimates, apart = panel.estimates - panels[0].estimates, values - drawn[0]
        # Without the metric's name: what its interval corrects for cancels in a difference.
        each = {m: metrics.interval("", estimates[k], apart[k], panel.n) for k, m in enumerate(names)}
        differences = {m: found for m, found in each.items() if found is not None and panel is not panels[0]}
        models.append(Compared(name=name, measurements=_measured(panel, values), differences=differences))
    return models


def _calibration(outcome: Outcome, scores: Array) -> tuple[Bin, ...]:
    """The bins of `calibration_error`, low scores first, with Wilson intervals for shares and normal ones for means."""
    order = np.argsort(-scores, kind="stable")
    y, s = outcome[order].astype(np.float64), scores[order]
    bins = []
    z = 1.959964
    for rows in np.split(np.arange(len(s)), metrics.bin_starts(s)[1:])[::-1]:
        n, p = len(rows), float(y[rows].mean())
        middle, reach = p, z * float(y[rows].std()) / n**0.5
        if outcome.dtype == np.bool_:
            middle = (p + z * z / (2 * n)) / (1 + z * z / n)
            reach = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        bins.append(Bin(n=n, score=float(s[rows].mean()), outcome=p, low=middle - reach, high=middle + reach))
    return tuple(bins)


def _passed(outcome: Outcome, scores: Array) -> tuple[Array, Array]:
    """True and false positives at each distinct threshold, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    true = np.cumsum(outcome[order], dtype=np.float64)[last]
    return true, last + 1 - true


def _roc(outcome: Outcome, scores: Array) -> tuple[tuple[float, float], ...]:
    true, false = (np.r_[0.0, part] for part in _passed(outcome, scores))
    if not (true[-1] and false[-1]):
        return ()
    true, false = true / true[-1], false / false[-1]
    length = true + false  # of the curve up to here, since it never turns back
    return _points(false, true, np.searchsorted(length, np.linspace(0, length[-1], POINTS)))


def _precision_recall(outcome: Outcome, scores: Array) -> tuple[tuple[float, float], ...]:
    true, false = _passed(outcome, scores)
    if not true[-1]:
        return ()
    recall = true / true[-1]
    return _points(recall, true / (true + false), np.searchsorted(recall, np.linspace(recall[0], 1, POINTS)))


def _points(x: Array, y: Array, at: Rows) -> tuple[tuple[float, float], ...]:
    at = np.unique(np.minimum(at, len(x) - 1))
    return tuple((round(float(a), 6), round(float(b), 6)) for a, b in zip(x[at], y[at], strict=True))


def _histogram(outcome: Outcome, scores: Array) -> Histogram:
    if outcome.dtype == np.bool_:
        edges = np.linspace(0, max(0.05, np.ceil(scores.max() * 20) / 20), BARS + 1)
        parts = {"true": scores[outcome.astype(np.bool_)], "false": scores[~outcome.astype(np.bool_)]}
    else:
        errors = outcome.astype(np.float64) - scores
        reach = float(np.quantile(np.abs(errors), 0.995)) or 1.0
        edges = np.linspace(-reach, reach, BARS + 1)
        parts = {"error": np.clip(errors, -reach, reach)}  # the last bars hold what lies beyond
    counts = {name: tuple(int(c) for c in np.histogram(part, edges)[0]) for name, part in parts.items()}
    return Histogram(edges=tuple(round(float(e), 6) for e in edges), counts=counts)
