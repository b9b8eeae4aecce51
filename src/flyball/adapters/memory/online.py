"""Online features in memory: sorted lists, searched by bisection. For rehearsal and tests."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from flyball.learn.features import online
from flyball.learn.features.online import Change, EntityValue, Of, Step, Version, View

Rank = tuple[int, int, int, bytes]


class _Series:
    """What one series holds."""

    def __init__(self) -> None:
        self.position: int | None = None
        self.chains: dict[bytes, list[Version]] = defaultdict(list)
        self.ranks: dict[EntityValue, list[Rank]] = defaultdict(list)
        self.moments: dict[tuple[int, EntityValue], list[int]] = defaultdict(list)
        self.totals: dict[tuple[int, EntityValue, int], tuple[int, int]] = {}

    def put(self, version: Version) -> None:
        chain = self.chains[version.key]
        place = bisect_left(chain, (version.known, version.batch), key=_order)
        if place < len(chain) and _order(chain[place]) == _order(version):
            self._rank(chain.pop(place), there=False)
        chain.insert(place, version)
        self._rank(version, there=True)

    def _rank(self, version: Version, *, there: bool) -> None:
        """Let a version be found by its event, or no more."""
        if version.event is not None and version.entity is not None:
            rank, ranks = (version.event, *_order(version), version.key), self.ranks[version.entity]
            if there:
                insort(ranks, rank)
            else:
                ranks.remove(rank)

    def take(self, key: bytes, known: int, batch: int) -> None:
        chain = self.chains.get(key, [])
        for version in [v for v in chain if _order(v) == (known, batch)]:
            chain.remove(version)
            self._rank(version, there=False)
        if not chain:
            self.chains.pop(key, None)

    def forget(self, span: int, entity: EntityValue, at: int) -> None:
        if self.totals.pop((span, entity, at), None) is not None:
            self.moments[span, entity].remove(at)

    def step(self, step: Step) -> None:
        moments = self.moments[step.span, step.entity]
        place = bisect_left(moments, step.at)
        if place == len(moments) or moments[place] != step.at:
            moments.insert(place, step.at)
        self.totals[step.span, step.entity, step.at] = (step.n, step.total)

    def content(self) -> Iterator[object]:
        for versions in self.chains.values():
            for version in versions:
                yield from version
        for identity, totals in self.totals.items():
            yield from (*identity, *totals)


class MemoryOnline:
    """A store of series for one thread; it is its own view."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}

    def position(self, series: str) -> int | None:
        """The last batch that a series holds; None if there is no such series."""
        found = self._series.get(series)
        return None if found is None else found.position

    def view(self) -> AbstractContextManager[View]:
        """The state as of now."""
        return nullcontext(self)

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply all changes, or none; see `Online`."""
        for change in changes:
            online.expected(change, self.position(change.series))
        # From here on nothing may fail, so whatever could is done first.
        whole = [(change, tuple(change.versions), tuple(change.steps)) for change in changes]
        for change, versions, steps in whole:
            series = self._series.setdefault(change.series, _Series())
            for identity in change.gone:
                series.take(*identity)
            for spent in change.spent:
                series.forget(*spent)
            for version in versions:
                series.put(version)
            for step in steps:
                series.step(step)
            series.position = change.position

    def keep(self, series: Collection[str]) -> None:
        """Drop every other series."""
        self._series = {name: found for name, found in self._series.items() if name in series}

    def refill(self, changes: Sequence[Change]) -> None:
        """Put these in the place of all that their series held; see `Online`."""
        before = dict(self._series)
        try:
            for change in changes:
                self._series.pop(change.series, None)
            self.commit([replace(change, since=online.NOTHING) for change in changes])
        except BaseException:
            self._series = before
            raise

    def withdraw(self, changes: Sequence[Change], keep: Collection[str]) -> None:
        """Apply all changes and drop every series but `keep`; see `Online`."""
        self.commit(changes)
        self.keep(keep)

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the content of each series that there is; see `Online`."""
        return {name: sum(map(_weight, found.content())) for name, found in self._series.items()}

    def chain(self, series: str, key: bytes) -> Sequence[Version]:
        """The versions of a key, by (known, batch)."""
        return tuple(self._of(series).chains.get(key, ()))

    def total(self, series: str, span: int, entity: EntityValue, before: int) -> tuple[int, int]:
        """Count and total of the last step before a moment."""
        found = self._of(series)
        moments = found.moments.get((span, entity), [])
        place = bisect_left(moments, before)
        return found.totals[span, entity, moments[place - 1]] if place else (0, 0)

    def chains(self, series: str, keys: Sequence[bytes]) -> Mapping[bytes, list[Version]]:
        """The versions of many keys; see `View`."""
        found = self._of(series)
        return {key: list(found.chains[key]) for key in keys if key in found.chains}

    def tails(self, series: str, since: Mapping[Of, int]) -> Mapping[Of, dict[int, tuple[int, int]]]:
        """The last step before a moment and all from then on, of many; see `View`."""
        found = self._of(series)
        tails: dict[Of, dict[int, tuple[int, int]]] = {}
        for of, first in since.items():
            moments = found.moments.get(of, [])
            place = max(bisect_left(moments, first) - 1, 0)
            if moments:
                tails[of] = {at: found.totals[*of, at] for at in moments[place:]}
        return tails

    def latest(self, series: str, entity: EntityValue, asked: int, below: int, own: bytes) -> Version | None:
        """The version with the greatest rank that is current; see `View`."""
        found = self._of(series)
        ranks = found.ranks.get(entity, [])
        for place in range(bisect_left(ranks, (below,)) - 1, -1, -1):
            _, known, batch, key = ranks[place]
            if known < asked and key != own:
                chain = found.chains[key]
                version = chain[bisect_left(chain, (known, batch), key=_order)]
                if asked <= version.until:
                    return version
        return None

    def values(
        self, series: str, entity: EntityValue, since: int, asked: int, own: bytes
    ) -> Sequence[int | float | bytes | None]:
        """The values of all versions of a span that are current; see `View`."""
        found = self._of(series)
        ranks = found.ranks.get(entity, [])
        values = []
        for _, known, batch, key in ranks[bisect_left(ranks, (since,)) : bisect_left(ranks, (asked,))]:
            chain = found.chains[key]
            version = chain[bisect_left(chain, (known, batch), key=_order)]
            if max(known, version.settled) < asked <= version.until and key != own:
                values.append(version.value)
        return values

    def _of(self, series: str) -> _Series:
        found = self._series.get(series)
        if found is None:
            raise online.absent(series)
        return found


def _weight(value: object) -> int:
    match value:
        case None:
            return 0
        case str():
            return len(value.encode())
        case bytes():
            return len(value)
        case int() if not -(2**63) <= value < 2**63:
            return len(str(value))
        case _:
            return 8


def _order(version: Version) -> tuple[int, int]:
    return version.known, version.batch
