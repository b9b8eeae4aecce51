"""Believing: a version of a table that fails what is expected of it is stored, and not learned from.

After every gathering each table that something is expected of is judged as it stands, and the verdicts are recorded. A version
is **believed** unless one of them failed; one that is not sure believes, and says so. No new pin goes beyond the last version
that is believed. A table of which nothing is expected is believed as it is.

A judgement is made once for a version, what is expected, and the versions of the tables that its relations ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec
import polars as pl

from flyball._kernel import facts, fingerprint
from flyball._kernel.clock import MICROSECOND
from flyball._kernel.conditions import Condition, Outcome, Verdict
from flyball._kernel.errors import GateError
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball._kernel.place import Place
from flyball.cycle import arrivals
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset, sift, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.dataset import Version
from flyball.data.expectations import expect, measuring, proposing, sampling
from flyball.data.expectations.measuring import Standing
from flyball.data.ingest import Ingested
from flyball.data.tables import KNOWN, OUTCOME_KNOWN
from flyball.release import moves
from flyball.watch import observed
from flyball.watch.observed import Observed


class Believed(Said, frozen=True, kw_only=True, tag="cycle.believed"):
    """A version of a table was judged.

    Attributes:
        table, batch: the version.
        expected: the fingerprint of what was expected.
        beside: the other tables that were asked -> their last batch.
        verdicts: one for each expectation; the version is believed if none failed.
    """

    table: str
    batch: int
    expected: str
    beside: dict[str, int]
    verdicts: list[Verdict]

    @property
    def failed(self) -> list[Verdict]:
        """What stands in the way."""
        return [v for v in self.verdicts if v.outcome is Outcome.FAIL]

    @property
    def unsure(self) -> list[Verdict]:
        """What could not be told."""
        return [v for v in self.verdicts if v.outcome is Outcome.INCONCLUSIVE]


def _key(fact: Stored) -> str:
    said = facts.decode(fact, Believed)
    return facts.about(fact, f"{said.table}|{said.batch:012d}")


BELIEVED = Projection("cycle.believed", frozenset({facts.kind(Believed)}), _key, lambda _, fact: fact.said)
"""The last judgement of each version of each table, by table and batch."""


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with one table.

    Attributes:
        batch: its last.
        judged: of the last batch; None where that was not judged yet by what is expected now.
        until: the last batch that is believed; 0 for none.
    """

    table: str
    batch: int
    judged: Believed | None
    until: int

    @property
    def why(self) -> str:
        """What should be said of it; "" where all holds."""
        if self.judged is None:
            return "it is not judged yet: flyball apply does"
        if not self.judged.failed:
            return "; ".join(f"not sure: {moves.words(v)}" for v in self.judged.unsure)
        last = f"; believed is what came up to batch {self.until}" if self.until else ""
        return f"{'; '.join(moves.words(v) for v in self.judged.failed)}{last}"


def judge(session: Session, tell: Tell = silent) -> list[Belief]:
    """Judge every table that something is expected of and whose version was not; returns how it stands with each.

    Raises:
        AdapterError: a table cannot be read.
    """
    for table in _expected(session):
        name = contract.spec(table).name
        if not session.tables.head(name).batch or _recorded(session, table) is not None:
            continue
        tell(Event(step=f"believe {name}", state="run", detail="is judged"))
        started = session.clock.monotonic()
        said = measure(session, table)
        seconds = session.clock.monotonic() - started
        session.facts.append([Fact(session.app.name, "", said, {"seconds": seconds})])
        state = "fail" if said.failed else "done"
        detail = belief(session, table).why or f"{len(said.verdicts)} expectations hold"
        tell(Event(step=f"believe {name}", state=state, detail=detail, seconds=seconds))
    return beliefs(session)


