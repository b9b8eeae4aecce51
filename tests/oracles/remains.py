"""What a folder still says of somebody: every file read as bytes and, where it is compressed or paged, by its own reader."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import polars as pl


def remains(folder: Path, needles: Iterable[str]) -> dict[str, list[str]]:
    """File -> the needles that it holds."""
    wanted = list(needles)
    found = {str(file.relative_to(folder)): _held(file, wanted) for file in folder.rglob("*") if file.is_file()}
    return {name: held for name, held in sorted(found.items()) if held}


def _held(file: Path, needles: list[str]) -> list[str]:
    data = file.read_bytes()
    said = [data]
    if data[:4] == b"PAR1":
        frame = pl.read_parquet(file)
        said += [frame.write_ndjson().encode(), repr(pl.read_parquet_metadata(file)).encode()]
    elif data[:15] == b"SQLite format 3":
        said += _rows(file)
    return [needle for needle in needles if any(needle.encode() in each for each in said)]


def _rows(file: Path) -> Iterable[bytes]:
    with sqlite3.connect(file) as state:
        tables = [name for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [repr(row).encode() for table in tables for row in state.execute(f"SELECT * FROM {table}")]
    state.close()
    return rows
