"""Gathering: bring every source's new files into their tables, exactly once, and the derived stores after them.

A file's **recipe** is the fingerprint of what turns it into rows: its preparation and its contract. The same content under
the same recipe is never ingested twice; under a changed recipe it is read again, and what comes out differently is a
correction that keeps the known times of the first reading: a mended preparation does not rewrite when something was known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import polars as pl

from flyball._kernel.errors import AdapterError, DataError, FlyballError
from flyball._kernel.facts import Fact
from flyball.cycle import arrivals, causes, contracts, pushed, suppress
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset, ingest, replay, seal, withdrawal
from flyball.data.contract import Contract
from flyball.data.ingest import Account, Ingested, Result
from flyball.data.kinds import Delta, Yields
from flyball.data.withdrawal import Withdrawn
from flyball.learn.features import online
from flyball.release import rollout, version

_PATIENCE = 20
"""Files of a source that fail one after the other, before it is taken to be the source."""


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
    found = arrivals.look(session)
    failures = list(found.hidden)
    in_a_row: dict[str, int] = {}
    for each in found.pending:
        name = each.source.name
        if in_a_row.get(name, 0) == _PATIENCE:
            continue
        problem = one(session, each, done, tell)
        in_a_row[name] = in_a_row.get(name, 0) + 1 if problem is not None else 0
        if problem is not None:
            failures.append(arrivals.Failure(each.source, each.file.name, problem))
            if isinstance(each.source.at, Delta | Yields) and each.why.startswith("new"):
                in_a_row[name] = _PATIENCE  # the next look goes on after the last that is in: none may overtake
    _complete(session, {failure.source.name for failure in failures})
    follow(session)
    pushed.clear(session, arrivals.ingested)
    if failures:
        raise _together(failures, [name for name, n in in_a_row.items() if n == _PATIENCE])
    return done


def one(session: Session, each: arrivals.Pending, done: list[Ingested], tell: Tell) -> FlyballError | None:
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


def _together(failures: Sequence[arrivals.Failure], left: Sequence[str]) -> FlyballError:
    """One error for all that failed; the very error, where it is one."""
    first = failures[0]
    if len(failures) == 1:
        return first.problem
    others = f" Of {', '.join(left)}, what comes after them was left." if left else ""
    return DataError(
        "files-not-ingested",
        f"{len(failures)} files were not ingested: {arrivals.some([str(failure) for failure in failures])}.{others}",
        where=first.problem.where,
        why=f"The others are in. The first: {first.problem.what} {first.problem.why}",
        next=first.problem.next,
    )


def repaired(session: Session) -> list[Account]:
    """Record what the tables have and the facts do not: a crash came between the two.

    Before anything else, for by now the file itself may have changed or gone, and its batch would stay unaccounted for.
    """
    recorded: dict[str, int] = {}
    for _, row in session.facts.scan(arrivals.INGESTED.name, f"{session.app.name}//"):
        said = msgspec.json.decode(row, type=Ingested)
        recorded[said.table] = max(said.batch, recorded.get(said.table, 0))
    for _, row in session.facts.scan(arrivals.WITHDRAWN.name, f"{session.app.name}//"):
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


def _ingest(session: Session, each: arrivals.Pending) -> Result:
    seen = arrivals.seen(session, each.source, each.file)
    complete = session.facts.get(arrivals.COMPLETE.name, f"{session.app.name}//{each.source.name}") is not None
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
        files = len(arrivals.ingested(session, source.name))
        if files and session.facts.get(arrivals.COMPLETE.name, f"{session.app.name}//{source.name}") is None:
            new.append(Fact(session.app.name, "", arrivals.SourceComplete(source=source.name, files=files)))
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
