"""Inferring: what the rows of a file are, measured, so that a first contract can be written from them.

Two looks. A bounded sample proposes what a column may be (its type, one shape of text, few values); one streaming query over
all rows then decides, and measures nulls, ranges and lengths. So a proposal that one row in ten million contradicts is not
made. Memory grows with the file by a hash of each row, to tell what its key is, and by nothing else. Text is read by the
very rules of `coerce`, or the contract would refuse it.

The result is a `Draft`: plain data that `draft.code` writes as Python for a person to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import combinations
from typing import Any

import polars as pl

from flyball.data import coerce
from flyball.data.drafts import outline, suspects
from flyball.data.drafts.suspects import Suspect
from flyball.data.source import LINE

INSTANT = pl.Datetime("us", "UTC")
_TYPES = (pl.Int64(), pl.Float64(), pl.Boolean(), pl.Date(), INSTANT, pl.Datetime("us"), pl.Time())
_DAYS, _HOURS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y"), ("", " %H:%M:%S", " %H:%M")
_CLOCKS = (*(day + hour for hour in _HOURS for day in _DAYS), "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
"""Formats of times that are not those of `coerce`."""
_CODE = r"^[+-]?0[0-9]"
"""A leading zero is part of a code, such as 00501, and lost in a number."""
_LONG = r"^[+-]?[0-9]{16,}$"
"""More digits than a float keeps."""
_FEW, _SHORT, _TRIED = 20, 40, 12
_OFTEN = 5
"""An enumeration has each value so often on average."""


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of one column.

    Attributes:
        name: as the preparation should name it.
        dtype: as the contract should declare it; None where no contract can hold it.
        text: whether the file has text for it.
        clock: the format of its times, where they are text that the contract does not read; else "".
        stripped: its cells have blanks around them, which the preparation takes off.
        nulls: how many cells are null.
        distinct: about how many different values there are.
        least, greatest: the range of numbers as it is; None where there is none to speak of, or it is two persons' data.
        odd: whether some numbers are NaN or infinite.
        values: all of them, where they are few.
        regex: what every cell matches, where all have one shape.
        bytes: the least and the greatest length of text.
        suspect: what kind of personal data it seems to hold.
    """

    name: str
    dtype: pl.DataType | None
    text: bool = False
    clock: str = ""
    stripped: bool = False
    nulls: int = 0
    distinct: int = 0
    least: int | float | None = None
    greatest: int | float | None = None
    odd: bool = False
    values: tuple[str, ...] = ()
    regex: str = ""
    bytes: tuple[int, int] | None = None
    suspect: Suspect | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What the rows of a file are.

    Attributes:
        columns: in the file's order, by the names that the preparation gives them.
        renamed: name in the file -> name in the contract, where it must differ.
        rows: how many there are.
        key: the least set of columns that tells all rows apart; empty if no three do.
        event_time: the column that says what time a row is about, or "".
    """

    columns: tuple[Column, ...]
    renamed: Mapping[str, str]
    rows: int
    key: tuple[str, ...]
    event_time: str

    def column(self, name: str) -> Column:
        """One column by name."""
        return next(c for c in self.columns if c.name == name)


def infer(rows: pl.LazyFrame) -> Draft:
    """Measure rows: a bounded sample proposes, all rows decide.

    Args:
        rows: the cells as a `source.Reading` has them; text formats yield text.
    """
    names = [name for name in rows.collect_schema().names() if name != LINE]
    renamed = _renamed(names)
    cells = rows.select(names).rename(renamed)
    height = int(rows.select(pl.len()).collect(engine="streaming").item())
    looked = suspects.sample(cells, height)
    blank = [name for name, dtype in looked.schema.items() if dtype == pl.String and _padded(looked[name])]
    cells, bare = cells.with_columns(map(strip, blank)), looked.with_columns(map(strip, blank))
    proposed = {name: _proposals(bare[name]) for name in bare.columns}
    regexes = {n: outline.regex(bare[n]) for n, types in proposed.items() if bare[n].dtype == pl.String}
    measured = _measure(cells, bare.schema, proposed, regexes)
    columns = tuple(
        _texts(_column(name, dtype, proposed[name], measured[name]), _all(measured, name, regexes))
        for name, dtype in bare.schema.items()
    )
    doubts = suspects.suspects(bare)
    columns = tuple(_doubted(replace(c, stripped=c.name in blank), doubts.get(c.name)) for c in columns)
    columns = _with_values(cells, bare, columns, height)
    return Draft(columns, renamed, height, _key(cells, bare, columns, height), _event_time(columns))


def strip(name: str) -> pl.Expr:
    """The text column `name` without blanks around its cells; a cell of blanks alone is null."""
    return pl.col(name).str.strip_chars().replace("", None)


def outward(least: float, greatest: float) -> tuple[int | float, int | float]:
    """A range rounded outwards to two significant digits: what is likely also true of the next file.

    Whole numbers stay whole. A range that starts near zero starts there.
    """
    low, high = _rounded(least, ROUND_FLOOR), _rounded(greatest, ROUND_CEILING)
    if 0 < least <= greatest / 10 and least != 1:
        low = type(low)(0)
    return low, high


def _rounded(value: float, how: str) -> int | float:
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    digit = Decimal(1).scaleb(max(exact.adjusted() - 1, 0 if isinstance(value, int) else -400))
    near = exact if exact == 0 else (exact / digit).to_integral_value(how) * digit
    return int(near) if isinstance(value, int) else float(near)


def _renamed(names: Sequence[str]) -> dict[str, str]:
    """Names that no contract can have: those that begin with an underscore, and those that look like rules."""
    taken, renamed = set(names), {}
    for name in names:
        plain = name.replace("|", "_").replace("\0", "_").lstrip("_") or "column"
        wanted, n = plain if plain != "primary_key" else "primary_key_", 1
        if wanted == name:
            continue
        while wanted in taken:
            n += 1
            wanted = f"{plain}_{n}"
        taken.add(wanted)
        renamed[name] = wanted
    return renamed


def _padded(cells: pl.Series) -> bool:
    return bool((cells != cells.str.strip_chars()).any())


def _fit(name: str, have: pl.DataType, proposal: pl.DataType | str) -> pl.Expr:
    """The cells of a column as a proposal has them; null where one does not fit."""
    if not isinstance(proposal, str):
        return coerce.cell(name, have, proposal)
    told = pl.col(name).str
    return told.to_datetime(proposal, strict=False) if "%H" in proposal else told.to_date(proposal, strict=False)


def _proposals(cells: pl.Series) -> tuple[pl.DataType | str, ...]:
    """What text may be: the types, and formats of times, that every cell of the sample has."""
    if cells.dtype != pl.String or not cells.count():
        return ()
    frame, numbers = cells.to_frame(), not cells.str.contains(_CODE).any()
    fitting: list[pl.DataType | str] = []
    proposals: tuple[pl.DataType | str, ...] = (*_TYPES, *_CLOCKS)
    for proposal in proposals:
        if isinstance(proposal, pl.DataType) and proposal.is_numeric() and not numbers:
            continue
        if frame.select(_fit(cells.name, cells.dtype, proposal).count()).item() == cells.count():
            fitting.append(proposal)
    # Two formats that both fit (3/4/2013) tell nothing.
    clocks = [p for p in fitting if isinstance(p, str)]
    return tuple(p for p in fitting if not isinstance(p, str) or len(clocks) == 1)


def _measure(
    cells: pl.LazyFrame,
    schema: Mapping[str, pl.DataType],
    proposed: Mapping[str, Sequence[pl.DataType | str]],
    regexes: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Column -> measure -> value, over all rows in one streaming query."""
    asked: dict[tuple[str, str], pl.Expr] = {}
    for name, dtype in schema.items():
        cell = pl.col(name)
        asked[name, "filled"] = cell.count()
        if not (dtype.is_nested() or dtype in (pl.Object, pl.Null)):
            asked[name, "distinct"] = cell.approx_n_unique()
        if dtype.is_numeric() and not isinstance(dtype, pl.Decimal):
            asked |= {(name, what): expr for what, expr in _range(cell, dtype).items()}
        if dtype == pl.String:
            asked[name, "short"], asked[name, "long"] = cell.str.len_bytes().min(), cell.str.len_bytes().max()
            if regexes[name]:
                asked[name, "regex"] = cell.str.contains(regexes[name]).sum()
        for n, proposal in enumerate(proposed[name]):
            fit = _fit(name, dtype, proposal)
            asked[name, f"fit {n}"] = fit.count()
            if isinstance(proposal, pl.DataType) and proposal.is_numeric():
                asked |= {(name, f"{what} {n}"): expr for what, expr in _range(fit, proposal).items()}
                asked[name, f"code {n}"] = cell.str.contains(
                    _CODE if proposal.is_integer() else f"{_CODE}|{_LONG}"
                ).any()
    query = cells.select(expr.alias(str(n)) for n, expr in enumerate(asked.values()))
    answers = query.collect(engine="streaming").row(0) if asked else ()
    found: dict[str, dict[str, Any]] = {name: {} for name in schema}
    for (name, what), answer in zip(asked, answers, strict=True):
        found[name][what] = answer
    height = int(cells.select(pl.len()).collect(engine="streaming").item())
    for measures in found.values():
        measures["nulls"] = height - measures["filled"]
    return found


