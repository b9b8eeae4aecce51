"""How examples are split: which train, on which trials are compared, and on which gates are judged.

    by_time     ... train ... | span: validation | span: test | cutoff    the default: what comes later is what will be asked
    rolling     ... train | span | span | span | span: test | cutoff      trials are compared on several, each after its past
    by_group    each group (a customer, a site, a row) wholly train, validation or test, by a hash of what it is called

By time, a row trains only if its outcome was known before the span that follows begins, and it was asked an **embargo** before
that: so nothing of a later span leaks into it, nor are the last rows only those whose outcome came quickly (`Bounds`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import dataframely as dy
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel import place
from flyball._kernel.clock import MICROSECOND
from flyball._kernel.durations import hours
from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import contract
from flyball.data.contract import Personal, Ref
from flyball.learn import groups
from flyball.learn.examples import Examples
from flyball.learn.model import Model
from flyball.learn.task import Task

Mask = npt.NDArray[np.bool_]

SETTLED_ENOUGH = 100
"""Questions that are enough to measure how long outcomes take."""
NOW = timedelta(0)


@dataclass(frozen=True, slots=True)
class ByTime:
    """Hold out the last `span` of questions, and validate on the one before."""

    span: timedelta
    embargo: timedelta = NOW


@dataclass(frozen=True, slots=True)
class Rolling:
    """Hold out the last `span` of questions, and validate on the `origins` spans before it, each by what came before it."""

    span: timedelta
    origins: int = 3
    embargo: timedelta = NOW


@dataclass(frozen=True, slots=True)
class ByGroup:
    """Hold out a share of the groups, and validate on another; a group is the rows that agree on all of `columns`."""

    columns: tuple[Ref, ...]
    share: float = 0.2

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]

    def __fingerprint__(self) -> object:
        # The other columns of the contract are no part of how it is split.
        return [str(column) for column in self.columns], self.share


Split = ByTime | Rolling | ByGroup


def by_time(span: timedelta, *, embargo: timedelta = NOW) -> ByTime:
    """Split by when questions were asked: the last `span` for the gates, the one before for comparing trials.

    Args:
        embargo: rows that were asked so shortly before a span that follows do not train for it.

    Raises:
        DeclarationError: `span-not-positive`.
    """
    _check_spans(span, embargo)
    return ByTime(span, embargo)


def rolling(span: timedelta, *, origins: int = 3, embargo: timedelta = NOW) -> Rolling:
    """Split by time, and compare trials on `origins` spans: a choice that one odd month would decide is made by several.

    A trial's score is the mean over the spans, each predicted by what was known before it (rolling-origin evaluation: Tashman,
    International Journal of Forecasting 2000). The test span is the last, as in `by_time`.

    Raises:
        DeclarationError: `span-not-positive`, `no-origins`.
    """
    _check_spans(span, embargo)
    if origins < 1:
        raise DeclarationError(
            "no-origins",
            f"rolling(origins={origins}) validates nothing.",
            where=place.here(),
            why="Trials are compared on at least one span.",
            next="Write origins=3; one origin is fb.by_time(...).",
        )
    return Rolling(span, origins, embargo)


def by_group(*columns: dy.Column, share: float = 0.2) -> ByGroup:
    """Split by groups of rows: no group is on two sides, and each stays where it is when more rows come.

    For rows of people, machines or sites that the model must answer about without having seen them, and, with the key of the
    question, for independent rows without a time that means anything: then it is a split at random.

    Args:
        columns: of the question; rows that agree on all of them are a group, a row with a null is one of its own.
        share: of the groups that are held out, and as many again are validated on.

    Raises:
        DeclarationError: `column-without-contract`, `no-group`, `share-out-of-range`.
    """
    if not columns:
        raise DeclarationError(
            "no-group",
            "by_group() names no column.",
            where=place.here(),
            why="Rows that agree on its columns are a group.",
            next="Name one: fb.by_group(Visit.customer), or the key of the question for independent rows.",
        )
    if not 0 < share < 0.5:
        raise DeclarationError(
            "share-out-of-range",
            f"by_group(share={share:g}) leaves nothing to train on, or to test.",
            where=place.here(),
            why="The share is held out for the gates, and as much again for comparing trials.",
            next="Write share=0.2.",
        )
    return ByGroup(tuple(contract.ref(column) for column in columns), share)


def _check_spans(span: timedelta, embargo: timedelta) -> None:
    if span <= NOW or embargo < NOW:
        raise DeclarationError(
            "span-not-positive",
            f"A split holds out {span} after an embargo of {embargo}.",
            where=place.here(),
            why="What is held out is a span of time, and an embargo is not negative.",
            next="Write split=fb.by_time(days(30)).",
        )


def check(split: Split, model: Model) -> None:
    """Refuse a split that the model's examples could not be cut by.

    Raises:
        DeclarationError: `no-such-column` (of another table, or an outcome), `split-by-personal`.
    """
    if not isinstance(split, ByGroup):
        return
    spec = contract.spec(model.question)
    for column in split.columns:
        if not issubclass(model.question, column.contract) or column.name not in {c.name for c in spec.request}:
            raise DeclarationError(
                "no-such-column",
                f"The split is by {column}, which no question of the model {model.name!r} carries.",
                where=model.place,
                why=f"A group is told by a column of the request: {', '.join(c.name for c in spec.request)}.",
                next="Name one of them; models of several contracts need an app each.",
            )
        if column.name in spec.with_role(Personal) and column.name not in spec.key:
            raise DeclarationError(
                "split-by-personal",
                f"The split is by {column}, which is personal.",
                where=model.place,
                why="Examples hold no personal column but the key, so nobody could tell the groups.",
                next="Split by the key, by a column that is no person's, or by time.",
            )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where examples are cut, in asked time.

    Attributes:
        validation: where the validation spans begin, ascending; the last ends at `test`. Empty for groups.
        test: the rows on which gates are judged were asked from then on ...
        end: ... until then.
        embargo: rows asked so shortly before a span do not train for it, for two reasons beyond being settled. The last rows
            before a bound that are settled are those whose outcome came quickly, and may be of one kind (a parcel that is not
            sent back is settled late): an embargo as long as outcomes take leaves all of a day or none. And neighbours in
            time share windows, weather and customers (Lopez de Prado, Advances in Financial Machine Learning, 2018, 7.4).
        groups: how groups are held out; None by time.
        known: for groups: only what was settled before then trains; None: all that is settled.
    """

    validation: tuple[datetime, ...]
    test: datetime
    end: datetime
    embargo: timedelta = NOW
    groups: ByGroup | None = None
    known: datetime | None = None

    @classmethod
    def before(cls, end: datetime, split: ByTime | Rolling) -> Bounds:
        """Spans back from `end`: the test, and before it those of the validation."""
        return cls.between(end - split.span, end, split)

    @classmethod
    def between(cls, test: datetime, end: datetime, split: Split) -> Bounds:
        """Test questions asked from `test` to `end`, learn from what was known before; of groups those on their side, too."""
        if isinstance(split, ByGroup):
            return cls((), test, end, groups=split, known=test)
        origins = split.origins if isinstance(split, Rolling) else 1
        return cls(tuple(test - k * split.span for k in range(origins, 0, -1)), test, end, split.embargo)


