"""Text files as records: CSV and JSON lines, without losing a line.

A **regular** CSV file has one record a line, each with as many fields as the header, quotes only where RFC 4180 has them,
and UTF-8 throughout: Polars reads it by itself, fast. Polars fills short lines up silently and gives up on the whole file
for one long line, stray quote or wrong byte, so any other file is read record by record, slowly and exactly: records that
fit become rows, the rest is kept as raw text. A line that is not UTF-8 is read as Latin-1, which loses no byte.

JSON lines are always read line by line, each value as the text it stands as: what type it has is the contract's to say.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from flyball.data.source import LINE, TEXT, Reading

_BLOCK = 8 << 20
_LONGEST = 64 << 20
"""Bytes of one line, beyond which a file is no longer checked block by block."""
_ROWS = 50_000
"""Records held in memory at a time, when a file is read record by record."""

_COMMA, _QUOTE, _NEWLINE, _RETURN = b',"\n\r'
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def read_csv(path: Path, nulls: tuple[str, ...], spool: Path) -> Reading:
    """The rows of a CSV file with a header; `spool` is an empty folder for what does not fit into memory.

    Raises:
        ValueError: the file has no header.
    """
    header = next(_records(path), None)
    if header is None or header[1] is None:
        raise ValueError("it has no header: the first line must name the columns")
    names = _distinct(header[1])
    if _is_regular(path, len(names)):
        rows = pl.scan_csv(
            path,
            has_header=False,  # it is skipped, for Polars would insist on its names
            skip_lines=1,
            schema=dict.fromkeys(names, pl.String),
            null_values=list(nulls),
            row_index_name=LINE,
            row_index_offset=2,
            glob=False,
        )
        return Reading(rows.cast({LINE: pl.Int64}), pl.LazyFrame(schema=_RAGGED))
    return _read_exactly(_fields(path, names, frozenset(nulls)), names, spool)


def read_json_lines(path: Path, spool: Path) -> Reading:
    """The rows of a file with one JSON object a line; strings as they are, other values as their JSON text."""
    return _read_exactly(_objects(path), (), spool)


_RAGGED = {LINE: pl.Int64(), TEXT: pl.String()}
_Record = tuple[int, Mapping[str, str | None] | None, str]
"""The line on which it begins, its cells (None: it has no readable form), and its raw text."""


def _read_exactly(records: Iterable[_Record], names: Iterable[str], spool: Path) -> Reading:
    rows, ragged = _Parts(spool / "rows", names), _Parts(spool / "ragged", [TEXT])
    for line, cells, text in records:
        if cells is None:
            ragged.add(line, {TEXT: text})
        else:
            rows.add(line, cells)
    return Reading(rows.scan(), ragged.scan())


class _Parts:
    """Records on their way to a LazyFrame: every so many of them become a file in a folder."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._names = dict.fromkeys(names)
        self._lines: list[int] = []
        self._cells: list[Mapping[str, str | None]] = []
        self._parts: list[pl.LazyFrame] = []

    def add(self, line: int, cells: Mapping[str, str | None]) -> None:
        self._lines.append(line)
        self._cells.append(cells)
        self._names |= dict.fromkeys(cells)
        if len(self._lines) == _ROWS:
            self._flush()

    def scan(self) -> pl.LazyFrame:
        self._flush()
        return pl.concat(self._parts, how="diagonal")

    def _flush(self) -> None:
        columns = {n: pl.Series([c.get(n) for c in self._cells], dtype=pl.String) for n in self._names if n != LINE}
        part = self._folder / f"{len(self._parts)}.arrow"
        pl.DataFrame({LINE: pl.Series(self._lines, dtype=pl.Int64), **columns}).write_ipc(part)
        self._parts.append(pl.scan_ipc(part, glob=False))
        self._lines, self._cells = [], []


def _objects(path: Path) -> Iterator[_Record]:
    for number, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            cells = {name: _cell(bytes(value)) for name, value in _members.decode(text).items()}
        except msgspec.DecodeError:
            yield number, None, text.rstrip("\r\n")
        else:
            yield number, cells, text


