"""Facts in one SQL database: the log, its signed chain, and the state that is folded from it.

Each projection keeps in `folds` how far it is folded and by which definition, in the same transaction as its rows. So a
projection that is new, changed, or unknown to a process that appended, is folded from history before it is next read.
A process that still folds by an older definition than the one stored is refused: it would mix two meanings in one table.

It refuses to write on a head that its own key did not sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from flyball._kernel import facts as kernel
from flyball._kernel import history
from flyball._kernel.clock import EPOCH, Clock, from_micros, micros
from flyball._kernel.errors import Bug, StateError
from flyball._kernel.facts import Fact, Head, Projection, Stored
from flyball._kernel.ports import Signer
from flyball.adapters.embedded import schema
from flyball.adapters.embedded.database import PATIENCE, Database

PAGE: Final = 1_000
"""Facts that are in memory at once while a history is read."""

_tx, _fact, _row, _fold = schema.transactions.c, schema.facts.c, schema.projections.c, schema.folds.c

_recorded = sa.select(
    _fact.seq,
    _fact.tx,
    sa.func.coalesce(_tx.at, 0).label("at"),
    _fact.kind,
    _fact.app,
    _fact.model,
    _fact.said,
    _fact.measured,
).select_from(schema.facts.outerjoin(schema.transactions))
"""Every fact, also one whose transaction was cut away: `verify` must see it."""


class SqlFacts:
    """The log, in SQLite by default.

    Args:
        place: the path of a SQLite file, created with mode 0600 where missing, or a SQLAlchemy URL.
        clock: gives the time of each transaction; where it went back, the time before is kept.
        signer: the key that signs each head.
        projections: what is folded in the same transaction as the facts.
        patience: seconds to wait for another process's transaction.

    Raises:
        StateError: `store-is-newer`; from every method that reads state, `projection-changed`.
        AdapterError: `store-unusable`, `store-unsupported`, `store-damaged`.
        RetryableError: `store-busy`, `disk-full`, from every method.
    """

    def __init__(
        self,
        place: str | Path,
        clock: Clock,
        signer: Signer,
        projections: Sequence[Projection] = (),
        patience: float = PATIENCE,
    ) -> None:
        self._clock, self._signer = clock, signer
        self._projections = {each.name: each for each in projections}
        self._definitions = {each.name: history.definition(each) for each in projections}
        self._own = kernel.START
        if len(self._projections) != len(projections):
            raise Bug("projection-twice", "Two projections of one store have the same name")
        self.database = Database(place, patience)
        with self.database.read() as connection:
            stored = _folded(connection, self._projections)
        changed = [name for name, (definition, _) in stored.items() if definition != self._definitions[name]]
        if changed:
            with self.database.write() as connection:
                _forget(connection, changed)
                self._catch_up(connection)

    def append(self, facts: Sequence[Fact], *, expect: int | None = None) -> Head:
        """Record `facts` as one transaction; see `ports.Facts`."""
        with self.database.write() as connection:
            self._catch_up(connection)
            end = _end(connection)
            history.expected(end.head, expect)
            if end.head != self._own:
                history.trusted(end.head, self._signer)
            new = history.extend(end, facts, self._clock.now(), self._signer)
            connection.execute(sa.insert(schema.transactions), _link(new))
            connection.execute(sa.insert(schema.facts), [_columns(fact) for fact in new.facts])
            _fold_in(connection, self._projections.values(), new.facts)
            self._reached(connection, self._projections, new.head.tx)
        self._own = new.head
        return new.head

    def read(self, *, after: int = 0, kinds: frozenset[str] | None = None, app: str | None = None) -> Iterator[Stored]:
        """Facts up to the head at the time of the call, a page at a time; no transaction stays open in between."""
        with self.database.read() as connection:
            wanted = _recorded.where(_fact.seq <= _last_seq(connection))
        if kinds is not None:
            wanted = wanted.where(_fact.kind.in_(sorted(kinds)))
        if app is not None:
            wanted = wanted.where(_fact.app == app)
        return self._after(wanted, after)

    def get(self, projection: str, key: str) -> bytes | None:
        """One row of a projection."""
        with self._current(projection) as connection:
            return _get(connection, projection, key)

    def scan(self, projection: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Rows of a projection whose key starts with `prefix`, by key, all as of one transaction."""
        wanted = sa.select(_row.key, _row.row).where(_row.name == projection, _row.key >= prefix).order_by(_row.key)
        found: list[tuple[str, bytes]] = []
        with self._current(projection) as connection:
            for key, row in connection.execute(wanted):
                if not key.startswith(prefix):
                    break
                found.append((key, row))
        return iter(found)

    def head(self) -> Head:
        """The end of the chain."""
        with self.database.read() as connection:
            return _end(connection).head

    def verify(self) -> Head:
        """Walk the whole chain, and compare the state with what the facts say; see `ports.Facts`.

        Raises:
            StateError: `history-broken`; `state-differs`.
            AdapterError: `store-damaged`, when the pages of the database contradict one another.
        """
        with self.database.read() as connection:
            self.database.check(connection)
            head = history.walk(_chain(connection), _all(connection), self._signer)
            stored = _folded(connection, self._projections)
            self._same_definitions(stored)
            upto = {name: stored[name][1] if name in stored else 0 for name in self._projections}
            kept = connection.execute(sa.select(_row.name, _row.key, _row.row).where(_row.name.in_(self._projections)))
            history.agrees(
                tuple(self._projections.values()),
                _all(connection),
                upto,
                {(name, key): row for name, key, row in kept},
            )
        return head

    def rebuild(self) -> None:
        """Fold the projections of this process anew from the facts."""
        with self.database.write() as connection:
            _forget(connection, self._projections)
            self._catch_up(connection)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def _after(self, wanted: sa.Select[Any], after: int) -> Iterator[Stored]:
        while True:
            with self.database.read() as connection:
                page = connection.execute(wanted.where(_fact.seq > after).order_by(_fact.seq).limit(PAGE)).all()
            yield from map(_stored, page)
            if len(page) < PAGE:
                return
            after = page[-1].seq

    @contextmanager
    def _current(self, projection: str) -> Iterator[sa.Connection]:
        if projection not in self._projections:
            raise Bug("no-such-projection", f"This store was opened without the projection {projection!r}")
        with self.database.read() as connection:
            if not self._behind(connection, [projection]):
                yield connection
                return
        with self.database.write() as connection:
            self._catch_up(connection)
            yield connection

    def _behind(self, connection: sa.Connection, names: Iterable[str]) -> dict[str, int]:
        """The projections that lack transactions, and the last transaction that each has."""
        stored = _folded(connection, names)
        self._same_definitions(stored)
        last = _last_tx(connection)
        reached = {name: stored[name][1] if name in stored else 0 for name in names}
        return {name: tx for name, tx in reached.items() if tx < last}

    def _same_definitions(self, stored: Mapping[str, tuple[str, int]]) -> None:
        for name, (definition, _) in stored.items():
            if definition != self._definitions[name]:
                raise StateError(
                    "projection-changed",
                    f"The state {name!r} in {self.database.place} is folded by another definition than this process has",
                    why="Another process opened it with a changed definition; folding by both would mix two meanings",
                    next="restart this process, so that all run the same release",
                )

    def _catch_up(self, connection: sa.Connection) -> None:
        for name, tx in self._behind(connection, self._projections).items():
            if not tx:
                _forget(connection, [name])
            kinds = sorted(self._projections[name].kinds)
            for page in _pages(connection, _recorded.where(_fact.tx > tx, _fact.kind.in_(kinds))):
                _fold_in(connection, [self._projections[name]], page)
            self._reached(connection, [name], _last_tx(connection))

    def _reached(self, connection: sa.Connection, names: Iterable[str], tx: int) -> None:
        rows = [{"name": name, "definition": self._definitions[name], "tx": tx} for name in names]
        if rows:
            connection.execute(sa.delete(schema.folds).where(_fold.name.in_([row["name"] for row in rows])))
            connection.execute(sa.insert(schema.folds), rows)


