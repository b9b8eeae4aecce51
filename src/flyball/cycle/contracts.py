"""Contracts over time: what each contract said when rows were stored is a fact, and a change of it is judged before it acts.

Before anything is ingested, the declared contract is laid beside the recorded one (`evolve`). What is compatible is recorded
and goes on. What breaks stored rows, requests or readers is refused, unless the contract declares a higher version and how
rows of an earlier one become its rows (`migrate`): then those are carried over, once, into a table of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import DeclarationError, StateError, bounded
from flyball._kernel.facts import Fact, Projection, Said
from flyball.cycle import causes
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, ingest
from flyball.data.contract import Contract
from flyball.data.evolution import evolve, migrate
from flyball.data.evolution.evolve import Change, Shape
from flyball.data.evolution.migrate import Step


class Contracted(Said, frozen=True, kw_only=True, tag="data.contracted"):
    """From here on, the rows of a table keep this.

    Attributes:
        table: its name.
        shape: what the contract says.
        changes: what changed since the shape before, in words; empty at first.
        source: the table whose rows were carried over into this one, or "".
    """

    table: str
    shape: Shape
    changes: tuple[str, ...] = ()
    source: str = ""


CONTRACTED = Projection(
    "data.contracted",
    frozenset({facts.kind(Contracted)}),
    lambda fact: facts.about(fact, facts.decode(fact, Contracted).table),
    lambda _, fact: fact.said,
)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A declared contract beside the recorded one.

    Attributes:
        contract: its name.
        version: as declared.
        since: the version that is recorded; 0 if none is.
        changes: what changed; judged by the stored rows.
        migrates: how many batches of version `since` are stored, that an apply would have to carry over.
        declared: whether a migration from version `since` is declared, so that it can.
        new: nothing was recorded yet, or of an earlier version.
    """

    contract: str
    version: int
    since: int
    changes: tuple[Change, ...]
    migrates: int
    declared: bool
    new: bool

    @property
    def breaking(self) -> tuple[Change, ...]:
        """Those after which things do not go on as they were."""
        return tuple(c for c in self.changes if c.kind != "compatible")


def recorded(session: Session, table: str) -> Contracted | None:
    """What the rows of a table keep, as it was last recorded."""
    row = session.facts.get(CONTRACTED.name, f"{session.app.name}//{table}")
    return msgspec.json.decode(row, type=Contracted) if row is not None else None


def generations(session: Session, observed: type[Contract]) -> list[Contracted]:
    """What is recorded of every version of a contract, the first one first: each has a table that may hold rows."""
    title = contract.spec(observed).title
    rows = session.facts.scan(CONTRACTED.name, f"{session.app.name}//{title}")
    found = [msgspec.json.decode(row, type=Contracted) for _, row in rows]
    return sorted((c for c in found if c.shape.name == title), key=lambda c: c.shape.version)


def compare(session: Session, observed: type[Contract]) -> Compared:
    """Lay a declared contract beside what is recorded of it; reads stored rows only where a rule became narrower.

    Raises:
        DeclarationError: `rule-does-not-run`.
    """
    spec, declared = contract.spec(observed), evolve.shape(observed)
    own = recorded(session, spec.name)
    before = own or _before(session, observed)
    if before is None:
        return Compared(
            contract=spec.title, version=spec.version, since=0, changes=(), migrates=0, declared=False, new=True
        )
    batches = session.tables.head(before.table).batch
    changes = evolve.diff(before.shape, declared)
    if own is not None and batches and any(c.kind == "narrowing" for c in changes):
        rows = session.tables.scan(before.table, batches, evolve.stored_as(before.shape))
        try:
            changes = evolve.judged(changes, evolve.breaks(rows, before.shape, observed, changes))
        except pl.exceptions.PolarsError as problem:
            raise DeclarationError(
                "rule-does-not-run",
                f"A rule of {spec.title} cannot be evaluated on the stored rows: {bounded(str(problem), 500)}",
                where=spec.place,
                why="A rule is a Polars expression over the columns of its contract that yields true or false.",
                next="Mend the rule, then run `flyball plan` again.",
            ) from problem
    return Compared(
        contract=spec.title,
        version=spec.version,
        since=before.shape.version,
        changes=changes,
        migrates=batches if own is None else 0,
        declared=before.shape.version in observed.__flyball_migrate__,
        new=own is None,
    )


def check(session: Session) -> list[str]:
    """What the next apply would do about changed contracts, in words.

    Raises:
        StateError: `contract-breaks`, `no-migration-from`.
    """
    return [note for observed in session.app.tables() for note in _planned(session, observed)]


