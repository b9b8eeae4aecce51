"""Ingest: one file of one source becomes one batch of one table, exactly once.

The order is quarantine, table, fact, all under one batch number. The table decides: it commits the batch together with
the file's **position** (source, file, content, recipe), and a position that is there is never ingested again. What a
crash left in quarantine beyond the table's last batch was never believed, and is dropped before the next batch. The fact
can be repaired from the tables, for each batch leaves its **account** in quarantine: the very record that the fact says.

Every row that was read is counted once: read = accepted + quarantined + duplicates.
"""

from __future__ import annotations

import inspect
import sysconfig
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import DataError, StateError
from flyball._kernel.place import Place
from flyball.data import contract, dataset, quarantine
from flyball.data.contract import Spec
from flyball.data.source import LINE, File, Reader, Reading, Source
from flyball.data.tables import BATCH, KNOWN, MOMENT, OUTCOME_KNOWN, Head, Tables

_BEFORE = "\0before\0"  # no column of a contract starts like this


class Ingested(facts.Said, frozen=True, kw_only=True, tag="data.ingested"):
    """One file became one batch.

    Attributes:
        source: the name of the source.
        table: the name of the contract.
        file: the path relative to the source's folder.
        digest: SHA-256 of the file's bytes.
        recipe: fingerprint of the preparation and the contract.
        batch: the number of the batch.
        read: rows that the preparation yielded, and lines of the file that were no rows.
        accepted: rows that are now in the table.
        quarantined: rows that break the contract, and ragged lines.
        duplicates: rows that say what an earlier row of the file, or the table, already says.
        corrections: those of the accepted rows that say something new about a key that the table had.
        unsettled: those of the accepted rows whose outcome is not known yet.
        by_rule: rule -> rows that broke it.
        ignored: columns that the preparation yielded and the contract does not have.
        known_from: rows were known no earlier than this; None for history, which was known as declared.
    """

    source: str
    table: str
    file: str
    digest: str
    recipe: str
    batch: int
    read: int
    accepted: int
    quarantined: int
    duplicates: int
    corrections: int
    unsettled: int
    by_rule: dict[str, int]
    ignored: tuple[str, ...]
    known_from: datetime | None


@dataclass(frozen=True, slots=True)
class Result:
    """What to record: the fact's record, and how long it took.

    Attributes:
        said: the record; the same whether this run ingested the file or found it ingested.
        fresh: whether this run ingested it.
        measured: seconds by phase.
    """

    said: Ingested
    fresh: bool
    measured: Mapping[str, float]


def position(source: Source, file: File, recipe: str) -> str:
    """The key under which a file is ingested exactly once: same content, same recipe, same source, same name."""
    return "|".join((source.name, file.name, file.digest, recipe))


def ingest(
    source: Source, tables: Tables, reader: Reader, *, recipe: str, known_from: datetime | None, file: File
) -> Result:
    """Ingest one file, unless it is ingested already.

    Args:
        source, tables, reader: from where, to where, and what opens the file.
        recipe: the fingerprint of the source's preparation, contract and nulls.
        known_from: when the rows were known at the earliest; None while the source has no history yet. A file that was
            ingested before, under another recipe, keeps what it had then.
        file: one of `reader.files(source)`.

    Raises:
        DataError, DeclarationError: see `source.Reader`, `quarantine.sift`; `preparation-failed`; nothing is ingested.
        RetryableError: `concurrent-ingest`; run again.
    """
    began = time.perf_counter()
    spec = contract.spec(source.contract)
    head, aside = _settle(tables, spec)
    key = position(source, file, recipe)
    if (done := tables.position(spec.name, key)) is not None:
        return Result(_account(tables, spec.name, done), fresh=False, measured={})
    with reader.open(source, file) as reading:
        prepared, ragged = _prepared(source, reading, file), quarantine.ragged(reading.ragged.collect())
    read = time.perf_counter()
    sifted = quarantine.sift(prepared, source.contract, file.name)
    news = _news(tables, spec, head, sifted.good)
    bad = pl.concat([sifted.bad, ragged])
    said = Ingested(
        source=source.name,
        table=spec.name,
        file=file.name,
        digest=file.digest,
        recipe=recipe,
        batch=head.batch + 1,
        read=prepared.height + ragged.height,
        accepted=news.height,
        quarantined=bad.height,
        duplicates=sifted.repeats + sifted.good.height - news.height,
        corrections=news.height - news[_BEFORE].null_count(),
        unsettled=news[spec.outcome_time].null_count() if spec.outcome_time else 0,
        by_rule=quarantine.by_rule(bad),
        ignored=tuple(c for c in prepared.columns if c not in (*spec.names, LINE)),
        known_from=known_from,
    )
    checked = time.perf_counter()
    tables.append(quarantine.table(spec.name), _aside(bad, said), said.batch, {}, expect=aside)
    tables.append(spec.name, _observed(news, spec, known_from), said.batch, {key: said.batch}, expect=head)
    seconds = {"read": read - began, "check": checked - read, "write": time.perf_counter() - checked}
    return Result(said, fresh=True, measured=seconds)


def repair(tables: Tables, table: str, after: int = 0) -> tuple[Ingested, ...]:
    """What the batches of `table` later than `after` say, in order: facts that a crash may have kept from being recorded."""
    return _accounts(tables, table, after, tables.head(table).batch)


