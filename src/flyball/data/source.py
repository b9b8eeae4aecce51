"""Where rows come from, the function that prepares them, and the contract that they must keep.

A **source** is a declaration and touches nothing: what it is `at` (files, a query, a Delta table, ...) is a value, and the
reader of that kind finds it on the machine where it runs, so a source means the same everywhere.
A **file** is what is read at once and told by its digest: one content of one path, one slice of a query, one frame. A
**reading** is that file as rows of cells, lazily, with the lines that are no rows kept apart as raw text.

Refused: guessing. Text formats yield text cells; what type a cell has is said by the contract, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol, TypedDict, Unpack

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract

LINE = "_line"
"""Int64: the line of a text file on which the row begins (a header is line 1), else the number of the row, from 1."""

TEXT = "text"
"""String: a line that is no row, as it stood in the file."""

RULE = "rule"
"""String: why it is no row."""

RAGGED: Mapping[str, pl.DataType] = {LINE: pl.Int64(), TEXT: pl.String(), RULE: pl.String()}
"""The columns of the lines of a file that are no rows."""

NULLS = ("", "NA")
"""The cells of a CSV file that mean null."""

Preparation = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class At:
    """Where the rows of a source lie. One frozen subclass a kind, and one `Reader` that knows it."""

    @property
    def recipe(self) -> tuple[object, ...]:
        """What of it decides which rows the same bytes become; the recipe of a file counts it in."""
        return ()

    @property
    def slices(self) -> bool:
        """Whether a file that was ingested is listed no more, and is found again by its name alone."""
        return False

    @property
    def together(self) -> bool:
        """Whether its small files come many a second, so that several are ingested with one commit; see `together`."""
        return False


@dataclass(frozen=True)
class Files(At):
    """Files that match.

    Attributes:
        pattern: a path or glob, relative to the app file or to the package.
        package: an installed distribution's import package that carries the files.
        nulls: the cells of a CSV file that mean null.
        separator: between the cells of a CSV file; "" for a comma, and in a .tsv file a tab.
        encoding: of a text file; "" for UTF-8, or what its byte order mark says.
    """

    pattern: str
    package: str | None = None
    nulls: tuple[str, ...] = NULLS
    separator: str = ""
    encoding: str = ""

    @property
    def recipe(self) -> tuple[object, ...]:
        """How cells are read."""
        return (self.nulls, self.separator, self.encoding)

    def __str__(self) -> str:
        return self.pattern


@dataclass(frozen=True)
class Objects(Files):
    """Files in an object store that match: `pattern` is a URL, such as `s3://bucket/folder/*.parquet`.

    Where the store is and who asks is placement, and never declared: it comes from the environment.
    """


class Reads(TypedDict, total=False):
    """How the cells of text files are read; see `files`."""

    nulls: tuple[str, ...]
    separator: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Source:
    """Rows, and what they must become.

    Attributes:
        name: such as `flights.Flight`; unique within an app.
        at: where the rows lie.
        prepare: raw rows in, rows of the contract out.
        contract: what the prepared rows must keep.
        fresh_within: the source is stale when its newest event is older than this.
        place: the line of the declaration; never compared.
    """

    name: str
    at: At
    prepare: Preparation
    contract: type[Contract]
    fresh_within: timedelta | None = None
    place: Place = field(compare=False, default=Place("", 0))


@dataclass(frozen=True, slots=True)
class File:
    """One content of one path.

    Attributes:
        name: the path relative to the source's folder, with forward slashes.
        digest: SHA-256, in hexadecimal, of the bytes as they lie; of what is read elsewhere, of what tells its content (of an
            object, its ETag and size); "" of a file that cannot be opened.
        size: bytes.
    """

    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A file, opened.

    Attributes:
        rows: the cells (text formats: String, null for the source's `nulls`) and `_line`.
        ragged: `_line` and `text` of the lines that are no rows, and where it is not just `ragged`, the `rule` that says why:
            they have too few or too many fields, or no readable form at all.
    """

    rows: pl.LazyFrame
    ragged: pl.LazyFrame


class Reader(Protocol):
    """Finds and opens the files of a source."""

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that there are now, in the order in which they are to be ingested.

        Args:
            since: the name of the file of this source that was ingested last; a reader of slices goes on after it, a reader
                of files that lie side by side has no need of it.

        Raises:
            DeclarationError: `package-not-installed`, `source-of-unknown-format`.
            DataError: `source-without-files`.
            AdapterError: where the files lie cannot be asked; it names the source's line, as all errors of a reader do.
        """

    def open(self, source: Source, file: File) -> AbstractContextManager[Reading]:
        """One of them, as rows; the frames are valid until the context ends.

        Raises:
            DataError: `file-unreadable`; `file-changed` when it is no longer the file that was found.
            AdapterError: `file-unopenable`.
        """


class Readers:
    """A `Reader` of every kind of source that it was given one for.

    Args:
        kinds: what a source is `at` -> the reader that knows it.
    """

    def __init__(self, kinds: Mapping[type[At], Reader]) -> None:
        self._kinds = kinds

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that there are now; see `Reader`."""
        return self._of(source).files(source, since)

    def open(self, source: Source, file: File) -> AbstractContextManager[Reading]:
        """One of them, as rows; see `Reader`."""
        return self._of(source).open(source, file)

    def _of(self, source: Source) -> Reader:
        found = self._kinds.get(type(source.at))
        if found is None:
            raise DeclarationError(
                "source-without-reader",
                f"Nothing here reads {type(source.at).__name__}, which the source {source.name!r} is at.",
                where=source.place,
                why=f"There are readers of {', '.join(sorted(k.__name__ for k in self._kinds))}.",
                next="Name its reader in the placement: fb.Placement(readers={...}).",
            )
        return found


