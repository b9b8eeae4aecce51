"""Features that are ready when a question comes: what is stored of a table, how a batch changes it, how it is looked up.

A **series** is what one `latest` or `window` keeps, named by what it means: two models that declare the same share it, and
a changed one is filled anew from its table. Its **position** is the last batch that it holds, committed with its content.

A series holds every **version** of every key, so a question of the past is answered as it would have been then. A window
also holds **steps**: running count and total of an entity after a moment. In span 0 a version counts from when it was
known, for ever, so that [asked - over, asked) is the difference of two steps. Corrections make that wrong; what it is
wrong by enters and leaves in the steps of each span. Batches may come late and out of order: steps after them are mended.

A `latest` needs no steps: no row is known earlier than its contract says, so the greatest event time that can be known
when asked is bounded, and the search downwards from there ends at once, save for rows that came late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec
import polars as pl

from flyball._kernel import fingerprint
from flyball._kernel.errors import DataError, StateError
from flyball.data import contract
from flyball.learn.features import meaning
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.features.meaning import NEVER

EntityValue = str | int
_key = attrgetter("key")
NOTHING = -1
"""The position of a series that has seen no batch."""


class Version(NamedTuple):
    """One row of a table as a series keeps it. Moments are microseconds since 1970, NEVER where there is none.

    `event` is None in a window, which never asks for it. `value` is the exact number that a window counts (None: nothing),
    or the packed columns of a latest.
    """

    key: bytes
    known: int
    batch: int
    until: int
    entity: EntityValue | None
    event: int | None
    settled: int
    value: int | bytes | None


class Step(NamedTuple):
    """Running count `n` and total of an entity for questions asked after `at`; `span` 0, or the span that is corrected."""

    span: int
    entity: EntityValue
    at: int
    n: int
    total: int


@dataclass(frozen=True, slots=True)
class Change:
    """What batches do to one series: rows to insert, or to replace where one of the same identity is there.

    Attributes:
        series: whose.
        since: the position that it was decided upon.
        position: the position when it is done.
        versions: identified by (key, known, batch).
        steps: identified by (span, entity, at).
        gone, spent: the identities of versions and steps to take out first.
    """

    series: str
    since: int
    position: int
    versions: Sequence[Version]
    steps: Sequence[Step]
    gone: Sequence[tuple[bytes, int, int]] = ()
    spent: Sequence[tuple[int, EntityValue, int]] = ()


class View(Protocol):
    """One state of a store, unmoved by what others commit while it is open; who opened it closes it before committing.

    Every method raises StateError `features-not-online` if there is no such series: nothing there is not nothing known.
    """

    def chain(self, series: str, key: bytes) -> Sequence[Version]:
        """The versions of a key, by (known, batch)."""

    def total(self, series: str, span: int, entity: EntityValue, before: int) -> tuple[int, int]:
        """Count and total of the last step with `at` < `before`; zeros where there is none."""

    def tail(self, series: str, span: int, entity: EntityValue, since: int) -> Sequence[tuple[int, int, int]]:
        """(at, count, total) of the last step before `since` and of all from then on, by `at`."""

    def latest(self, series: str, entity: EntityValue, asked: int, below: int, own: bytes) -> Version | None:
        """The version with the greatest (event, known, batch, key) of an entity that is current: known < asked <= until.

        Args:
            series: whose.
            entity: of whom.
            asked: the moment of the question.
            below: the event time is less than this.
            own: the key that is passed over; b"" is nobody's.
        """


class Online(Protocol):
    """A store of series."""

    def position(self, series: str) -> int | None:
        """The last batch that a series holds; None if there is no such series."""

    def view(self) -> AbstractContextManager[View]:
        """The state as of now."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply all changes in one transaction.

        Raises:
            StateError: `online-moved-on`, when a series is no longer at the position decided upon; nothing is changed.
        """

    def keep(self, series: Collection[str]) -> None:
        """Drop every other series."""

    def refill(self, changes: Sequence[Change]) -> None:
        """Put these in the place of all that their series held, in one transaction; no byte of what is gone is left.

        Whoever looks meanwhile sees the old content or the new. `since` says nothing here.
        """

    def withdraw(self, changes: Sequence[Change], keep: Collection[str]) -> None:
        """Apply all changes, as `commit`, and drop every series but `keep`, in one transaction; then no byte is left of what
        is gone, now or from before. Raises as `commit`.
        """


def expected(change: Change, position: int | None) -> None:
    """Raise StateError `online-moved-on` if a series is no longer where a change was decided upon."""
    if (NOTHING if position is None else position) != change.since:
        raise StateError(
            "online-moved-on",
            f"The online features were moved from batch {change.since} to {position} by another process.",
            why="What a batch changes depends on the batches before it.",
            next="Try again: what the other has applied is skipped.",
        )


def absent(series: str) -> StateError:
    """The error of a series that is not there."""
    return StateError(
        "features-not-online",
        f"The online store has no series {series[:12]}.",
        why="A feature was added or changed since the store was filled, or what reads it was no longer declared.",
        next="Run `flyball apply`, which fills it from its table.",
    )


def names(features: FeatureSet, table: type[contract.Contract] | None = None) -> tuple[str, ...]:
    """The series that a set of features reads: all of them, or those of one table."""
    read = (f for f in features.features if isinstance(f, Latest | Window))
    return tuple(name(f) for f in read if table is None or f.table is table)


def name(feature: Latest | Window) -> str:
    """The fingerprint of what a series keeps; how it is looked up (max_age, the question's column) is not part of it."""
    spec = contract.spec(feature.table)
    kept: tuple[object, ...]
    if isinstance(feature, Latest):
        kept = ("latest", spec.event_time, *((n, str(spec.column(n).dtype)) for n in feature.columns))
    else:
        spans = tuple(meaning.span(over) for over in feature.over)
        kept = ("window", feature.value, str(meaning.dtype(feature)), feature.how == "count", feature.on_outcome, spans)
    return fingerprint.of("series/1", spec.name, spec.key, feature.by.table, *kept)


# --- how batches change a series


def update(store: Online, features: FeatureSet, tables: Mapping[str, pl.LazyFrame]) -> None:
    """Bring every series of `features` up to its table: each batch is applied once, whatever was interrupted before.

    Args:
        store: what is brought up to date; a series that it does not have is filled from the whole table.
        features: checked by `meaning.check`.
        tables: contract name -> observation frame, all batches that are to be seen.

    Raises:
        DataError: `two-versions-at-once`, `number-too-large`.
        StateError: `online-moved-on`, when another process does the same; what it has done is whole.
    """
    for table in features.tables():
        spec = contract.spec(table)
        wanted = {name(f): f for f in features.features if isinstance(f, Latest | Window) and f.table is table}
        positions = {series: store.position(series) for series in wanted}
        lowest = min(NOTHING if p is None else p for p in positions.values())
        rows = tables[spec.name].filter(pl.col("_batch") > lowest).select(meaning.columns(spec)).collect()
        for series, feature in wanted.items():
            since = positions[series]
            fresh = rows if since is None else rows.filter(pl.col("_batch") > since)
            if since is None or fresh.height:
                with store.view() as view:
                    decided = change(feature, NOTHING if since is None else since, fresh, view)
                store.commit([decided])


def refill(
    store: Online,
    features: Iterable[FeatureSet],
    table: type[contract.Contract],
    rows: pl.LazyFrame,
    upto: int = NOTHING,
) -> int:
    """Fill every series of a table anew, from the rows that it has now; returns how many series that were.

    Args:
        features: the sets whose series are meant, and no others: a series that two of them share is filled once.
        rows: the observation frame, all batches.
        upto: the version that the rows are, where its last batches may have none.

    Raises:
        DataError: as `update`.
    """
    wanted = {
        name(f): f for each in features for f in each.features if isinstance(f, Latest | Window) and f.table is table
    }
    if not wanted:
        return 0
    spec = contract.spec(table)
    held = {series: store.position(series) for series in wanted}
    found = rows.select(meaning.columns(spec)).collect()
    with store.view() as view:
        changes = [change(feature, NOTHING, found, view) for feature in wanted.values()]
    # The last batches may have lost all their rows, and none of them may be applied again.
    store.refill([replace(c, position=max(c.position, held[c.series] or NOTHING, upto)) for c in changes])
    return len(changes)


def change(feature: Latest | Window, since: int, rows: pl.DataFrame, view: View) -> Change:
    """What the rows of later batches do to the series of a feature that holds batches up to `since`."""
    series = name(feature)
    fresh = sorted(versions(feature, rows), key=_key)
    known = view if since > NOTHING else None
    stored: list[Version] = []
    moves = Moves(feature) if isinstance(feature, Window) else None
    for key, added in groupby(fresh, _key):
        old = known.chain(series, key) if known else ()
        new = chained([*old, *added])
        gone, come = ([v for v in old if v not in new], [v for v in new if v not in old]) if old else ((), new)
        stored += come
        if moves is not None:
            for version in gone:
                moves.count(version, -1)
            for version in come:
                moves.count(version, 1)
    position = int(rows.select(pl.max("_batch")).item()) if rows.height else since
    return Change(series, since, position, stored, tuple(moves.steps(series, known)) if moves is not None else ())


def versions(feature: Latest | Window, rows: pl.DataFrame) -> Iterator[Version]:
    """Rows as versions that are current still."""
    spec = contract.spec(feature.table)
    kept: tuple[pl.Expr, ...]
    if isinstance(feature, Window):
        kept = (meaning.value(feature).alias("_value"),)
    else:
        kept = tuple(pl.col(n).alias(f"_{n}") for n in feature.columns)
    found = rows.with_columns(*kept, *meaning.times(spec)).select(
        "_known",
        "_batch",
        "_settled",
        "_event",
        meaning.comparable(feature.by.table, rows.schema[feature.by.table]).alias("_entity"),
        *(meaning.comparable(k, rows.schema[k]).alias(f"_key_{k}") for k in spec.key),
        *(e.meta.output_name() for e in kept),
    )
    keys, width = len(spec.key), 5 + len(spec.key)
    if isinstance(feature, Window):
        meaning.fitting(feature, found["_value"])
        for known, batch, settled, _, entity, *rest in found.iter_rows():
            yield Version(packed(rest[:keys]), known, batch, NEVER, entity, None, settled, rest[keys])
    else:
        for row in found.iter_rows():
            known, batch, settled, event, entity = row[:5]
            value = msgspec.msgpack.encode(row[width:])
            yield Version(packed(row[5:width]), known, batch, NEVER, entity, event, settled, value)


def packed(key: Iterable[EntityValue | None]) -> bytes:
    """A key as bytes that sort as the key does: text by code point and ended by zeros, integers by size."""
    parts = []
    for value in key:
        if isinstance(value, str):
            parts.append(value.encode().replace(b"\0", b"\0\1") + b"\0\0")
        elif value is not None:
            parts.append((value + 2**63).to_bytes(8, "big"))
        else:
            raise DataError(
                "key-not-given", "A part of the key is null.", why="Rows are told by their key.", next="Give the key."
            )
    return b"".join(parts)


def chained(versions: list[Version]) -> list[Version]:
    """Versions of one key in order, each until the next was known."""
    if len(versions) == 1:
        return versions
    versions.sort(key=lambda v: (v.known, v.batch))
    ends = [v.known for v in versions[1:]] + [NEVER]
    for one, next_ in pairwise(versions):
        if (one.known, one.batch) == (next_.known, next_.batch):
            raise meaning.twice(one.batch)
    return [v if v.until == end else v._replace(until=end) for v, end in zip(versions, ends, strict=True)]


class Moves:
    """What versions change in the steps of a window.

    Attributes:
        spans: of the window, microseconds.
        moves: (span, entity) -> moment -> count and total.
    """

    def __init__(self, window: Window) -> None:
        self._on_outcome = window.on_outcome
        self.spans = [meaning.span(over) for over in window.over]
        self.moves: dict[tuple[int, EntityValue], dict[int, tuple[int, int]]] = {}

    def count(self, version: Version, sign: int) -> None:
        """Count a version in the moments from which on it counts; or with -1 take it out of them."""
        known = version.settled if self._on_outcome else version.known
        value, entity = version.value, version.entity
        if entity is None or known == NEVER or not isinstance(value, int):
            return
        self._add(0, entity, known, sign, value)
        enter = max(known, version.known)
        if enter == known and version.until == NEVER:
            return
        for span in self.spans:
            leave = min(known + span, version.until)
            self._add(span, entity, known, -sign, value)
            self._add(span, entity, known + span, sign, value)
            if enter < leave:
                self._add(span, entity, enter, sign, value)
                self._add(span, entity, leave, -sign, value)

    def _add(self, span: int, entity: EntityValue, at: int, count: int, value: int) -> None:
        moved = self.moves.setdefault((span, entity), {})
        before = moved.get(at, (0, 0))
        moved[at] = (before[0] + count, before[1] + count * value)

    def steps(self, series: str, view: View | None) -> Iterator[Step]:
        """The steps that this makes or mends: of each entity those from the first moment on."""
        for (span, entity), moved in self.moves.items():
            moments = [at for at, (count, total) in moved.items() if count or total]
            if not moments:
                continue
            first = min(moments)
            there = {at: (n, total) for at, n, total in view.tail(series, span, entity, first)} if view else {}
            before, count, total = (0, 0), 0, 0
            for at in sorted({*there, *moments}):
                before = there.get(at, before)
                if at >= first:
                    move = moved.get(at, (0, 0))
                    count, total = count + move[0], total + move[1]
                    yield Step(span, entity, at, before[0] + count, before[1] + total)