class Fold(NamedTuple):
    """One comparison of trials: (n,) which rows train for it, and on which it is measured."""

    explore: Mask
    validation: Mask


@dataclass(frozen=True, slots=True)
class Spans:
    """Row masks over the examples: (n,) each.

    Attributes:
        folds: the trials'; in the order of time, at least one.
        fit: trains the shipped model: what trained and validated the last fold, but for what an embargo leaves out.
        test: the gates'. Like the validation of a fold it holds rows with a label alone.
    """

    folds: tuple[Fold, ...]
    fit: Mask
    test: Mask


def bounds_of(examples: Examples, cutoff: datetime, split: Split) -> Bounds:
    """The spans before the cutoff, ended early enough for outcomes to settle; of groups, from the first to the last tested.

    A question that was asked just before the cutoff is among the examples only if its outcome came quickly, and what comes
    quickly may be of one kind. So the last span ends one **lag** before the cutoff: the time within which 99 % of outcomes
    settle, measured on questions old enough for all of theirs to be there.

    Raises:
        DataError: `too-little-history`, when no group is held out.
    """
    if isinstance(split, ByGroup):
        _check_some(examples)
        held = (groups.sides(examples, split.names, split.share) == groups.TEST) & examples.labelled
        asked = examples.asked.filter(pl.Series(held))
        if asked.is_empty():
            raise _too_few(examples, split, "test")
        return Bounds((), asked[0], asked[-1] + MICROSECOND, groups=split)
    waits = (examples.settled - examples.asked).dt.total_microseconds()
    old = waits.filter(examples.asked < cutoff - (len(_origins(split)) + 2) * split.span).drop_nulls()
    longest = (old if len(old) >= SETTLED_ENOUGH else waits).quantile(0.99, "higher")
    return Bounds.before(cutoff - hours(math.ceil((longest or 0) / 3.6e9)), split)


