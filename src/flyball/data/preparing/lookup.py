"""A lookup: a small table in one file, which a preparation merges in, and whose content is part of what it means.

A preparation is a function of its one source; were it to open a second file by itself, nobody would notice when that file
changes. A lookup's **fingerprint is its content**: a changed `planes.csv` is a changed recipe, `flyball plan` says so, and the
files that were prepared with it are read again. What a preparation merges is what the fingerprint was last taken of.

For tables that are large, or that change while time goes on, declare a source of their own and look into it with
`fb.latest`, which knows what was known when.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DataError
from flyball._kernel.place import Place
from flyball.data.source import NULLS

LARGEST = 64 << 20
"""Bytes of a lookup: it is held in memory whole, and read anew whenever the recipe is asked for."""


class Lookup:
    """One file of text cells; made by `lookup`.

    Attributes:
        path: as it was declared, relative to the file that declares it.
        nulls: the cells that mean null.
        place: the line of the declaration.
    """

    def __init__(self, path: str, nulls: tuple[str, ...], where: Place) -> None:
        self.path, self.nulls, self.place = path, nulls, where
        self._content: bytes | None = None

    def __fingerprint__(self) -> tuple[str, tuple[str, ...]]:
        self._content = self._read()
        return hashlib.sha256(self._content).hexdigest(), self.nulls

    def rows(self) -> pl.DataFrame:
        """The rows: text cells from CSV, typed ones from Parquet.

        Raises:
            DataError: `lookup-unreadable`.
        """
        if self._content is None:
            self._content = self._read()
        content = io.BytesIO(self._content)
        try:
            if self.path.lower().endswith(".parquet"):
                return pl.read_parquet(content)
            return pl.read_csv(content, infer_schema=False, null_values=list(self.nulls))
        except pl.exceptions.PolarsError as problem:
            raise self._unreadable(str(problem)) from problem

    def _read(self) -> bytes:
        path = Path(self.place.file).resolve().parent / self.path
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as problem:
            raise self._unreadable(problem.strerror or type(problem).__name__) from problem
        if len(content) > LARGEST:
            raise self._unreadable(f"it is larger than {LARGEST >> 20} MiB")
        return content

    def _unreadable(self, what: str) -> DataError:
        return DataError(
            "lookup-unreadable",
            f"The lookup {self.path!r} cannot be read: {what}",
            where=self.place,
            why="A lookup is one small, clean file: CSV of UTF-8 with a header, or Parquet.",
            next="Put it beside the file that declares it. A large or dirty table is a source of its own; see fb.latest.",
        )


def lookup(path: str, *, nulls: tuple[str, ...] = NULLS) -> Lookup:
    """A small table to merge, from a CSV or Parquet file; nothing is read yet.

    Args:
        path: relative to the folder of the file that this is written in.
        nulls: the cells of a CSV file that mean null.
    """
    return Lookup(path, nulls, place.here())
