"""Online features in memory: sorted lists, searched by bisection. For rehearsal and tests."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from flyball.learn.features import online
from flyball.learn.features.online import Change, EntityValue, Step, Version, View

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
            chain[place] = version
            return
        chain.insert(place, version)
        if version.event is not None and version.entity is not None:
            insort(self.ranks[version.entity], (version.event, version.known, version.batch, version.key))

    def take(self, key: bytes, known: int, batch: int) -> None:
        chain = self.chains.get(key, [])
        for version in [v for v in chain if _order(v) == (known, batch)]:
            chain.remove(version)
            if version.event is not None and version.entity is not None:
                self.ranks[version.entity].remove((version.event, known, batch, key))
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

    def chain(self, series: str, key: bytes) -> Sequence[Version]:
        """The versions of a key, by (known, batch)."""
        return tuple(self._of(series).chains.get(key, ()))

    def total(self, series: str, span: int, entity: EntityValue, before: int) -> tuple[int, int]:
        """Count and total of the last step before a moment."""
        found = self._of(series)
        moments = found.moments.get((span, entity), [])
        place = bisect_left(moments, before)
        return found.totals[span, entity, moments[place - 1]] if place else (0, 0)

    def tail(self, series: str, span: int, entity: EntityValue, since: int) -> Sequence[tuple[int, int, int]]:
        """The last step before a moment and all from then on."""
        found = self._of(series)
        moments = found.moments.get((span, entity), [])
        place = max(bisect_left(moments, since) - 1, 0)
        return [(at, *found.totals[span, entity, at]) for at in moments[place:]]

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

    def _of(self, series: str) -> _Series:
        found = self._series.get(series)
        if found is None:
            raise online.absent(series)
        return found


def _order(version: Version) -> tuple[int, int]:
    return version.known, version.batch
