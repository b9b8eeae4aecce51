"""Replay: the quarantined rows of a batch as a file of their own, to be judged by the contract as it is now.

They are kept as the preparation yielded them, so a replay needs neither the file nor the preparation, and is for rows whose
file is gone: what can be mended of them is the contract. The stored cells are texts and JSON values; they are read as texts
again, which the contract parses as it parses the cells of a file. What a typed cell said without loss (a whole number kept
as 12.0) it still says.

Lines that are no rows are carried along as they are: without the header of their file no contract mends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball.data import contract, quarantine, standing
from flyball.data.contract import Spec
from flyball.data.ingest import Account, Ingested
from flyball.data.source import LINE, RULE, TEXT, File, Reading, Source
from flyball.data.standing import STANDING, Standing
from flyball.data.tables import BATCH, Tables

_cells = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_SECONDS = r"^(-?)PT(\d+)(?:\.(\d{1,9}))?S$"


class Replayed(facts.Said, frozen=True, kw_only=True, tag="data.replayed"):
    """The quarantined rows of one batch were judged again: read = accepted + still + duplicates.

    Attributes:
        table, source: whose.
        of: the batch that they lay in quarantine of.
        batch: the batch that they became; the fact `data.ingested` of it says more.
        read: rows and ragged lines.
        accepted: rows that are now in the table.
        still: those that are in quarantine again.
        duplicates: those that say what the table, or another of them, already says.
    """

    table: str
    source: str
    of: int
    batch: int
    read: int
    accepted: int
    still: int
    duplicates: int


def told(said: Account) -> tuple[facts.Said, ...]:
    """All that is to be recorded of a batch: what it says, and of a replay that it was one."""
    of = standing.origin(said) if isinstance(said, Ingested) else None
    if of is None or not isinstance(said, Ingested):
        return (said,)
    counts = {"read": said.read, "accepted": said.accepted, "still": said.quarantined, "duplicates": said.duplicates}
    return (said, Replayed(table=said.table, source=said.source, of=of, batch=said.batch, **counts))


@dataclass(frozen=True, slots=True)
class Kept:
    """A `Reader` of the open quarantined rows of one batch.

    Attributes:
        tables: where they lie.
        batch: whose rows; the file is named as the one that they came from.
        upto: the version of the table as of which they are open.
        standings: as `standing.batches` tells as of then.
        name: the name of that file.
    """

    tables: Tables
    batch: int
    upto: int
    standings: Mapping[int, Standing]
    name: str

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The one file."""
        return (File(self.name, standing.digest(self.batch), 0),)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """Its rows, prepared as they are."""
        rows = standing.rows(self.tables, source.contract, self.upto, self.standings)
        # The rows of one batch alone: as many as one file had bad ones.
        found = rows.filter((pl.col(BATCH) == self.batch) & (pl.col(STANDING) == "open")).sort(LINE).collect()
        lines = found.filter(quarantine.is_line())
        text = pl.Series(TEXT, [_member(row, TEXT) for row in lines["row"]], dtype=pl.String)
        yield Reading(
            rows=cells(found.filter(~quarantine.is_line()), contract.spec(source.contract)).lazy(),
            ragged=lines.select(LINE, text, pl.col("rules").list.first().alias(RULE)).lazy(),
        )


def as_they_are(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The preparation of what is prepared already."""
    return rows


def cells(kept: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """Quarantined rows (`_line`, `rules`, `row`) as prepared ones: `_line`, and every column that any of them has.

    A column of the contract that none of them has is null: it was added since.
    """
    said = [_cells.decode(row) for row in kept["row"]]
    names = dict.fromkeys([*(name for row in said for name in row), *spec.names])
    texts = {name: pl.Series(name, [_said(row.get(name)) for row in said], dtype=pl.String) for name in names}
    made = [kept[LINE]]
    for name, column in texts.items():
        if name in spec.names:
            fitted = ~kept["rules"].list.contains(f"{name}|dtype")
            column = _read(column, spec.column(name).dtype, fitted)
        made.append(column)
    return pl.DataFrame(made)


def _said(cell: msgspec.Raw | None) -> str | None:
    """A stored cell as text."""
    if cell is None or (value := bytes(cell)) == b"null":
        return None
    return _text.decode(value) if value[:1] == b'"' else value.decode()


def _member(row: str, name: str) -> str | None:
    return _said(_cells.decode(row).get(name))


def _read(texts: pl.Series, want: pl.DataType, fitted: pl.Series) -> pl.Series:
    """Texts that the contract can read, where it could read the cells that they were; `fitted`: where it once could."""
    if want.is_integer() or want == pl.Boolean:
        whole = texts.str.replace(r"^(-?\d+)\.0+$", "${1}")  # a float that was a whole number
        return whole.zip_with(fitted, texts)
    if want == pl.Binary:
        return texts.str.decode("base64", strict=False)
    if isinstance(want, pl.Duration):
        return _durations(texts, want)
    if want.is_nested():
        return _nested(texts, want)
    return texts


def _durations(texts: pl.Series, want: pl.Duration) -> pl.Series:
    parts = texts.str.extract_groups(_SECONDS).struct.unnest()
    sign, whole, fraction = (parts.to_series(n) for n in range(3))
    micros = whole.cast(pl.Int64, strict=False) * 1_000_000 + (
        fraction.fill_null("").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64, strict=False)
    )
    signed = micros.zip_with(sign != "-", -micros)
    return signed.cast(pl.Duration("us")).cast(want).rename(texts.name)


def _nested(texts: pl.Series, want: pl.DataType) -> pl.Series:
    try:
        return texts.str.json_decode(want)
    except pl.exceptions.PolarsError:
        return texts  # of another shape: the contract will say so, of all of them
