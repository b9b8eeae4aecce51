"""Taking rows out of online features: only what some keys left in a series is looked at, and is as if it had never been.

Of each key all versions go, and those that the rows which are left still make come back. Of every entity that one of them
named, all steps are gone through, and what nothing moves any more goes too: its moment, and at last its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, product
from operator import attrgetter

import polars as pl

from flyball.data import contract
from flyball.learn.features import batches, meaning, online
from flyball.learn.features.batches import Moves
from flyball.learn.features.declare import FeatureSet, Latest, Looked, Window
from flyball.learn.features.online import Change, EntityValue, Online, Step, Version, View

_key = attrgetter("key")
_FIRST = -(2**63)
"""No step is earlier."""


def without(
    store: Online,
    features: Iterable[FeatureSet],
    table: type[contract.Contract],
    rows: pl.LazyFrame,
    keys: pl.DataFrame,
) -> list[Change]:
    """What it takes for the series of a table to be as if some rows of these keys had never been; for `Online.withdraw`.

    Only these keys, and the steps of the entities that their versions name, are looked at.

    Args:
        features: the sets whose series are meant; a series that two of them share is changed once.
        rows: the observation frame without those rows.
        keys: the key columns of all rows that are not in it any more.

    Raises:
        DataError: as `batches.update`.
    """
    spec = contract.spec(table)
    sets = [f for each in features for f in each.features if isinstance(f, Looked) and f.table is table]
    wanted = {online.name(f): f for f in sets}
    if not wanted or keys.is_empty():
        return []
    left = rows.join(keys.lazy(), on=spec.key, how="semi").select(meaning.columns(spec)).collect(engine="streaming")
    named = keys.select(meaning.comparable(k, keys.schema[k]) for k in spec.key)
    touched = [online.packed(key) for key in named.iter_rows()]
    found = []
    for series, feature in wanted.items():
        position = store.position(series)
        if position is not None:
            with store.view() as view:
                known = left.filter(pl.col("_batch") <= position)
                found.append(_without(feature, position, touched, known, view))
    return found


def _without(feature: Latest | Window, position: int, keys: Iterable[bytes], rows: pl.DataFrame, view: View) -> Change:
    """What it takes for one series, of which `rows` are all that is left of these keys."""
    series = online.name(feature)
    left = {key: list(own) for key, own in groupby(batches.versions(feature, rows), _key)}
    stored: list[Version] = []
    gone: list[tuple[bytes, int, int]] = []
    moves = Moves(feature) if isinstance(feature, Window) and feature.aggregate.adds else None
    for key in keys:
        old, new = view.chain(series, key), batches.chained(feature, left[key]) if key in left else []
        there = {(v.known, v.batch) for v in new}
        gone += [(key, v.known, v.batch) for v in old if (v.known, v.batch) not in there]
        stored += [v for v in new if v not in old]
        if moves is not None:
            moves.replace(old, new)
    steps, spent = _mended(moves, series, view) if moves is not None else ([], [])
    return Change(series, position, position, stored, steps, gone, spent)


def _mended(moves: Moves, series: str, view: View) -> tuple[list[Step], list[tuple[int, EntityValue, int]]]:
    """The steps that this changes, and those that nothing moves at any more: of each entity that was counted."""
    steps: list[Step] = []
    spent: list[tuple[int, EntityValue, int]] = []
    all_ = dict.fromkeys(product((0, *moves.spans), {entity for _, entity in moves.moves}), _FIRST)
    tails = view.tails(series, all_)
    for span, entity in all_:
        moved, there = moves.moves.get((span, entity), {}), tails.get((span, entity), {})
        before = last = (0, 0)
        count = total = 0
        for at in sorted({*there, *moved}):
            before = there.get(at, before)
            move = moved.get(at, (0, 0))
            count, total = count + move[0], total + move[1]
            now = (before[0] + count, before[1] + total)
            if now == last and at in there:
                spent.append((span, entity, at))
            elif now not in (last, there.get(at)):
                steps.append(Step(span, entity, at, *now))
            last = now
    return steps, spent
