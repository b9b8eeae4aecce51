"""How a batch of a table changes the series that are kept of it: which versions come, and which steps move.

Each batch is applied once, whatever was interrupted before: a series has its position, and moves on from it in the same
transaction as its content. Batches may be a row or all of history; both are this one code, so that what is filled at once
and what arrived row by row is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from operator import attrgetter

import msgspec
import polars as pl

from flyball.data import contract
from flyball.learn.features import aggregate, meaning, online
from flyball.learn.features.declare import FeatureSet, Latest, Looked, Window
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.online import NOTHING, Change, EntityValue, Of, Online, Step, Version, View

_key = attrgetter("key")
_PACKED = "_packed"


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
        wanted = {online.name(f): f for f in features.features if isinstance(f, Looked) and f.table is table}
        positions = {series: store.position(series) for series in wanted}
        lowest = min(NOTHING if p is None else p for p in positions.values())
        rows = tables[spec.name].filter(pl.col("_batch") > lowest).select(meaning.columns(spec)).collect()
        rows = keyed(spec, rows)
        behind: dict[int | None, list[Latest | Window]] = {}
        for series, feature in wanted.items():
            behind.setdefault(positions[series], []).append(feature)
        for since, alike in behind.items():
            fresh = rows if since is None or since == lowest else rows.filter(pl.col("_batch") > since)
            if since is not None and not fresh.height:
                continue
            # A new series may be large: one at a time. What a batch adds to all others is one transaction.
            for together in [[f] for f in alike] if since is None else [alike]:
                with store.view() as view:
                    there = None if since is None else _there(together[0], fresh, view)
                    decided = [change(f, NOTHING if since is None else since, fresh, view, there) for f in together]
                store.commit(decided)


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
        online.name(f): f for each in features for f in each.features if isinstance(f, Looked) and f.table is table
    }
    if not wanted:
        return 0
    spec = contract.spec(table)
    held = {series: store.position(series) for series in wanted}
    found = keyed(spec, rows.select(meaning.columns(spec)).collect())
    with store.view() as view:
        changes = [change(feature, NOTHING, found, view) for feature in wanted.values()]
    # The last batches may have lost all their rows, and none of them may be applied again.
    store.refill([replace(c, position=max(c.position, held[c.series] or NOTHING, upto)) for c in changes])
    return len(changes)


def _there(feature: Latest | Window, rows: pl.DataFrame, view: View) -> Sequence[bytes]:
    """The keys of which there are versions already; the same in all series of a table that are at one position."""
    return list(view.chains(online.name(feature), rows[_PACKED].unique().to_list()))


def change(
    feature: Latest | Window, since: int, rows: pl.DataFrame, view: View, there: Sequence[bytes] | None = None
) -> Change:
    """What the rows of later batches do to the series of a feature that holds batches up to `since`.

    Args:
        there: the keys of these rows that the series knows; None where that is still to be asked.
    """
    series = online.name(feature)
    fresh = list(versions(feature, rows))
    known = view if since > NOTHING else None
    keys = list(dict.fromkeys(v.key for v in fresh))
    olds = known.chains(series, keys if there is None else there) if known else {}
    alone = not olds and len(keys) == len(fresh)  # no key was there before, or comes twice: nothing is corrected
    stored = fresh if alone else list[Version]()
    moves = Moves(feature) if isinstance(feature, Window) and feature.aggregate.adds else None
    if alone and moves is not None:
        for version in fresh:
            moves.count(version, 1)
    for key, added in () if alone else groupby(fresh, _key):
        old = olds.get(key, ())
        new = chained(feature, [*old, *added])
        stored += [v for v in new if v not in old]
        if moves is not None:
            moves.replace(old, new)
    position = int(rows.select(pl.max("_batch")).item()) if rows.height else since
    return Change(series, since, position, stored, tuple(moves.steps(series, known)) if moves is not None else ())


def versions(feature: Latest | Window, rows: pl.DataFrame) -> Iterator[Version]:
    """Rows as versions that are current still, by key."""
    spec = contract.spec(feature.table)
    if isinstance(feature, Window):
        kept = [meaning.value(feature), meaning.own(feature)]
    else:
        kept = [pl.col(n) for n in feature.columns]
    about = [
        *(pl.col(n) for n in ("_known", "_batch", "_settled", "_event")),
        meaning.entity(feature.by.table, rows.schema),
        *kept,
    ]
    rows = keyed(spec, rows)
    timed, keys = rows.with_columns(*meaning.times(spec)), rows[_PACKED].to_list()
    found = meaning.of_each(timed, **{f"_{n}": each for n, each in enumerate(about)})
    if isinstance(feature, Window):
        meaning.fitting(feature, found["_5"])
        yield from _counted(feature, keys, found)
        return
    pack = msgspec.msgpack.Encoder().encode
    for key, (known, batch, settled, event, entity, *values) in zip(keys, found.iter_rows(), strict=True):
        yield Version(key, known, batch, NEVER, entity, event, settled, pack(values))


def keyed(spec: contract.Spec, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by their packed keys, and with them; both are the same for all series of a table."""
    if _PACKED in rows.columns:
        return rows
    keys = rows.select(meaning.comparable(k, rows.schema[k]) for k in spec.key)
    # The order in which they lie in a store, and in which those of one key are neighbours.
    return rows.with_columns(pl.Series(_PACKED, map(online.packed, keys.iter_rows()), dtype=pl.Binary)).sort(_PACKED)


