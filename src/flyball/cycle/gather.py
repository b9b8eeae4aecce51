"""Gathering: bring every source's new files into their tables, exactly once, and the derived stores after them.

A file's **recipe** is the fingerprint of what turns it into rows: its preparation and its contract. The same content under
the same recipe is never ingested twice; under a changed recipe it is read again, and what comes out differently is a
correction that keeps the known times of the first reading: a mended preparation does not rewrite when something was known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError, FlyballError
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball.cycle import causes, contracts, pushed, suppress
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset, ingest, replay, seal, standing, withdrawal
from flyball.data.contract import Contract
from flyball.data.ingest import Account, Ingested, Result
from flyball.data.kinds import UNKNOWN, Delta, Yields
from flyball.data.source import File, Files, Source
from flyball.data.withdrawal import Withdrawn
from flyball.learn.features import online
from flyball.release import rollout, version

_PATIENCE = 20
"""Files of a source that fail one after the other, before it is taken to be the source."""

_TOLD = 5
"""Names that are told of many."""


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
WITHDRAWN = Projection(
    "data.withdrawn",
    frozenset({facts.kind(Withdrawn)}),
    lambda fact: facts.about(fact, facts.decode(fact, Withdrawn).table),
    lambda _, fact: fact.said,
)
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


@dataclass(frozen=True, slots=True)
class Failure:
    """What keeps a file from being ingested; a whole source, where `file` is ""."""

    source: Source
    file: str
    problem: FlyballError

    def __str__(self) -> str:
        return f"{self.file or self.source.name} [{self.problem.code}]"


@dataclass(frozen=True, slots=True)
class Look:
    """What the sources show now.

    Attributes:
        pending: the files that the next apply would ingest, in order.
        hidden: the sources that could not be looked at, and why.
        notes: what a person should know besides: files that were ingested and are gone, batches that were withdrawn.
    """

    pending: tuple[Pending, ...]
    hidden: tuple[Failure, ...]
    notes: tuple[str, ...]


def look(session: Session) -> Look:
    """Look at every source; one that cannot be looked at keeps no other waiting.

    Raises:
        DeclarationError: see `source.Reader`.
    """
    found: list[Pending] = []
    hidden: list[Failure] = []
    notes: list[str] = []
    for source in session.app.sources:
        past = ingested(session, source.name)
        read = [said for said in past if standing.origin(said) is None]  # a replay reads no file
        earlier = dict.fromkeys(
            File(said.file, said.digest, UNKNOWN) for said in sorted(read, key=lambda said: said.batch)
        )
        last = next(reversed(earlier), None)
        try:
            files = session.reader.files(source, last.name if last else None)
        except (DataError, AdapterError) as problem:
            hidden.append(Failure(source, "", problem))
            continue
        recipe = causes.recipe(source)
        if source.at.slices:  # those that were read are found by their name alone, should their recipe have changed
            files = (*earlier, *files)
        before = {(said.file, said.digest, said.recipe) for said in past}
        names = {said.digest: said.file for said in past}
        found += [
            Pending(source, file, recipe, _why(file, names))
            for file in files
            if (file.name, file.digest, recipe) not in before
        ]
        gone = sorted({said.file for said in past} - {file.name for file in files})
        if gone and isinstance(source.at, Files):  # other kinds of sources show each slice only once
            notes.append(f"{source.name}: gone, and what was ingested of them stays: {_some(gone)}.")
    return Look(tuple(found), tuple(hidden), (*notes, *_withdrawn(session)))


def _withdrawn(session: Session) -> list[str]:
    """What the last rollback of each table took, for its files will not come back by themselves."""
    rows = session.facts.scan(WITHDRAWN.name, f"{session.app.name}//")
    last = [msgspec.json.decode(row, type=Withdrawn) for _, row in rows]
    return [
        f"{said.table}: {_some([str(n) for n in said.batches])} withdrawn by batch {said.batch} ({said.reason}); their "
        "files are read again only if they, their preparation or their contract change."
        for said in last
        if said.batches
    ]


def pending(session: Session) -> list[Pending]:
    """The files that the next apply would ingest, in order."""
    return list(look(session).pending)


def _why(file: File, before: Mapping[str, str]) -> str:
    """Why a file is to be ingested; `before` is what was: digest -> name."""
    if file.name in before.values():
        return "its preparation or contract changed" if file.digest in before else "its content changed"
    return f"new file, repeats {before[file.digest]}" if file.digest in before else "new file"


def _some(names: Sequence[str]) -> str:
    """A few of them, and how many there are."""
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was ingested with one content, and later with another.

    Attributes:
        batches: of its contents, in order; the rows of the earlier ones are corrected, or stay as they are.
    """

    source: str
    file: str
    batches: list[int]


