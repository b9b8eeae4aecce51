"""A Delta table that others write, commit by commit.

The first file is the whole table at its version of now; after it, each commit that added rows is one file. A commit says of
each data file whether its rows are new (`dataChange`): a compaction adds none, so it is not read. A commit that rewrote files
to change or delete rows is read whole: what stayed is repeats, what changed is corrections, what was deleted stays here.
Where the log no longer reaches back to the last commit, or the table was made anew, the whole table is read once more.

Only commits are read here, which are JSON by the protocol; whole versions are read by Polars, which knows all of a table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import msgspec
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from flyball._kernel.errors import AdapterError, DataError
from flyball.data import coerce
from flyball.data.kinds import Delta
from flyball.data.source import LINE, RAGGED, File, Reading, Source

_FORM = re.compile(r"version (\d+)(, whole)? of ([0-9a-f]{12})")
_KNOWN = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""What a table may demand of its readers here."""

_TOLD = (pl.String, pl.Boolean, pl.Date)
"""Types, beside numbers, whose values a commit writes in one way only."""


class _Add(msgspec.Struct, frozen=True, rename="camel"):
    """A data file that a commit added."""

    path: str
    size: int
    data_change: bool
    partition_values: dict[str, str | None] = {}

    def place(self, folder: Path) -> Path:
        return folder / unquote(self.path)


class _Action(msgspec.Struct, frozen=True):
    """One line of a commit, as far as it matters here."""

    add: _Add | None = None


_action = msgspec.json.Decoder(_Action)


class DeltaReader:
    """`Reader` of Delta tables in folders."""

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The commits after `since`, or the whole table; see `source.Reader`."""
        at, folder = _at(source), _folder(source)
        with _opening(source):
            table = _table(source, folder)
            named, now = _named(table), table.version()
            last = _FORM.fullmatch(since or "")
            known = last is not None and last[3] == named
            if last is not None and known and int(last[1]) >= now:
                return ()
            if last is not None and known and at.mode == "changes" and _told(folder, table):
                found = _commits(folder, named, int(last[1]) + 1, now)
                if found is not None:
                    return found
            size = sum(int(each) for each in table.get_add_actions()["size_bytes"].to_pylist())
            return (_file(f"version {now}, whole of {named}", size),)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One version, or what one commit added; see `source.Reader`."""
        folder, found = _folder(source), _FORM.fullmatch(file.name)
        with _opening(source):
            table = _table(source, folder)
            if found is None or found[3] != _named(table):
                raise DataError(
                    "file-changed",
                    f"{file.name[:100]} is no version of the table that is there now.",
                    where=source.place,
                    why="The table was made anew.",
                    next="Run `flyball apply` again; if that says the same, give the source another name, to read it anew.",
                )
            version = int(found[1])
            if found[2]:
                rows = _whole(source, folder, version)
            else:
                rows = _added(source, folder, version, pl.scan_delta(str(folder)).collect_schema())
            rows = rows.drop(LINE, strict=False).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})
            rows.collect_schema()
        yield Reading(rows, pl.LazyFrame(schema=RAGGED))


def _at(source: Source) -> Delta:
    assert isinstance(source.at, Delta)  # noqa: S101 - `Readers` hands each kind to its reader
    return source.at


def _folder(source: Source) -> Path:
    return Path(source.place.file).resolve().parent / _at(source).path


def _table(source: Source, folder: Path) -> DeltaTable:
    """The table as it is now, if its data files say its rows."""
    if not DeltaTable.is_deltatable(str(folder)):
        raise DataError(
            "source-without-files",
            f"There is no Delta table at {_at(source).path!r}.",
            where=source.place,
            why=f"It was looked for in {folder}.",
            next="Mend the path, or write the table; then run `flyball plan` again.",
        )
    table = DeltaTable(str(folder))
    demands = set(table.protocol().reader_features or ()) - _KNOWN
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        demands.add("columnMapping")
    if demands:
        raise AdapterError(
            "delta-feature-unread",
            f"The Delta table {_at(source).path!r} is written with {', '.join(sorted(demands))[:200]}.",
            where=source.place,
            why="Its data files alone do not say which rows it has, and reading them as if they did would invent some.",
            next="Write it without, or read it with a function: fb.frames(...).",
        )
    return table


