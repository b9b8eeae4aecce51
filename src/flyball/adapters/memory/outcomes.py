"""Outcomes in memory, for rehearsals and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import msgspec

from flyball.serve import outcomes
from flyball.serve.outcomes import Counts, New, Posted, Taken


class MemoryOutcomes:
    """See `serve.outcomes.Outcomes`."""

    def __init__(self) -> None:
        self._rows: list[Posted | None] = []
        self._of: dict[tuple[str, str], list[Posted]] = defaultdict(list)
        self._lock = Lock()

    def post(self, new: Sequence[New]) -> list[Taken]:
        """Store `new`."""
        with self._lock:
            return [self._take(each) for each in new]

    def read(self, after: int = 0) -> Iterator[Posted]:
        """What is stored after a number."""
        while after < len(self._rows):
            row = self._rows[after]
            if row is not None:
                yield row
            after += 1

    def counts(self) -> dict[str, Counts]:
        """What is stored, by model."""
        found: dict[str, list[list[Posted]]] = defaultdict(list)
        with self._lock:
            for rows in self._of.values():
                found[rows[-1].model].append(rows)
        return {
            model: Counts(
                targets=len(targets),
                void=sum(rows[-1].value is None for rows in targets),
                corrections=sum(len(rows) - 1 for rows in targets),
            )
            for model, targets in found.items()
        }

    def erase(self, chosen: Callable[[Posted], bool]) -> int:
        """Forget what `chosen` says."""
        with self._lock:
            gone = {row.seq for row in self._rows if row is not None and chosen(row)}
            self._rows = [None if row is None or row.seq in gone else row for row in self._rows]
            for target, rows in list(self._of.items()):
                self._of[target] = [row for row in rows if row.seq not in gone]
                if not self._of[target]:
                    del self._of[target]
        return len(gone)

    def _take(self, new: New) -> Taken:
        rows = self._of.get(new.target, [])
        how = outcomes.taken((rows[-1].value, rows[-1].settled) if rows else None, new)
        if how != "repeated":
            settled = new.settled if new.settled is not None else new.received
            row = Posted(seq=len(self._rows) + 1, **{**msgspec.structs.asdict(new), "settled": settled})
            self._rows.append(row)
            self._of[new.target].append(row)
        return how