def _settle(tables: Tables, spec: Spec) -> tuple[Head, Head]:
    """The heads of the table and its quarantine, once what a crash left behind is gone.

    The quarantine runs ahead of the table after a crash, or while another writer is between its two commits. An empty
    commit to the table first makes sure of which: that writer's second commit is then refused, so dropping is safe.
    """
    aside_name = quarantine.table(spec.name)
    head, aside = tables.head(spec.name), tables.head(aside_name)
    if aside.batch <= head.batch:
        return head, aside
    nothing = _observed(pl.DataFrame(schema=spec.dtypes), spec, None)
    tables.append(spec.name, nothing, head.batch, {}, expect=head)
    tables.delete(aside_name, pl.col(BATCH) > head.batch, quarantine.SCHEMA, head.batch, expect=aside)
    return _settle(tables, spec)  # anew: another writer may have come and crashed by now


def _prepared(source: Source, reading: Reading, file: File) -> pl.DataFrame:
    """The rows that the preparation yields."""
    try:
        return source.prepare(reading.rows).lazy().collect()
    except Exception as problem:  # the preparation is the user's code: whatever it raises, it is told where
        _readable(source, reading, file)
        raise DataError(
            "preparation-failed",
            f"{file.name}: the preparation of {source.name} raised {type(problem).__name__}: {problem}",
            where=_user_line(problem, source),
            why="Nothing of this file was ingested.",
            next="Mend the preparation, then run `flyball apply` again.",
        ) from problem


def _readable(source: Source, reading: Reading, file: File) -> None:
    """A lazy reader fails only when the preparation pulls: read the file alone, to tell who is at fault."""
    try:
        reading.rows.collect()
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise DataError(
            "file-unreadable",
            f"{file.name} cannot be read: {problem}",
            where=source.place,
            why="Nothing of this file was ingested.",
            next="Replace the file, then run `flyball apply` again.",
        ) from problem


def _user_line(problem: Exception, source: Source) -> Place:
    """The deepest line of the traceback that is neither ours nor a library's; else where the preparation is defined."""
    ours = Path(__file__).resolve().parent.parent
    libraries = [ours, *(Path(p) for n, p in sysconfig.get_paths().items() if n in ("stdlib", "purelib", "platlib"))]
    for frame, line in reversed(list(traceback.walk_tb(problem.__traceback__))):
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not any(file.is_relative_to(library) for library in libraries):
            return Place(str(file), line)
    code = getattr(inspect.unwrap(source.prepare), "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code is not None else source.place


def _news(tables: Tables, spec: Spec, head: Head, good: pl.DataFrame) -> pl.DataFrame:
    """The rows that say something new, each with when the table knew its key before, if it did."""
    first = good.with_columns(pl.lit(None, dtype=MOMENT).alias(_BEFORE))
    if head.batch == 0 or good.is_empty():
        return first
    stored = tables.scan(spec.name, head.batch, dataset.schema(spec))
    touched = stored.join(good.lazy().select(spec.key), on=spec.key, how="semi")
    current = dataset.last(touched, spec).collect()
    if current.is_empty():
        return first
    others = [c for c in spec.names if c not in spec.key]
    renamed = current.select(*spec.key, pl.col(KNOWN).alias(_BEFORE), *(pl.col(c).alias(_BEFORE + c) for c in others))
    both = good.join(renamed, on=spec.key, how="left", maintain_order="left")
    same = pl.all_horizontal(
        pl.col(_BEFORE).is_not_null(), *(pl.col(c).eq_missing(pl.col(_BEFORE + c)) for c in others)
    )
    return both.filter(~same).select(*spec.names, _BEFORE)


def _observed(news: pl.DataFrame, spec: Spec, known_from: datetime | None) -> pl.DataFrame:
    """Rows with the times at which they were known.

    A correction is never known before what it corrects: a history row whose event time moved back would otherwise stay
    hidden behind the wrong one for good.
    """
    least = pl.lit(known_from, dtype=MOMENT)
    declared = pl.col(spec.event_time) - spec.known_before
    before = [_BEFORE] if _BEFORE in news.columns else []
    times = {KNOWN: pl.max_horizontal(declared, least, *before)}
    if spec.outcome_time is not None:
        settled = pl.col(spec.outcome_time)
        times[OUTCOME_KNOWN] = pl.when(settled.is_not_null()).then(pl.max_horizontal(settled, least))
    return news.select(**times, **{c: pl.col(c) for c in spec.names})


def _aside(bad: pl.DataFrame, said: Ingested) -> pl.DataFrame:
    """The batch's rows of the quarantine table: its account, and its bad rows."""
    account = pl.DataFrame({LINE: [None], "rules": [None], "row": [facts.encode(said).decode()]}, schema=bad.schema)
    named = pl.concat([account, bad]).with_columns(_source=pl.lit(said.source), _file=pl.lit(said.file))
    return named.select("_source", "_file", LINE, "rules", "row")


def _account(tables: Tables, table: str, batch: int) -> Ingested:
    found = _accounts(tables, table, batch - 1, batch)
    if not found:
        raise StateError(
            "batch-without-account",
            f"The table {table} has batch {batch}, but its quarantine has no account of it.",
            why="The quarantine is written before the table, so it was removed or is older than the table.",
            next="Restore both from the same backup.",
        )
    return found[0]


def _accounts(tables: Tables, table: str, after: int, upto: int) -> tuple[Ingested, ...]:
    rows = tables.scan(quarantine.table(table), upto, quarantine.SCHEMA)
    accounts = rows.filter(pl.col("rules").is_null() & (pl.col(BATCH) > after)).sort(BATCH).collect()
    return tuple(msgspec.json.decode(row, type=Ingested) for row in accounts["row"])
