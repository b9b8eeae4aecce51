"""Erase: take a subject out of everything that we keep, and certify it.

    outcomes -> journal -> quarantine -> artifacts -> online features -> tables -> vault

What is derived goes first, for the tables tell whose it is. Before anything goes, a fact says what was found and which
versions learned from it; at the end another one certifies. Each room deletes so that no byte is left. A crash anywhere is
followed by the same command, which does the rest and says the same.

Who answers by a version that learned from erased rows goes on: what a model learned cannot be taken out of it. Such versions
are named, and marked for retraining.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import DataError, FlyballError
from flyball._kernel.facts import Fact
from flyball.cycle import apply, artifacts, erasures, profiled, received, subject
from flyball.cycle.erasures import Erased, Erasing
from flyball.cycle.session import Event, Session, Tell, held, silent
from flyball.cycle.steps import Done, Pinned
from flyball.cycle.subject import Answers, Target
from flyball.data import dataset, quarantine
from flyball.data.contract import Contract
from flyball.data.tables import BATCH
from flyball.learn.features import batches, online, withdraw
from flyball.release import rollout, version
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted

_DIGEST = re.compile(rb"[0-9a-f]{64}")
_MANY = 100_000
"""Keys of which online features are not mended one by one, but filled anew."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a subject, and whether it is gone.

    Attributes:
        subject: the keyed hash of the condition, as the certificate has it.
        erased: whether it was carried out; otherwise nothing moved.
        resumed: whether an erasure that died in the middle was brought to its end.
        places: place -> what was (or is) there: rows, answers, outcomes, artifacts, series; those with nothing are left out.
        versions: those that learned from it.
        answering: those of them that answer now.
        files, rewritten: files of tables that held such rows, and bytes written anew for the rows beside them.
    """

    app: str
    subject: str
    erased: bool
    resumed: bool
    places: dict[str, int]
    versions: tuple[str, ...]
    answering: tuple[str, ...]
    files: int = 0
    rewritten: int = 0


@dataclass(frozen=True)
class _Found:
    """All that is known of a subject before it goes."""

    targets: list[Target]
    answers: Mapping[str, Answers]
    frames: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass
class _Gone:
    """What went, as it goes."""

    places: Counter[str] = field(default_factory=Counter)
    files: int = 0
    rewritten: int = 0


def look(session: Session, where: str, table: str = "") -> Report:
    """What an erasure would take: counts by place. Nothing moves.

    Args:
        where: a column, an operator and a literal.
        table: the one table that is meant; by default every one that has the column.

    Raises:
        DataError: as `subject.targets`.
    """
    found = _find(session, subject.targets(session, where, table))
    before = erasures.of(session, _hash(session, found))
    return _report(session, found, _places(session, found), resumed=before is not None and before.ended is None)


def erase(session: Session, where: str, *, by: str, reason: str, table: str = "", tell: Tell = silent) -> Report:
    """Carry it out: nothing of the subject is left in any place, and the certificate is recorded.

    Where nothing is found and nothing was left unfinished, nothing is recorded either; but what crashes left aside goes.

    Raises:
        DataError: as `subject.targets`; `erase-reason-names-subject`; what keeps a pushed body from being ingested.
        RetryableError: `somebody-else-is-at-it`, `concurrent-ingest`, `store-busy`: run it again, it goes on.
        StateError, AdapterError: what is stored cannot be read or written; run it again when it can.
    """
    with held(session, apply.LEASE):
        received.ingest(session, tell)  # what was pushed and waits may be theirs
        found = _find(session, subject.targets(session, where, table))
        _discreet(reason, found)
        places, before = _places(session, found), erasures.of(session, _hash(session, found))
        resumed = before is not None and before.ended is None
        if not places and not resumed:
            _sweep(session, found)
            return _report(session, found, {}, resumed=False)
        begun = _erasing(session, found, places, by, reason)
        session.facts.append([Fact(session.app.name, "", begun)])
        row = erasures.of(session, begun.subject)
        assert row is not None  # noqa: S101 - the fact above made it
        started = session.clock.monotonic()
        gone = _carry_out(session, found, row.frames, tell)
        said = Erased(
            subject=begun.subject,
            column=begun.column,
            op=begun.op,
            by=by,
            reason=reason,
            places=erasures.most(row.places, dict(gone.places)),
            versions=row.versions,
        )
        measured = {"seconds": session.clock.monotonic() - started, "files": gone.files, "rewritten": gone.rewritten}
        session.facts.append([Fact(session.app.name, "", said, measured)])
    return Report(
        app=session.app.name,
        subject=said.subject,
        erased=True,
        resumed=resumed,
        places=said.places,
        versions=said.versions,
        answering=_answering(session, said.versions),
        files=gone.files,
        rewritten=gone.rewritten,
    )


def _carry_out(session: Session, found: _Found, frames: Sequence[str], tell: Tell) -> _Gone:
    """Delete, room by room."""
    gone = _Gone()

    def say(place: str) -> None:
        tell(Event(step=f"erase {place}", state="done", detail=f"{gone.places[place]:,}"))

    _questions(session, found, gone)
    say("outcomes")
    say("journal")
    for target in found.targets:
        _quarantine(session, target, gone)
        say(f"quarantine {target.spec.name}")
    held = {*frames, *_sketches(session, found.targets)}
    for target in found.targets:
        if target.count:
            held.update(profiled.forget(session, target.spec.name, target.found[BATCH]))
    gone.places["artifacts"] += sum(session.blobs.has(digest) for digest in held)
    session.blobs.drop([*held, *_orphans(session)])
    say("artifacts")
    _online(session, found.targets, gone)
    say("online features")
    for target in found.targets:
        _table(session, target, gone)
        say(f"table {target.spec.name}")
    _questions(session, found, gone)  # what was asked meanwhile: what was told is told still
    tokens = subject.tokens(session, found.targets)
    if tokens and session.vault is not None:  # last, for until then it tells which rows are meant
        gone.places["vault"] += session.vault.forget(tokens)
        say("vault")
    gone.places = +gone.places
    return gone


def _questions(session: Session, found: _Found, gone: _Gone) -> None:
    """Outcomes before answers: an outcome that names a prediction is known by the answer alone."""
    named = _named(session, found)
    gone.places["outcomes"] += session.outcomes.erase(partial(_is_posted, found.answers, named))
    gone.places["journal"] += session.journal.erase(partial(_is_entry, found.answers))


def _quarantine(session: Session, target: Target, gone: _Gone) -> None:
    name, texts = quarantine.table(target.spec.name), subject.quarantined(session, target)
    if len(texts):
        head = session.tables.head(name)
        rows = pl.col("row").is_in(texts.unique().implode()) & pl.col("rules").is_not_null()
        deleted = session.tables.delete(name, rows, quarantine.SCHEMA, head.batch, expect=head)
        _count(gone, f"quarantine {target.spec.name}", deleted.rows, deleted.files, deleted.rewritten)
    session.tables.compact(name)  # also where nothing is found: what crashes and others left of it goes now


def _table(session: Session, target: Target, gone: _Gone) -> None:
    name = target.spec.name
    if target.count:
        head = session.tables.head(name)
        schema = dataset.schema(target.spec)
        deleted = session.tables.delete(name, target.rows, schema, head.batch, expect=head)
        _count(gone, f"table {name}", deleted.rows, deleted.files, deleted.rewritten)
    session.tables.compact(name)


def _sweep(session: Session, found: _Found) -> None:
    """Rows that lie where no reader looks: staged in vain, in old files, in artifacts that no fact names."""
    for target in found.targets:
        for name in (target.spec.name, quarantine.table(target.spec.name)):
            session.tables.compact(name)
    session.blobs.drop(_orphans(session))


def _online(session: Session, targets: Sequence[Target], gone: _Gone) -> None:
    """Take them out of every series; what nobody declares any more goes whole, for nothing tells what is in it."""
    sets = [model.features for model in session.app.models]
    changes: list[online.Change] = []
    for target in targets:
        table = target.table
        if table is None or not target.count:
            continue
        now = dataset.latest(session.tables, table)
        left = dataset.read(session.tables, table, now).filter(~target.rows)
        gone.places["online features"] += len(_series(session, table))
        if target.keys.height > _MANY:
            batches.refill(session.online, sets, table, left, now.batch)
        else:
            changes += withdraw.without(session.online, sets, table, left, target.keys)
    session.online.withdraw(changes, {name for each in sets for name in online.names(each)})


def _series(session: Session, table: type[Contract]) -> set[str]:
    return {name for model in session.app.models for name in online.names(model.features, table)}


def _count(gone: _Gone, place: str, rows: int, files: int, rewritten: int) -> None:
    gone.places[place] += rows
    gone.files += files
    gone.rewritten += rewritten


# --- what is there


def _find(session: Session, targets: list[Target]) -> _Found:
    return _Found(
        targets=targets,
        answers=subject.answers(session, targets),
        frames=_frames(session, targets),
        versions=tuple(_versions(session, targets)),
    )


def _places(session: Session, found: _Found) -> dict[str, int]:
    """Place -> what is there now."""
    there: Counter[str] = Counter()
    named = _named(session, found)
    there["journal"] = len(named)
    there["outcomes"] = sum(_is_posted(found.answers, named, posted) for posted in session.outcomes.read())
    there["artifacts"] = len({*found.frames, *_sketches(session, found.targets)})
    vault, tokens = session.vault, subject.tokens(session, found.targets)
    there["vault"] = sum(vault.find(token) is not None for token in tokens) if vault is not None else 0
    for target in found.targets:
        there[f"table {target.spec.name}"] = target.count
        there[f"quarantine {target.spec.name}"] = len(subject.quarantined(session, target))
        if target.count:
            there["online features"] += len(_series(session, target.table)) if target.table is not None else 0
    return dict(sorted((+there).items()))


def _named(session: Session, found: _Found) -> dict[str, tuple[str, str]]:
    """Prediction -> what it was about, and the key, of the subject's answers."""
    own = (entry for entry in session.journal.read() if _is_entry(found.answers, entry))
    return {entry.id: (subject.of_model(found.answers, entry.model).about, entry.key) for entry in own}


