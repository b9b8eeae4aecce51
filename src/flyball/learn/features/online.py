"""Features that are ready when a question comes: what is stored of a table, how a batch changes it, how it is looked up.

A **series** is what one `latest` or `window` keeps, named by what it means: two models that declare the same share it, and
a changed one is filled anew from its table. Its **position** is the last batch that it holds, committed with its content.

A series holds every **version** of every key, so a question of the past is answered as it would have been then. A window that
adds up also holds **steps**: running count and total of an entity after a moment. In span 0 a version counts from when it was
known, for ever, so that [asked - over, asked) is the difference of two steps. Corrections make that wrong; what it is wrong by
enters and leaves in the steps of each span. Batches may come late and out of order: steps after them are mended.

A `latest` needs no steps: no row is known earlier than its contract says, so the greatest event time that can be known
when asked is bounded, and the search downwards from there ends at once, save for rows that came late. Nor does any other
window: its versions lie by the moment from which they count, and those of the span are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from flyball._kernel import fingerprint
from flyball._kernel.errors import DataError, StateError
from flyball.data import contract
from flyball.learn.features import meaning
from flyball.learn.features.declare import FeatureSet, Latest, Looked, Window
from flyball.learn.features.meaning import NEVER

EntityValue = str | int
Of = tuple[int, EntityValue]
"""A span, and whose steps in it."""
NOTHING = -1
"""The position of a series that has seen no batch."""


class Version(NamedTuple):
    """One row of a table as a series keeps it. Moments are microseconds since 1970, NEVER where there is none.

    `event` is what a version is found by: its event time in a latest; the moment from which it counts in a window that looks at
    values; None in one that adds up, which never asks for it. `settled` is when its outcome was known; in a window, when what
    it counts was, and `since` when that was first known, of this version or of one before. `value` is the exact number that a
    window counts (None: nothing), what it looks at, or the packed columns of a latest.
    """

    key: bytes
    known: int
    batch: int
    until: int
    entity: EntityValue | None
    event: int | None
    settled: int
    value: int | float | bytes | None
    since: int = NEVER


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

    def chains(self, series: str, keys: Sequence[bytes]) -> Mapping[bytes, list[Version]]:
        """The versions of many keys, by (known, batch); a key that has none is not there."""

    def total(self, series: str, span: int, entity: EntityValue, before: int) -> tuple[int, int]:
        """Count and total of the last step with `at` < `before`; zeros where there is none."""

    def tails(self, series: str, since: Mapping[Of, int]) -> Mapping[Of, dict[int, tuple[int, int]]]:
        """Of each span and entity, at -> (count, total): the last step before the given moment, and all from then on."""

    def latest(self, series: str, entity: EntityValue, asked: int, below: int, own: bytes) -> Version | None:
        """The version with the greatest (event, known, batch, key) of an entity that is current: known < asked <= until.

        Args:
            series: whose.
            entity: of whom.
            asked: the moment of the question.
            below: the event time is less than this.
            own: the key that is passed over; b"" is nobody's.
        """

    def values(
        self, series: str, entity: EntityValue, since: int, asked: int, own: bytes
    ) -> Sequence[int | float | bytes | None]:
        """The values of all versions of an entity with since <= event < asked that are current, but of the key `own`; and were
        known themselves: settled < asked.
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

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the content of each series that there is, without what a store adds to it; all of it is read for that.

        Of all that a version and a step hold, a number is 8 (beyond 64 bits as many as it has digits), the rest its length.
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
    read = (f for f in features.features if isinstance(f, Looked))
    return tuple(name(f) for f in read if table is None or f.table is table)


_KEPT = {"sum": "mean", "var": "std", "max": "min", "quantile": "min"}
"""Aggregates that keep what another does."""


@lru_cache(maxsize=1024)
def name(feature: Latest | Window) -> str:
    """The fingerprint of what a series keeps; how it is looked up (max_age, the question's column) is not part of it."""
    spec = contract.spec(feature.table)
    kept: tuple[object, ...]
    if isinstance(feature, Latest):
        kept = ("latest", spec.event_time, *((n, str(spec.column(n).dtype)) for n in feature.columns))
    else:
        how = feature.aggregate.how
        spans = tuple(meaning.span(over) for over in feature.over) if feature.aggregate.adds else ()
        counted = (feature.value, str(meaning.dtype(feature)), _KEPT.get(how, how))
        kept = ("window", *counted, feature.on_outcome, meaning.span(feature.gap), spans)
    return fingerprint.of("series/3", spec.name, spec.key, feature.by.table, *kept)


def counts(window: Window, version: Version) -> int:
    """The moment from which on a version counts in a window; NEVER if it does not. As `meaning.counts`."""
    shift = meaning.span(window.gap)
    return version.since + shift if version.settled < NEVER - shift else NEVER


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
