"""The quarantine of an app: what lies there and how it stands, some of its rows, all of them as a file, and a replay.

A replay judges open rows by what is declared now. A file that lies there still, as it was, is read again through its
preparation, as an apply would; of one that is gone the rows that are kept go through the contract. What is accepted becomes a
batch of the table; what is still refused lies under that batch from then on. Rows that were judged by the very contract and
preparation that are declared are left alone: they would break the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import polars as pl

from flyball._kernel.errors import AdapterError, DataError, StateError
from flyball._kernel.facts import Fact
from flyball.cycle import apply, arrivals, causes, gather, suppress
from flyball.cycle.session import Event, Session, Tell, held, silent
from flyball.data import contract, ingest, masked, replay, standing, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.ingest import Ingested
from flyball.data.replay import Kept
from flyball.data.source import LINE, Source
from flyball.data.standing import STANDING, STANDINGS, Standing
from flyball.data.tables import BATCH

_GONE = ("file-changed", "file-unopenable")
"""The codes of a file that is not there any more as it was: its rows are kept, and go by their cells."""


class OfBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The quarantined rows of one batch.

    Attributes:
        rows: how they stand -> how many.
        by_rule: of the open ones; a row that broke two rules counts under both.
    """

    batch: int
    source: str
    file: str
    rows: dict[str, int]
    by_rule: dict[str, int]


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """The quarantine of one table; see `standing` for the words."""

    table: str
    rows: dict[str, int]
    by_rule: dict[str, int]
    batches: list[OfBatch]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One quarantined row as it is shown."""

    batch: int
    file: str
    line: int | None
    rules: list[str]
    standing: str
    cells: dict[str, str]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file whose rows were judged again.

    Attributes:
        of: the batch whose quarantined rows were open.
        batch: what they became.
        read_again: whether the file was read, whole; else only its open rows were taken from quarantine.
        read, accepted, still, duplicates: rows; read = accepted + still refused + duplicates.
    """

    table: str
    file: str
    of: int
    batch: int
    read_again: bool
    read: int
    accepted: int
    still: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class _Due:
    """A batch with open rows that are to be judged again, and the file that they came from."""

    source: Source
    batch: int
    file: Ingested


@dataclass(frozen=True, slots=True)
class _Look:
    """The quarantine of a table as of now."""

    table: type[Contract]
    spec: Spec
    batch: int
    files: dict[int, Ingested]
    standings: dict[int, Standing]
    accounts: dict[int, Ingested]


def tables(session: Session, name: str | None = None) -> tuple[type[Contract], ...]:
    """The tables of an app, or one by name: as it is stored, or as its contract is called, whatever its version.

    Raises:
        DataError: `no-such-table`.
    """
    known = session.app.tables()
    found = tuple(t for t in known if name in (None, contract.spec(t).name, contract.spec(t).title))
    if not found:
        raise DataError(
            "no-such-table",
            f"The app {session.app.name!r} has no table {name!r}.",
            where=session.app.place,
            why=f"Its sources fill {', '.join(contract.spec(t).name for t in known) or 'none'}.",
            next="Name one of them.",
        )
    return found


def count(session: Session, name: str | None = None) -> list[Quarantine]:
    """What lies in quarantine, by table, rule and batch.

    Raises:
        DataError: `no-such-table`.
    """
    return [_count(session, _look(session, table)) for table in tables(session, name)]


def _count(session: Session, look: _Look) -> Quarantine:
    rows = standing.rows(session.tables, look.table, look.batch, look.standings)
    whole = rows.group_by(BATCH, STANDING).len().collect(engine="streaming")
    is_open = rows.filter(pl.col(STANDING) == "open")
    broken = is_open.explode("rules").group_by(BATCH, "rules").len().collect(engine="streaming")
    batches = [
        OfBatch(
            batch=batch,
            source=look.files[batch].source,
            file=look.files[batch].file,
            rows=_by(whole.filter(pl.col(BATCH) == batch), STANDING),
            by_rule=_by(broken.filter(pl.col(BATCH) == batch), "rules"),
        )
        for batch in sorted(whole[BATCH].unique())
    ]
    return Quarantine(table=look.spec.name, rows=_by(whole, STANDING), by_rule=_by(broken, "rules"), batches=batches)


