"""Status: what there is, from what is recorded: data, versions, who answers, what the monitors say, and what the loop thinks.

What the loop thinks is what it wrote down in its last pass (`reconcile.Looked`). Where that is old, or nobody ever looked, it
is said: silence must not be taken for health.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from flyball._kernel.errors import StateError
from flyball.cycle import arrivals, erasures, expectations, followed, retrain, suspected
from flyball.cycle.reconcile import Looked
from flyball.cycle.session import Session
from flyball.data.ingest import Ingested
from flyball.release import rollout, shadowing, version
from flyball.release.rollout import Rollout
from flyball.release.shadowing import Watching
from flyball.serve.journal import Recovery, Segment
from flyball.serve.outcomes import Counts
from flyball.watch import observed
from flyball.watch.observed import State

STALE = timedelta(minutes=5)
"""A loop that has not looked for so long, by its clock, is said to be gone."""


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
    """One version; `erased` says since when rows that it learned from are gone ("": they are all there)."""

    version: str
    decision: str
    registered: str
    cutoff: str
    erased: str = ""


class ErasureStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure that was begun and is not over: the same command ends it. The subject is a keyed hash."""

    subject: str
    column: str
    op: str
    reason: str
    began: datetime


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version on its way: its stage, the share of the traffic that it answers, and until when the stage lasts at least."""

    version: str
    stage: str
    share: float
    since: datetime
    until: datetime
    by: str


class MonitorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor was last found to be, since when, and when that was written down.

    Attributes:
        version: that answered.
        estimate, threshold: what was measured, and what it is held against; None where there is none.
        why: what it says; "" where the numbers say it all.
    """

    monitor: str
    state: State
    since: datetime
    at: datetime
    version: str
    estimate: float | None
    threshold: float | None
    why: str


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model: who answers, who is on the way, what watches it, and which versions exist.

    Attributes:
        since: when the champion became it; None where nobody answers.
        held: versions that fell, and why.
        shadows: versions that were set to compute beside the champion.
        paused: why the loop takes no step; "" if it does.
        training: the last that a trigger asked for.
        outcomes: of its questions, as they were posted.
    """

    model: str
    champion: str
    epoch: int
    since: datetime | None
    candidate: Candidate | None
    held: dict[str, str]
    paused: str
    monitors: list[MonitorStatus]
    training: retrain.Row | None
    outcomes: Counts
    versions: list[VersionStatus]
    shadows: tuple[Watching, ...] = ()


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
    """The whole.

    Attributes:
        beliefs: how it stands with each table that something is expected of.
        changed: the files whose content changed after they were ingested.
        erasing: erasures that died in the middle, or are carried out now.
        suspects: columns that seem to hold personal data, and are not declared so.
        online: how far the online features are behind their tables.
        waiting: bodies that were pushed and wait, by the name under which they were.
        sources: the monitors of sources, which concern every model.
        loop: what it thought in its last pass; None if it never ran here.
        silence: what to say where no loop looks; "" if one does.
    """

    app: str
    transactions: int
    head: str
    tables: list[Table]
    models: list[ModelStatus]
    sources: list[MonitorStatus]
    journal: JournalStatus
    loop: Looked | None
    silence: str
    beliefs: list[expectations.Belief] = []
    changed: list[arrivals.Changed] = []
    erasing: list[ErasureStatus] = []
    suspects: list[suspected.Suspicion] = []
    online: list[followed.Followed] = []
    waiting: dict[str, int] = {}


def status(session: Session, looked: Looked | None = None) -> Status:
    """Read the state of an app; changes nothing.

    Args:
        looked: what the loop thought in its last pass, as `runtime.looping.read` finds it.
    """
    head = session.facts.head()
    posted = session.outcomes.counts()
    accounts = session.journal.recover()
    return Status(
        app=session.app.name,
        transactions=head.tx,
        head=head.hash,
        tables=_tables([said for source in session.app.sources for said in arrivals.ingested(session, source.name)]),
        models=[_model(session, name, _posted(session, posted, name)) for name in session.models],
        sources=_monitors(session, ""),
        journal=JournalStatus(
            recorded=sum(a.recorded for a in accounts) + _recorded_since(session, accounts),
            refused=sum(a.refused for a in accounts),
            unknown=sum(a.unknown for a in accounts),
        ),
        loop=looked,
        silence=silence(looked, session.clock.now()),
        beliefs=expectations.beliefs(session),
        changed=arrivals.changed(session),
        erasing=_erasing(session),
        suspects=suspected.standing(session),
        online=followed.followed(session),
        waiting=dict(followed.waiting(session)),
    )


_NOTHING = Counts(targets=0, void=0, corrections=0)


def silence(looked: Looked | None, now: datetime) -> str:
    """What to say where no loop looks; "" if one does."""
    if looked is None:
        return "No loop has ever looked here: nothing is released, watched or trained by itself. flyball up APP starts one."
    if now - looked.at > STALE:
        return f"No loop has looked since {looked.at:%Y-%m-%d %H:%M} UTC: nothing happens by itself. flyball up APP starts one."
    return ""


def _erasing(session: Session) -> list[ErasureStatus]:
    return [
        ErasureStatus(subject=row.subject, column=row.column, op=row.op, reason=row.reason, began=row.began)
        for row in erasures.rows(session)
        if row.ended is None
    ]


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


def _posted(session: Session, posted: Mapping[str, Counts], name: str) -> Counts:
    """The outcomes of a model; those that name a prediction do not say whose, and count where there is only one."""
    own, unsaid = posted.get(name, _NOTHING), posted.get("", _NOTHING)
    if len(session.models) > 1:
        return own
    return Counts(
        targets=own.targets + unsaid.targets,
        void=own.void + unsaid.void,
        corrections=own.corrections + unsaid.corrections,
    )


def _model(session: Session, name: str, posted: Counts) -> ModelStatus:
    now = rollout.now(session.facts, session.app.name, name)
    rows = version.versions(session.facts, session.app.name, name)
    gone = erasures.marked(session)
    return ModelStatus(
        model=name,
        champion=now.champion,
        epoch=now.epoch,
        since=now.since,
        candidate=_candidate(now),
        held=now.held,
        paused=now.paused,
        monitors=_monitors(session, name),
        training=retrain.last(session, session.app.model(name)),
        outcomes=posted,
        versions=[
            VersionStatus(
                version=row.version,
                decision=row.decision,
                registered=row.registered.isoformat(),
                cutoff=_cutoff(session, row),
                erased=gone[row.version].isoformat() if row.version in gone else "",
            )
            for row in rows
        ],
        shadows=shadowing.now(session.facts, session.app.name, name),
    )


def _candidate(now: Rollout) -> Candidate | None:
    if not now.candidate or now.entered is None:
        return None
    stage = now.stages[now.stage]
    return Candidate(
        version=now.candidate,
        stage=stage.name,
        share=stage.share,
        since=now.entered,
        until=now.entered + timedelta(seconds=stage.seconds),
        by=now.by,
    )


def _monitors(session: Session, name: str) -> list[MonitorStatus]:
    """What was last written of the monitors of a model; of the sources, where the name is ""."""
    return [
        MonitorStatus(
            monitor=monitor,
            state=row.last.state,
            since=row.since,
            at=row.at,
            version=row.last.version,
            estimate=row.last.estimate,
            threshold=row.last.threshold,
            why=row.last.reason,
        )
        for monitor, row in sorted(observed.rows(session.facts, session.app.name, name).items())
    ]


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
            spoken_for = account.recorded + account.refused + account.unlogged + account.unknown
            end = segment.first + spoken_for - 1
            last[segment.process] = max(last.get(segment.process, 0), end)
    return sum(1 for _ in session.journal.read(last))
