"""Rows of a query, slice by slice.

With a **cursor** a file is one slice, and its name says all of it: `"a" < updated_at <= "b"`. The end is fixed when it is
listed, so what is written meanwhile belongs to the next; bounds are bound values, never text of a query. Rows without a
cursor are in no slice: they are read as lines that are no rows, again whenever there is another number of them (`; 3 null`).
Without a cursor there is one file, all rows, told by a digest that does not depend on their order.

Rows are streamed into files of Arrow, in memory bounded by `_CELLS` and not by the result; every cell is text.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Connection, CursorResult

from flyball._kernel.errors import DataError, DeclarationError
from flyball.adapters.embedded import databases
from flyball.data.kinds import UNKNOWN, Sql
from flyball.data.source import LINE, RAGGED, RULE, TEXT, File, Reading, Source

ALL = "all rows"
"""The name of the one file of a query without a cursor."""

NULL = "cursor"
"""The rule that a row without a cursor breaks."""

_FETCH, _ROWS, _CELLS = 500, 50_000, 32 << 20
"""Rows of one fetch; rows, and characters, of one part of a slice."""

_TRUTH, _INSTANT = 16, 1184
"""PostgreSQL's numbers of the types boolean and timestamptz."""

_TOKEN = r'-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|-?Infinity|"(?:[^"\\]|\\.)*"'  # noqa: S105 - a part of a name

_AFTER, _UPTO = "flyball_after", "flyball_upto"

Value = int | float | str


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows with a cursor above `after` (None: all) up to `upto`; `nulls` have none, and are `new` if they are to be read."""

    after: Value | None
    upto: Value
    nulls: int = 0
    new: bool = False

    def name(self, cursor: str) -> str:
        above = f"{json.dumps(self.after, ensure_ascii=False)} < " if self.after is not None else ""
        nulls = f"; {'' if self.new else 'still '}{self.nulls} null" if self.nulls else ""
        return f"{above}{cursor} <= {json.dumps(self.upto, ensure_ascii=False)}{nulls}"


def _sliced(name: str, cursor: str) -> _Slice | None:
    """What a name says; None where it is of another cursor."""
    form = rf"(?:({_TOKEN}) < )?{re.escape(cursor)} <= ({_TOKEN})(?:; (still )?(\d+) null)?"
    found = re.fullmatch(form, name)
    if found is None:
        return None
    after = json.loads(found[1]) if found[1] else None
    return _Slice(after, json.loads(found[2]), int(found[4] or 0), new=bool(found[4]) and not found[3])


class SqlReader:
    """`Reader` of queries of PostgreSQL and SQLite.

    Args:
        placed: name of a database -> its URL, `env:NAME` or `file:PATH`; see `databases.url`.
        spool: where temporary folders go; the system's place by default.
    """

    def __init__(self, placed: Mapping[str, str] | None = None, spool: Path | None = None) -> None:
        self._placed, self._spool = placed or {}, spool

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The slice that is new, if there is one; see `source.Reader`."""
        at = _at(source)
        with databases.asking(source, at.database, self._placed) as connection:
            if not at.cursor:
                with _running(connection, f"SELECT * FROM {_inner(connection, at, bound=False)}") as result:
                    told = _Told()
                    for rows in _batches(result, _names(source, result)):
                        told.add(rows)
                return (told.file(),)
            found = _next(connection, at, _sliced(since, at.cursor) if since else None, source)
        if found is None:
            return ()
        name = found.name(at.cursor)
        return (File(name, hashlib.sha256(name.encode()).hexdigest(), UNKNOWN),)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """The rows of one slice; see `source.Reader`."""
        at = _at(source)
        with tempfile.TemporaryDirectory(prefix="flyball-", dir=self._spool) as folder:
            spool = Path(folder)
            with databases.asking(source, at.database, self._placed) as connection:
                reading = (
                    _slice(connection, source, file, spool) if at.cursor else _whole(connection, source, file, spool)
                )
            yield reading


def _at(source: Source) -> Sql:
    assert isinstance(source.at, Sql)  # noqa: S101 - `Readers` hands each kind to its reader
    return source.at