def _is_entry(answers: Mapping[str, Answers], entry: Entry) -> bool:
    own = subject.of_model(answers, entry.model)
    return own.says(entry.inputs) or subject.key_says(own, entry.key)


def _is_posted(answers: Mapping[str, Answers], named: Mapping[str, tuple[str, str]], posted: Posted) -> bool:
    if posted.prediction:
        return posted.prediction in named
    own = subject.of_model(answers, posted.model)
    return (own.about, posted.key) in named.values() or subject.key_says(own, posted.key)


def _frames(session: Session, targets: list[Target]) -> tuple[str, ...]:
    """The stored examples that were built from rows of the subject: those of pins that held some."""
    pins: dict[str, Pinned] = {}
    found: dict[str, None] = {}
    for fact in session.facts.read(kinds=frozenset({facts.kind(Pinned), facts.kind(Done)}), app=session.app.name):
        if fact.kind == facts.kind(Pinned):
            pins[fact.model] = facts.decode(fact, Pinned)
        elif (done := facts.decode(fact, Done)).step == "examples":
            pin = pins.get(fact.model)
            if pin is None or any(target.learned(session, pin.batches, pin.cutoff) for target in targets):
                found |= dict.fromkeys(done.outputs.values())
    return tuple(digest for digest in found if session.blobs.has(digest))


