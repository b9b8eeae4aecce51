"""Sources that are no files: a query, a Delta table, frames that a function yields, and rows that others push.

Each declaration is one function that makes a `Source` of its own kind of `At`. A declaration says what is read and never from
which machine, nor with which password: a database is a name, and where it is belongs to the placement.

Sources are **observations**: what was read once is never taken back. A row that changed where it came from is a correction when
it is read again, a row that was deleted there stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypedDict, Unpack

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.data.source import At, Preparation, Source, believable

Lag = timedelta | int
Yielded = pl.DataFrame | pl.LazyFrame | tuple[str, pl.DataFrame | pl.LazyFrame]
Frames = Callable[..., Iterable[Yielded]]

MODES: tuple[str, ...] = ("changes", "snapshot")

UNKNOWN = 1 << 62
"""The size of a file that is known only when it was read: it is treated as one that does not fit into memory."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Sql(At):
    """The rows of a query.

    Attributes:
        query: one SELECT.
        database: its name in the placement.
        cursor: the column of the result that only grows; "" where there is none, and all rows are read whenever one changed.
        lag: how far behind the last row each slice begins, in the cursor's measure.
    """

    query: str
    database: str
    cursor: str = ""
    lag: Lag | None = None

    @property
    def recipe(self) -> tuple[object, ...]:
        """What is asked, and of whom."""
        return (self.query, self.database, self.cursor)

    @property
    def slices(self) -> bool:
        """With a cursor, a slice that was read is listed no more."""
        return bool(self.cursor)

    def __str__(self) -> str:
        return f"a query of {self.database}"


@dataclass(frozen=True)
class Delta(At):
    """A Delta table of somebody else.

    Attributes:
        path: relative to the app file.
        mode: "changes" reads what each commit added; "snapshot" the whole table at each new version.
    """

    path: str
    mode: str = "changes"

    @property
    def slices(self) -> bool:
        """A commit that was read is listed no more."""
        return True

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Yields(At):
    """The frames that a function yields; what it yielded decides, not its code."""

    function: Frames
    named: str

    def __str__(self) -> str:
        return f"{self.named}()"


@dataclass(frozen=True)
class Pushed(At):
    """Rows that others send to `POST /ingest/<name>`."""

    name: str

    @property
    def together(self) -> bool:
        """Bodies are small, and many."""
        return True

    def __str__(self) -> str:
        return f"POST /ingest/{self.name}"


class Said(TypedDict, total=False):
    """What every source may say besides: `fresh_within`, how old the newest event may be; `name`, to tell two apart."""

    fresh_within: timedelta | None
    name: str | None


class Fresh(TypedDict, total=False):
    """What a source that is pushed may say besides: `fresh_within`; its name is the end of the path."""

    fresh_within: timedelta | None


class Cursor(Said, total=False):
    """`cursor`, the column that only grows, and `lag`, how far behind the last row each slice begins."""

    cursor: str
    lag: Lag | None


def sql(query: str, *, database: str, prepare: Preparation, yields: type[Contract], **said: Unpack[Cursor]) -> Source:
    """Rows of a query, of PostgreSQL or SQLite; every cell as the database writes it, as text.

    Args:
        query: one SELECT; it is yours, and values never become part of it.
        database: a name; where it is says the placement, or the variable FLYBALL_DATABASE_<NAME>.
        prepare: `LazyFrame -> LazyFrame`.
        yields: the contract of the prepared rows; text is parsed to its types.
        said: `cursor`, a column of the result that only grows, such as when a row changed: then each apply reads only what is
            beyond the last. Without it all rows are read whenever one changed. `lag` (a timedelta, or a number where the
            cursor is one): rows that are committed late lie behind the last one read, so each slice begins so far behind it.
            Rows that are read twice are duplicates. `fresh_within`, `name`: as of `files`.

    Raises:
        DeclarationError: `query-not-usable`, `database-not-named`, `cursor-personal`, `lag-not-usable`; as `files`.
    """
    where = place.here()
    cursor, lag = said.get("cursor", ""), said.get("lag")
    believable(f"a query of {database}", prepare, yields, where)
    _askable(query, database, where)
    _growing(cursor, lag, yields, where)
    at = Sql(query.strip().rstrip(";").rstrip(), database, cursor, lag)
    return _source(at, database, (prepare, yields), said, where)