def _next(connection: Connection, at: Sql, last: _Slice | None, source: Source) -> _Slice | None:
    """The slice after `last`: up to the greatest cursor that is there now."""
    cursor, inner = _quoted(at.cursor), _inner(connection, at, bound=False)
    top = _one(connection, f"SELECT {cursor} FROM {inner} WHERE {cursor} IS NOT NULL ORDER BY {cursor} DESC LIMIT 1")
    nulls = int(_one(connection, f"SELECT count(*) FROM {inner} WHERE {cursor} IS NULL") or 0)
    if top is None and last is None:
        if nulls:
            raise DataError(
                "cursor-always-null",
                f"None of the {nulls:,} rows has a {at.cursor}.",
                where=source.place,
                why="Without it, it cannot be told which rows are new.",
                next="Choose another cursor, or coalesce() it in the query.",
            )
        return None
    if isinstance(top, bytes):
        raise DeclarationError(
            "cursor-not-usable",
            f"The cursor {at.cursor} holds bytes.",
            where=source.place,
            why="How far a source was read is written down, as a number or a text.",
            next="Ask for it as a text, such as hex(column), or choose another cursor.",
        )
    upto = top if top is not None else last.upto if last else ""
    if last is None:
        return _Slice(None, upto, nulls, new=nulls > 0)
    behind = _beyond(connection, at, last.upto)
    fresh = nulls != last.nulls and nulls > 0
    if not behind:
        return _Slice(last.upto, last.upto, nulls, new=True) if fresh else None
    return _Slice(_less(last.upto, at.lag, source), upto, nulls, new=fresh)


def _beyond(connection: Connection, at: Sql, upto: Value) -> bool:
    """Whether there is a row beyond; the database compares, since it knows how its texts are ordered."""
    cursor = _quoted(at.cursor)
    asked = f"SELECT 1 FROM {_inner(connection, at, bound=True)} WHERE {cursor} > {_mark(connection, _AFTER)} LIMIT 1"
    return _one(connection, asked, {_AFTER: upto}) is not None


def _less(value: Value, lag: timedelta | int | None, source: Source) -> Value:
    """A cursor's value, less the lag."""
    if lag is None:
        return value
    try:
        if isinstance(lag, timedelta):
            return (datetime.fromisoformat(str(value)) - lag).isoformat(" " if " " in str(value) else "T")
        return type(value)(int(value) - lag)
    except ValueError:
        kind = "a time" if isinstance(lag, timedelta) else "a whole number"
        raise DeclarationError(
            "lag-without-measure",
            f"The cursor of {source.name} is not {kind}, and its lag is.",
            where=source.place,
            why="What lies so far behind the last row cannot be told.",
            next="Give the lag in the cursor's measure: a timedelta for times, a number for numbers; or leave it out.",
        ) from None


def _slice(connection: Connection, source: Source, file: File, spool: Path) -> Reading:
    at = _at(source)
    found = _sliced(file.name, at.cursor)
    if found is None:
        raise DataError(
            "file-changed",
            f"{file.name[:200]} is no slice of this query.",
            where=source.place,
            why="Its cursor is another by now.",
            next="Give the source another name: it is then read anew, and rows that are there are repeats.",
        )
    cursor, inner = _quoted(at.cursor), _inner(connection, at, bound=True)
    above = f"{cursor} > {_mark(connection, _AFTER)} AND " if found.after is not None else ""
    bounds = {_UPTO: found.upto} | ({_AFTER: found.after} if found.after is not None else {})
    asked = f"SELECT * FROM {inner} WHERE {above}{cursor} <= {_mark(connection, _UPTO)} ORDER BY {cursor}"
    rows, count, _ = _spooled(connection, source, (asked, bounds), spool / "rows")
    if not found.new:
        return Reading(rows, pl.LazyFrame(schema=RAGGED))
    asked = f"SELECT * FROM {_inner(connection, at, bound=False)} WHERE {cursor} IS NULL"
    without, _, _ = _spooled(connection, source, (asked, {}), spool / "nulls")
    text = pl.struct(pl.exclude(LINE)).struct.json_encode()
    return Reading(rows, without.select(pl.col(LINE) + count, text.alias(TEXT), pl.lit(NULL).alias(RULE)))


def _whole(connection: Connection, source: Source, file: File, spool: Path) -> Reading:
    asked = f"SELECT * FROM {_inner(connection, _at(source), bound=False)}"
    rows, _, told = _spooled(connection, source, (asked, {}), spool / "rows")
    if told.file() != file:
        raise DataError(
            "file-changed",
            f"The rows of {source.at} changed since they were looked at.",
            where=source.place,
            why="They were to be ingested as one batch; nothing of them was.",
            next="Run `flyball apply` again; where rows change all the time, declare a cursor.",
        )
    return Reading(rows, pl.LazyFrame(schema=RAGGED))