def _range(value: pl.Expr, dtype: pl.DataType) -> dict[str, pl.Expr]:
    if dtype.is_integer():
        return {"least": value.min(), "greatest": value.max()}
    finite = pl.when(value.is_finite()).then(value)
    return {"least": finite.min(), "greatest": finite.max(), "odd": (~value.is_finite()).any()}


def _column(
    name: str, dtype: pl.DataType, proposed: Sequence[pl.DataType | str], measured: Mapping[str, Any]
) -> Column:
    """What all rows say of one column."""
    column = Column(name, dtype, dtype == pl.String, nulls=measured["nulls"], distinct=measured.get("distinct", 0))
    for n, proposal in enumerate(proposed):
        if measured[f"fit {n}"] == measured["filled"] and not measured.get(f"code {n}"):
            clock = proposal if isinstance(proposal, str) else ""
            type_ = (pl.Datetime("us") if "%H" in clock else pl.Date()) if isinstance(proposal, str) else proposal
            return _ranged(replace(column, dtype=type_, clock=clock), measured, f" {n}")
    if dtype in (pl.String, pl.Null) or isinstance(dtype, pl.Categorical | pl.Enum):
        lengths = (measured["short"], measured["long"]) if measured.get("long") is not None else None
        return replace(column, dtype=pl.String(), bytes=lengths)
    if isinstance(dtype, pl.Datetime):
        return replace(column, dtype=INSTANT if dtype.time_zone else pl.Datetime("us"))
    if dtype == pl.Object:
        return replace(column, dtype=None)
    return _ranged(column, measured, "")


