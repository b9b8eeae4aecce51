"""An evaluation: how well a version, and what it is compared with, did on held-out rows, as a value that can be stored.

**Held out**: rows that no estimator has seen, their settled outcomes, and one score per row from each model; the first model
is the one that is evaluated, the others are compared with it on the same rows and the same draws (`metrics`).
A **slice** is a column by whose groups the metrics are measured again. Numbers with many values are cut at their quintiles.
A group that is too small to say anything is named in `left_out` with the reason, and measured nowhere.

Nothing here draws, and nothing holds a row: curves and histograms are summaries of bounded size (`POINTS`, `BARS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.errors import DataError, bounded
from flyball.learn.quality import curves, measures, metrics
from flyball.learn.quality.curves import Bin, Histogram
from flyball.learn.quality.metrics import Array, Blocks, Outcome, Panel, Terms
from flyball.learn.task import Kind, Task

LEVELS = 24
"""Groups of a slice, at most (the hours of a day); the rest is named as one."""
SLICE_REPLICATES = 250
"""Draws behind a slice's interval: enough to show it, at a quarter of the time. Gates on groups use them all."""
LABEL = 60
"""Characters of a group's name."""
NONE = "(none)"
"""The group of rows that have no value."""

RESERVED = frozenset({"champion", "unmitigated", "linear", "baseline"})
"""Names under which others' answers stand beside those of the model that is evaluated: no model has one of them."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out rows, as everything in `learn` that measures quality wants them.

    Attributes:
        outcome: (n,) Boolean, places of classes as int64, or numbers; settled, so never null.
        scores: model -> (n,) probability of true, or predicted number, or (n, width); the first is the one that is evaluated.
        slices: column -> (n,) values of any type.
        blocks: (n,) int, rows with the same number are redrawn together; None redraws each on its own.
        decided: model -> (n,) what was decided; those that are not there decide above one half.
        costs: of a false positive, of a false negative.

    Raises:
        DataError: `nothing-held-out`, `scores-not-finite`, `scores-not-probabilities`.
    """

    outcome: Outcome
    scores: Mapping[str, Array]
    slices: Mapping[str, pl.Series] = field(default_factory=dict)
    blocks: Blocks | None = None
    task: Task | None = None
    decided: Mapping[str, measures.Flags] = field(default_factory=dict)
    costs: tuple[float, float] = (1.0, 1.0)

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
    def kind(self) -> Kind:
        """What kind of thing is predicted; where no task says it, what outcomes and scores look like."""
        looks: Mapping[measures.Family, Kind] = {
            "truth": "binary",
            "classes": "multiclass",
            "number": "regression",
            "quantiles": "quantile",
        }
        return self.task.kind if self.task is not None else looks[measures.family(self.outcome, self.scores[self.main])]

    def terms(self, model: str) -> Terms:
        """What metrics of a model need besides its scores."""
        return Terms(self.decided.get(model), self.task.quantiles if self.task is not None else (), self.costs)

    def panel(self, names: Sequence[str], model: str, rows: Rows | None = None) -> Panel:
        """The metrics of a model on some of the rows."""
        return Panel(names, self.outcome, self.scores[model], rows, self.terms(model))

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


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """The greatest difference of a metric between two groups of a protected column, over all pairs at once."""

    slice: str
    metric: str
    measurement: Measurement


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its metrics, and (but for the main model itself) the paired differences, this minus the main one."""

    name: str
    measurements: dict[str, Measurement]
    differences: dict[str, Measurement]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How well the main model did. Stored as deterministic JSON (`facts.encode`).

    Attributes:
        base_rate: the mean outcome; of classes, the share of the most frequent one.
        kind: of the task; "" where an earlier release wrote it, which knew only what `classifies` tells.
        classes: of a multiclass outcome; of `quantiles` likewise.
        gaps: between the groups of protected columns.
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
    kind: Kind | Literal[""] = ""
    classes: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def shares(self) -> bool:
        """Whether answers are probabilities."""
        return self.task.truth or bool(self.classes)

    @property
    def task(self) -> Task:
        """What kind of thing was predicted."""
        kind: Kind = self.kind or ("binary" if self.classifies else "regression")
        return Task(kind=kind, classes=self.classes, quantiles=self.quantiles)


FAIR = (named.selection_rate, named.recall, named.false_positive_rate, named.calibration_error)
"""Compared between the groups of protected columns: demographic parity, equal opportunity, with the third equalised odds, and
calibration by group (Hardt, Price and Srebro 2016; Chouldechova 2017)."""


def evaluate(held_out: HeldOut, measured: Sequence[Metric], protected: Sequence[str] = ()) -> Evaluation:
    """Measure every model on all rows, and the main model on every group of every slice; on the same draws.

    Args:
        held_out: the rows.
        measured: plain metrics that suit the outcome (`metrics.measurable`).
        protected: the slices whose groups are compared.
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
    panels = [held_out.panel(names, held_out.main, rows) for _, _, rows in groups]
    drawn = metrics.replicate(panels, replace(held_out.draws, replicates=SLICE_REPLICATES))
    for (slice_, label, rows), panel, values in zip(groups, panels, drawn, strict=True):
        found = _measured(panel, values)
        slices.append(Group(slice=slice_, group=label, n=len(rows), measurements=found))
        missing = [m for m in names if m not in found]
        left_out += [LeftOut(slice=slice_, group=label, metric=m, n=len(rows), why="undefined") for m in missing]
    flat_y, flat = _flat(held_out)
    task = held_out.task or Task(kind=held_out.kind)
    return Evaluation(
        model=held_out.main,
        classifies=task.truth,
        n=len(y),
        base_rate=float(np.bincount(y).max() / len(y)) if task.classes else float(y.mean()),
        measurements=models[0].measurements if models else {},
        models=tuple(models),
        slices=tuple(slices),
        left_out=tuple(left_out),
        calibration=curves.covered(y, main, task.quantiles) if task.quantiles else curves.calibration(flat_y, flat),
        roc=curves.roc(y, flat) if task.truth else (),
        precision_recall=curves.precision_recall(y, flat) if task.truth else (),
        histogram=curves.histogram(flat_y, flat),
        replicates=held_out.draws.replicates,
        units=held_out.draws.units,
        seed=held_out.draws.seed,
        kind=task.kind,
        classes=task.classes,
        quantiles=task.quantiles,
        gaps=tuple(_gaps(names, protected, groups, panels, drawn)),
    )


