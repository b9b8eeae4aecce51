"""Cells, mended one by one: structural faults of text, said plainly so that the contract can read them.

Every step takes text and yields text in the one form that a contract parses: `1234.5`, `2024-03-01T09:30:00Z`, `true`. A
cell that a step cannot read **stays as it stood**: the contract then refuses it by `column|dtype`, and quarantine shows
what the file said. So no step here loses a cell, and none invents one. Typed cells (Parquet, Arrow) are left as they are.

Use them through `prepare`, which names them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball.data.source import LINE, Preparation

_BLANK = "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" + (
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Unicode calls white space."""
_NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
"""Characters that nobody sees. Around a cell they mean nothing; within one they join and part letters."""
_CONTINUED = bytes(range(0x80, 0xC0)).decode("cp1252", "ignore") + "\u0081\u008d\u008f\u0090\u009d"
_MANGLED = f"[\u00c2-\u00f4][\u0080-\u00bf{_CONTINUED}]"
"""A lead byte and a continuation byte of UTF-8, as Latin-1 or Windows-1252 show them."""

Twice = Literal["refuse", "earliest", "latest"]
Meaning = TypeVar("Meaning", str, float)


def cells(columns: Iterable[str], change: Callable[[pl.Expr], pl.Expr]) -> Preparation:
    """A step that changes the text cells of `columns` (none named: of all), one by one."""
    wanted = tuple(columns)

    def step(rows: pl.LazyFrame) -> pl.LazyFrame:
        schema = rows.collect_schema()
        names = [c for c in wanted or schema.names() if c != LINE and schema.get(c, pl.String()) == pl.String]
        return rows.with_columns(change(pl.col(c)).alias(c) for c in names)

    return step


def trim(*columns: str) -> Preparation:
    """No white space around a cell (no-break and zero-width ones too), and one spelling of each accent (Unicode NFC)."""

    def trimmed(text: pl.Expr) -> pl.Expr:
        ends = text.str.strip_chars(_BLANK + _NO_WIDTH)
        # Plain text has one spelling, and asking is cheaper than normalising it.
        plain = ends.str.len_bytes() == ends.str.len_chars()
        return pl.when(plain).then(ends).otherwise(ends.str.normalize("NFC"))

    return cells(columns, trimmed)


def squeeze(*columns: str) -> Preparation:
    """Each run of white space within a cell becomes one space; what has no width stays, since words and emoji need it."""
    return cells(columns, lambda text: text.str.replace_all(f"[{_BLANK}]+", " "))


def cases(*columns: str, to: Literal["lower", "upper", "title"]) -> Preparation:
    """Letters in one case."""

    def cased(text: pl.Expr) -> pl.Expr:
        match to:
            case "lower":
                return text.str.to_lowercase()
            case "upper":
                return text.str.to_uppercase()
            case "title":
                return text.str.to_titlecase()

    return cells(columns, cased)


def categories(*columns: str, spellings: Mapping[str, str]) -> Preparation:
    """One name for each thing: spelling -> name, whatever the case and the space around it. Unknown cells stay.

    Raises:
        DeclarationError: `spelling-twice`, when two spellings differ in case alone and mean two things.
    """
    known = _folded(spellings)

    def named(text: pl.Expr) -> pl.Expr:
        return pl.coalesce(_looked_up(text.str.strip_chars().str.to_lowercase(), known, pl.String()), text)

    return cells(columns, named)


def _folded(spellings: Mapping[str, Meaning]) -> dict[str, Meaning]:
    """Spellings without their case and the space around them."""
    known: dict[str, Meaning] = {}
    for spelling, meaning in spellings.items():
        if known.setdefault(spelling.strip().lower(), meaning) != meaning:
            raise DeclarationError(
                "spelling-twice",
                f"The spelling {spelling!r} stands for two things.",
                where=place.here(),
                why="Spellings are compared without their case and the space around them.",
                next="Leave one of them.",
            )
    return known


def _looked_up(text: pl.Expr, known: Mapping[str, str] | Mapping[str, float], dtype: pl.DataType) -> pl.Expr:
    """The value of each cell in a table, else null."""

    def found(cells: pl.Series) -> pl.Series:
        return cells.replace_strict(known, default=None, return_dtype=dtype)

    # Said to be elementwise, it streams; the expression of the same name would hold the whole column.
    return text.map_batches(found, return_dtype=dtype, is_elementwise=True)


def truth(*columns: str, yes: Iterable[str] = ("yes", "y"), no: Iterable[str] = ("no", "n")) -> Preparation:
    """`true` and `false` for other words that mean them; their case does not count."""
    return categories(*columns, spellings={**dict.fromkeys(yes, "true"), **dict.fromkeys(no, "false")})