def _counted(window: Window, keys: Iterable[bytes], found: pl.DataFrame) -> Iterator[Version]:
    """Versions of a window, each as if it were the first of its key."""
    looks = not window.aggregate.adds
    for key, (known, batch, _, _, entity, value, own) in zip(keys, found.iter_rows(), strict=True):
        if own == NEVER:
            value = None
        elif isinstance(value, str):
            value = value.encode()
        version = Version(key, known, batch, NEVER, entity, None, own, value, own)
        yield _found(window, version) if looks and value is not None else version


def _found(window: Window, version: Version) -> Version:
    """A version of a window that looks at values, found by the moment from which it counts: the very value of `since`."""
    if version.value is None:
        return version._replace(event=None)
    counts = online.counts(window, version)
    return version._replace(event=counts, value=counts if window.aggregate.how == "since" else version.value)


def chained(feature: Latest | Window, versions: list[Version]) -> list[Version]:
    """Versions of one key in order, each until the next was known; in a window each since the first that said anything."""
    if len(versions) == 1:
        return versions
    versions.sort(key=lambda v: (v.known, v.batch))
    ends = [v.known for v in versions[1:]] + [NEVER]
    for one, next_ in pairwise(versions):
        if (one.known, one.batch) == (next_.known, next_.batch):
            raise meaning.twice(one.batch)
    chain = [v if v.until == end else v._replace(until=end) for v, end in zip(versions, ends, strict=True)]
    if isinstance(feature, Latest):
        return chain
    first = accumulate((v.settled for v in chain), min)
    chain = [v._replace(since=since) for v, since in zip(chain, first, strict=True)]
    return chain if feature.aggregate.adds else [_found(feature, v) for v in chain]


def runs(chain: Sequence[Version]) -> list[Version]:
    """A chain in which those that say the same one after the other are one: what settles says of most rows nothing new."""
    found: list[Version] = []
    for version in chain:
        last = found[-1] if found else None
        alike = last is not None and (last.entity, last.value, last.since) == (
            version.entity,
            version.value,
            version.since,
        )
        if last is not None and alike and max(last.settled, version.settled) <= version.known:
            found[-1] = last._replace(until=version.until)
        else:
            found.append(version)
    return found


class Moves:
    """What versions change in the steps of a window.

    Attributes:
        spans: of the window, microseconds.
        moves: (span, entity) -> moment -> count and total.
    """

    def __init__(self, window: Window) -> None:
        self._aggregate, self._gap = window.aggregate, meaning.span(window.gap)
        self.spans = [meaning.span(over) for over in window.over]
        self.moves: dict[Of, dict[int, tuple[int, int]]] = {}

    def replace(self, old: Sequence[Version], new: Sequence[Version]) -> None:
        """Count one chain of a key in the place of another."""
        before, after = runs(old), runs(new)
        for version in before:
            if version not in after:
                self.count(version, -1)
        for version in after:
            if version not in before:
                self.count(version, 1)

    def count(self, version: Version, sign: int) -> None:
        """Count a version in the moments from which on it counts; or with -1 take it out of them."""
        value, entity = version.value, version.entity
        if entity is None or version.settled >= NEVER - self._gap or not isinstance(value, int):
            return
        known = version.since + self._gap
        value = aggregate.packed(self._aggregate, value, known)
        self._add(0, entity, known, sign, value)
        enter = max(known, version.known, version.settled)
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
        moments = {of: [at for at, move in moved.items() if move != (0, 0)] for of, moved in self.moves.items()}
        firsts = {of: min(found) for of, found in moments.items() if found}
        tails = view.tails(series, firsts) if view else {}
        for of, first in firsts.items():
            moved, there = self.moves[of], tails.get(of, {})
            if len(moved) == 1 and (not there or (len(there) == 1 and first not in there and min(there) < first)):
                n, total = next(iter(there.values()), (0, 0))  # one move, after all that was there
                yield Step(*of, first, n + moved[first][0], total + moved[first][1])
                continue
            before, count, total = (0, 0), 0, 0
            for at in sorted({*there, *moments[of]}):
                before = there.get(at, before)
                if at >= first:
                    move = moved.get(at, (0, 0))
                    count, total = count + move[0], total + move[1]
                    yield Step(*of, at, before[0] + count, before[1] + total)
