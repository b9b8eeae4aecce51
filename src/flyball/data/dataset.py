"""Datasets: the rows of a table as of a version, and as of a time.

A **version** is (table, batch <= n): later batches, compaction and vacuum never change what it reads. A read **as of t**
sees what was known strictly before t: of every key the last row, and its outcomes only if they, too, were known by then.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import polars as pl

from flyball._kernel.errors import StateError
from flyball.data import contract
from flyball.data.contract import Contract, Spec
from flyball.data.tables import BATCH, KNOWN, MOMENT, OUTCOME_KNOWN, Tables


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


def read(tables: Tables, observed: type[Contract], version: Version) -> pl.LazyFrame:
    """All observations of a version, corrected rows included; columns as `schema` tells.

    Raises:
        StateError: `no-such-version`, when the table has not come that far.
    """
    if version.batch > (batch := tables.head(version.table).batch):
        raise StateError(
            "no-such-version",
            f"The table {version.table} ends at batch {batch}; batch {version.batch} was asked for.",
            where=contract.spec(observed).place,
            why="A version is only ever recorded after its batches were committed: the tables are older than the facts.",
            next="Restore the tables and the facts from the same backup.",
        )
    return tables.scan(version.table, version.batch, schema(contract.spec(observed)))


def last(observations: pl.LazyFrame, spec: Spec) -> pl.LazyFrame:
    """Of every key the last row by (`_known`, `_batch`)."""
    return observations.sort(KNOWN, BATCH).unique(subset=spec.key, keep="last")


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