def _by(counts: pl.DataFrame, column: str) -> dict[str, int]:
    found = dict(counts.group_by(column).agg(pl.col("len").sum()).sort(column).iter_rows())
    return {s: found[s] for s in STANDINGS if s in found} if column == STANDING else found


def sample(
    session: Session, name: str | None, rule: str | None, rows: int, *, reveal: bool = False
) -> dict[str, list[Row]]:
    """Some open rows of a table, or of each that has any, the latest batches first; of one rule or of any.

    Raises:
        DataError: `no-such-table`, `no-such-rule`.
    """
    found = {look.spec.name: _sample(session, look, rule, rows, reveal) for look in _looks(session, name, rule)}
    return {table: some for table, some in found.items() if some}


def _sample(session: Session, look: _Look, rule: str | None, rows: int, reveal: bool) -> list[Row]:
    found = _of_rule(session, look, rule).filter(pl.col(STANDING) == "open")
    chosen = found.sort(BATCH, LINE, descending=[True, False], nulls_last=True).head(rows).collect()
    return [
        Row(
            batch=row[BATCH],
            file=row["_file"],
            line=row[LINE],
            rules=row["rules"],
            standing=row[STANDING],
            cells=masked.cells(msgspec.json.decode(row["row"]), look.spec, reveal=reveal),
        )
        for row in chosen.iter_rows(named=True)
    ]


def rows(session: Session, name: str, rule: str | None, *, reveal: bool) -> pl.LazyFrame:
    """All quarantined rows with how they stand, to be written to a file.

    Raises:
        DataError: `no-such-table`, `no-such-rule`.
        StateError: `personal-columns-hidden`.
    """
    (look,) = _looks(session, name, rule)
    masked.may_leave(look.spec, reveal=reveal)
    return _of_rule(session, look, rule).with_columns(pl.col("rules").list.join("; "))


def _of_rule(session: Session, look: _Look, rule: str | None) -> pl.LazyFrame:
    found = standing.rows(session.tables, look.table, look.batch, look.standings)
    return found if rule is None else found.filter(pl.col("rules").list.contains(rule))


def _looks(session: Session, name: str | None, rule: str | None) -> list[_Look]:
    """The quarantines that are asked about; a rule that no row of any of them ever broke is refused."""
    found = [_look(session, table) for table in tables(session, name)]
    known = {each for look in found for said in look.accounts.values() for each in said.by_rule}
    if rule is not None and rule not in known:
        raise DataError(
            "no-such-rule",
            f"No row of {', '.join(look.spec.name for look in found)} ever broke a rule {rule!r}.",
            where=session.app.place,
            why=f"There are rows that broke {', '.join(sorted(known)) or 'none'}.",
            next="`flyball data quarantine APP` counts them.",
        )
    return found


def _look(session: Session, table: type[Contract]) -> _Look:
    spec = contract.spec(table)
    batch = session.tables.head(spec.name).batch
    accounts = ingest.repair(session.tables, spec.name)
    spans = withdrawal.held(session.tables, spec.name, batch)
    mine = {said.batch: said for said in accounts if isinstance(said, Ingested)}
    return _Look(table, spec, batch, standing.files(accounts), standing.batches(accounts, spans), mine)


def replay_open(
    session: Session, name: str | None = None, rule: str | None = None, tell: Tell = silent
) -> list[Judged]:
    """Judge open rows again; returns what became of those of each batch, in order.

    Args:
        session: of the app whose contracts or preparations were mended.
        name: one table; by default all.
        rule: only batches that have open rows which broke it; of these all, for rows may have broken several rules together.
        tell: is told of every batch.

    Raises:
        DataError: `no-such-table`, `no-such-rule`; a batch that cannot be judged; those before it are kept.
        AdapterError: a file that is there and cannot be read.
        StateError: `replay-of-sealed-rows`.
        RetryableError: `somebody-else-is-at-it`, `concurrent-ingest`.
    """
    with held(session, apply.LEASE):
        gather.repaired(session)
        done = _read_again(session, _due(session, name, rule), tell)
        for due in _due(session, name, rule):
            tell(Event(step=f"replay {due.file.file}", state="run", detail=f"batch {due.batch}"))
            came = _replay(session, due)
            detail = f"{came.read:,} rows read, {came.accepted:,} accepted, {came.still:,} still refused"
            tell(Event(step=f"replay {due.file.file}", state="done", detail=detail))
            done.append(came)
        gather.follow(session)
    return done