def _named(table: DeltaTable) -> str:
    return hashlib.sha256(str(table.metadata().id).encode()).hexdigest()[:12]


def _told(folder: Path, table: DeltaTable) -> bool:
    """Whether a commit says the values of its partitions in one way only."""
    columns = table.metadata().partition_columns
    schema = pl.scan_delta(str(folder)).collect_schema() if columns else pl.Schema()
    return all(schema[c].is_numeric() or isinstance(schema[c], _TOLD) for c in columns)


def _commits(folder: Path, named: str, first: int, now: int) -> tuple[File, ...] | None:
    """The commits that added rows; None where the log does not reach back."""
    found = []
    for version in range(first, now + 1):
        if not _log(folder, version).exists():
            return None
        added = _news(folder, version)
        if added:
            found.append(_file(f"version {version} of {named}", sum(each.size for each in added)))
    return tuple(found)


def _log(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:020}.json"


def _news(folder: Path, version: int) -> list[_Add]:
    """The data files that a commit added, with rows that are new."""
    lines = _log(folder, version).read_bytes().splitlines()
    adds = [_action.decode(line).add for line in lines if line.strip()]
    return [add for add in adds if add is not None and add.data_change]


def _file(name: str, size: int) -> File:
    return File(name, hashlib.sha256(name.encode()).hexdigest(), size)


def _whole(source: Source, folder: Path, version: int) -> pl.LazyFrame:
    uris = DeltaTable(str(folder), version=version).file_uris()
    _there(source, version, [Path(uri.removeprefix("file://")) for uri in uris])
    return pl.scan_delta(str(folder), version=version)


def _added(source: Source, folder: Path, version: int, schema: pl.Schema) -> pl.LazyFrame:
    """The rows of the data files of one commit; what a file lacks, since the table grew a column, is null."""
    if not _log(folder, version).exists():
        raise _gone(source, version)
    adds = _news(folder, version)
    _there(source, version, [add.place(folder) for add in adds])
    frames = []
    for add in adds:
        rows = pl.scan_parquet(add.place(folder), glob=False)
        values = {name: pl.lit(value, dtype=pl.String).alias(name) for name, value in add.partition_values.items()}
        rows = rows.drop(values, strict=False).with_columns(values.values())
        rows = rows.with_columns(coerce.cell(name, pl.String(), schema[name]) for name in values if name in schema)
        have = rows.collect_schema()
        lacks = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in have]
        frames.append(rows.with_columns(lacks).select(*schema))
    return pl.concat(frames, how="vertical_relaxed")  # not cast: the schema may be that of a later version


def _there(source: Source, version: int, paths: list[Path]) -> None:
    if not all(path.exists() for path in paths):
        raise _gone(source, version)


def _gone(source: Source, version: int) -> AdapterError:
    return AdapterError(
        "file-unopenable",
        f"Version {version} of the Delta table {_at(source).path!r} can no longer be read.",
        where=source.place,
        why="Its files were removed: whoever owns the table vacuumed it, or cleaned up its log.",
        next="Give the source another name: the table is then read as a new one, and rows that are there are repeats.",
    )


@contextmanager
def _opening(source: Source) -> Iterator[None]:
    """Errors of the table's libraries, as ours."""
    try:
        yield
    except (DeltaError, OSError, msgspec.DecodeError, pl.exceptions.PolarsError) as problem:
        raise AdapterError(
            "delta-table-unreadable",
            f"The Delta table {_at(source).path!r} cannot be read: {type(problem).__name__}.",
            where=source.place,
            why=str(problem)[:300],
            next="See that it is whole, and that this user may read it.",
        ) from problem
