"""Sealing: a personal column that is declared so lies nowhere as it was said, but as a hash or a token of it.

A **hash** is keyed (HMAC-SHA-256 under a secret that is derived from the signing key, which is no part of the store): whoever
has the key can still compute it from a guessed value. A **token** is random, and only the **vault** ties it to a value, by a
keyed hash: once the vault has forgotten that, nobody can, whatever they guess and whatever key they have. Nothing here gives
a value back. Equal values are sealed equally in every table, so keys, joins and series by person hold.

The contract judges what was said; what is written or compared with written rows is the sealed cell, which goes beside the
plain one, as a column of its own (`beside`), from the preparation until the rows are staged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Protocol

import polars as pl

from flyball._kernel import ids
from flyball.data import coerce, contract
from flyball.data.contract import Spec, Stored
from flyball.data.source import TEXT, Reader, Retold, Source

PURPOSE = "sealed cells"
"""The purpose under which cells are hashed: not that of the journal, so that the two cannot be compared."""

DIGITS = 32
"""Of a sealed cell, hexadecimal: 128 bits, so two of a billion values collide with a chance of 1 in 10^21."""

_BESIDE = "\0sealed\0"  # no column of a file or a contract starts like this


class Vault(Protocol):
    """What ties tokens to values, each by a keyed hash of it; no value is in it."""

    def tokens(self, digests: Collection[str]) -> Mapping[str, str]:
        """The token of each: a random one where there was none, on disk before this returns.

        Raises:
            RetryableError: `store-busy`, `disk-full`.
            AdapterError: `store-unusable`.
        """

    def find(self, digest: str) -> str | None:
        """Its token, if it has one. Raises as `tokens`."""

    def forget(self, digests: Collection[str]) -> int:
        """Drop these for good; returns how many there were. No byte of them is left, and should one come again, its token is
        another one. Raises as `tokens`.
        """


@dataclass(frozen=True, slots=True)
class Seal:
    """How the cells of a home are sealed.

    Attributes:
        secret: derived for `PURPOSE`.
        vault: where tokens are known; None where nothing is sealed: in a rehearsal, whose places are memory and whose
            questions are made of rows.
    """

    secret: bytes
    vault: Vault | None

    def cells(self, stored: Stored, values: Sequence[str]) -> list[str]:
        """Each value as it is stored; a value that has no token yet gets one."""
        if self.vault is None:
            return list(values)
        digests = [self.digest(stored, value) for value in values]
        if stored == "hash" or not digests:
            return digests
        tokens = self.vault.tokens(digests)
        return [tokens[digest] for digest in digests]

    def find(self, stored: Stored, value: str) -> str | None:
        """A value as it is stored, if it can be: None for one that no token was ever made of."""
        if self.vault is None:
            return value
        digest = self.digest(stored, value)
        return digest if stored == "hash" else self.vault.find(digest)

    def digest(self, stored: Stored, value: str) -> str:
        """The keyed hash of a value: its cell, or that by which the vault knows it."""
        return ids.keyed_hash(self.secret, f"{stored}|{value}")[:DIGITS]

    def row(self, spec: Spec, row: dict[str, Any]) -> dict[str, Any]:
        """A request as a row of the table would be stored; the very row where nothing of it is sealed."""
        said = {name: stored for name, stored in spec.sealed.items() if row.get(name) is not None}
        if not said:
            return row
        return {**row, **{name: self.cells(stored, [row[name]])[0] for name, stored in said.items()}}

    def columns(self, rows: pl.LazyFrame, spec: Spec) -> pl.LazyFrame:
        """Rows of the contract's types with their cells sealed."""
        return rows.with_columns(self._cell(pl.col(name), stored).alias(name) for name, stored in spec.sealed.items())

    def beside(self, rows: pl.LazyFrame, spec: Spec, but: Collection[str] = ()) -> pl.LazyFrame:
        """Prepared rows, of any types, with the sealed cells beside the plain ones; `but` are sealed already."""
        have = rows.collect_schema()
        return rows.with_columns(
            self._cell(coerce.cell(name, have[name], pl.String()), stored).alias(_BESIDE + name)
            for name, stored in spec.sealed.items()
            if name in have and name not in but
        )

    def _cell(self, cell: pl.Expr, stored: Stored) -> pl.Expr:
        return cell.map_batches(partial(self._sealed, stored), return_dtype=pl.String, is_elementwise=True)

    def _sealed(self, stored: Stored, values: pl.Series) -> pl.Series:
        """Once a distinct value and chunk."""
        different = values.drop_nulls().unique()
        if different.is_empty():
            return pl.Series(values.name, [None] * len(values), dtype=pl.String)
        cells = pl.Series(self.cells(stored, different.to_list()), dtype=pl.String)
        return values.replace_strict(different, cells, default=None, return_dtype=pl.String)


def is_beside(name: str) -> bool:
    """Whether a column of a frame holds sealed cells of another."""
    return name.startswith(_BESIDE)


def stored(name: str, have: Mapping[str, pl.DataType]) -> pl.Expr | None:
    """The cells of a column as they are stored, where they lie sealed beside it; None where they do not."""
    return pl.col(_BESIDE + name).alias(name) if _BESIDE + name in have else None


def sealing(seal: Seal, source: Source, reader: Reader) -> tuple[Source, Reader]:
    """A source whose prepared rows have their sealed cells beside them, and its reader, which tells nothing of a ragged line
    but its length and its keyed hash: which of its cells are personal cannot be told.
    """
    spec = contract.spec(source.contract)
    if not spec.sealed:
        return source, reader
    prepare = source.prepare

    @wraps(prepare)
    def sealed(rows: pl.LazyFrame) -> pl.LazyFrame:
        return seal.beside(prepare(rows).lazy(), spec)

    return replace(source, prepare=sealed), Retold(reader, partial(_untold, seal))


def _untold(seal: Seal, ragged: pl.LazyFrame) -> pl.LazyFrame:
    """The lines, each as no more than its length and its keyed hash."""

    def told(lines: pl.Series) -> pl.Series:
        said = [None if line is None else f"{len(line)} characters, {seal.digest('hash', line)}" for line in lines]
        return pl.Series(lines.name, said, dtype=pl.String)

    return ragged.with_columns(pl.col(TEXT).map_batches(told, return_dtype=pl.String, is_elementwise=True))