class Retold:
    """A reader whose lines that are no rows are told otherwise, or not at all.

    Args:
        reader: whose files these are.
        retell: those lines, as `Reading.ragged`, in and out.
    """

    def __init__(self, reader: Reader, retell: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
        self._reader, self._retell = reader, retell

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that there are now; see `Reader`."""
        return self._reader.files(source, since)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them; see `Reader`."""
        with self._reader.open(source, file) as reading:
            yield replace(reading, ragged=self._retell(reading.ragged))


def files(
    path_or_glob: str,
    *,
    prepare: Preparation,
    yields: type[Contract],
    fresh_within: timedelta | None = None,
    package: str | None = None,
    name: str | None = None,
    **reads: Unpack[Reads],
) -> Source:
    """Rows from files: CSV, JSON lines (each also .gz, .zst, .zip), Parquet or Arrow.

    Args:
        path_or_glob: relative to the folder of the file that this is written in, or to `package`; or the URL of objects in a
            store, `s3://bucket/folder/*.parquet`. `*` stands within a folder, `**` across folders.
        prepare: `LazyFrame -> LazyFrame`; text cells stay text; keep `_line`, and bad rows can be found in their file.
        yields: the contract of the prepared rows. Cells that are still text are parsed to its types.
        fresh_within: how old the newest event may be.
        package: an installed package whose folder holds the files; it is found, and never imported.
        name: tells two sources of one file name apart; by default the file's stem and the contract.
        reads: of text files: `nulls`, the cells that mean null ("" and "NA"); `separator`, one character (a comma; a tab in
            .tsv); `encoding`, by Python's name (UTF-8, or what the byte order mark says).

    Raises:
        DeclarationError: `source-yields-no-contract`, `source-without-preparation`, `source-of-unknown-store`,
            `source-holds-a-secret`, `separator-not-usable`, `encoding-unknown`.
    """
    where = place.here()
    believable(path_or_glob, prepare, yields, where)
    _readable(reads, where)
    at = _objects(path_or_glob, reads, where) if "://" in path_or_glob else Files(path_or_glob, package, **reads)
    stem = path_or_glob.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0]
    return Source(
        name=name or f"{stem}.{contract.spec(yields).title}",
        at=at,
        prepare=prepare,
        contract=yields,
        fresh_within=fresh_within,
        place=where,
    )


def believable(path_or_glob: str, prepare: object, yields: object, where: Place) -> None:
    """Refuse a source of which no row could be believed."""
    if not (isinstance(yields, type) and issubclass(yields, Contract)):
        raise DeclarationError(
            "source-yields-no-contract",
            f"The source {path_or_glob!r} yields {yields!r}, which is not a contract.",
            where=where,
            why="A row is believed only when it keeps a contract.",
            next="Pass a class that derives from flyball.Contract: yields=Flight.",
        )
    if not callable(prepare):
        raise DeclarationError(
            "source-without-preparation",
            f"The source {path_or_glob!r} is prepared by {prepare!r}, which is not a function.",
            where=where,
            why="A preparation turns the raw LazyFrame into rows of the contract.",
            next="Pass a function from LazyFrame to LazyFrame: prepare=departures.",
        )


def _readable(reads: Reads, where: Place) -> None:
    """Refuse what no text file can be read by."""
    separator, encoding = reads.get("separator", ""), reads.get("encoding", "")
    if separator and (len(separator) > 1 or not separator.isascii() or separator in '"\r\n\0'):
        raise DeclarationError(
            "separator-not-usable",
            f"{separator!r} cannot separate cells.",
            where=where,
            why="It is one ASCII character, and neither a quote nor the end of a line.",
            next="Declare the one that the file has: separator=';'.",
        )
    try:
        " ".encode(encoding or "utf-8")
    except (LookupError, UnicodeError) as problem:
        raise DeclarationError(
            "encoding-unknown",
            f"There is no encoding of text that is named {encoding!r}.",
            where=where,
            why="Python has none of that name.",
            next="Name one that it has, such as encoding='cp1252' or 'utf-16'.",
        ) from problem


def _objects(url: str, reads: Reads, where: Place) -> Objects:
    """Objects by their URL, which says what to read and nothing of who asks."""
    scheme, _, path = url.partition("://")
    bucket = path.partition("/")[0]
    if "@" in bucket or re.search(r"[?&][^/?&=]*=", path):
        raise DeclarationError(
            "source-holds-a-secret",
            f"The URL of a source in {scheme} names more than a bucket and a path.",
            where=where,
            why="A declaration lies in git. Who asks, and how it is proved, is placement: it comes from the environment.",
            next="Write s3://bucket/path, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where it runs.",
        )
    if scheme != "s3" or not re.fullmatch(r"[A-Za-z0-9._-]+/.+", path):
        raise DeclarationError(
            "source-of-unknown-store",
            f"The store of {scheme}://{bucket} is not one that is read.",
            where=where,
            why="Objects are read from S3 and what speaks as it: s3://bucket/path. Nothing else was tried out.",
            next="Mend the URL; of another kind, see docs/howto/add-an-adapter.md.",
        )
    return Objects(url, **reads)