def _origins(split: ByTime | Rolling) -> range:
    return range(split.origins if isinstance(split, Rolling) else 1)


def cut(examples: Examples, bounds: Bounds) -> Spans:
    """The spans of the examples.

    Raises:
        DataError: `too-little-history`, when one of them is empty.
    """
    _check_some(examples)
    found = _cut_groups(examples, bounds, bounds.groups) if bounds.groups is not None else _cut_times(examples, bounds)
    named = [("explore", f.explore) for f in found.folds] + [("validation", f.validation) for f in found.folds]
    for name, mask in (*named, ("test", found.test)):
        if not mask.any():
            raise (
                _too_short(examples, bounds, name) if bounds.groups is None else _too_few(examples, bounds.groups, name)
            )
    return found


def _cut_times(examples: Examples, bounds: Bounds) -> Spans:
    asked, settled, labelled = examples.asked, examples.settled, examples.labelled
    known = settled.fill_null(asked)  # a row without an outcome has been there since it was asked about

    def before(moment: datetime) -> Mask:
        return ((known < moment) & (asked < moment - bounds.embargo)).to_numpy()

    fit, folds = before(bounds.test), []
    for start, stop in zip(bounds.validation, (*bounds.validation[1:], bounds.test), strict=True):
        # Whatever was known before the test began may measure a trial, however late: the slow count as well as the quick.
        within = (
            (asked >= start) & (asked < min(stop, bounds.test - bounds.embargo)) & (settled < bounds.test)
        ).fill_null(value=False)
        folds.append(Fold(before(start), within.to_numpy() & labelled))
    test = ((asked >= bounds.test) & (asked < bounds.end)).to_numpy()
    return Spans(tuple(folds), fit, test & labelled)


def _cut_groups(examples: Examples, bounds: Bounds, split: ByGroup) -> Spans:
    sides, labelled = groups.sides(examples, split.names, split.share), examples.labelled
    trains = np.ones(len(sides), dtype=np.bool_)
    if bounds.known is not None:
        trains = (examples.settled.fill_null(examples.asked) < bounds.known).to_numpy()
    asked = ((examples.asked >= bounds.test) & (examples.asked < bounds.end)).to_numpy()
    fold = Fold((sides == groups.TRAIN) & trains, (sides == groups.VALIDATION) & trains & labelled)
    return Spans((fold,), (sides != groups.TEST) & trains, (sides == groups.TEST) & asked & labelled)