def _end(connection: sa.Connection) -> history.End:
    last = connection.execute(sa.select(schema.transactions).order_by(_tx.tx.desc()).limit(1)).one_or_none()
    if last is None:
        return history.EMPTY
    return history.End(head=_head(last), at=_moment(last.at), seq=_last_seq(connection))


def _last_tx(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(_tx.tx))).scalar() or 0


def _last_seq(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(_fact.seq))).scalar() or 0


def _head(row: sa.Row[Any]) -> Head:
    return Head(tx=row.tx, hash=row.chain, trace=row.trace, signature=row.signature)


def _chain(connection: sa.Connection) -> Iterator[tuple[Head, datetime]]:
    every = sa.select(schema.transactions).order_by(_tx.tx).execution_options(yield_per=PAGE)
    return ((_head(row), _moment(row.at)) for row in connection.execute(every))


def _stored(row: sa.Row[Any]) -> Stored:
    columns = dict(row._mapping)
    return Stored(at=_moment(columns.pop("at")), **columns)


def _moment(at: int) -> datetime:
    """The epoch for what no datetime can hold: only tampering writes it, and no hash will hold for either."""
    try:
        return from_micros(at)
    except (OverflowError, TypeError):
        return EPOCH


def _pages(connection: sa.Connection, wanted: sa.Select[Any]) -> Iterator[list[Stored]]:
    ordered = wanted.order_by(_fact.seq).execution_options(yield_per=PAGE)
    return ([_stored(row) for row in page] for page in connection.execute(ordered).partitions())


def _all(connection: sa.Connection) -> Iterator[Stored]:
    return chain.from_iterable(_pages(connection, _recorded))


def _get(connection: sa.Connection, projection: str, key: str) -> bytes | None:
    row = connection.execute(sa.select(_row.row).where(_row.name == projection, _row.key == key)).scalar()
    return None if row is None else bytes(row)


def _folded(connection: sa.Connection, names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """By which definition, and up to which transaction, each of the projections is folded, where it is."""
    found = connection.execute(sa.select(schema.folds).where(_fold.name.in_(list(names))))
    return {row.name: (row.definition, row.tx) for row in found}


def _fold_in(connection: sa.Connection, projections: Iterable[Projection], new: Sequence[Stored]) -> None:
    changed = history.fold(projections, new, lambda name, key: _get(connection, name, key))
    if not changed:
        return
    gone = sa.delete(schema.projections).where(_row.name == sa.bindparam("n"), _row.key == sa.bindparam("k"))
    connection.execute(gone, [{"n": name, "k": key} for name, key in changed])
    kept = [{"name": name, "key": key, "row": row} for (name, key), row in changed.items() if row is not None]
    if kept:
        connection.execute(sa.insert(schema.projections), kept)


def _forget(connection: sa.Connection, names: Iterable[str]) -> None:
    for column in (_row.name, _fold.name):
        connection.execute(sa.delete(column.table).where(column.in_(list(names))))


def _link(new: history.Transaction) -> dict[str, Any]:
    head = new.head
    return {"tx": head.tx, "at": micros(new.at), "chain": head.hash, "trace": head.trace, "signature": head.signature}


def _columns(fact: Stored) -> dict[str, Any]:
    return {name: getattr(fact, name) for name in ("seq", "tx", "kind", "app", "model", "said", "measured")}
