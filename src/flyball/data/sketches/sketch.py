"""A sketch of a table: what one pass over its rows tells of each column, in a few kilobytes that can be merged.

Nothing has to be known before: no contract, no reference. Sketches of parts merge to the sketch of the whole. Exactly:
counts, sums, the least and the greatest, days, and what else has few different values. Within a bound that it states itself:
quantiles (`quantiles.slack`) and frequent values (`frequent.slack`); the number of different values within 2 %. The same rows
in the same order give the same bytes.

Refused: values of persons. A column that is marked personal is counted, and nothing of it is kept but keyed hashes; of others
a value is shown (`top`) only if `NAMED` rows share it, and never a text longer than `LONGEST`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import reduce
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel import ids
from flyball._kernel.errors import Bug
from flyball.data.sketches import days, frequent, moments, quantiles
from flyball.data.sketches.days import Days
from flyball.data.sketches.frequent import Distinct, Frequent, Value
from flyball.data.sketches.moments import Moments
from flyball.data.sketches.quantiles import Quantiles

Kind = Literal["number", "span", "time", "text", "truth", "list", "other", "personal"]
Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NAMED = 10
"""Rows that must share a value for it to be shown."""
LONGEST = 200
"""Bytes of a text that is named at most."""
ROWS = 1 << 17
"""Rows that are looked at together."""
FORMAT = f"2/{pl.__version__}"
"""What may be merged: the layout here, and the release of Polars, whose hashes of texts are its own."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one column.

    Attributes:
        kind: number; span (seconds: durations and times of day); time (microseconds since 1970); text and truth; list (its
            lengths count as its numbers); other: nested, counted only; personal: counted only.
        dtype: the name of its Polars type, with what matters of its parameters.
        nans, infinite: floats that are no numbers; infinite ones count in the quantiles, in no sum.
        low, high: the exact least and greatest, as decimal text; None without, and for texts.
        quantiles: of numbers, or of the lengths of texts (characters) and lists.
    """

    name: str
    dtype: str
    kind: Kind
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    infinite: int = 0
    low: str | None = None
    high: str | None = None
    quantiles: Quantiles = quantiles.EMPTY
    moments: Moments = moments.EMPTY
    distinct: Distinct | None = None
    frequent: Frequent = Frequent()
    days: Days = days.EMPTY


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a table."""

    rows: int
    columns: tuple[Column, ...]
    format: str = FORMAT

    def column(self, name: str) -> Column | None:
        """One column by name."""
        return next((c for c in self.columns if c.name == name), None)


def of(rows: pl.LazyFrame, *, personal: Iterable[str] = (), seed: int = 0) -> Sketch:
    """The sketch of all rows, read once, `ROWS` at a time.

    Args:
        personal: columns of which nothing is kept.
        seed: a secret number, 0 to 2**64 - 1, that keys the hashes.
    """
    hidden = frozenset(personal)
    found = _frame(pl.DataFrame(schema=rows.collect_schema()), hidden, seed)
    for part in rows.collect_batches(chunk_size=ROWS, maintain_order=True):
        for frame in part.iter_slices(ROWS):
            found = _merge(found, _frame(frame, hidden, seed))
    return found


def merge(*parts: Sketch) -> Sketch:
    """The sketch of the rows of all parts; a column that a part lacks is null in it.

    Raises:
        Bug: `sketches-do-not-fit`, for none, and where a column is of another kind or format elsewhere.
    """
    if not parts:
        raise Bug("sketches-do-not-fit", "No sketch at all was to be merged.")
    return reduce(_merge, parts)


def encode(found: Sketch) -> bytes:
    """As bytes: same sketch, same bytes."""
    return zlib.compress(msgspec.msgpack.encode(found), 6)


def decode(data: bytes) -> Sketch:
    """What `encode` wrote."""
    return msgspec.msgpack.decode(zlib.decompress(data), type=Sketch)


