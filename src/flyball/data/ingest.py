"""Ingest: one file of one source becomes one batch of one table, exactly once.

The order is quarantine, table, fact, all under one batch number. The table decides: it commits the batch together with
the file's **position** (source, file, content, recipe), and a position that is there is never ingested again. What a
crash left in quarantine beyond the table's last batch was never believed, and is dropped before the next batch. The fact
can be repaired from the tables, for each batch leaves its **account** in quarantine: the very record that the fact says.

Every row that was read is counted once: read = accepted + quarantined + duplicates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import StateError
from flyball.data import contract, dataset, intake, quarantine
from flyball.data.contract import Spec
from flyball.data.intake import Intake
from flyball.data.source import File, Reader, Source
from flyball.data.tables import BATCH, Head, Staged, Tables, joined
from flyball.data.withdrawal import Withdrawn


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


Account = Ingested | Withdrawn
"""What a batch leaves in quarantine, beside its bad rows: what its fact says."""


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
        DataError, DeclarationError: see `source.Reader`, `intake.take`; nothing is ingested.
        RetryableError: `concurrent-ingest`; run again.
    """
    began = time.perf_counter()
    spec = contract.spec(source.contract)
    head, aside = settle(tables, spec)
    key = position(source, file, recipe)
    if (done := tables.position(spec.name, key)) is not None:
        return Result(account(tables, spec.name, done), fresh=False, measured={})
    stored = dataset.scan(tables, spec, head.batch)
    with reader.open(source, file) as reading:
        taken = intake.take(Intake(source, file, tables, stored, head.batch + 1, known_from), reading)
    taking = time.perf_counter()
    said = Ingested(
        source=source.name,
        table=spec.name,
        file=file.name,
        digest=file.digest,
        recipe=recipe,
        batch=head.batch + 1,
        read=taken.accepted + taken.quarantined + taken.repeats,
        accepted=taken.accepted,
        quarantined=taken.quarantined,
        duplicates=taken.repeats,
        corrections=taken.corrections,
        unsettled=taken.unsettled,
        by_rule=dict(taken.by_rule),
        ignored=taken.ignored,
        known_from=known_from,
    )
    aside_account = tables.stage(
        quarantine.table(spec.name), quarantine.account(facts.encode(said), source.name, file.name), said.batch
    )
    tables.append(quarantine.table(spec.name), joined(aside_account, *taken.bad), said.batch, {}, expect=aside)
    tables.append(spec.name, _rows(taken.good, spec), said.batch, {key: said.batch}, expect=head)
    seconds = {"take": taking - began, "commit": time.perf_counter() - taking}
    return Result(said, fresh=True, measured=seconds)


def repair(tables: Tables, table: str, after: int = 0) -> tuple[Account, ...]:
    """What the batches of `table` later than `after` say, in order: facts that a crash may have kept from being recorded."""
    return _accounts(tables, table, after, tables.head(table).batch)


def settle(tables: Tables, spec: Spec) -> tuple[Head, Head]:
    """The heads of the table and its quarantine, once what a crash left behind is gone.

    The quarantine runs ahead of the table after a crash, or while another writer is between its two commits. An empty
    commit to the table first makes sure of which: that writer's second commit is then refused, so dropping is safe.
    """
    aside_name = quarantine.table(spec.name)
    head, aside = tables.head(spec.name), tables.head(aside_name)
    if aside.batch <= head.batch:
        return head, aside
    tables.append(spec.name, nothing(spec), head.batch, {}, expect=head)
    tables.delete(aside_name, pl.col(BATCH) > head.batch, quarantine.SCHEMA, head.batch, expect=aside)
    return settle(tables, spec)  # anew: another writer may have come and crashed by now


def _rows(good: tuple[Staged, ...], spec: Spec) -> pl.DataFrame | Staged:
    """What was staged for the table."""
    return joined(*good) if good else nothing(spec)


def nothing(spec: Spec) -> pl.DataFrame:
    """No rows, for the table: a batch without rows is a batch."""
    return intake.observed(pl.LazyFrame(schema=spec.dtypes), spec, None).collect()


def account(tables: Tables, table: str, batch: int) -> Ingested:
    """What the batch of a file says of itself."""
    found = [said for said in _accounts(tables, table, batch - 1, batch) if isinstance(said, Ingested)]
    if not found:
        raise StateError(
            "batch-without-account",
            f"The table {table} has batch {batch}, but its quarantine has no account of it.",
            why="The quarantine is written before the table, so it was removed or is older than the table.",
            next="Restore both from the same backup.",
        )
    return found[0]


def _accounts(tables: Tables, table: str, after: int, upto: int) -> tuple[Account, ...]:
    rows = tables.scan(quarantine.table(table), upto, quarantine.SCHEMA)
    accounts = rows.filter(pl.col("rules").is_null() & (pl.col(BATCH) > after)).sort(BATCH).collect()
    return tuple(msgspec.json.decode(row, type=Account) for row in accounts["row"])