def measure(session: Session, table: type[Contract]) -> Believed:
    """The judgement of a table as it stands, made anew and not recorded."""
    expects = expect.of_table(session.app.expects, table)
    found = standing(session, table)
    return Believed(
        table=found.spec.name,
        batch=session.tables.head(found.spec.name).batch,
        expected=_fingerprint(expects),
        beside=_beside(session, expects, table),
        verdicts=measuring.judge(expects, found),
    )


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A table, judged as it stands, beside what an apply recorded of it."""

    judged: Believed
    belief: Belief


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """What could be expected of a table: lines of code, and the columns that rank an outcome suspiciously, with how well."""

    table: str
    code: list[str]
    leaks: list[tuple[str, float]]


def look(session: Session) -> list[Look]:
    """Every table that something is expected of: as it was judged, or where it was not, as it would be. Records nothing."""
    found: list[Look] = []
    for table in _expected(session):
        state = belief(session, table)
        if state.batch:
            found.append(Look(judged=state.judged or measure(session, table), belief=state))
    return found


def propose(session: Session) -> list[Proposed]:
    """What every table that has rows could be expected to keep, and which of its columns may give an outcome away."""
    found: list[Proposed] = []
    for table in session.app.tables():
        if not session.tables.head(contract.spec(table).name).batch:
            continue
        now = standing(session, table)
        drawn = [*sampling.looked_at(now.spec), *now.spec.outcomes]
        rows = measuring.sample(now.rows, now.spec, now.size, drawn)
        code = [each.code for each in proposing.propose(now)]
        found.append(Proposed(table=now.spec.name, code=code, leaks=sampling.leaks(rows, now.spec)))
    return found


def standing(session: Session, table: type[Contract]) -> Standing:
    """A table as it stands now, with what its expectations compare it with."""
    expects, spec = expect.of_table(session.app.expects, table), contract.spec(table)
    head = dataset.latest(session.tables, table)
    earlier = [batch for batch in _good(session, table) if batch < head.batch]
    asked = {read for each in expects for read in expect.tables_of(each)[1:]}
    observations = dataset.read(session.tables, table, head)
    size: int = observations.select(pl.len()).collect(engine="streaming").item()
    before = None
    if earlier:
        before = (_rows(session, table, Version(table=spec.name, batch=earlier[-1])), earlier[-1])
    return Standing(
        of=table,
        rows=_rows(session, table, head),
        size=size,
        now=session.clock.now(),
        before=before,
        others={other: _rows(session, other, dataset.latest(session.tables, other)) for other in asked},
    )


def beliefs(session: Session) -> list[Belief]:
    """How it stands with every table that something is expected of and that holds anything."""
    found = [belief(session, table) for table in _expected(session)]
    return [each for each in found if each.batch]


def belief(session: Session, table: type[Contract]) -> Belief:
    """How it stands with one table; one of which nothing is expected is believed as it is."""
    name = contract.spec(table).name
    batch = session.tables.head(name).batch
    if not expect.of_table(session.app.expects, table):
        return Belief(table=name, batch=batch, judged=None, until=batch)
    return Belief(
        table=name, batch=batch, judged=_recorded(session, table), until=max(_good(session, table), default=0)
    )


def refuse(session: Session, table: type[Contract]) -> GateError:
    """Nothing of a table is believed: which expectation failed, what was found, and what to do."""
    found = belief(session, table)
    failed = found.judged.failed if found.judged is not None else []
    return GateError(
        "table-not-believed",
        f"No version of the table {found.table} is believed, so nothing can be learned from it.",
        where=_place(session, failed) or contract.spec(table).place,
        why=f"Of batch {found.batch}: {found.why}.",
        next="flyball data expect APP shows what was found. Mend the files, or the expectation, and run flyball apply again.",
    )


def watched(session: Session) -> list[Observed]:
    """Each judged table as a monitor, so that a change of it is told as a breach is: once."""
    found: list[Observed] = []
    for each in beliefs(session):
        if each.judged is None:
            continue
        name = f"expect {each.table}"
        verdict = (each.judged.failed or each.judged.verdicts)[0]
        said = observed.observed(name, "", verdict)
        state: observed.State = "breach" if each.judged.failed else "ok"
        found.append(msgspec.structs.replace(said, state=state, reason=each.why))
    return found


def waiting(session: Session) -> list[str]:
    """The tables that are to be judged: a crash came before it, something else is expected now, or a relation's table moved."""
    return [each.table for each in beliefs(session) if each.judged is None]