def top(found: Column) -> list[tuple[Value, int]]:
    """The values that may be named, the most frequent first, with how often each occurs at least."""
    pairs = zip(found.frequent.values, found.frequent.counts, strict=True)
    return [(value, n) for value, n in pairs if n >= NAMED]


def many(found: Column) -> tuple[int, bool] | None:
    """(different values without null, whether that is exact); None where they were not told apart."""
    if found.distinct is None:
        return None
    n, exact = frequent.many(found.distinct)
    return min(n, found.rows - found.nulls), exact


def seed_of(secret: bytes) -> int:
    """A seed from a secret."""
    return int(ids.digest(secret)[:16], 16)


def _frame(frame: pl.DataFrame, hidden: frozenset[str], seed: int) -> Sketch:
    columns = tuple(_column(frame[name], name in hidden, seed) for name in frame.columns)
    return Sketch(rows=frame.height, columns=columns)


def _column(values: pl.Series, hidden: bool, seed: int) -> Column:
    kind: Kind = "personal" if hidden else _kind(values.dtype)
    found = Column(
        name=values.name, dtype=_called(values.dtype), kind=kind, rows=len(values), nulls=values.null_count()
    )
    there = values.drop_nulls()
    if kind in ("number", "span", "time"):
        return _numbers(found, there, seed)
    if kind in ("text", "truth"):
        return _texts(found, there, seed)
    lengths = quantiles.EMPTY
    if kind == "list":
        by_row = there.arr.len() if isinstance(there.dtype, pl.Array) else there.list.len()
        lengths = quantiles.of(np.sort(by_row.cast(pl.Float64).to_numpy()))
    return msgspec.structs.replace(found, quantiles=lengths, distinct=_told_apart(there, seed))


def _called(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"Datetime {dtype.time_zone}" if dtype.time_zone else "Datetime"
    return str(dtype) if dtype.is_decimal() or isinstance(dtype, pl.List) else dtype.base_type().__name__


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.Duration, pl.Time):
        return "span"
    if dtype.is_temporal():
        return "time"
    if dtype == pl.Boolean:
        return "truth"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    return "list" if isinstance(dtype, pl.List | pl.Array) else "other"


def _numbers(found: Column, there: pl.Series, seed: int) -> Column:
    """Of numbers, sorted once: what is equal then lies together."""
    numbers = _as_float(there, found.kind)
    ascending = np.sort(numbers)  # NaN comes last
    nans = int(np.isnan(ascending).sum())
    ascending = ascending[: len(ascending) - nans]
    first = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])
    different, times = ascending[first], np.diff(np.r_[first, len(ascending)])
    finite = np.isfinite(different)
    named = frequent.contenders(times)
    counted = frequent.counted(dict(zip(different[named].tolist(), times[named].tolist(), strict=True)))
    low, high = _ends(there, ascending, found.kind)
    time = found.kind == "time"
    micros = different.astype(np.int64) if time else np.zeros(0, dtype=np.int64)
    return msgspec.structs.replace(
        found,
        nans=nans,
        infinite=int(times[~finite].sum()),
        low=low,
        high=high,
        quantiles=quantiles.of(ascending),
        moments=moments.EMPTY if time else moments.of(different[finite], times[finite]),
        distinct=frequent.distinct(frequent.hashes(different, seed)),
        frequent=frequent.Frequent() if time else counted,
        days=days.of(micros, times, hours=found.dtype != "Date") if time else days.EMPTY,
    )


def _as_float(there: pl.Series, kind: Kind) -> Numbers:
    """As float64, zero with one sign: a whole number beyond 2**53 is rounded."""
    if kind == "time":
        there = there.cast(pl.Datetime("us")).cast(pl.Int64)
    elif kind == "span":
        ticks = there.cast(pl.Int64)
        unit = {"ns": 1e9, "us": 1e6, "ms": 1e3}[getattr(there.dtype, "time_unit", "ns") or "ns"]
        return np.asarray(ticks.cast(pl.Float64).to_numpy() / unit + 0.0, dtype=np.float64)
    return np.asarray(there.cast(pl.Float64).to_numpy() + 0.0, dtype=np.float64)