def _ranged(column: Column, measured: Mapping[str, Any], which: str) -> Column:
    """A column of numbers with its range, and whole numbers with the least type that holds the range rounded outwards."""
    if f"least{which}" not in measured:
        return column
    least, greatest = measured[f"least{which}"], measured[f"greatest{which}"]
    column = replace(column, least=least, greatest=greatest, odd=bool(measured.get(f"odd{which}")))
    if column.dtype is None or not column.dtype.is_integer():
        return column
    low, high = outward(least, greatest) if least is not None else (0, 0)
    for dtype, bits in ((pl.Int32(), 31), (pl.Int64(), 63)):
        if -(2**bits) <= low and high < 2**bits:
            return replace(column, dtype=dtype)
    if least < -(2**63) or greatest >= 2**64:
        return replace(column, dtype=None)
    # Rounded outwards it fits no type, so as it is: without bounds.
    fits = pl.Int64() if greatest < 2**63 else pl.UInt64() if least >= 0 else None
    return replace(column, dtype=fits, least=None, greatest=None)


def _all(measured: Mapping[str, Mapping[str, Any]], name: str, regexes: Mapping[str, str]) -> str:
    """The proposed shape of a text column, if every cell of all rows has it."""
    same = measured[name].get("regex") == measured[name]["filled"]
    return regexes[name] if regexes.get(name) and same else ""


