"""The formats of files, told by their names, and how each becomes rows.

`.csv`, `.tsv`, `.jsonl` and `.ndjson`, each also with `.gz`, `.zst` or `.zip` (of one member); `.parquet`; `.arrow`, `.ipc` and
`.feather`. Compressed text is unpacked into a temporary folder first: the bytes must be looked at before Polars is trusted
with them, and disk is cheaper than memory.
"""

from __future__ import annotations

import gzip
import shutil
import zipfile
import zlib
from pathlib import Path

import polars as pl

from flyball._kernel.errors import DataError, DeclarationError
from flyball.adapters.embedded import lines, records
from flyball.data import spool
from flyball.data.source import LINE, RAGGED, File, Files, Reading, Source

_PACKED = (".gz", ".zst", ".zip")
_CSV, _JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_PARQUET, _ARROW = (".parquet",), (".arrow", ".ipc", ".feather")
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, pl.exceptions.PolarsError)


def at(source: Source) -> Files:
    """Where the files of a source lie."""
    assert isinstance(source.at, Files)  # noqa: S101 - `Readers` hands each kind to its reader
    return source.at


def kind(source: Source, name: str) -> str:
    """The suffix that tells the format.

    Raises:
        DeclarationError: `source-of-unknown-format`.
    """
    suffixes = [s.lower() for s in Path(name).suffixes]
    packed = bool(suffixes) and suffixes[-1] in _PACKED
    found = suffixes[-2 if packed else -1] if len(suffixes) > packed else ""
    if found in (_CSV + _JSON_LINES if packed else _CSV + _JSON_LINES + _PARQUET + _ARROW):
        return found
    raise DeclarationError(
        "source-of-unknown-format",
        f"The format of {name} is not known.",
        where=source.place,
        why="It is told by the name: .csv, .tsv, .jsonl and .ndjson (also with .gz, .zst or .zip), .parquet, .arrow, .ipc, "
        ".feather.",
        next="Rename the file, or narrow the pattern to files of a known format.",
    )


def read(source: Source, file: File, path: Path, folder: Path) -> Reading:
    """The content of `file`, which lies at `path`, as rows; `folder` is empty, for what does not fit into memory.

    Raises:
        DataError: `file-unreadable`; RetryableError: `disk-full`.
    """
    try:
        return _read(source, path, folder)
    except _UNREADABLE as problem:
        spool.refuse_full(problem)
        raise DataError(
            "file-unreadable",
            f"{file.name} cannot be read: {problem}",
            where=source.place,
            why="Nothing of this file was ingested.",
            next="Replace the file, then run `flyball apply` again.",
        ) from problem


def _read(source: Source, path: Path, folder: Path) -> Reading:
    found = kind(source, path.name)
    if found in _PARQUET + _ARROW:
        rows = pl.scan_parquet(path, glob=False) if found in _PARQUET else pl.scan_ipc(path, glob=False)
        rows = rows.drop(LINE, strict=False).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})
        rows.collect_schema()  # opens the file: a wrong one is found here, not inside the preparation
        return Reading(rows, pl.LazyFrame(schema=RAGGED))
    plain = _unpacked(path, folder / "unpacked") if path.suffix.lower() in _PACKED else path
    plain = lines.in_utf8(plain, at(source).encoding, folder / "utf-8")
    if found in _CSV:
        separator = at(source).separator or ("\t" if found == ".tsv" else ",")
        return records.read_csv(plain, at(source).nulls, separator, folder)
    return records.read_json_lines(plain, folder)


def _unpacked(path: Path, to: Path) -> Path:
    match path.suffix.lower():
        case ".gz":
            with gzip.open(path, "rb") as packed, to.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if not m.is_dir()]
                if len(members) != 1:
                    raise ValueError(f"the archive has {len(members)} members, and one is needed")
                with archive.open(members[0]) as packed, to.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
        case _:
            # Python has no zstd before 3.14; Polars has, for whole lines of UTF-8.
            pl.scan_lines(path, glob=False).sink_csv(to, include_header=False, quote_style="never")
    return to
