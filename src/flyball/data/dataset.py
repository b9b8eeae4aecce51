"""Datasets: the rows of a table as of a version, and as of a time.

A **version** is (table, batch <= n): later batches, compaction and vacuum never change what it reads. It leaves out what a
rollback up to n withdrew, and nothing that a later one did (see `withdrawal`). A read **as of t** sees what was known
strictly before t: of every key the last row, and its outcomes only if they, too, were known by then.

The two are told apart: a read of version n as of t is about the rows that n holds, each known when it was known. So a
correction that was rolled back was, for every version since, never said at any time, and what it corrected is said for all
the time since that was known. What was believed in between is what the versions of that time say.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import polars as pl

from flyball._kernel.errors import StateError
from flyball.data import contract, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.tables import BATCH, KNOWN, MOMENT, OUTCOME_KNOWN, Tables

_TIMES = "\0times"  # no column of a contract starts like this


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of `table` in batches 1 to `batch`."""

    table: str
    batch: int


def schema(spec: Spec) -> dict[str, pl.DataType]:
    """The columns of an observation: those of the contract, `_batch`, `_known`, and with outcomes `_outcome_known`."""
    system: dict[str, pl.DataType] = {BATCH: pl.Int64(), KNOWN: MOMENT}
    return spec.dtypes | system | ({OUTCOME_KNOWN: MOMENT} if spec.outcomes else {})


def latest(tables: Tables, observed: type[Contract]) -> Version:
    """The version that holds all that is committed now."""
    table = contract.spec(observed).name
    return Version(table=table, batch=tables.head(table).batch)


def scan(tables: Tables, spec: Spec, batch: int) -> pl.LazyFrame:
    """The observations of batches up to `batch`, corrected rows included and withdrawn ones not; columns as `schema` tells."""
    spans = withdrawal.held(tables, spec.name, batch)
    rows = tables.scan(spec.name, batch, schema(spec))
    return rows if spans == ((1, batch),) else withdrawal.rows(rows, spans)


def read(tables: Tables, observed: type[Contract], version: Version) -> pl.LazyFrame:
    """All observations of a version, as `scan`.

    Raises:
        StateError: `no-such-version`, when the table has not come that far.
    """
    exists(tables, observed, version)
    return scan(tables, contract.spec(observed), version.batch)


def exists(tables: Tables, observed: type[Contract], version: Version) -> None:
    """Refuse a version that the table has not come to.

    Raises:
        StateError: `no-such-version`.
    """
    batch = tables.head(version.table).batch
    if not 0 <= version.batch <= batch:
        raise StateError(
            "no-such-version",
            f"The table {version.table} ends at batch {batch}; batch {version.batch} was asked for.",
            where=contract.spec(observed).place,
            why="A version is only ever recorded after its batches were committed: a typing error, or tables that are older "
            "than the facts.",
            next="`flyball data versions APP` lists them. If a model names this one, restore tables and facts from the same "
            "backup.",
        )


def last(observations: pl.LazyFrame, spec: Spec) -> pl.LazyFrame:
    """Of every key the last row by (`_known`, `_batch`).

    Only rows of keys that come more than once are sorted, and of them no more than key and times: most keys come once.
    """
    keys = observations.select(*spec.key, KNOWN, BATCH)
    several = keys.group_by(spec.key).len(_TIMES).filter(pl.col(_TIMES) > 1)
    among = keys.join(several, on=spec.key, how="semi").sort(KNOWN, BATCH)
    corrected = among.filter(~pl.struct(spec.key).is_last_distinct())
    return observations.join(corrected, on=[*spec.key, BATCH], how="anti")


def as_of(observations: pl.LazyFrame, spec: Spec, moment: datetime) -> pl.LazyFrame:
    """What was known strictly before `moment`: one row per key; outcomes are null unless they were known by then."""
    known = last(observations.filter(pl.col(KNOWN) < moment), spec)
    if not spec.outcomes:
        return known
    settled = pl.col(OUTCOME_KNOWN) < moment
    return known.with_columns(pl.when(settled).then(pl.col(c)).alias(c) for c in (*sorted(spec.late), OUTCOME_KNOWN))


def cutoff(observations: pl.LazyFrame) -> datetime | None:
    """The greatest `_known` or `_outcome_known`: after this nothing in these rows was news; None without rows."""
    times = [c for c in (KNOWN, OUTCOME_KNOWN) if c in observations.collect_schema()]
    greatest: datetime | None = observations.select(pl.max_horizontal(pl.col(times).max())).collect().item()
    return greatest