def _planned(session: Session, observed: type[Contract]) -> Iterator[str]:
    found = _allowed(session, observed)
    if found.migrates:
        many = f"{found.migrates:,} batch{'es' if found.migrates > 1 else ''}"
        yield f"{found.contract}: {many} of version {found.since} will be carried over to version {found.version}."
    elif found.changes:
        yield f"{found.contract} changed, compatibly: {_said(found.changes)}."


def settle(session: Session, tell: Tell = silent) -> list[Contracted]:
    """Record the declared contracts, carrying rows over where one declares how; to be called under the lease on the tables.

    Raises:
        StateError: `contract-breaks`, `no-migration-from`; nothing of that contract moved.
        DataError: `migration-failed`.
    """
    return [done for observed in session.app.tables() for done in _settled(session, observed, tell)]


def _settled(session: Session, observed: type[Contract], tell: Tell) -> Iterator[Contracted]:
    found, spec = _allowed(session, observed), contract.spec(observed)
    declared, own = evolve.shape(observed), recorded(session, spec.name)
    if own is not None and own.shape == declared:
        return
    carried = ""
    if found.migrates:
        carried = _migrate(session, observed, tell)
    words = tuple(f"{c.column}: {c.what}" for c in found.changes)
    done = Contracted(table=spec.name, shape=declared, changes=words, source=carried)
    # In one transaction: from here on, the batches of the table count as ingested.
    accounts = ingest.repair(session.tables, spec.name) if carried else ()
    session.facts.append([Fact(session.app.name, "", said) for said in (*accounts, done)])
    yield done


def _migrate(session: Session, observed: type[Contract], tell: Tell) -> str:
    """Carry the rows of the newest earlier version over; returns its table."""
    before, spec = _before(session, observed), contract.spec(observed)
    assert before is not None  # noqa: S101 - there is something to migrate
    recipes = {s.name: causes.recipe(s) for s in session.app.sources if s.contract is observed}
    step = Step(before.shape, observed, observed.__flyball_migrate__[before.shape.version], recipes, session.seal)
    name, started = f"migrate {spec.title}", session.clock.monotonic()

    def moved(done: int, of: int) -> None:
        tell(Event(step=name, state="run", detail=f"batch {done:,} of {of:,}"))

    tell(Event(step=name, state="run", detail=f"version {before.shape.version} to {spec.version}"))
    migrate.migrate(session.tables, step, moved)
    detail = f"version {before.shape.version} to {spec.version}"
    tell(Event(step=name, state="done", detail=detail, seconds=session.clock.monotonic() - started))
    return before.table


def _before(session: Session, observed: type[Contract]) -> Contracted | None:
    """The newest earlier version that is recorded."""
    spec = contract.spec(observed)
    return next((c for c in reversed(generations(session, observed)) if c.shape.version < spec.version), None)


def _allowed(session: Session, observed: type[Contract]) -> Compared:
    """How it compares, if it may go on.

    Raises:
        StateError: `contract-breaks`, `no-migration-from`.
    """
    found, spec = compare(session, observed), contract.spec(observed)
    if found.new:
        _startable(session, observed, found)
        return found
    if found.breaking and session.tables.head(spec.name).batch:
        after = found.version + 1
        raise StateError(
            "contract-breaks",
            f"{spec.title} changed so that what is stored, asked or read no longer fits: {_said(found.breaking)}.",
            where=spec.place,
            why="Rows were stored under the contract that is recorded; nothing was ingested.",
            next=f"Undo the change, or declare class {spec.title}(fb.Contract, version={after}, migrate=function), which "
            "turns rows of the one into rows of the other; `flyball contract diff` shows all changes.",
        )
    return found


def _startable(session: Session, observed: type[Contract], found: Compared) -> None:
    """Refuse to begin a version whose rows would have to come from an earlier one, and cannot."""
    spec = contract.spec(observed)
    known = {c.table for c in generations(session, observed)}
    earlier = [contract.table(spec.title, n) for n in range(1, spec.version)]
    unknown = [name for name in earlier if name not in known and session.tables.head(name).batch]
    if unknown:
        problem = f"the contract of the stored rows of {unknown[-1]} is not recorded"
        after = "flyball apply with the app file of that version once, which records it; then come back to this one."
    elif found.migrates and not found.declared:
        problem = (
            f"{found.migrates:,} batches of version {found.since} are stored, and no migration from it is declared"
        )
        after = f"class {spec.title}(fb.Contract, version={spec.version}, migrate={{{found.since}: function}})"
    else:
        return
    raise StateError(
        "no-migration-from",
        f"{spec.title} is declared as version {spec.version}; {problem}.",
        where=spec.place,
        why="Each version has a table of its own, and its rows come from an earlier one.",
        next=after,
    )


def _said(changes: tuple[Change, ...]) -> str:
    return "; ".join(f"{c.column}: {c.what} ({c.why})" for c in changes)