def _gaps(
    names: Sequence[str],
    protected: Sequence[str],
    groups: Sequence[tuple[str, str, Rows]],
    panels: Sequence[Panel],
    drawn: Sequence[Array],
) -> Iterator[Gap]:
    for slice_ in protected:
        mine = [i for i, (name, _, _) in enumerate(groups) if name == slice_]
        for k, name in enumerate(names if len(mine) > 1 else ()):
            if name not in {m.name for m in FAIR} | set(names[:1]):
                continue
            estimates = np.array([panels[i].estimates[k] for i in mine])
            found = metrics.gap(estimates, np.array([drawn[i][k] for i in mine]), sum(panels[i].n for i in mine))
            if found is not None:
                yield Gap(slice=slice_, metric=name, measurement=found)


def _flat(held_out: HeldOut) -> tuple[Outcome, Array]:
    """Outcomes and scores as one number each: of classes, whether the likeliest was it, and its probability."""
    y, scores = held_out.outcome, held_out.scores[held_out.main]
    task = held_out.task or Task(kind=held_out.kind, quantiles=(0.5,) if scores.ndim == 2 else ())
    if held_out.kind == "multiclass":
        return scores.argmax(axis=1) == y, scores.max(axis=1)
    return y, task.headline(scores) if scores.ndim == 2 else scores


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
    panels = [held_out.panel(names, model) for model in held_out.scores]
    drawn = metrics.replicate(panels, held_out.draws)
    models = []
    for name, panel, values in zip(held_out.scores, panels, drawn, strict=True):
        estimates, apart = panel.estimates - panels[0].estimates, values - drawn[0]
        # Without the metric's name: what its interval corrects for cancels in a difference.
        each = {m: metrics.interval("", estimates[k], apart[k], panel.n) for k, m in enumerate(names)}
        differences = {m: found for m, found in each.items() if found is not None and panel is not panels[0]}
        models.append(Compared(name=name, measurements=_measured(panel, values), differences=differences))
    return models
