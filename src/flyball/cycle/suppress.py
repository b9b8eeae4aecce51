"""Suppression: what was erased is not ingested again, though a file may still hold it.

A file whose recipe changed is read again, and a new one may repeat an old one. Of an erasure by `column = literal` the keyed
hash is known, so each value of that column is hashed and compared: once a distinct value and chunk, and only in tables that
something was erased from. Rows that are dropped so are not read at all, as far as any count is concerned. An erasure by
another operator is not remembered so: it has no value to compare with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial, wraps

import polars as pl

from flyball._kernel import ids
from flyball.cycle import contracts, erasures
from flyball.cycle.session import Session
from flyball.data import coerce, contract
from flyball.data.contract import Spec
from flyball.data.source import TEXT, Reader, Retold, Source
from flyball.data.where import Where

_BETWEEN = tuple(re.compile(said) for said in (r"[,;|\t\r\n]", r"[,;|\t\r\n:{}\[\]]", r'"', r"[^\w.@+-]+"))
"""What may stand between two cells of a line that is no row: of a CSV file, of JSON, between quotes; or between two words."""

Named = Mapping[str, Callable[[object], bool]]
"""Column -> whether a value of it is an erased subject's."""


def suppressed(session: Session, source: Source) -> tuple[Source, Reader]:
    """A source and its reader, of which no row and no ragged line names a subject that was erased from its table."""
    spec = contract.spec(source.contract)
    own = {spec.name, *(said.table for said in contracts.generations(session, source.contract))}
    gone: dict[str, set[str]] = {}
    for row in erasures.rows(session):
        if row.op == "=" and row.times:
            gone.setdefault(row.column, set()).update(digest for name, digest in row.tables.items() if name in own)
    if not any(gone.values()):
        return source, session.reader
    secret = session.signer.secret(erasures.SUBJECTS)
    named = {column: partial(_named, secret, column, hashes) for column, hashes in gone.items()}
    prepare = source.prepare

    @wraps(prepare)
    def without(rows: pl.LazyFrame) -> pl.LazyFrame:
        return _without(prepare(rows).lazy(), spec, named)

    return replace(source, prepare=without), Retold(session.reader, partial(_unnamed, named))


def _named(secret: bytes, column: str, hashes: Collection[str], value: object) -> bool:
    said = str(Where(column, "=", value))  # type: ignore[arg-type]  # a cell of the column's type
    return ids.keyed_hash(secret, said) in hashes


def _without(rows: pl.LazyFrame, spec: Spec, named: Named) -> pl.LazyFrame:
    have = rows.collect_schema()
    for column, names in named.items():
        if column in have and column in spec.names:
            typed = coerce.cell(column, have[column], spec.column(column).dtype)
            found = typed.map_batches(partial(_found, names), return_dtype=pl.Boolean, is_elementwise=True)
            rows = rows.filter(~found)
    return rows


def _found(names: Callable[[object], bool], values: pl.Series) -> pl.Series:
    bad = [value for value in values.unique().to_list() if value is not None and names(value)]
    chosen = (
        values.is_in(pl.Series(bad, dtype=values.dtype).implode()) if bad else pl.repeat(False, len(values), eager=True)
    )
    return chosen.fill_null(value=False)


def _unnamed(named: Named, ragged: pl.LazyFrame) -> pl.LazyFrame:
    """The lines that name nobody who was erased, as far as a cell of theirs can be told."""
    says = pl.col(TEXT).map_elements(partial(_says, named), return_dtype=pl.Boolean)
    return ragged.filter((~says).fill_null(value=True))


def _says(named: Named, line: str) -> bool:
    found = (part.strip(" '\"") for between in _BETWEEN for part in between.split(line))
    parts = {each for part in found if part for each in (part, part.replace('""', '"'))}
    return any(names(part) for part in parts for names in named.values())