def blocks(examples: Examples, bounds: Bounds, rows: Mask) -> npt.NDArray[np.int64] | None:
    """(rows,) what the bootstrap draws together: days, or the groups; None where each row is on its own.

    Rows of one day share its weather and its jams (Künsch 1989), rows of one group what it is (Cameron, Gelbach and Miller
    2008); drawn on their own they would make intervals too narrow.

    Args:
        rows: (n,) a mask over the examples.
    """
    if bounds.groups is None:
        return days(examples.asked.filter(pl.Series(rows)))
    places = groups.grouped(examples, bounds.groups.names)[1][rows]
    return places if len(np.unique(places)) < len(places) else None


def days(asked: pl.Series) -> npt.NDArray[np.int64]:
    """(n,) the day on which each question was asked."""
    return asked.dt.epoch("d").cast(pl.Int64).to_numpy()


def check_classes(examples: Examples, spans: Spans, task: Task) -> None:
    """Refuse spans in which a classifier would see, or be judged on, one outcome alone.

    What is unsupervised learns from no outcome, and may be judged where some span holds none of the rare kind.

    Raises:
        DataError: `one-class-only`.
    """
    if not task.classifies:
        return
    named = [("explore", f.explore) for f in spans.folds] + [("validation", f.validation) for f in spans.folds]
    for name, mask in (*named, ("test", spans.test)):
        found = np.unique(examples.labels[mask])
        if len(found) < 2:
            value = task.classes[int(found[0])] if task.classes else bool(found[0])
            raise DataError(
                "one-class-only",
                f"All {int(mask.sum()):,} outcomes of the {NAMES[name]} span are {value}.",
                why="What never differs can be neither learned nor ranked.",
                next="Ingest more history, or declare a longer span: split=fb.by_time(days(60)).",
            )


NAMES = {"explore": "training", "validation": "validation", "test": "test"}
"""What a person calls them."""


def told(bounds: Bounds) -> str:
    """The rows that are tested, for a person."""
    by = ", ".join(map(str, bounds.groups.columns)) if bounds.groups is not None else ""
    whose = f", of groups by {by} that nothing was learned from" if by else ""
    return f"questions asked {bounds.test:%Y-%m-%d} to {bounds.end:%Y-%m-%d}{whose}"


def _check_some(examples: Examples) -> None:
    if not examples.labelled.any():
        n = len(examples.asked)
        raise DataError(
            "too-little-history",
            f"None of {n:,} questions has an outcome." if n else "No question is settled yet.",
            why="An example needs one, and an outcome time after the question; what learns without is judged by some.",
            next="Look at the outcome columns of a few rows: flyball data show APP TABLE; and wait, or ingest more history.",
        )


def _too_short(examples: Examples, bounds: Bounds, name: str) -> DataError:
    to = 10 if bounds.end - bounds.test >= timedelta(days=2) else 16  # days, or minutes where spans are short
    moments = (examples.asked.min(), examples.asked.max(), bounds.validation[0], bounds.test, bounds.end)
    first, last, trials, test, end = (f"{moment!s:.{to}}" for moment in moments)
    return DataError(
        "too-little-history",
        f"No settled question falls into the {NAMES[name]} span.",
        why=f"Questions were asked from {first} to {last}; trials are compared on those from {trials}, gates are judged on "
        f"those from {test} to {end}, and what was settled before trains.",
        next="Ingest more history, or declare a shorter span: split=fb.by_time(days(7)).",
    )


def _too_few(examples: Examples, split: ByGroup, name: str) -> DataError:
    count = len(groups.grouped(examples, split.names)[0])
    return DataError(
        "too-little-history",
        f"No group with a settled question falls to the {NAMES[name]} rows.",
        why=f"There are {count:,} groups by {', '.join(map(str, split.columns))}; {split.share:.0%} of them are held out, "
        "whichever their names hash to.",
        next="Ingest more groups, hold out a larger share, or split by a column with more values.",
    )
