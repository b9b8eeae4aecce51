"""Suspected: columns that hold what looks like personal data, and that no contract declares personal.

Looked at is a sample of the accepted rows of the last batch that came into a table, and only when one came. What is found is a
fact, once a table, column and kind, and it names a share and never a value. It stands until a person declares the column
personal, or takes it out; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.facts import Fact, Projection, Said
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract
from flyball.data.contract import Contract, Personal, Spec
from flyball.data.drafts import suspects
from flyball.data.ingest import Ingested
from flyball.data.tables import BATCH

ROWS = 1_000
"""Of the last batch that are looked at, from its start."""

_LOOKS = {"email": "e-mail addresses", "ip": "IP addresses", "ssn": "social security numbers", "iban": "bank accounts"}


class Suspected(Said, frozen=True, kw_only=True, tag="data.suspected"):
    """A column seems to hold personal data.

    Attributes:
        kind: see `suspects.suspects`.
        share: of the filled cells that look so.
        rows: that were looked at.
        batch: that they came with.
    """

    table: str
    column: str
    kind: str
    share: float
    rows: int
    batch: int


def _key(said: Suspected) -> str:

    return "/".join((said.table, said.column, said.kind))


SUSPECTED = Projection(
    "data.suspected",
    frozenset({facts.kind(Suspected)}),
    lambda fact: facts.about(fact, _key(facts.decode(fact, Suspected))),
    lambda row, fact: row or fact.said,
)


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A suspicion that stands; attributes as in `Suspected`."""

    table: str
    column: str
    kind: str
    share: float
    rows: int

    def __str__(self) -> str:
        looks = _LOOKS.get(self.kind, f"{self.kind}s" if not self.kind.endswith("s") else f"{self.kind}es")
        return (
            f"column {self.column} of {self.table} looks like {looks} ({self.share:.0%} of {self.rows:,}): "
            "declare it fb.personal(...)."
        )


def look(session: Session, ingested: Sequence[Ingested], tell: Tell = silent) -> list[Suspected]:
    """Look at the tables that rows came into; records and returns what was not known."""
    came = {said.table: said.batch for said in sorted(ingested, key=lambda said: said.batch) if said.accepted}
    known = {(each.table, each.column, each.kind) for each in _recorded(session)}
    found = [
        said
        for table in session.app.tables()
        if (batch := came.get(contract.spec(table).name)) is not None
        for said in _found(session, contract.spec(table), batch)
        if (said.table, said.column, said.kind) not in known
    ]
    if found:
        session.facts.append([Fact(session.app.name, "", said) for said in found])
    for said in found:
        told = Suspicion(table=said.table, column=said.column, kind=said.kind, share=said.share, rows=said.rows)
        tell(Event(step="personal data?", state="inconclusive", detail=str(told)))
    return found


def standing(session: Session) -> list[Suspicion]:
    """What was found of the columns that are declared now, and not as personal."""
    tables: dict[str, type[Contract]] = {contract.spec(table).name: table for table in session.app.tables()}
    return [
        Suspicion(table=each.table, column=each.column, kind=each.kind, share=each.share, rows=each.rows)
        for each in _recorded(session)
        if each.table in tables and each.column in _open(contract.spec(tables[each.table]))
    ]


def _open(spec: Spec) -> tuple[str, ...]:
    """The columns that may be suspected."""
    personal = spec.with_role(Personal)
    return tuple(name for name in spec.names if name not in personal)


def _found(session: Session, spec: Spec, batch: int) -> Iterator[Suspected]:
    have = {name: dtype for name, dtype in spec.dtypes.items() if name in _open(spec)}
    rows = session.tables.scan(spec.name, batch, {BATCH: pl.Int64(), **have}).filter(pl.col(BATCH) == batch)
    sample = rows.drop(BATCH).head(ROWS).collect(engine="streaming")
    for column, suspect in suspects.suspects(sample).items():
        yield Suspected(
            table=spec.name, column=column, kind=suspect.kind, share=suspect.share, rows=sample.height, batch=batch
        )


def _recorded(session: Session) -> list[Suspected]:
    rows = session.facts.scan(SUSPECTED.name, f"{session.app.name}//")
    return [msgspec.json.decode(row, type=Suspected) for _, row in rows]