def _cell(value: bytes) -> str | None:
    if value[:1] == b'"':
        return _string.decode(value)
    return None if value == b"null" else value.decode()


def _fields(path: Path, names: tuple[str, ...], nulls: frozenset[str]) -> Iterator[_Record]:
    for line, fields, text in islice(_records(path), 1, None):
        if fields == [] and len(names) > 1:
            continue  # a blank line is no row
        if fields is not None and len(fields or [""]) == len(names):
            cells = {name: None if field in nulls else field for name, field in zip(names, fields or [""], strict=True)}
            yield line, cells, text
        else:
            yield line, None, text


def _records(path: Path) -> Iterator[tuple[int, list[str] | None, str]]:
    """(line, fields, raw text) of each record; fields are None where quotes are not as RFC 4180 has them.

    Such a record may have swallowed good ones behind a quote that never closes: only its first line is given up, and
    reading resumes at the second.
    """
    lines = _Lines(_lines(path))
    reader = csv.reader(lines, strict=True)
    while True:
        line = lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            reader = csv.reader(lines, strict=True)
            yield line, None, lines.give_back().rstrip("\r\n")
        else:
            yield line, fields, "".join(lines.taken).rstrip("\r\n")


class _Lines:
    """An iterator that remembers what the record at hand took, and can take it back."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._returned: list[str] = []
        self._next = 1
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else next(self._source)
        self.taken.append(line)
        self._next += 1
        return line

    def begin(self) -> int:
        """Start a record; returns the number of its first line."""
        self.taken = []
        return self._next

    def give_back(self) -> str:
        """Keep the first line of the record at hand, and have the others read again."""
        first, *others = self.taken
        self._returned += reversed(others)
        self._next -= len(others)
        return first


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            start = 3 if number == 0 and line.startswith(b"\xef\xbb\xbf") else 0
            try:
                yield line[start:].decode()
            except UnicodeDecodeError:
                yield line[start:].decode("latin-1")


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Column names, told apart: the second `a` is `a_2`; `_line` is ours."""
    taken = {LINE}
    distinct = []
    for name in names:
        given, n = name, 1
        while given in taken:
            n += 1
            given = f"{name}_{n}"
        taken.add(given)
        distinct.append(given)
    return tuple(distinct)


def _is_regular(path: Path, width: int) -> bool:
    """Whether every line is a record of `width` fields; reads the file once, in blocks that end with a line."""
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            block, rest = block[:end], block[end:]
            if len(rest) > _LONGEST or not _is_regular_block(block, width):
                return False
    return not rest or _is_regular_block(rest + b"\n", width)


def _is_regular_block(block: bytes, width: int) -> bool:
    if not _is_utf8(block) or block.count(b"\r") != block.count(b"\r\n"):
        return False
    symbols = np.frombuffer(block, dtype=np.uint8)
    ends = symbols == _NEWLINE
    separates = (symbols == _COMMA) | ends
    if b'"' in block:
        quotes = symbols == _QUOTE
        inside = np.logical_xor.accumulate(quotes)
        # A block starts and ends outside of quotes, so what precedes its first symbol is what its last one is: a newline.
        opened, closed = np.flatnonzero(quotes & inside), np.flatnonzero(quotes & ~inside)
        well_opened = np.isin(symbols[opened - 1], (_COMMA, _NEWLINE, _QUOTE)).all()
        if (inside & ends).any() or not well_opened:
            return False
        if not np.isin(symbols[closed + 1], (_COMMA, _NEWLINE, _RETURN, _QUOTE)).all():
            return False
        separates &= ~inside
    marks = symbols[separates]
    if len(marks) % width:
        return False
    records = marks.reshape(-1, width)
    return bool((records[:, -1] == _NEWLINE).all() and (records[:, :-1] == _COMMA).all())


def _is_utf8(block: bytes) -> bool:
    try:
        return block.isascii() or bool(block.decode())
    except UnicodeDecodeError:
        return False
