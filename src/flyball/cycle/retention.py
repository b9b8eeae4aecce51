"""Retention: old rows may go, as long as nobody who may still answer, or be trained, has them in its snapshot.

A version **needs** a row if its snapshot holds it: the row's batch, and known before the cutoff. Versions that may still answer
are asked: the champion, the candidate, whoever a rollback of the release would return to, and those that were registered after
the champion and not refused. So is every pin. Retired versions are named: what they learned from can no longer be read whole.

A key goes with all that was ever said of it, or stays so: else what a correction had corrected would be said again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import reduce
from operator import or_

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact
from flyball.cycle import apply, gather, profiled, quarantined, versions
from flyball.cycle.session import Session, held
from flyball.cycle.versions import Reader
from flyball.data import contract, dataset, ingest, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.tables import BATCH, KNOWN
from flyball.learn.features import batches
from flyball.release import rollout, version


class Retaining(facts.Said, frozen=True, kw_only=True, tag="data.retaining"):
    """Old rows of a table are about to be deleted; a crash may come before it, or before `Retained`."""

    table: str
    rows: int
    retired: tuple[str, ...]


class Retained(facts.Said, frozen=True, kw_only=True, tag="data.retained"):
    """Old rows of a table were deleted.

    Attributes:
        before: keys of which all is about earlier times are gone.
        rows: how many; corrected and withdrawn ones included. Where an earlier try died, the greater number of the two.
        retired: versions that had learned from some of them, and answer no more.
    """

    table: str
    before: datetime
    rows: int
    retired: tuple[str, ...]
    reason: str
    by: str


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a retention would delete.

    Attributes:
        needed: who needs some of it -> how many rows; nothing is deleted as long as there is one.
        retired: retired versions that learned from some of it -> how many rows.
    """

    table: str
    before: datetime
    rows: int
    needed: dict[str, int]
    retired: dict[str, int]


def look(session: Session, name: str, older_than: timedelta) -> Look:
    """What would go, and who needs it; moves nothing.

    Raises:
        DataError: `no-such-table`.
    """
    (table,) = quarantined.tables(session, name)
    return _look(session, table, session.clock.now() - older_than)


def retain(session: Session, name: str, older_than: timedelta, *, reason: str, by: str) -> Retained:
    """Delete the rows whose event time is older, from the table and from the disk.

    Raises:
        DataError: `no-such-table`.
        StateError: `rows-are-needed`.
        RetryableError: `somebody-else-is-at-it`, `concurrent-ingest`.
    """
    (table,) = quarantined.tables(session, name)
    spec = contract.spec(table)
    with held(session, apply.LEASE):
        gather.repaired(session)
        found = _look(session, table, session.clock.now() - older_than)
        if found.needed:
            raise StateError(
                "rows-are-needed",
                f"{found.rows:,} rows of {spec.name} are older, and {', '.join(found.needed)} need some of them.",
                where=spec.place,
                why="What may still answer, or be trained, must stay reproducible: its snapshot holds these rows.",
                next="Keep more; or train and promote versions that learn from later rows alone, and run it again.",
            )
        died = _died(session, spec.name)
        retired = tuple(dict.fromkeys((*(died.retired if died is not None else ()), *found.retired)))
        begun = Retaining(table=spec.name, rows=found.rows, retired=retired)
        session.facts.append([Fact(session.app.name, "", begun)])
        head, _ = ingest.settle(session.tables, spec)
        old = _old(session, spec, found.before)
        gone = session.tables.delete(spec.name, old, dataset.schema(spec), head.batch, expect=head)
        _follow(session, table, head.batch)
        session.tables.compact(spec.name)
        said = Retained(
            table=spec.name,
            before=found.before,
            rows=max(gone.rows, died.rows if died is not None else 0),
            retired=retired,
            reason=reason,
            by=by,
        )
        session.facts.append([Fact(session.app.name, "", said)])
    return said


def _died(session: Session, table: str) -> Retaining | None:
    """The last deletion from a table, if it never came to its end."""
    kinds = frozenset({facts.kind(Retaining), facts.kind(Retained)})
    last: Retaining | None = None
    for fact in session.facts.read(kinds=kinds, app=session.app.name):
        if fact.kind == facts.kind(Retaining):
            begun = facts.decode(fact, Retaining)
            last = begun if begun.table == table else last
        elif facts.decode(fact, Retained).table == table:
            last = None
    return last


def _follow(session: Session, table: type[Contract], batch: int) -> None:
    """Take the rows out of what was made of them: sketches, and online features."""
    spec = contract.spec(table)
    session.blobs.drop(profiled.forget(session, spec.name))
    sets = [model.features for model in session.app.models if table in model.features.tables()]
    batches.refill(session.online, sets, table, dataset.scan(session.tables, spec, batch), upto=batch)


def _old(session: Session, spec: Spec, before: datetime) -> pl.Expr:
    """Whether a row may go: all that was said of its key is about earlier times."""
    old = pl.col(spec.event_time) < before
    if spec.event_time in spec.key:
        return old
    rows = session.tables.scan(spec.name, session.tables.head(spec.name).batch, dataset.schema(spec))
    both = rows.filter(~old).join(rows.filter(old), on=spec.key, how="semi")
    keys = both.select(spec.key).unique().collect(engine="streaming")
    return old & ~pl.struct(spec.key).is_in(keys.to_struct().implode()) if keys.height else old


def _look(session: Session, table: type[Contract], before: datetime) -> Look:
    spec = contract.spec(table)
    batch = session.tables.head(spec.name).batch
    old = session.tables.scan(spec.name, batch, dataset.schema(spec)).filter(_old(session, spec, before))
    asked = versions.readers(session, table)
    counts = [_of(session, spec.name, reader).sum().alias(reader.name) for reader in asked]
    found = old.select(pl.len().alias("\0rows"), *counts).collect(engine="streaming").row(0, named=True)
    retired = _retired(session)
    some = {reader.name: int(found[reader.name]) for reader in asked if found[reader.name]}
    return Look(
        table=spec.name,
        before=before,
        rows=found["\0rows"],
        needed={name: n for name, n in some.items() if name not in retired},
        retired={name: n for name, n in some.items() if name in retired},
    )


def _of(session: Session, table: str, reader: Reader) -> pl.Expr:
    """Whether a row is in a snapshot."""
    spans = withdrawal.held(session.tables, table, reader.batch)
    within = (pl.col(BATCH).is_between(first, last) for first, last in spans)
    return reduce(or_, within, pl.lit(value=False)) & (pl.col(KNOWN) < reader.cutoff)


def _retired(session: Session) -> frozenset[str]:
    """The versions that answer no more, and will not come back by themselves."""
    gone: set[str] = set()
    for model in session.app.models:
        state = rollout.now(session.facts, session.app.name, model.name)
        if not state.champion:
            continue
        kept = {state.champion, state.candidate, *state.past[-1:]}
        last = version.number(state.champion)
        for row in version.versions(session.facts, session.app.name, model.name):
            waits = version.number(row.version) > last and row.version not in state.held and row.decision != "rejected"
            if row.version not in kept and not waits:
                gone.add(row.version)
    return frozenset(gone)