def _ends(there: pl.Series, ascending: Numbers, kind: Kind) -> tuple[str | None, str | None]:
    """The exact least and greatest, as decimal text."""
    if not len(ascending):
        return None, None
    if kind == "number" and not there.dtype.is_float():
        return str(there.min()), str(there.max())
    return repr(float(ascending[0])), repr(float(ascending[-1]))


def _texts(found: Column, there: pl.Series, seed: int) -> Column:
    """Of texts: each different one is looked at once."""
    if found.kind == "text":
        there = there.cast(pl.String)
    table = there.rename("value").value_counts(name="n")
    different, times = table["value"], table["n"].cast(pl.Int64)
    short = different.str.len_bytes() <= LONGEST if found.kind == "text" else different.is_not_null()
    named = table.filter(short)
    named = named[frequent.contenders(named["n"].cast(pl.Int64).to_numpy()).tolist()] if named.height else named
    counted = frequent.counted(dict(zip(named["value"].to_list(), named["n"].to_list(), strict=True)))
    lengths = quantiles.EMPTY
    if found.kind == "text":
        each = different.str.len_chars().cast(pl.Float64).to_numpy()
        lengths = quantiles.of(np.sort(np.repeat(each, times.to_numpy())))
    told = frequent.distinct(different.hash(seed).to_numpy())
    return msgspec.structs.replace(found, quantiles=lengths, distinct=told, frequent=counted)


def _told_apart(there: pl.Series, seed: int) -> Distinct | None:
    try:
        return frequent.distinct(there.hash(seed).unique().to_numpy())
    except pl.exceptions.PolarsError:
        return None  # a kind of value that Polars cannot hash


def _merge(a: Sketch, b: Sketch) -> Sketch:
    if a.format != b.format:
        raise Bug("sketches-do-not-fit", f"A sketch of format {a.format} meets one of {b.format}.")
    names = dict.fromkeys([*(c.name for c in a.columns), *(c.name for c in b.columns)])
    left, right = ({c.name: c for c in x.columns} for x in (a, b))
    columns = tuple(
        _both(left.get(n) or _absent(right[n], a.rows), right.get(n) or _absent(left[n], b.rows)) for n in names
    )
    return Sketch(rows=a.rows + b.rows, columns=columns, format=a.format)


def _absent(like: Column, rows: int) -> Column:
    told = Distinct() if like.distinct is not None else None
    return Column(name=like.name, dtype=like.dtype, kind=like.kind, rows=rows, nulls=rows, distinct=told)


def _both(a: Column, b: Column) -> Column:
    if a.kind != b.kind:
        raise Bug("sketches-do-not-fit", f"The column {a.name!r} is a {a.kind} in one part and a {b.kind} in another.")
    told = None if a.distinct is None or b.distinct is None else frequent.union(a.distinct, b.distinct)
    return Column(
        name=a.name,
        dtype=a.dtype if a.dtype == b.dtype else f"{a.dtype} | {b.dtype}"[:200],
        kind=a.kind,
        rows=a.rows + b.rows,
        nulls=a.nulls + b.nulls,
        nans=a.nans + b.nans,
        infinite=a.infinite + b.infinite,
        low=min(_known(a.low, b.low), key=Decimal, default=None),
        high=max(_known(a.high, b.high), key=Decimal, default=None),
        quantiles=quantiles.merge(a.quantiles, b.quantiles),
        moments=moments.merge(a.moments, b.moments),
        distinct=told,
        frequent=frequent.merge(a.frequent, b.frequent),
        days=days.merge(a.days, b.days),
    )


def _known(*values: str | None) -> Iterator[str]:
    return (v for v in values if v is not None)


def nulls(found: Sketch) -> Mapping[str, float]:
    """Column -> share of its rows that are null."""
    return {c.name: c.nulls / c.rows if c.rows else 0.0 for c in found.columns}
