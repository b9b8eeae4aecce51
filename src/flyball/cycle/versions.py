"""The versions of an app's tables: which batches they are made of, who reads them, and rolling one back.

Every batch is a version, of the table as it was when that batch came. A rollback is a batch too, and changes no older one: so
a model that learned from a version still learns from it, and what a rollback took is there to be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.facts import Fact
from flyball.cycle import apply, expectations, gather, quarantined, steps
from flyball.cycle.session import Session, held
from flyball.data import contract, dataset, difference, ingest, quarantine, rollback, standing, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.dataset import Version
from flyball.data.difference import Difference
from flyball.data.ingest import Account, Ingested
from flyball.data.tables import BATCH, KNOWN, Compacted
from flyball.data.withdrawal import Withdrawn
from flyball.release import version


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads a table, up to which batch, and of that what was known before the cutoff.

    Attributes:
        name: a model version, or "the pin of MODEL": what it would be trained on now.
    """

    name: str
    batch: int
    cutoff: datetime


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of a table.

    Attributes:
        kind: file, replay or rollback.
        said: the file; of a replay also whose quarantine it was, of a rollback where it returned to, why, and who asked.
        at: when it was recorded; None where a crash came before that, until the next apply.
        accepted, quarantined, duplicates, corrections: rows.
        held: whether the table holds it now; a rollback is always held.
        withdrawn_by: the rollbacks that took it.
        believed: whether the version that ends with it is what was expected; None where nothing was, or it was not judged.
        read_by: the model versions and pins whose snapshot holds it.
    """

    batch: int
    kind: str
    source: str
    said: str
    at: datetime | None
    accepted: int
    quarantined: int
    duplicates: int
    corrections: int
    held: bool
    withdrawn_by: list[int]
    believed: bool | None
    read_by: list[str]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table and its batches, oldest first."""

    table: str
    batches: list[Batch]


def versions(session: Session, name: str | None = None) -> list[Table]:
    """The batches of a table, or of all.

    Raises:
        DataError: `no-such-table`.
        StateError: `signature-broken`.
    """
    return [
        Table(table=contract.spec(table).name, batches=_batches(session, table))
        for table in quarantined.tables(session, name)
    ]


def _batches(session: Session, table: type[Contract]) -> list[Batch]:
    name = contract.spec(table).name
    accounts = ingest.repair(session.tables, name)
    now = withdrawal.held(session.tables, name, session.tables.head(name).batch)
    reading = [(each.name, withdrawal.held(session.tables, name, each.batch)) for each in readers(session, table)]
    gone: dict[int, list[int]] = {}
    for said in accounts:
        for batch in said.batches if isinstance(said, Withdrawn) else ():
            gone.setdefault(batch, []).append(said.batch)
    recorded, believed = _recorded(session, name), _believed(session, name)
    found: list[Batch] = []
    for said in accounts:
        empty = isinstance(said, Withdrawn)
        found.append(
            Batch(
                batch=said.batch,
                **_what(said),
                at=recorded.get(said.batch),
                held=empty or withdrawal.holds(now, said.batch),
                withdrawn_by=gone.get(said.batch, []),
                believed=believed.get(said.batch),
                read_by=[] if empty else [who for who, spans in reading if withdrawal.holds(spans, said.batch)],
            )
        )
    return found


def _what(said: Account) -> dict[str, Any]:
    """What a batch is, and its counts."""
    if isinstance(said, Withdrawn):
        text = f"back to {said.to}: {said.reason} ({said.by})"
        return {"kind": "rollback", "source": "", "said": text, **dict.fromkeys(_COUNTS, 0)}
    of = standing.origin(said)
    kind, text = ("file", said.file) if of is None else ("replay", f"{said.file}, refused in batch {of}")
    return {"kind": kind, "source": said.source, "said": text, **{name: getattr(said, name) for name in _COUNTS}}


_COUNTS = ("accepted", "quarantined", "duplicates", "corrections")