def _texts(column: Column, regex: str) -> Column:
    """A column that stays text, with its shape; numbers and times have a shape of their own."""
    return replace(column, regex=regex) if column.dtype == pl.String else column


def _doubted(column: Column, suspect: Suspect | None) -> Column:
    """A column with what it is suspected of; of personal numbers no range, for its ends are somebody's."""
    return column if suspect is None else replace(column, suspect=suspect, least=None, greatest=None)


def _with_values(
    cells: pl.LazyFrame, looked: pl.DataFrame, columns: tuple[Column, ...], height: int
) -> tuple[Column, ...]:
    """Text columns of few short values, with them all."""
    few = [
        c.name
        for c in columns
        if c.dtype == pl.String and c.suspect is None and 0 < looked[c.name].drop_nulls().n_unique() <= _FEW
        if c.distinct <= 2 * _FEW and c.distinct * _OFTEN <= height
    ]
    asked = [cells.select(pl.col(name).cast(pl.String)).unique() for name in few]
    answers = pl.collect_all(asked, engine="streaming") if asked else []
    values = {
        name: tuple(sorted(answer[name].drop_nulls()))
        for name, answer in zip(few, answers, strict=True)
        if answer.height <= _FEW + 1 and (answer[name].str.len_bytes().max() or 0) <= _SHORT  # type: ignore[operator]
    }
    return tuple(replace(c, values=values.get(c.name, ())) for c in columns)


def _key(cells: pl.LazyFrame, looked: pl.DataFrame, columns: Sequence[Column], height: int) -> tuple[str, ...]:
    """The least set of up to three columns that tells all rows apart; () if none does, or nothing is there to tell."""
    able = sorted((c for c in columns if _may_key(c, height)), key=_key_order)
    distinct = {c.name: c.distinct for c in able}
    tried = 0
    for names in _sets([c.name for c in able]):
        # The counts are estimates that may be a fifth too low.
        if math.prod(distinct[n] * 1.25 for n in names) < height or looked.select(names).is_duplicated().any():
            continue
        values = [_value(c, looked.schema[c.name]) for c in able if c.name in names]
        told_apart = cells.select(pl.struct(values).hash().n_unique()).collect(engine="streaming").item()
        if told_apart == height:
            return names
        tried += 1
        if tried == _TRIED:
            break
    return ()


def _value(column: Column, have: pl.DataType) -> pl.Expr:
    """The cells as the contract will have them: two texts may be one number."""
    want = column.clock or column.dtype or have
    return _fit(column.name, have, want).alias(column.name)


def _sets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in (1, 2, 3):
        yield from combinations(names, size)


def _may_key(column: Column, height: int) -> bool:
    dtype = column.dtype
    able = dtype is not None and (dtype.is_integer() or dtype.is_temporal() or dtype == pl.String)
    return able and height > 0 and column.nulls == 0 and column.distinct > 1


def _key_order(column: Column) -> tuple[bool, bool, bool]:
    """Columns that are called keys first, then codes and whole numbers, personal data last."""
    words = column.name.lower().replace("-", "_").split("_")
    called = bool({"id", "key", "uuid", "code", "nr", "no", "number", "index"} & set(words)) or column.name.endswith(
        "ID"
    )
    return (
        column.suspect is not None,
        not called,
        column.bytes is not None and not column.regex and column.bytes[1] > _SHORT,
    )


_TIMELY = ("event", "timestamp", "time", "datetime", "date", "scheduled", "observed", "created", "at", "when", "start")


def _event_time(columns: Sequence[Column]) -> str:
    """The likeliest column: a time without nulls; instants before clock times before days; then by its name."""
    order = (INSTANT, pl.Datetime("us"), pl.Date())
    able = [
        c for c in columns if c.dtype in order and not c.nulls and not (c.suspect and c.suspect.kind == "date of birth")
    ]

    def rank(column: Column) -> tuple[int, int]:
        said = [n for n, word in enumerate(_TIMELY) if word in column.name.lower()]
        return order.index(column.dtype), min(said, default=len(_TIMELY))

    return min(able, key=rank).name if able else ""