def _sketches(session: Session, targets: Sequence[Target]) -> set[str]:
    """The stored profiles of batches that rows of the subject lie in."""
    batches = {target.spec.name: set(target.found[BATCH]) for target in targets}
    kinds = frozenset({facts.kind(profiled.Profiled)})
    said = [facts.decode(fact, profiled.Profiled) for fact in session.facts.read(kinds=kinds, app=session.app.name)]
    return {s.blob for s in said if s.batch in batches.get(s.table, ()) and session.blobs.has(s.blob)}


def _orphans(session: Session) -> list[str]:
    """Artifacts that no fact names: a crash came between the two, and nobody knows what is in them."""
    known = {name for fact in session.facts.read() for name in _DIGEST.findall(fact.said)}
    return [digest for digest in session.blobs.names() if digest.encode() not in known]


def _versions(session: Session, targets: list[Target]) -> Iterator[str]:
    """The versions whose snapshot held rows of the subject; one whose manifest cannot be trusted is taken to be one."""
    pinned = session.facts.read(kinds=frozenset({facts.kind(Pinned)}), app=session.app.name)
    for name in sorted({*session.models, *(fact.model for fact in pinned)}):
        for row in version.versions(session.facts, session.app.name, name):
            try:
                snap = artifacts.load_manifest(session, row.version).snapshot
            except FlyballError:
                yield row.version
                continue
            if any(target.learned(session, snap.batches, snap.cutoff) for target in targets):
                yield row.version


def _answering(session: Session, versions: Sequence[str]) -> tuple[str, ...]:
    states = [rollout.now(session.facts, session.app.name, name) for name in session.models]
    return tuple(who for state in states for who in (state.champion, state.candidate) if who in versions)


# --- what is said


def _hash(session: Session, found: _Found) -> str:
    return erasures.hashed(session, *(target.where for target in found.targets))


def _erasing(session: Session, found: _Found, places: dict[str, int], by: str, reason: str) -> Erasing:
    first = found.targets[0].where
    return Erasing(
        subject=_hash(session, found),
        column=first.column,
        op=first.op,
        tables={target.spec.name: erasures.hashed(session, target.where) for target in found.targets},
        by=by,
        reason=reason,
        places=places,
        versions=found.versions,
        frames=found.frames,
    )


def _report(session: Session, found: _Found, places: dict[str, int], *, resumed: bool) -> Report:
    return Report(
        app=session.app.name,
        subject=_hash(session, found),
        erased=False,
        resumed=resumed,
        places=places,
        versions=found.versions,
        answering=_answering(session, found.versions),
    )


def _discreet(reason: str, found: _Found) -> None:
    """The reason is a fact, and stays for good."""
    said = {str(target.where.value) for target in found.targets if isinstance(target.where.value, str)}
    if any(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", reason, re.IGNORECASE) for value in said if value):
        raise DataError(
            "erase-reason-names-subject",
            "The reason holds the very value that is to be erased.",
            why="The reason is recorded with the certificate and is never erased.",
            next="Give a reason that names nobody, such as a ticket's number.",
        )
