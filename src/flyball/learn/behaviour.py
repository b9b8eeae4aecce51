"""Behaviour that is expected of a model whatever its quality: what must not matter, and in which direction something matters.

    fb.expect.unchanged(Applicant.sex) >= 0.99              the answer is the same whichever the sex
    fb.expect.rises(Flight.distance, by=200) >= 0.9         a longer flight is never said to take less
    fb.expect.unchanged(Sms.message, to=typo, within=0.1)   a function over the values

A metamorphic test on held-out rows (Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models, ACL 2020): each row is
changed in one column, and the metric is the share of rows whose answer does what is expected. It is a gate as any other.

What is changed is a feature, or a column of the request with all that is taken, computed or called from it. What is looked up
by the column stays what it was: the changed question is asked of nobody's history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel import place
from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.errors import DataError, DeclarationError, bounded
from flyball.data import contract
from flyball.learn import sampling
from flyball.learn.examples import REQUEST
from flyball.learn.features import offline
from flyball.learn.features.declare import Called, Computed, FeatureSet, Given
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.quality.curves import wilson
from flyball.learn.task import Answers, Task

ROWS = 2_000
"""Rows that are changed, at most; evenly from all."""
SHOWN = 60
"""Characters of a declared value, where it is named."""
OTHERS = 8
"""Other values that each row is given where none is named: the most frequent."""

Values = Callable[[pl.Series], pl.Series]
Shape = Literal["unchanged", "rises", "falls"]
Answer = Callable[[pl.DataFrame], Answers]


@dataclass(frozen=True, slots=True)
class Behaviour(Metric):
    """The share of rows whose answer does what is expected when a column is changed.

    Attributes:
        column: a feature, or a column of the request.
        to: the value that it gets; value -> value; or a function over its values; None: each other value that is usual.
        plus: what is added to it.
        within: how far an answer may move the wrong way, or at all.
    """

    column: str = ""
    to: Any = None
    plus: float | None = None
    within: float = 0.0

    def __str__(self) -> str:
        change = f" + {self.plus:g}" if self.plus is not None else ""
        if self.to is not None:
            change = f" to {bounded(getattr(self.to, '__name__', repr(self.to)), SHOWN)}"
        return f"{self.name}({self.column}{change}{f', within={self.within:g}' if self.within else ''})"


def unchanged(column: Any, *, to: Any = None, by: float | None = None, within: float = 1e-6) -> Behaviour:
    """The share of rows whose answer moves by at most `within` when `column` is another."""
    return _behaviour("unchanged", column, to, by, within)


def rises(column: Any, *, by: float | None = None, to: Any = None, within: float = 0.0) -> Behaviour:
    """The share of rows whose answer does not fall (by more than `within`) when `by` is added to `column`."""
    return _behaviour("rises", column, to, by, within)


def falls(column: Any, *, by: float | None = None, to: Any = None, within: float = 0.0) -> Behaviour:
    """The share of rows whose answer does not rise (by more than `within`) when `by` is added to `column`."""
    return _behaviour("falls", column, to, by, within)


def _behaviour(shape: Shape, column: Any, to: Any, by: float | None, within: float) -> Behaviour:
    name = column if isinstance(column, str) else contract.ref(column).name
    if (to is not None and by is not None) or (shape != "unchanged" and to is None and by is None) or within < 0:
        raise DeclarationError(
            "behaviour-without-change",
            f"expect.{shape}({name}) does not say one change.",
            where=place.here(),
            why="A direction needs to know what is changed: by= adds a number, to= is another value; not both.",
            next=f"Write fb.expect.{shape}({name}, by=1) >= 0.95.",
        )
    return Behaviour(shape, "higher", column=name, to=to, plus=by, within=within)


def check(behaviour: Behaviour, model: Model, task: Task) -> None:
    """Refuse what cannot be changed, or has no direction.

    Raises:
        DeclarationError: `behaviour-of-unknown-column`, `behaviour-of-personal-column`, `behaviour-of-unread-column`,
            `behaviour-without-change`, `behaviour-without-direction`.
    """
    spec = contract.spec(model.question)
    request = {c.name for c in spec.request}
    names = request | {o.name for o in model.features.outputs(model.question)}
    if behaviour.column not in names:
        raise DeclarationError(
            "behaviour-of-unknown-column",
            f"{behaviour} changes {behaviour.column!r}, which is no feature of {model.name!r} and in no request.",
            where=model.place,
            why=f"There are {', '.join(sorted(names))}.",
            next="Name one of them.",
        )
    if behaviour.column in spec.with_role(contract.Personal):
        raise DeclarationError(
            "behaviour-of-personal-column",
            f"{behaviour} changes {behaviour.column!r}, which is personal.",
            where=model.place,
            why="Examples hold no personal value, and no feature is made of one.",
            next="Change a column of many, such as a region or an age band.",
        )
    _check_change(behaviour, model)
    if task.kind == "multiclass" and behaviour.name != "unchanged":
        raise DeclarationError(
            "behaviour-without-direction",
            f"{behaviour} is expected of a model that answers {len(task.classes)} probabilities.",
            where=model.place,
            why="They sum to one: some rise while others fall.",
            next="Expect that it is unchanged, or declare a Boolean outcome.",
        )


def _check_change(behaviour: Behaviour, model: Model) -> None:
    spec, name = contract.spec(model.question), behaviour.column
    made = {o.name: o.kind == "number" for o in model.features.outputs(model.question)}
    asked = {c.name: spec.dtypes[c.name].is_numeric() for c in spec.request}
    if behaviour.plus is not None and not (made | asked)[name]:
        raise DeclarationError(
            "behaviour-without-change",
            f"{behaviour} adds a number to {name!r}, which is none.",
            where=model.place,
            why="What is no number is made another by a value, a mapping or a function.",
            next=f"Write fb.expect.{behaviour.name}({name}, to=...).",
        )
    if behaviour.name != "unchanged" and name not in made and not any(_reads(f, name) for f in model.features.features):
        raise DeclarationError(
            "behaviour-of-unread-column",
            f"{behaviour} expects a direction, and no feature of {model.name!r} reads {name!r}.",
            where=model.place,
            why="The answer would never move, and the gate could not fail.",
            next=f"Name a feature: {', '.join(sorted(made))}.",
        )


def measure(
    behaviour: Behaviour, features: FeatureSet, rows: pl.DataFrame, answer: Answer, blocks: metrics.Blocks | None
) -> tuple[Measurement | None, str]:
    """The share of rows that behave, with a 95 % interval, and what should be said about it.

    Args:
        rows: held-out examples: request columns (`_request.`) and features.
        answer: features -> answers (rows,) or (rows, width).
        blocks: (rows,) that are redrawn together.

    Raises:
        DataError: `behaviour-failed`, when the function of `to` does.
    """
    taken = sampling.evenly(rows.height, ROWS)
    rows, blocks = rows[taken], None if blocks is None else blocks[taken]
    before, kept = answer(rows), np.zeros(rows.height, dtype=bool)
    behaves = np.ones(rows.height, dtype=bool)
    for values in _changes(behaviour, rows):
        changed, differs = _changed(behaviour, features, rows, values)
        moved = answer(changed) - before
        if moved.ndim == 2:
            low, high = moved.min(axis=1), moved.max(axis=1)
        else:
            low = high = moved
        fine = {"rises": low >= -behaviour.within, "falls": high <= behaviour.within}.get(
            behaviour.name, (low >= -behaviour.within) & (high <= behaviour.within)
        )
        kept |= differs
        behaves &= fine | ~differs
    blocks = None if blocks is None else blocks[kept]
    if too_few := metrics.unmeasurable(kept[kept].astype(np.float64), blocks):
        return None, f"the change touches {too_few}"
    return _share(behaves[kept], blocks), ""


def _share(flags: npt.NDArray[np.bool_], blocks: metrics.Blocks | None) -> Measurement:
    share, n = float(flags.mean()), len(flags)
    drawn = [(c @ flags.astype(np.float64)) / c.sum(axis=1) for c in metrics.Draws(n, blocks=blocks).chunks()]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    # All alike, redrawn, are all alike again; that so many rows behaved says only so much.
    least, most = wilson(share, n)
    low, high = max(0.0, min(float(low), least)), min(1.0, max(float(high), most))
    return Measurement(estimate=share, low=low, high=high, n=n)


def _changes(behaviour: Behaviour, rows: pl.DataFrame) -> list[Values]:
    plus, to = behaviour.plus, behaviour.to
    if plus is not None:
        return [lambda series: (series + plus).cast(series.dtype)]
    if isinstance(to, Mapping):
        return [lambda series: series.replace(to)]
    if callable(to):
        return [to]
    if to is not None:
        return [partial(_all, to)]
    seen = pl.DataFrame({"value": _column(behaviour, rows).drop_nulls()}).group_by("value").agg(n=pl.len())
    # Of equally frequent values always the same ones.
    usual = seen.sort("n", "value", descending=[True, False]).head(OTHERS)
    return [partial(_all, value) for value in usual["value"].to_list()]


def _all(value: Any, series: pl.Series) -> pl.Series:
    return pl.Series(series.name, [value] * len(series), dtype=series.dtype)


def _column(behaviour: Behaviour, rows: pl.DataFrame) -> pl.Series:
    name = behaviour.column
    return rows[REQUEST + name if REQUEST + name in rows.columns else name]


def _changed(
    behaviour: Behaviour, features: FeatureSet, rows: pl.DataFrame, values: Values
) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
    """The rows with the column changed, and whose value is another by that."""
    old = _column(behaviour, rows)
    try:
        new = values(old).cast(old.dtype)
        if len(new) != len(old):
            raise ValueError(f"It yields {len(new)} values of {len(old)}.")
    except Exception as error:
        raise DataError(
            "behaviour-failed",
            f"{behaviour} cannot be tried: {type(error).__name__}.",
            why=f"The change of {behaviour.column!r} ({old.dtype}) failed on held-out rows.",
            next="Mend to= or by=: what it yields is of the column's own type.",
        ) from error
    differs = (new.is_not_null() & old.is_not_null() & (new != old).fill_null(value=False)).to_numpy()
    changed = rows.with_columns(new.alias(old.name))
    if old.name.startswith(REQUEST):
        request = changed.select(
            "_asked", *(pl.col(c).alias(c.removeprefix(REQUEST)) for c in rows.columns if c.startswith(REQUEST))
        )
        made = [f for f in features.features if _reads(f, behaviour.column)]
        changed = changed.with_columns(
            column for part in offline.requested(FeatureSet(tuple(made), features.place), request) for column in part
        )
    return changed, differs


def _reads(feature: object, column: str) -> bool:
    match feature:
        case Given():
            return feature.name == column
        case Computed():
            return column in feature.expression.columns
        case Called():
            return column in feature.reads
    return False