def _recorded(session: Session, table: str) -> dict[int, datetime]:
    """Batch -> when its fact was recorded."""
    kinds = frozenset({facts.kind(Ingested), facts.kind(Withdrawn)})
    found: dict[int, datetime] = {}
    for fact in session.facts.read(kinds=kinds, app=session.app.name):
        said = msgspec.json.decode(fact.said, type=Account)
        if said.table == table:
            found[said.batch] = fact.at
    return found


def _believed(session: Session, table: str) -> dict[int, bool]:
    """Batch -> whether the version that ends with it is believed; of those that were judged."""
    rows = session.facts.scan(expectations.BELIEVED.name, f"{session.app.name}//{table}|")
    judged = [msgspec.json.decode(row, type=expectations.Believed) for _, row in rows]
    return {said.batch: not said.failed for said in judged}


def readers(session: Session, table: type[Contract]) -> list[Reader]:
    """Who reads a table: every registered version of every model, and what each model is trained on now.

    Raises:
        StateError: `signature-broken`.
    """
    name = contract.spec(table).name
    found: list[Reader] = []
    for model in session.app.models:
        for row in version.versions(session.facts, session.app.name, model.name):
            snapshot = version.read(session.app.name, row, session.blobs, session.signer).snapshot
            if name in snapshot.batches:
                found.append(Reader(name=row.version, batch=snapshot.batches[name], cutoff=snapshot.cutoff))
        pin = steps.pin(session.facts, session.app.name, model.name)
        if pin is not None and name in pin.batches:
            found.append(Reader(name=f"the pin of {model.name}", batch=pin.batches[name], cutoff=pin.cutoff))
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows of a table, with its contract and the version that they are of."""

    spec: Spec
    batch: int
    rows: pl.LazyFrame


def show(
    session: Session, name: str, *, batch: int | None = None, as_of: datetime | None = None, history: bool = False
) -> Shown:
    """One row a key as it is said last in a version, or as it was known at a time; or with `history` every observation.

    Raises:
        DataError: `no-such-table`.
        StateError: `no-such-version`.
    """
    (table,) = quarantined.tables(session, name)
    spec = contract.spec(table)
    chosen = Version(table=spec.name, batch=batch if batch is not None else session.tables.head(spec.name).batch)
    rows = dataset.read(session.tables, table, chosen)
    if history:
        rows = rows if as_of is None else rows.filter(pl.col(KNOWN) < as_of)
    else:
        rows = dataset.last(rows, spec) if as_of is None else dataset.as_of(rows, spec, as_of)
    order = [*spec.key, BATCH] if history else spec.key
    return Shown(spec, chosen.batch, rows.select(*dataset.schema(spec)).sort(order))


def compare(session: Session, name: str, then: int, now: int | None = None) -> Difference:
    """What became different between two versions of a table; `now` None: the last.

    Raises:
        DataError: `no-such-table`.
        StateError: `no-such-version`.
    """
    (table,) = quarantined.tables(session, name)
    last = session.tables.head(contract.spec(table).name).batch
    return difference.difference(session.tables, table, then, last if now is None else now)


def roll_back(session: Session, name: str, *, to: int, reason: str, by: str) -> Withdrawn | None:
    """Have a table hold what it held as of version `to`, and the online features follow; None if it does already.

    Raises:
        DataError: `no-such-table`.
        StateError: `no-such-version`.
        RetryableError: `somebody-else-is-at-it`, `concurrent-ingest`.
    """
    (table,) = quarantined.tables(session, name)
    with held(session, apply.LEASE):
        gather.repaired(session)
        said = rollback.roll_back(session.tables, table, to=to, reason=reason, by=by)
        if said is not None:
            session.facts.append([Fact(session.app.name, "", said)])
        gather.follow(session)
    return said


def compact(session: Session, name: str | None = None) -> dict[str, Compacted]:
    """Make fewer files of each table and of its quarantine, and leave nothing on disk that no version needs.

    Raises:
        DataError: `no-such-table`.
        RetryableError: `somebody-else-is-at-it`.
    """
    with held(session, apply.LEASE):
        names = [contract.spec(table).name for table in quarantined.tables(session, name)]
        return {each: session.tables.compact(each) for n in names for each in (n, quarantine.table(n))}
