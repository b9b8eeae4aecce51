"""Facts in memory: the same chain, trace and state as in SQL, for rehearsals and tests.

A `Log` is the place where they lie; it outlives the `MemoryFacts` that are opened on it, as a file outlives a process.
Each opened one folds its own state from the log, and catches up with what others appended before it reads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from threading import RLock

from flyball._kernel import history
from flyball._kernel.clock import Clock
from flyball._kernel.errors import Bug
from flyball._kernel.facts import Fact, Head, Projection, Stored
from flyball._kernel.ports import Signer


class Log:
    """The recorded transactions, in order."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.transactions: list[history.Transaction] = []

    def end(self) -> history.End:
        """What the next transaction follows."""
        return self.transactions[-1].end() if self.transactions else history.EMPTY

    def facts(self, after: int = 0) -> Iterator[Stored]:
        """Facts of the transactions with a number greater than `after`, up to the present end."""
        return (fact for each in self.transactions[after:] for fact in each.facts)


class MemoryFacts:
    """The log of one process.

    Args:
        clock: gives the time of each transaction; where it went back, the time before is kept.
        signer: the key that signs each head.
        projections: what is folded in the same transaction as the facts.
        log: an earlier one is reopened, with its history.
    """

    def __init__(
        self, clock: Clock, signer: Signer, projections: Sequence[Projection] = (), log: Log | None = None
    ) -> None:
        self._clock, self._signer, self.log = clock, signer, log or Log()
        self._rows: dict[str, dict[str, bytes]] = {each.name: {} for each in projections}
        self._projections = tuple(projections)
        self._folded = 0
        if len(self._rows) != len(projections):
            raise Bug("projection-twice", "Two projections of one store have the same name")
        self._catch_up()

    def append(self, facts: Sequence[Fact], *, expect: int | None = None) -> Head:
        """Record `facts` as one transaction; see `ports.Facts`."""
        with self.log.lock:
            self._catch_up()
            end = self.log.end()
            history.expected(end.head, expect)
            history.trusted(end.head, self._signer)
            new = history.extend(end, facts, self._clock.now(), self._signer)
            self._fold(new.facts)
            self.log.transactions.append(new)
            self._folded = len(self.log.transactions)
        return new.head

    def read(self, *, after: int = 0, kinds: frozenset[str] | None = None, app: str | None = None) -> Iterator[Stored]:
        """Facts up to the head at the time of the call."""
        start = bisect_right(self.log.transactions, after, key=lambda each: each.facts[-1].seq)
        return (
            fact
            for fact in self.log.facts(start)
            if fact.seq > after and (kinds is None or fact.kind in kinds) and (app is None or fact.app == app)
        )

    def get(self, projection: str, key: str) -> bytes | None:
        """One row of a projection."""
        return self._current(projection).get(key)

    def scan(self, projection: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Rows of a projection whose key starts with `prefix`, by key, all as of one transaction."""
        with self.log.lock:
            return iter(sorted(row for row in self._current(projection).items() if row[0].startswith(prefix)))

    def head(self) -> Head:
        """The end of the chain."""
        return self.log.end().head

    def verify(self) -> Head:
        """Walk the whole chain, and compare the state with what the facts say; see `ports.Facts`.

        Raises:
            StateError: `history-broken`; `state-differs`.
        """
        with self.log.lock:
            self._catch_up()
            head = history.walk(
                ((each.head, each.at) for each in self.log.transactions), self.log.facts(), self._signer
            )
            kept = {(name, key): row for name, rows in self._rows.items() for key, row in rows.items()}
            history.agrees(self._projections, self.log.facts(), dict.fromkeys(self._rows, head.tx), kept)
        return head

    def rebuild(self) -> None:
        """Fold the projections anew from the facts."""
        with self.log.lock:
            self._rows = {name: {} for name in self._rows}
            self._folded = 0
            self._catch_up()

    def _current(self, projection: str) -> dict[str, bytes]:
        if projection not in self._rows:
            raise Bug("no-such-projection", f"This store was opened without the projection {projection!r}")
        with self.log.lock:
            self._catch_up()
            return self._rows[projection]

    def _catch_up(self) -> None:
        with self.log.lock:
            self._fold(tuple(self.log.facts(self._folded)))
            self._folded = len(self.log.transactions)

    def _fold(self, new: Sequence[Stored]) -> None:
        """All rows that `new` changes, or none, where a fold fails."""
        for (name, key), row in history.fold(self._projections, new, lambda *at: self._rows[at[0]].get(at[1])).items():
            if row is None:
                self._rows[name].pop(key, None)
            else:
                self._rows[name][key] = row
