"""What became of the rows in quarantine: which of them are still open, and what the others wait for no longer.

Nothing is stored for it. It follows from the accounts of the batches, from the rollbacks, and from what the table holds:

    open        nobody has done anything about it
    learned     the table has since learned its key, from a later file or from a replay
    again       a later batch judged it again: its file was read under another recipe, its rows were replayed, or a later
                content of the file says the very same
    withdrawn   its batch was rolled back

A **replay** is a batch whose file is the quarantine of an earlier one; its digest says of which. So it is ingested exactly
once, as every file is, and a later replay or reading takes over from it in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import polars as pl

from flyball.data import coerce, contract, dataset, quarantine, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.ingest import Account, Ingested
from flyball.data.tables import BATCH, Tables
from flyball.data.withdrawal import Spans

Standing = Literal["open", "learned", "again", "withdrawn"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)
STANDING = "_standing"
"""String: one of `STANDINGS`."""

_REPLAY = "replay/"
_KEY = "\0key\0"  # no column of a quarantine table starts like this
_LATER = "\0later"


def digest(batch: int) -> str:
    """What stands for the content of a file where the quarantined rows of a batch are the file."""
    return f"{_REPLAY}{batch}"


def origin(said: Ingested) -> int | None:
    """The batch whose quarantined rows were replayed; None for a file."""
    return int(said.digest.removeprefix(_REPLAY)) if said.digest.startswith(_REPLAY) else None


def files(accounts: Iterable[Account]) -> dict[int, Ingested]:
    """Batch -> the file that its rows came from; for a replay that of the first reading, however many came between."""
    found: dict[int, Ingested] = {}
    for said in accounts:
        if isinstance(said, Ingested):
            replayed = origin(said)
            found[said.batch] = said if replayed is None else found[replayed]
    return found


def batches(accounts: Iterable[Account], spans: Spans) -> dict[int, Standing]:
    """How the quarantined rows of each batch stand, as far as the batches alone tell.

    Args:
        accounts: of all batches, in order.
        spans: the batches that the table holds.
    """
    said = [each for each in accounts if isinstance(each, Ingested)]
    came = files(said)
    found: dict[int, Standing] = {each.batch: "withdrawn" for each in said}
    readings: dict[tuple[str, str], list[int]] = {}
    for each in said:
        if not withdrawal.holds(spans, each.batch):
            continue
        replayed = origin(each)
        same = readings.setdefault((each.source, came[each.batch].digest), [])
        for earlier in same if replayed is None else [replayed]:
            found[earlier] = "withdrawn" if found[earlier] == "withdrawn" else "again"
        found[each.batch] = "open"
        same.append(each.batch)
    return found


def rows(tables: Tables, observed: type[Contract], batch: int, standings: Mapping[int, Standing]) -> pl.LazyFrame:
    """The quarantined rows of batches up to `batch`, and `_standing`.

    Args:
        standings: as `batches` tells, of the accounts up to `batch`.
    """
    spec = contract.spec(observed)
    said = pl.LazyFrame(list(standings.items()), schema={BATCH: pl.Int64, STANDING: pl.String}, orient="row")
    kept = quarantine.read(tables, spec.name, batch).join(said, on=BATCH, how="inner")
    kept = kept.with_columns(_texts(spec))
    kept = kept.with_columns(coerce.cell(_KEY + n, pl.String(), spec.column(n).dtype).alias(_KEY + n) for n in spec.key)
    kept = kept.join(_learned(tables, spec, batch, kept), on=[_KEY + name for name in spec.key], how="left")
    learned = (pl.col(STANDING) != "withdrawn") & (pl.col(_LATER) > pl.col(BATCH))
    kept = kept.with_columns(pl.when(learned).then(pl.lit("learned")).otherwise(STANDING).alias(STANDING))
    last = pl.col(BATCH).max().over("_source", "_file", "row", STANDING)
    repeated = (pl.col(STANDING) == "open") & (pl.col(BATCH) < last)
    kept = kept.with_columns(pl.when(repeated).then(pl.lit("again")).otherwise(STANDING).alias(STANDING))
    return kept.select(*quarantine.SCHEMA, STANDING)


def _texts(spec: Spec) -> list[pl.Expr]:
    """The cells of the key of a quarantined row, as text; a line that is no row has none."""
    path = {name: name.replace("\\", "\\\\").replace("'", "\\'") for name in spec.key}
    cells = {name: pl.col("row").str.json_path_match(f"$['{path[name]}']") for name in spec.key}
    return [pl.when(~quarantine.is_line()).then(cell).alias(_KEY + name) for name, cell in cells.items()]


def _learned(tables: Tables, spec: Spec, batch: int, kept: pl.LazyFrame) -> pl.LazyFrame:
    """The keys of quarantined rows that the table holds, and the last batch that brought each."""
    keys = [_KEY + name for name in spec.key]
    held = dataset.scan(tables, spec, batch).select(BATCH, *(pl.col(n).alias(_KEY + n) for n in spec.key))
    wanted = kept.select(keys).unique()
    return held.join(wanted, on=keys, how="semi").group_by(keys).agg(pl.col(BATCH).max().alias(_LATER))