def _due(session: Session, name: str | None, rule: str | None) -> list[_Due]:
    """The batches with open rows that were judged by what is declared no longer."""
    sources = {source.name: source for source in session.app.sources}
    found: list[_Due] = []
    for look in _looks(session, name, rule):
        is_open = _of_rule(session, look, rule).filter(pl.col(STANDING) == "open")
        for batch in is_open.select(pl.col(BATCH).unique().sort()).collect(engine="streaming").to_series():
            said = look.accounts[batch]
            source = sources.get(said.source)
            if source is not None and source.contract is look.table and causes.recipe(source) != said.recipe:
                found.append(_Due(source, batch, look.files[batch]))
    return found


def _read_again(session: Session, due: list[_Due], tell: Tell) -> list[Judged]:
    """Read again what lies there as it did, of each source that has such rows: all of it, in order.

    One file alone would put what it says over what later ones corrected.
    """
    waits = {(each.source.name, each.file.digest): each.batch for each in due}
    known = {(name, said.digest) for name, _ in waits for said in arrivals.ingested(session, name)}
    done: list[Judged] = []
    for each in arrivals.look(session).pending if due else ():
        what, came = (each.source.name, each.file.digest), list[Ingested]()
        if what not in known:
            continue
        problem = gather.one(session, each, came, tell)
        if problem is not None and problem.code not in _GONE:
            raise problem
        done += [_judged(said, waits[what], read_again=True) for said in came if what in waits]
    return done


def _replay(session: Session, due: _Due) -> Judged:
    _judgeable(contract.spec(due.source.contract))
    # What was erased does not come back by a cell that is read otherwise now.
    source, _ = suppress.suppressed(session, replace(due.source, prepare=replay.as_they_are))
    look = _look(session, source.contract)
    kept = Kept(session.tables, due.batch, look.batch, look.standings, due.file.file)
    result = ingest.ingest(
        source,
        session.tables,
        kept,
        recipe=causes.recipe(due.source),
        known_from=None if look.accounts[due.batch].known_from is None else session.clock.now(),
        file=kept.files(source)[0],
    )
    session.facts.append([Fact(session.app.name, "", each, result.measured) for each in replay.told(result.said)])
    return _judged(result.said, due.batch, read_again=False)


def _judged(said: Ingested, of: int, *, read_again: bool) -> Judged:
    return Judged(
        table=said.table,
        file=said.file,
        of=of,
        batch=said.batch,
        read_again=read_again,
        read=said.read,
        accepted=said.accepted,
        still=said.quarantined,
        duplicates=said.duplicates,
    )


def _judgeable(spec: Spec) -> None:
    """Refuse rows of which not everything that was said is kept."""
    if spec.sealed:
        raise StateError(
            "replay-of-sealed-rows",
            f"Quarantined rows of {spec.name} cannot be judged again.",
            where=spec.place,
            why=f"Of {', '.join(spec.sealed)} they hold hashes or tokens, and a rule judges what was said.",
            next="`flyball apply` reads the files again, since the contract changed; put them back if they are gone.",
        )


_SINKS: Mapping[str, Callable[[pl.LazyFrame, Path], None]] = {
    ".parquet": lambda rows, path: rows.sink_parquet(path),
    ".csv": lambda rows, path: rows.sink_csv(path),
    ".jsonl": lambda rows, path: rows.sink_ndjson(path),
    ".ndjson": lambda rows, path: rows.sink_ndjson(path),
}


def write(frame: pl.LazyFrame, path: Path) -> None:
    """Write rows to a file whose name says the format, in bounded memory.

    Raises:
        DataError: `file-of-unknown-format`.
        AdapterError: `file-not-written`.
    """
    sink = _SINKS.get(path.suffix.lower())
    if sink is None:
        raise DataError(
            "file-of-unknown-format",
            f"The format of {path.name} is not known.",
            why="It is told by the name: .parquet, .csv or .jsonl.",
            next="Give the file such a name.",
        )
    try:
        sink(frame, path)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise AdapterError(
            "file-not-written",
            f"{path} cannot be written: {str(problem).partition(chr(10))[0][:200]}",
            why="The folder is not there, or full; or the format holds no such columns, as CSV holds no lists.",
            next="Name another folder, or another format: .parquet holds all columns.",
        ) from problem