def delta(
    path: str,
    *,
    prepare: Preparation,
    yields: type[Contract],
    mode: Literal["changes", "snapshot"] = "changes",
    **said: Unpack[Said],
) -> Source:
    """Rows of a Delta table that others write.

    Args:
        path: the table's folder, relative to the folder of the file that this is written in.
        mode: "changes" reads the whole table once, and then what each commit added; what a commit rewrote is read again, and is
            repeats and corrections. "snapshot" reads the whole table at each version at which it is looked at.
        prepare, yields, said: as of `sql`.

    Raises:
        DeclarationError: `source-of-unknown-store`, `mode-unknown`; as `files`.
    """
    where = place.here()
    believable(path, prepare, yields, where)
    if "://" in path:
        raise DeclarationError(
            "source-of-unknown-store",
            "A Delta table is read from a folder, and this is a URL.",
            where=where,
            why="No Delta table in an object store was tried out.",
            next="Mount it, or read its Parquet files: fb.files('s3://bucket/table/*.parquet', ...).",
        )
    if mode not in MODES:
        raise DeclarationError(
            "mode-unknown",
            f"A Delta table is not read by {mode!r}.",
            where=where,
            next="mode='changes', or 'snapshot'.",
        )
    stem = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return _source(Delta(path, mode), stem, (prepare, yields), said, where)


def frames(function: Frames, *, prepare: Preparation, yields: type[Contract], **said: Unpack[Said]) -> Source:
    """Frames that a function of yours yields: of an API, of a format that nothing here reads.

    Args:
        function: takes nothing, or `since`, the name of the last frame that was ingested (or None); yields frames, or pairs of
            a name and a frame, one at a time. It is called whenever the source is looked at, by `plan` too.
        prepare, yields, said: as of `sql`.

    Raises:
        DeclarationError: `frames-of-no-function`; as `files`.
    """
    where = place.here()
    named = _named(function, where)
    believable(f"{named}()", prepare, yields, where)
    return _source(Yields(function, named), named, (prepare, yields), said, where)


def push(name: str, *, prepare: Preparation, yields: type[Contract], **said: Unpack[Fresh]) -> Source:
    """Rows that others send to the server: `POST /ingest/<name>`, with a key of the scope `ingest`.

    Args:
        name: lower case; the end of the path.
        prepare, yields, said: as of `sql`; there is no `name`.

    Raises:
        DeclarationError: `push-not-named`; as `files`.
    """
    where = place.here()
    if _NAME.fullmatch(name) is None:
        raise DeclarationError(
            "push-not-named",
            f"{name!r} cannot be the end of a path.",
            where=where,
            why="It begins with a lower-case letter; letters, digits, - and _ may follow, 63 in all.",
            next="Name what is sent: fb.push('clicks', ...).",
        )
    believable(name, prepare, yields, where)
    return _source(Pushed(name), f"{name}-pushed", (prepare, yields), said, where)


def _source(
    at: At, stem: str, becomes: tuple[Preparation, type[Contract]], said: Said | Cursor | Fresh, where: Place
) -> Source:
    prepare, yields = becomes
    return Source(
        name=str(said.get("name") or "") or f"{stem}.{contract.spec(yields).title}",
        at=at,
        prepare=prepare,
        contract=yields,
        fresh_within=said.get("fresh_within"),
        place=where,
    )


def _named(function: object, where: Place) -> str:
    """The name of a function, which a source of frames is called by."""
    named = getattr(function, "__name__", "")
    if not callable(function) or not named:
        raise DeclarationError(
            "frames-of-no-function",
            f"Frames come of a function, and this is {type(function).__name__}.",
            where=where,
            next="Pass a function that yields frames, with a name: fb.frames(pages, ...).",
        )
    return str(named)


def _askable(query: str, database: str, where: Place) -> None:
    """Refuse what is no query of a named database."""
    if not re.match(r"\s*(select|with|values|table)\b", query, re.IGNORECASE):
        raise DeclarationError(
            "query-not-usable",
            "A source asks, and this query does not begin with SELECT or WITH.",
            where=where,
            why="It becomes a part of larger queries, which are sent to read only.",
            next="Write the SELECT alone, without a comment before it.",
        )
    if _NAME.fullmatch(database) is None:
        raise DeclarationError(
            "database-not-named",
            "The database of a source is not a name.",
            where=where,
            why="A declaration lies in git: where a database is, and who asks it, is placement.",
            next="Name it, database='shop', and set FLYBALL_DATABASE_SHOP to its URL where it runs.",
        )


def _growing(cursor: str, lag: Lag | None, yields: type[Contract], where: Place) -> None:
    """Refuse a cursor that must not be written down, and a lag of nothing."""
    if cursor in contract.spec(yields).with_role(contract.Personal):
        raise DeclarationError(
            "cursor-personal",
            f"The cursor {cursor} is a personal column.",
            where=where,
            why="How far a source was read is a fact, and facts hold nothing personal.",
            next="Choose another column that only grows, such as a time or a number of the row.",
        )
    nothing = lag is not None and (lag <= timedelta(0) if isinstance(lag, timedelta) else lag <= 0)
    if nothing or (lag is not None and not cursor):
        raise DeclarationError(
            "lag-not-usable",
            "A lag is how far each slice begins behind the last row, and this says nothing.",
            where=where,
            why="There is no cursor." if not cursor else "It is not greater than nothing.",
            next="cursor='updated_at', lag=fb.minutes(5); or leave it out.",
        )
