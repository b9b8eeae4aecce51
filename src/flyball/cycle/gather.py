"""Gathering: bring every source's new files into their tables, exactly once, and the derived stores after them.

A file's **recipe** is the fingerprint of what turns it into rows: its preparation and its contract. The same content under
the same recipe is never ingested twice; under a changed recipe it is read again, and what comes out differently is a
correction that keeps the known times of the first reading: a mended preparation does not rewrite when something was known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from flyball._kernel.errors import AdapterError, DataError, FlyballError
from flyball._kernel.facts import Fact
from flyball.cycle import arrivals, causes, contracts, pushed, suppress
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset, ingest, replay, seal, withdrawal
from flyball.data.contract import Contract
from flyball.data.ingest import Account, Ingested, Result
from flyball.data.kinds import Yields
from flyball.data.source import File, Source
from flyball.data.together import Small, ingest_together
from flyball.learn.features import batches, online
from flyball.release import rollout, version

_PATIENCE = 20
"""Files of a source that fail one after the other, before it is taken to be the source."""


def gather(session: Session, tell: Tell = silent) -> list[Ingested]:
    """Ingest what is pending; then bring the online features up to their tables.

    A file that cannot be ingested keeps no other waiting, and is named at the end; but of a source of which `_PATIENCE` files
    failed one after the other, or one of a source that is listed from its last part on, the others are left as well. Small
    files, which many send, are all tried.

    Raises:
        DataError, AdapterError: what keeps a file from being ingested; `files-not-ingested`, where there are several. The
            others are in, and the next apply goes on with these.
    """
    contracts.settle(session, tell)
    done = [said for said in repaired(session) if isinstance(said, Ingested)]
    found = arrivals.look(session)
    failures = list(found.hidden)
    in_a_row: dict[str, int] = {}
    for group in arrivals.groups(found.pending):
        name = group[0].source.name
        if in_a_row.get(name, 0) >= _PATIENCE:
            continue
        for each, problem in zip(group, several(session, group, done, tell), strict=True):
            counts = problem is not None and not each.source.at.together
            in_a_row[name] = in_a_row.get(name, 0) + 1 if counts else 0
            if problem is not None:
                failures.append(arrivals.Failure(each.source, each.file.name, problem))
                if (each.source.at.slices or isinstance(each.source.at, Yields)) and each.why.startswith("new"):
                    in_a_row[name] = _PATIENCE  # the next look goes on after the last that is in: none may overtake
    complete(session, {failure.source.name for failure in failures})
    follow(session)
    pushed.clear(session, done)
    (session.home / pushed.MARK).unlink(missing_ok=True)  # whatever a pass died over, this process did not
    if failures:
        raise _together(failures, [name for name, n in in_a_row.items() if n >= _PATIENCE])
    return done


def several(
    session: Session, group: Sequence[arrivals.Pending], done: list[Ingested], tell: Tell
) -> list[FlyballError | None]:
    """Ingest files of one source, with one commit where they are several; returns what kept each of them from that."""
    if len(group) == 1:
        return [one(session, group[0], done, tell)]
    source, first = group[0].source, group[0]
    step = f"ingest {len(group)} of {source.name}"
    tell(Event(step=step, state="run", detail=first.why))
    started = session.clock.monotonic()
    sealed, reader = seal.sealing(session.seal, *suppress.suppressed(session, source))
    small = _known_from(session, source, [each.file for each in group])
    found = ingest_together(sealed, session.tables, reader, recipe=first.recipe, files=small)
    came = [result for result in found.values() if isinstance(result, Result)]
    if came:
        session.facts.append([Fact(session.app.name, "", result.said, result.measured) for result in came])
    done += (result.said for result in came)
    told = f"{sum(r.said.read for r in came):,} rows read, {sum(r.said.accepted for r in came):,} accepted"
    tell(Event(step=step, state="done", detail=told, seconds=session.clock.monotonic() - started))
    results = [found[each.file] for each in group]
    kept: list[FlyballError | None] = [None if isinstance(result, Result) else result for result in results]
    for each, problem in zip(group, kept, strict=True):
        if problem is not None:
            tell(Event(step=f"ingest {each.file.name}", state="fail", detail=f"{problem.what} [{problem.code}]"))
    return kept


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
    lost: list[Account] = []
    for table in session.app.tables():
        name = contract.spec(table).name
        known = arrivals.last_known(session, name)
        if session.tables.head(name).batch > known:
            lost += ingest.repair(session.tables, name, known)
    if lost:
        session.facts.append([Fact(session.app.name, "", said) for each in lost for said in replay.told(each)])
    return lost


def _ingest(session: Session, each: arrivals.Pending) -> Result:
    source, reader = seal.sealing(session.seal, *suppress.suppressed(session, each.source))
    (small,) = _known_from(session, each.source, [each.file])
    return ingest.ingest(
        source, session.tables, reader, recipe=each.recipe, known_from=small.known_from, file=each.file
    )


def _known_from(session: Session, source: Source, files: Sequence[File]) -> list[Small]:
    """When the rows of files are known at the earliest: as at the first reading; in life from now on, in history any time."""
    seen = arrivals.seen(session, source, files)
    ended = session.facts.get(arrivals.COMPLETE.name, f"{session.app.name}//{source.name}") is not None
    now = session.clock.now() if ended else None
    return [Small(each, seen[each.digest].known_from if each.digest in seen else now) for each in files]


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
        batches.update(session.online, model.features, tables)


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
        batches.refill(
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


def complete(session: Session, failed: Collection[str]) -> None:
    """Say of each source whose files are all in that its history has ended; of none that `failed`."""
    new = []
    for source in session.app.sources:
        said = session.facts.get(arrivals.COMPLETE.name, f"{session.app.name}//{source.name}") is not None
        if not said and source.name not in failed and (files := len(arrivals.ingested(session, source.name))):
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