def number(
    *columns: str, decimal: str = ".", thousands: str = "", units: Mapping[str, float] | None = None
) -> Preparation:
    """`1.234,5 kg` becomes `1234.5`. A cell that has the contract's form already, such as `1.5`, stays and is read so.

    Args:
        columns: whose cells say numbers.
        decimal: what stands before the fraction.
        thousands: what parts groups of three digits; a cell grouped otherwise stays as it is.
        units: unit, before or behind the number -> factor, such as {"kg": 1, "g": 0.001}; "" for a cell without one, which
            otherwise stays. None: no cell has a unit. A factor of 1 changes no digit.

    Raises:
        DeclarationError: `separators-unclear`, where a decimal and a thousands separator look alike; `spelling-twice`, when
            two units differ in case alone and have two factors.
    """
    if not decimal or decimal == thousands or re.search(r"[0-9+\-−]", decimal + thousands):
        raise DeclarationError(
            "separators-unclear",
            f"The separators {decimal!r} (decimal) and {thousands!r} (thousands) do not tell a number's parts.",
            where=place.here(),
            why="1.5 would be read as 15: a separator is no digit and no sign, and the two are not alike.",
            next='Say both, such as decimal=",", thousands=".".',
        )
    factors = _folded({unit: float(factor) for unit, factor in (units or {"": 1}).items()})
    whole = rf"[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+|[0-9]+" if thousands else r"[0-9]+"
    pattern = rf"^([^\d+\-.,−]*)([+\-−]?(?:{whole})(?:{re.escape(decimal)}[0-9]+)?)(\D*)$"

    def plain(text: pl.Expr) -> pl.Expr:
        groups = text.str.extract_groups(pattern).struct
        digits = groups[1].str.replace("−", "-", literal=True)
        if thousands:
            digits = digits.str.replace_all(thousands, "", literal=True)
        digits = digits.str.replace(decimal, ".", literal=True).str.strip_prefix("+")
        unit = pl.concat_str(groups[0], groups[2]).str.strip_chars().str.to_lowercase()
        factor = _looked_up(unit, factors, pl.Float64())
        product = digits.cast(pl.Float64, strict=False) * factor
        scaled = product.cast(pl.String).str.strip_suffix(".0")
        said = pl.when(factor == 1).then(digits).when(product.is_finite()).then(scaled)
        return pl.coalesce(said, text)

    return cells(columns, plain)


def moment(*columns: str, formats: Iterable[str], zone: str | None = None, twice: Twice = "refuse") -> Preparation:
    """Times in UTC: `31.10.2024 09:30` by `%d.%m.%Y %H:%M` in Berlin becomes `2024-10-31T08:30:00Z`.

    A cell that several formats read as different times stays as it is, and so does a wall clock that never came (the hour
    that summer time skips), and a year of less than four digits that `%Y` would read.

    Args:
        columns: whose cells say times.
        formats: as strftime has them; one with `%z` reads the offset from the cell.
        zone: where the wall clock of the others hung.
        twice: what a wall clock means that came twice, when summer time ended: the first, the second, or nothing.

    Raises:
        DeclarationError: `time-without-zone`.
    """
    wanted = tuple(formats)
    local = next((f for f in wanted if "%z" not in f), None)
    if zone is None and local is not None:
        raise DeclarationError(
            "time-without-zone",
            f"The format {local!r} reads a wall clock, and no zone says where it hung.",
            where=place.here(),
            why="All times are instants; whoever guesses the zone sees a few hours of the future.",
            next='Say it: zone="Europe/Berlin", or "UTC" where the clock showed that.',
        )

    def instant(text: pl.Expr, form: str) -> pl.Expr:
        if "%z" in form:
            return text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        clock = text.str.to_datetime(form, time_unit="us", strict=False)
        placed = clock.dt.replace_time_zone(zone, non_existent="null", ambiguous="null" if twice == "refuse" else twice)
        return placed.dt.convert_time_zone("UTC")

    return cells(columns, lambda text: _agreed(text, [instant(text, f) for f in wanted], "%Y-%m-%dT%H:%M:%S%.fZ"))


def date(*columns: str, formats: Iterable[str]) -> Preparation:
    """Dates as `2024-10-31`; a cell that several formats read as different dates, or as a year before 1000, stays as it is."""
    wanted = tuple(formats)
    return cells(columns, lambda text: _agreed(text, [text.str.to_date(f, strict=False) for f in wanted], "%Y-%m-%d"))


def _agreed(text: pl.Expr, readings: list[pl.Expr], form: str) -> pl.Expr:
    # `%Y` takes what digits there are: the year 24 is a misread 2024, and would be right in no cell.
    sound = [pl.when(r.dt.year().is_between(1000, 9999)).then(r) for r in readings]
    first, last = pl.min_horizontal(sound), pl.max_horizontal(sound)
    return pl.coalesce(pl.when(first == last).then(first.dt.to_string(form)), text)


def hhmm(*columns: str) -> Preparation:
    """`517` becomes `05:17`. `2400` stays: it is midnight of a day that only its date can tell."""

    def clock(text: pl.Expr) -> pl.Expr:
        digits = text.str.extract(r"^([0-9]{1,4})$").str.zfill(4)
        hour, minute = digits.str.slice(0, 2), digits.str.slice(2, 2)
        fits = (hour.cast(pl.Int32) < 24) & (minute.cast(pl.Int32) < 60)
        return pl.coalesce(pl.when(fits).then(pl.concat_str(hour, minute, separator=":")), text)

    return cells(columns, clock)


def mojibake(*columns: str) -> Preparation:
    """UTF-8 that somebody read as Latin-1 or Windows-1252 (`GÃ¶teborg`), undone; only where the whole cell can be."""

    def repaired(text: pl.Expr) -> pl.Expr:
        return text.map_batches(_unmangled, return_dtype=pl.String, is_elementwise=True)

    return cells(columns, repaired)


def _unmangled(cells: pl.Series) -> pl.Series:
    suspect = cells.str.contains(_MANGLED).fill_null(value=False)
    if not suspect.any():
        return cells
    known = {c: _decoded(c) for c in cells.filter(suspect).unique()}
    return cells.replace(known)


def _decoded(cell: str) -> str:
    """The cell with its bytes read as UTF-8, or as it is where they are none."""
    try:
        return b"".join(map(_byte, cell)).decode()
    except UnicodeError:
        return cell


def _byte(letter: str) -> bytes:
    # Windows-1252 leaves five bytes undefined, and decoders pass them through as Latin-1 has them.
    return letter.encode("latin-1" if ord(letter) < 256 else "cp1252")
