"""Files that are frames in memory: for tests, rehearsals and simulation. A file's digest is that of its rows."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import polars as pl

from flyball._kernel.errors import DataError
from flyball.data.source import LINE, TEXT, File, Reading, Source


class MemoryReader:
    """`Reader` of frames by name.

    Args:
        frames: file name -> the rows of the file. Mutable: put a frame, and the file is there.
        ragged: file name -> lines that are no rows.
    """

    def __init__(
        self, frames: Mapping[str, pl.DataFrame], ragged: Mapping[str, list[tuple[int, str]]] | None = None
    ) -> None:
        self._frames = frames
        self._ragged = ragged or {}

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that match now, by name; see `source.Reader`."""
        names = sorted(name for name in self._frames if fnmatch.fnmatchcase(name, str(source.at)))
        if not names:
            raise DataError(
                "source-without-files",
                f"No file matches {str(source.at)!r}.",
                where=source.place,
                why=f"There are: {', '.join(self._frames) or 'none'}.",
                next="Put a frame under that name.",
            )
        return tuple(self._file(name) for name in names)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        rows = self._frames[file.name].lazy().drop(LINE, strict=False).with_row_index(LINE, offset=1)
        lines = pl.LazyFrame(self._ragged.get(file.name, []), schema={LINE: pl.Int64, TEXT: pl.String}, orient="row")
        yield Reading(rows.cast({LINE: pl.Int64}), lines)
        if self._file(file.name) != file:
            raise DataError("file-changed", f"{file.name} changed while it was read.", where=source.place)

    def _file(self, name: str) -> File:
        content = self._frames[name].serialize() + repr(self._ragged.get(name)).encode()
        return File(name, hashlib.sha256(content).hexdigest(), len(content))