@lru_cache(maxsize=64)
def _fingerprint(expects: tuple[Condition, ...]) -> str:
    return fingerprint.of(expects)


def _expected(session: Session) -> Iterator[type[Contract]]:
    for table in session.app.tables():
        if expect.of_table(session.app.expects, table):
            yield table


def _recorded(session: Session, table: type[Contract]) -> Believed | None:
    """The judgement of a table as it stands, if it was made by what is expected now."""
    expects, name = expect.of_table(session.app.expects, table), contract.spec(table).name
    batch = session.tables.head(name).batch
    row = session.facts.get(BELIEVED.name, f"{session.app.name}//{name}|{batch:012d}")
    said = msgspec.json.decode(row, type=Believed) if row is not None else None
    asked = (_fingerprint(expects), _beside(session, expects, table))
    return said if said is not None and (said.expected, said.beside) == asked else None


def _judged(session: Session, table: type[Contract]) -> list[Believed]:
    """The last judgement of each version of a table, the latest version last."""
    rows = session.facts.scan(BELIEVED.name, f"{session.app.name}//{contract.spec(table).name}|")
    return [msgspec.json.decode(row, type=Believed) for _, row in rows]


def _good(session: Session, table: type[Contract]) -> list[int]:
    """The versions of a table that are believed, in order: none that holds a batch which a rollback withdrew since."""
    name = contract.spec(table).name
    last = session.tables.head(name).batch
    judged = [said.batch for said in _judged(session, table) if not said.failed and said.batch <= last]
    return withdrawal.within(session.tables, name, judged, last)


def _beside(session: Session, expects: Sequence[Condition], table: type[Contract]) -> dict[str, int]:
    names = {contract.spec(read).name for each in expects for read in expect.tables_of(each) if read is not table}
    return {name: session.tables.head(name).batch for name in sorted(names)}


def _rows(session: Session, table: type[Contract], version: Version) -> pl.LazyFrame:
    """What a version says as of now: one row a key."""
    # What came with this very judgement counts: it was known at this moment.
    spec, end = contract.spec(table), session.clock.now() + MICROSECOND
    known = dataset.read(session.tables, table, version).filter(pl.col(KNOWN) < end)
    # Of all sources, also those that the app no longer has.
    said = (
        msgspec.json.decode(row, type=Ingested)
        for _, row in session.facts.scan(arrivals.INGESTED.name, f"{session.app.name}//")
    )
    if any(each.table == spec.name and each.corrections for each in said):
        known = _last(known, spec)
    if not spec.outcomes:
        return known
    settled = pl.col(OUTCOME_KNOWN) < end
    return known.with_columns(pl.when(settled).then(pl.col(c)).alias(c) for c in sorted(spec.late))


def _last(rows: pl.LazyFrame, spec: Spec) -> pl.LazyFrame:
    """Of every key the last row. Sorted are only the rows of keys that repeat: all of a large table would take gigabytes."""
    key = measuring.hashed(spec)
    repeated = pl.Series(sift.shared(sift.hashes(rows.select(key))))
    again = key.is_in(repeated.implode())
    return pl.concat([rows.filter(~again), dataset.last(rows.filter(again), spec)])


def _place(session: Session, failed: Sequence[Verdict]) -> Place | None:
    names = {verdict.condition for verdict in failed}
    return next((each.place for each in session.app.expects if str(each) in names), None)