def changed(session: Session) -> list[Changed]:
    """The past files whose content changed after they were ingested."""
    contents: dict[tuple[str, str], dict[str, int]] = {}
    for source in session.app.sources:
        for said in sorted(ingested(session, source.name), key=lambda said: said.batch):
            contents.setdefault((said.source, said.file), {}).setdefault(said.digest, said.batch)
    return [
        Changed(source=source, file=file, batches=sorted(found.values()))
        for (source, file), found in sorted(contents.items())
        if len(found) > 1
    ]


def rewritten(session: Session, said: Sequence[Ingested]) -> list[str]:
    """Those of the files that were just ingested that had another content before."""
    now = {(each.source, each.batch) for each in said}
    return [each.file for each in changed(session) if (each.source, each.batches[-1]) in now] if now else []


def _seen(session: Session, source: Source, file: File) -> Seen | None:
    row = session.facts.get(SEEN.name, f"{session.app.name}//{source.name}/{file.digest}")
    return msgspec.json.decode(row, type=Seen) if row is not None else None


def ingested(session: Session, source: str) -> list[Ingested]:
    """What was ingested from a source."""
    rows = session.facts.scan(INGESTED.name, f"{session.app.name}//{source}|")
    found = (msgspec.json.decode(row, type=Ingested) for _, row in rows)
    return [said for said in found if said.source == source]  # the name of another may go on with "|"


def gather(session: Session, tell: Tell = silent) -> list[Ingested]:
    """Ingest what is pending; then bring the online features up to their tables.

    A file that cannot be ingested keeps no other waiting, and is named at the end; but of a source of which `_PATIENCE` files
    failed one after the other, or one of a source that is listed from its last part on, the others are left as well.

    Raises:
        DataError, AdapterError: what keeps a file from being ingested; `files-not-ingested`, where there are several. The
            others are in, and the next apply goes on with these.
    """
    contracts.settle(session, tell)
    done = [said for said in repaired(session) if isinstance(said, Ingested)]
    found = look(session)
    failures = list(found.hidden)
    in_a_row: dict[str, int] = {}
    for each in found.pending:
        name = each.source.name
        if in_a_row.get(name, 0) == _PATIENCE:
            continue
        problem = one(session, each, done, tell)
        in_a_row[name] = in_a_row.get(name, 0) + 1 if problem is not None else 0
        if problem is not None:
            failures.append(Failure(each.source, each.file.name, problem))
            if isinstance(each.source.at, Delta | Yields) and each.why.startswith("new"):
                in_a_row[name] = _PATIENCE  # the next look goes on after the last that is in: none may overtake
    _complete(session, {failure.source.name for failure in failures})
    follow(session)
    pushed.clear(session, ingested)
    if failures:
        raise _together(failures, [name for name, n in in_a_row.items() if n == _PATIENCE])
    return done


def one(session: Session, each: Pending, done: list[Ingested], tell: Tell) -> FlyballError | None:
    """Ingest one file; returns what kept it from that, if it was the file or its source."""
    tell(Event(step=f"ingest {each.file.name}", state="run", detail=each.why))
    started = session.clock.monotonic()
    try:
        result = _ingest(session, each)
    except (DataError, AdapterError) as problem:
        if not isinstance(problem, DataError) and problem.where != each.source.place:
            raise  # it is not the reader's: the tables cannot be written, and no other file will fare better
        tell(Event(step=f"ingest {each.file.name}", state="fail", detail=f"{problem.what} [{problem.code}]"))
        return problem
    seconds = session.clock.monotonic() - started
    session.facts.append([Fact(session.app.name, "", result.said, result.measured)])
    tell(Event(step=f"ingest {each.file.name}", state="done", detail=_counts(result.said), seconds=seconds))
    done.append(result.said)
    return None


