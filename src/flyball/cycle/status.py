"""Status: what there is, from what is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from flyball._kernel.errors import StateError
from flyball.cycle import gather
from flyball.cycle.session import Session
from flyball.data.ingest import Ingested
from flyball.release import rollout, version
from flyball.serve.journal import Recovery, Segment


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What came into one table: rows by what became of them."""

    table: str
    files: int
    read: int
    accepted: int
    quarantined: int
    duplicates: int
    corrections: int
    by_rule: dict[str, int]


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version."""

    version: str
    decision: str
    registered: str
    cutoff: str


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model: who answers, and which versions exist."""

    model: str
    champion: str
    epoch: int
    versions: list[VersionStatus]


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the answers.

    Attributes:
        recorded: also by servers that run now.
        refused: answers that could not be written, whose callers were told so.
        unknown: answers that died with their process, at most.
    """

    recorded: int
    refused: int
    unknown: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole."""

    app: str
    transactions: int
    head: str
    tables: list[Table]
    models: list[ModelStatus]
    journal: JournalStatus


def status(session: Session) -> Status:
    """Read the state of an app; changes nothing."""
    head = session.facts.head()
    accounts = session.journal.recover()
    return Status(
        app=session.app.name,
        transactions=head.tx,
        head=head.hash,
        tables=_tables([said for source in session.app.sources for said in gather.ingested(session, source.name)]),
        models=[_model(session, name) for name in session.models],
        journal=JournalStatus(
            recorded=sum(a.recorded for a in accounts) + _recorded_since(session, accounts),
            refused=sum(a.refused for a in accounts),
            unknown=sum(a.unknown for a in accounts),
        ),
    )


def _tables(ingested: Iterable[Ingested]) -> list[Table]:
    found: dict[str, list[Ingested]] = {}
    for said in ingested:
        found.setdefault(said.table, []).append(said)
    return [_table(name, each) for name, each in sorted(found.items())]


def _table(name: str, batches: list[Ingested]) -> Table:
    rules: dict[str, int] = {}
    for said in batches:
        for rule, n in said.by_rule.items():
            rules[rule] = rules.get(rule, 0) + n
    return Table(
        table=name,
        files=len({said.file for said in batches}),
        read=sum(said.read for said in batches),
        accepted=sum(said.accepted for said in batches),
        quarantined=sum(said.quarantined for said in batches),
        duplicates=sum(said.duplicates for said in batches),
        corrections=sum(said.corrections for said in batches),
        by_rule=rules,
    )


def _model(session: Session, name: str) -> ModelStatus:
    now = rollout.now(session.facts, session.app.name, name)
    rows = version.versions(session.facts, session.app.name, name)
    return ModelStatus(
        model=name,
        champion=now.champion,
        epoch=now.epoch,
        versions=[
            VersionStatus(
                version=row.version,
                decision=row.decision,
                registered=row.registered.isoformat(),
                cutoff=_cutoff(session, row),
            )
            for row in rows
        ],
    )


def _cutoff(session: Session, row: version.Row) -> str:
    """Until when a version learned; where its manifest cannot be trusted, the error's code stands for it."""
    try:
        return version.read(session.app.name, row, session.blobs, session.signer).snapshot.cutoff.isoformat()
    except StateError as problem:
        return problem.code


def _recorded_since(session: Session, accounts: Sequence[Recovery]) -> int:
    """Answers in segments that are being written: those after the last number that is accounted for."""
    last: dict[str, int] = {}
    for account in accounts:
        segment = Segment.parse(account.segment)
        if segment is not None:
            end = segment.first + account.recorded + account.refused + account.unknown - 1
            last[segment.process] = max(last.get(segment.process, 0), end)
    return sum(1 for _ in session.journal.read(last))
