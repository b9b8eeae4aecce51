"""Gathering: bring every source's new files into their tables, exactly once, and the derived stores after them.

A file's **recipe** is the fingerprint of what turns it into rows: its preparation and its contract. The same content under
the same recipe is never ingested twice; under a changed recipe it is read again, and what comes out differently is a
correction that keeps the known times of the first reading: a mended preparation does not rewrite when something was known.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import msgspec

from flyball._kernel import facts
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball.cycle import causes
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset, ingest
from flyball.data.ingest import Ingested, Result
from flyball.data.source import File, Source
from flyball.learn.features import online
from flyball.release import rollout, version


class SourceComplete(Said, frozen=True, kw_only=True, tag="cycle.source_complete"):
    """All files of a source were ingested for the first time: its history ends here, and its life begins."""

    source: str
    files: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Since when the rows of a file's content may be known, None for history: kept, whatever its recipe is later."""

    known_from: datetime | None


def _key(fact: Stored) -> str:
    said = facts.decode(fact, Ingested)
    return facts.about(fact, "|".join((said.source, said.file, said.digest, said.recipe)))


def _seen_key(fact: Stored) -> str:
    said = facts.decode(fact, Ingested)
    return facts.about(fact, said.source, said.digest)


def _fold_seen(row: bytes | None, fact: Stored) -> bytes:
    return row or facts.encode(Seen(known_from=facts.decode(fact, Ingested).known_from))


_KINDS = frozenset({facts.kind(Ingested)})
INGESTED = Projection("data.ingested", _KINDS, _key, lambda _, fact: fact.said)
SEEN = Projection("data.seen", _KINDS, _seen_key, _fold_seen)
COMPLETE = Projection(
    "data.complete",
    frozenset({facts.kind(SourceComplete)}),
    lambda fact: facts.about(fact, facts.decode(fact, SourceComplete).source),
    lambda _, fact: fact.said,
)


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is to be ingested, and why."""

    source: Source
    file: File
    recipe: str
    why: str


def pending(session: Session) -> list[Pending]:
    """The files that the next apply would ingest, in order."""
    found: list[Pending] = []
    for source in session.app.sources:
        recipe = causes.recipe(source)
        past = ingested(session, source.name)
        names = {said.file for said in past}
        last = max(past, key=lambda said: said.batch, default=None)
        for file in session.reader.files(source, last.file if last else None):
            position = ingest.position(source, file, recipe)
            if session.facts.get(INGESTED.name, f"{session.app.name}//{position}") is None:
                found.append(Pending(source, file, recipe, _why(session, source, file, names)))
    return found


def _why(session: Session, source: Source, file: File, names: Collection[str]) -> str:
    if file.name not in names:
        return "new file"
    seen = _seen(session, source, file)
    return "its content changed" if seen is None else "its preparation or contract changed"


def _seen(session: Session, source: Source, file: File) -> Seen | None:
    row = session.facts.get(SEEN.name, f"{session.app.name}//{source.name}/{file.digest}")
    return msgspec.json.decode(row, type=Seen) if row is not None else None


def ingested(session: Session, source: str) -> list[Ingested]:
    """What was ingested from a source."""
    rows = session.facts.scan(INGESTED.name, f"{session.app.name}//{source}|")
    return [msgspec.json.decode(row, type=Ingested) for _, row in rows]


def gather(session: Session, tell: Tell = silent) -> list[Ingested]:
    """Ingest what is pending; then bring the online features up to their tables.

    Raises:
        DataError: a file that cannot be ingested; those before it are kept, and the next apply goes on there.
    """
    done = _repaired(session)
    for each in pending(session):
        tell(Event(step=f"ingest {each.file.name}", state="run", detail=each.why))
        started = session.clock.monotonic()
        result = _ingest(session, each)
        seconds = session.clock.monotonic() - started
        session.facts.append([Fact(session.app.name, "", result.said, result.measured)])
        tell(Event(step=f"ingest {each.file.name}", state="done", detail=_counts(result.said), seconds=seconds))
        done.append(result.said)
    _complete(session)
    follow(session)
    return done


def _repaired(session: Session) -> list[Ingested]:
    """Record what the tables have and the facts do not: a crash came between the two.

    Before anything else, for by now the file itself may have changed or gone, and its batch would stay unaccounted for.
    """
    recorded: dict[str, int] = {}
    for _, row in session.facts.scan(INGESTED.name, f"{session.app.name}//"):
        said = msgspec.json.decode(row, type=Ingested)
        recorded[said.table] = max(said.batch, recorded.get(said.table, 0))
    lost: list[Ingested] = []
    for table in session.app.tables():
        name = contract.spec(table).name
        if session.tables.head(name).batch > recorded.get(name, 0):
            lost += ingest.repair(session.tables, name, recorded.get(name, 0))
    if lost:
        session.facts.append([Fact(session.app.name, "", said) for said in lost])
    return lost


def _ingest(session: Session, each: Pending) -> Result:
    seen = _seen(session, each.source, each.file)
    complete = session.facts.get(COMPLETE.name, f"{session.app.name}//{each.source.name}") is not None
    known_from = session.clock.now() if complete else None
    return ingest.ingest(
        each.source,
        session.tables,
        session.reader,
        recipe=each.recipe,
        known_from=seen.known_from if seen is not None else known_from,
        file=each.file,
    )


def follow(session: Session) -> None:
    """Bring the online features up to their tables; each series has its own position, so this repeats nothing."""
    tables = {
        contract.spec(table).name: dataset.read(session.tables, table, dataset.latest(session.tables, table))
        for table in session.app.tables()
    }
    for model in session.app.models:
        online.update(session.online, model.features, tables)


def tidy(session: Session) -> None:
    """Drop the online features that no declared feature reads, unless whoever answers now still reads others.

    Nothing else tells them from features of an app file that was changed and may be changed back, so it is only done when
    there is nothing else to do: a server that was started before the last release has had until then to be started anew.
    """
    for model in session.app.models:
        now = rollout.now(session.facts, session.app.name, model.name)
        if not now.champion:
            return
        row = version.find(session.facts, session.app.name, now.champion)
        manifest = version.read(session.app.name, row, session.blobs, session.signer)
        if causes.changed_features(model, manifest.causes["examples"]):
            return
    session.online.keep({name for model in session.app.models for name in online.names(model.features)})


def _complete(session: Session) -> None:
    """Say of each source whose files are all in that its history has ended."""
    new = []
    for source in session.app.sources:
        files = len(ingested(session, source.name))
        if files and session.facts.get(COMPLETE.name, f"{session.app.name}//{source.name}") is None:
            new.append(Fact(session.app.name, "", SourceComplete(source=source.name, files=files)))
    if new:
        session.facts.append(new)


def _counts(said: Ingested) -> str:
    parts = [f"{said.read:,} rows read, {said.accepted:,} accepted"]
    if said.quarantined:
        rules = ", ".join(f"{rule} {n:,}" for rule, n in sorted(said.by_rule.items(), key=lambda r: -r[1])[:4])
        parts.append(f"{said.quarantined:,} quarantined ({rules})")
    if said.duplicates:
        parts.append(f"{said.duplicates:,} repeats")
    return ", ".join(parts)