def _together(failures: Sequence[Failure], left: Sequence[str]) -> FlyballError:
    """One error for all that failed; the very error, where it is one."""
    first = failures[0]
    if len(failures) == 1:
        return first.problem
    others = f" Of {', '.join(left)}, what comes after them was left." if left else ""
    return DataError(
        "files-not-ingested",
        f"{len(failures)} files were not ingested: {_some([str(failure) for failure in failures])}.{others}",
        where=first.problem.where,
        why=f"The others are in. The first: {first.problem.what} {first.problem.why}",
        next=first.problem.next,
    )


def repaired(session: Session) -> list[Account]:
    """Record what the tables have and the facts do not: a crash came between the two.

    Before anything else, for by now the file itself may have changed or gone, and its batch would stay unaccounted for.
    """
    recorded: dict[str, int] = {}
    for _, row in session.facts.scan(INGESTED.name, f"{session.app.name}//"):
        said = msgspec.json.decode(row, type=Ingested)
        recorded[said.table] = max(said.batch, recorded.get(said.table, 0))
    for _, row in session.facts.scan(WITHDRAWN.name, f"{session.app.name}//"):
        gone = msgspec.json.decode(row, type=Withdrawn)
        recorded[gone.table] = max(gone.batch, recorded.get(gone.table, 0))
    lost: list[Account] = []
    for table in session.app.tables():
        name = contract.spec(table).name
        if session.tables.head(name).batch > recorded.get(name, 0):
            lost += ingest.repair(session.tables, name, recorded.get(name, 0))
    if lost:
        session.facts.append([Fact(session.app.name, "", said) for each in lost for said in replay.told(each)])
    return lost


def _ingest(session: Session, each: Pending) -> Result:
    seen = _seen(session, each.source, each.file)
    complete = session.facts.get(COMPLETE.name, f"{session.app.name}//{each.source.name}") is not None
    known_from = session.clock.now() if complete else None
    source, reader = seal.sealing(session.seal, *suppress.suppressed(session, each.source))
    return ingest.ingest(
        source,
        session.tables,
        reader,
        recipe=each.recipe,
        known_from=seen.known_from if seen is not None else known_from,
        file=each.file,
    )


def follow(session: Session) -> None:
    """Bring the online features up to their tables; each series has its own position, so this repeats nothing.

    What was withdrawn, or held again, since a series was filled is not a batch to add: it is filled anew.
    """
    tables: dict[str, pl.LazyFrame] = {}
    for table in session.app.tables():
        now = dataset.latest(session.tables, table)
        tables[now.table] = dataset.read(session.tables, table, now)
        refill(session, table, now.batch)
    for model in session.app.models:
        online.update(session.online, model.features, tables)


def refill(session: Session, table: type[Contract], batch: int) -> None:
    """Fill the series of a table anew that hold batches which version `batch` does not, or lack earlier ones that it holds."""
    name = contract.spec(table).name
    now = withdrawal.held(session.tables, name, batch)
    if now == ((1, batch),):
        return
    sets = [model.features for model in session.app.models if table in model.features.tables()]
    for position in {session.online.position(s) for each in sets for s in online.names(each, table)}:
        if position is None or withdrawal.extends(now, withdrawal.held(session.tables, name, position), position):
            continue
        online.refill(
            session.online, sets, table, dataset.scan(session.tables, contract.spec(table), batch), upto=batch
        )
        return


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


def _complete(session: Session, failed: Collection[str]) -> None:
    """Say of each source whose files are all in that its history has ended."""
    new = []
    for source in session.app.sources:
        if source.name in failed:
            continue
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
