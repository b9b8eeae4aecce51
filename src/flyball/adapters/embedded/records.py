"""Text files as records: CSV and JSON lines, without losing a line.

A regular CSV file (see `regular`) is read by Polars. Polars fills short lines up silently and gives up on the whole file for
one long line, stray quote or wrong byte, so any other file is read record by record, slowly and exactly: records that fit
become rows, the rest is kept as raw text, with the rule that it broke: `ragged`, of another form; `separator`, of a file whose
header and lines say that another separator is meant; `too-long`, told by its beginning, length and SHA-256.

JSON lines are always read line by line, each value as the text it stands as: what type it has is the contract's to say.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path

import msgspec
import polars as pl

from flyball.adapters.embedded import lines
from flyball.adapters.embedded.lines import LONGEST, Overlong
from flyball.adapters.embedded.regular import is_regular
from flyball.data.source import LINE, RAGGED, RULE, TEXT, Reading

_ROWS, _CHARACTERS, _CELLS = 50_000, 64 << 20, 8 << 20
"""Records, and characters of them, held in memory at a time when a file is read record by record."""

_KEPT = 256 << 10
"""Characters of a line that is no row, which are kept in full."""

_WIDEST = 4096
"""Names that the objects of one file may have."""

_SEPARATORS, _LOOKED_AT = ",;\t|", 20
"""What may separate cells instead, and the lines that are asked."""

_MISREAD, _TOO_LONG, _OTHER = "ragged", "too-long", "separator"

# Python's reader refuses cells of more than 128 KiB, for the whole process; Polars does not, and the two must agree.
csv.field_size_limit(max(csv.field_size_limit(), LONGEST))

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def read_csv(path: Path, nulls: tuple[str, ...], separator: str, spool: Path) -> Reading:
    """The rows of a CSV file of UTF-8 with a header; `spool` is an empty folder for what does not fit into memory.

    Raises:
        ValueError: the file has no header, or one that cannot be read.
    """
    if (other := _other_separator(path, separator)) is not None:
        line, names = _header(path, other)
        return _read_exactly(_unseparated(path, line), names, spool)
    line, names = _header(path, separator)
    if line == 1 and is_regular(path, len(names), separator):
        rows = pl.scan_csv(
            path,
            has_header=False,  # it is skipped, for Polars would insist on its names
            skip_lines=1,
            schema=dict.fromkeys(names, pl.String),
            separator=separator,
            null_values=list(nulls),
            empty_string_is_null="" in nulls,
            row_index_name=LINE,
            row_index_offset=2,
            glob=False,
        )
        return Reading(rows.cast({LINE: pl.Int64}), pl.LazyFrame(schema=RAGGED))
    return _read_exactly(_fields(path, names, frozenset(nulls), separator), names, spool)


def read_json_lines(path: Path, spool: Path) -> Reading:
    """The rows of a file with one JSON object a line; strings as they are, other values as their JSON text."""
    return _read_exactly(_objects(lines.lines(path)), (), spool)


def held_json_lines(body: bytes) -> Reading | None:
    """The same of a body in memory, where its rows fit there as well; None where they do not."""
    rows: list[tuple[int, Mapping[str, str | None]]] = []
    ragged: list[tuple[int, str, str]] = []
    names: dict[str, None] = {}
    for line, cells, text, rule in _objects(lines.read(BytesIO(body))):
        if cells is None:
            ragged.append((line, _kept(text), rule))
        else:
            rows.append((line, cells))
            names |= dict.fromkeys(cells)
            if len(rows) * len(names) > _CELLS:
                return None
    columns = {n: pl.Series([cells.get(n) for _, cells in rows], dtype=pl.String) for n in names if n != LINE}
    found = pl.DataFrame({LINE: pl.Series([line for line, _ in rows], dtype=pl.Int64), **columns})
    return Reading(found.lazy(), pl.LazyFrame(ragged, schema=dict(RAGGED), orient="row"))


_Record = tuple[int, Mapping[str, str | None] | None, str, str]
"""The line on which it begins, its cells (None: it has no readable form), its raw text, and the rule that it broke."""


def _header(path: Path, separator: str) -> tuple[int, tuple[str, ...]]:
    """The line on which it begins, and the names of the columns."""
    line, header, text = next((r for r in _records(path, separator) if r[1] != []), (0, None, ""))
    if not line:
        raise ValueError("it has no header: the first line must name the columns")
    if header is None:
        raise ValueError("its header cannot be read: it is too long, or its quotes are not as RFC 4180 has them")
    if "\0" in text:
        raise ValueError(
            "its header has NUL characters; if it is UTF-16 without a byte order mark, declare its encoding"
        )
    return line, _distinct(header)


def _other_separator(path: Path, separator: str) -> str | None:
    """What separates the cells where the separator does not: it cuts the header and the first lines alike."""
    first = next((fields for _, fields, _ in _records(path, separator) if fields != []), None)
    if first is not None and len(first) > 1:
        return None
    sample: list[str] = []
    for text in islice((text for text in lines.lines(path) if text.strip()), _LOOKED_AT):
        if len(text) > _KEPT:
            return None
        sample.append(text)
    others = _SEPARATORS.replace(separator, "")
    return next((other for other in others if len(sample) > 1 and _cuts_alike(sample, other)), None)


def _cuts_alike(sample: list[str], separator: str) -> bool:
    try:
        widths = {len(fields) for fields in csv.reader(sample, strict=True, delimiter=separator)}
    except csv.Error:
        return False
    return len(widths) == 1 and widths != {1}


def _read_exactly(records: Iterable[_Record], names: Iterable[str], spool: Path) -> Reading:
    rows, ragged = _Parts(spool / "rows", names), _Parts(spool / "ragged", [TEXT, RULE])
    for line, cells, text, rule in records:
        if cells is None:
            kept = _kept(text)
            ragged.add(line, {TEXT: kept, RULE: rule}, len(kept))
        else:
            rows.add(line, cells, len(text))
    return Reading(rows.scan(), ragged.scan())


def _kept(text: str) -> str:
    """What is kept of a line that is no row."""
    return str(text if len(text) <= _KEPT or isinstance(text, Overlong) else lines.told(text))


class _Parts:
    """Records on their way to a LazyFrame: every so many of them become a file in a folder."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._names = dict.fromkeys(names)
        self._lines: list[int] = []
        self._cells: list[Mapping[str, str | None]] = []
        self._characters = 0
        self._parts: list[pl.LazyFrame] = []

    def add(self, line: int, cells: Mapping[str, str | None], characters: int) -> None:
        self._lines.append(line)
        self._cells.append(cells)
        self._characters += characters
        self._names |= dict.fromkeys(cells)
        cells_of_all = len(self._lines) * len(self._names)
        if len(self._lines) == _ROWS or self._characters > _CHARACTERS or cells_of_all > _CELLS:
            self._flush()

    def scan(self) -> pl.LazyFrame:
        self._flush()
        return pl.concat(self._parts, how="diagonal")

    def _flush(self) -> None:
        columns = {n: pl.Series([c.get(n) for c in self._cells], dtype=pl.String) for n in self._names if n != LINE}
        part = self._folder / f"{len(self._parts)}.arrow"
        pl.DataFrame({LINE: pl.Series(self._lines, dtype=pl.Int64), **columns}).write_ipc(part)
        self._parts.append(pl.scan_ipc(part, glob=False))
        self._lines, self._cells, self._characters = [], [], 0