class _Told:
    """What tells a set of rows, whatever their order: the sum of the digests of each."""

    def __init__(self) -> None:
        self._sum = self._rows = self._size = 0

    def add(self, rows: Sequence[Sequence[str | None]]) -> None:
        for row in rows:
            said = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
            self._sum += int.from_bytes(hashlib.sha256(said).digest(), "big")
            self._size += len(said)
        self._rows += len(rows)

    def file(self) -> File:
        said = f"{self._rows} {self._sum % (1 << 256):x}"
        return File(ALL, hashlib.sha256(said.encode()).hexdigest(), self._size)


def _spooled(
    connection: Connection, source: Source, asked: tuple[str, Mapping[str, Value]], folder: Path
) -> tuple[pl.LazyFrame, int, _Told]:
    """The rows of a query as files of Arrow; how many; and what tells them."""
    folder.mkdir()
    told, count, parts = _Told(), 0, []
    with _running(connection, *asked) as result:
        names = _names(source, result)
        schema = dict.fromkeys(names, pl.String) | {LINE: pl.Int64}
        for number, rows in enumerate(_batches(result, names)):
            if not _at(source).cursor:
                told.add(rows)
            part = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
            parts.append(folder / f"{number:06}.arrow")
            part.with_row_index(LINE, offset=count + 1).cast({LINE: pl.Int64}).select(*schema).write_ipc(parts[-1])
            count += len(rows)
    return pl.scan_ipc(parts, glob=False) if parts else pl.LazyFrame(schema=schema), count, told


def _names(source: Source, result: CursorResult[Any]) -> list[str]:
    names = [str(name) for name in result.keys()]  # noqa: SIM118 - a result is no mapping
    if len(set(names)) < len(names) or LINE in names:
        twice = sorted({name for name in names if names.count(name) > 1 or name == LINE})
        raise DeclarationError(
            "query-columns-repeat",
            f"The query yields {', '.join(twice)[:200]} more than once, or under a name of ours.",
            where=source.place,
            next="Name each column once: SELECT a.id, b.id AS other_id.",
        )
    return names


def _batches(result: CursorResult[Any], names: Sequence[str]) -> Iterator[list[tuple[str | None, ...]]]:
    """Rows of text, at most so many and about so large at once."""
    kinds = [column[1] for column in result.cursor.description or ()] or [None] * len(names)
    rows: list[tuple[str | None, ...]] = []
    size = 0
    while fetched := result.fetchmany(_FETCH):
        for row in fetched:
            rows.append(tuple(_cell(value, kind) for value, kind in zip(row, kinds, strict=True)))
            size += sum(len(cell) for cell in rows[-1] if cell is not None)
        if len(rows) >= _ROWS or size >= _CELLS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _cell(value: object, kind: object) -> str | None:
    """A value as text: PostgreSQL wrote it so already, SQLite has five types."""
    if value is None:
        return None
    if isinstance(value, str):
        if kind == _TRUTH:
            return "true" if value == "t" else "false"
        if kind == _INSTANT and value.endswith("+00"):
            return f"{value[:-3].replace(' ', 'T')}Z"
        return value
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


@contextmanager
def _running(
    connection: Connection, asked: str, values: Mapping[str, Value] | None = None
) -> Iterator[CursorResult[Any]]:
    """A result that is streamed, and closed."""
    streaming = {"stream_results": True, "max_row_buffer": _FETCH, "no_parameters": not values}
    result = connection.exec_driver_sql(asked, dict(values) if values else None, execution_options=streaming)
    try:
        yield result
    finally:
        result.close()


def _one(connection: Connection, asked: str, values: Mapping[str, Value] | None = None) -> Any:
    with _running(connection, asked, values) as result:
        row = result.fetchone()
    return row[0] if row is not None else None


def _inner(connection: Connection, at: Sql, *, bound: bool) -> str:
    """The query as a part of ours; where values are bound, psycopg wants to see each percent sign of it twice."""
    query = at.query.replace("%", "%%") if bound and connection.dialect.name != "sqlite" else at.query
    return f"(\n{query}\n) AS q"


def _mark(connection: Connection, name: str) -> str:
    """Where a value is bound."""
    return f":{name}" if connection.dialect.name == "sqlite" else f"%({name})s"


def _quoted(name: str) -> str:
    """A column of the query; SQLite takes a quoted name that it does not know for a text, unless it is said whose it is."""
    return 'q."' + name.replace('"', '""') + '"'