def _objects(texts: Iterable[str]) -> Iterator[_Record]:
    names: set[str] = set()
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        if isinstance(text, Overlong):
            yield number, None, text, _TOO_LONG
            continue
        try:
            cells = {name: _cell(bytes(value)) for name, value in _members.decode(text).items()}
        except (msgspec.DecodeError, RecursionError):  # no JSON, or nested beyond reading
            yield number, None, text.rstrip("\r\n"), _MISREAD
            continue
        # No column has a NUL in its name: what flyball puts beside the columns of a file is told by one.
        if len(names) + len(cells.keys() - names) > _WIDEST or any("\0" in name for name in cells):
            yield number, None, text.rstrip("\r\n"), _MISREAD
            continue
        names |= cells.keys()
        yield number, cells, text, ""


def _cell(value: bytes) -> str | None:
    if value[:1] == b'"':
        return _string.decode(value)
    return None if value == b"null" else value.decode()


def _unseparated(path: Path, header: int) -> Iterator[_Record]:
    """The lines of a file of another separator: none of them is a row."""
    for number, text in enumerate(lines.lines(path), start=1):
        if number > header and text.strip():
            plain = text if isinstance(text, Overlong) else text.rstrip("\r\n")
            yield number, None, plain, _OTHER


def _fields(path: Path, names: tuple[str, ...], nulls: frozenset[str], separator: str) -> Iterator[_Record]:
    headed = False
    for line, fields, text in _records(path, separator):
        if fields == [] and (len(names) > 1 or not headed):
            continue  # a blank line is no row
        if not headed:
            headed = True
        elif fields is not None and len(fields or [""]) == len(names):
            cells = {name: None if field in nulls else field for name, field in zip(names, fields or [""], strict=True)}
            yield line, cells, text, ""
        else:
            yield line, None, text, _TOO_LONG if isinstance(text, Overlong) else _MISREAD


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str] | None, str]]:
    """(line, fields, raw text) of each record; fields are None where quotes are not as RFC 4180 has them.

    Such a record may have swallowed good ones behind a quote that never closes: only its first line is given up, and
    reading resumes at the second.
    """
    taking = _Lines(lines.lines(path))
    reader = csv.reader(taking, strict=True, delimiter=separator)
    while True:
        line = taking.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLongError):
            reader = csv.reader(taking, strict=True, delimiter=separator)
            first = taking.give_back()
            yield line, None, first if isinstance(first, Overlong) else first.rstrip("\r\n")
        else:
            yield line, fields, "".join(taking.taken).rstrip("\r\n")


class _TooLongError(Exception):
    """A record that is longer than may be."""


class _Lines:
    """An iterator that remembers what the record at hand took, and can take it back."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._returned: list[str] = []
        self._next = 1
        self._characters = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else next(self._source)
        self.taken.append(line)
        self._next += 1
        self._characters += len(line)
        if isinstance(line, Overlong) or self._characters > LONGEST:
            raise _TooLongError
        return line

    def begin(self) -> int:
        """Start a record; returns the number of its first line."""
        self.taken = []
        self._characters = 0
        return self._next

    def give_back(self) -> str:
        """Keep the first line of the record at hand, and have the others read again."""
        first, *others = self.taken
        self._returned += reversed(others)
        self._next -= len(others)
        return first


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
