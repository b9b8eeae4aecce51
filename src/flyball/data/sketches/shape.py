"""A sketch as a person reads it: values as text, the shape of a column as bars, and how far two columns lie apart.

The terminal and the page say the same, because both say what is here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec
import numpy as np

from flyball.data.sketches import moments, quantiles, sketch
from flyball.data.sketches.days import DAY
from flyball.data.sketches.frequent import Value
from flyball.data.sketches.sketch import Column

BARS: Final = 24
TRIMMED: Final = 0.005
"""What is left out at an end that would squeeze the rest of the bars together; it is named."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


class Shape(msgspec.Struct, frozen=True):
    """A column as bars.

    Attributes:
        counts: rows of each bar.
        labels: what each bar is about.
        low, high: the ends of the axis.
        below, above: rows beyond the axis.
    """

    counts: tuple[int, ...]
    labels: tuple[str, ...]
    low: str
    high: str
    below: int = 0
    above: int = 0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A column in words: one line of the terminal's table, and what `--json` gives."""

    name: str
    type: str
    rows: int
    nulls: int
    nans: int
    infinite: int
    distinct: int | None
    distinct_is_exact: bool
    mean: float | None
    deviation: float | None
    low: str
    p5: str
    p50: str
    p95: str
    high: str
    rank_error: float
    top: tuple[tuple[str, int], ...]
    top_is_exact: bool
    counts: tuple[int, ...]


def line(found: Column) -> Line:
    """A column in words."""
    many = sketch.many(found)
    drawn = shape(found)
    p5, p50, p95 = (at(found, q) for q in (0.05, 0.5, 0.95))
    return Line(
        name=found.name,
        type=found.dtype,
        rows=found.rows,
        nulls=found.nulls,
        nans=found.nans,
        infinite=found.infinite,
        distinct=many[0] if many else None,
        distinct_is_exact=bool(many and many[1]),
        mean=moments.mean(found.moments),
        deviation=moments.deviation(found.moments),
        low=end(found, upper=False),
        p5=p5,
        p50=p50,
        p95=p95,
        high=end(found, upper=True),
        rank_error=found.quantiles.slack / found.quantiles.n if found.quantiles.n else 0.0,
        top=tuple((said(found, value), n) for value, n in sketch.top(found)[:10]),
        top_is_exact=not found.frequent.slack,
        counts=drawn.counts if drawn else (),
    )


def at(found: Column, q: float) -> str:
    """The quantile, as text; of texts and lists, of their lengths."""
    value = quantiles.quantile(found.quantiles, q)
    return "" if value is None else _number(found, value)


def end(found: Column, *, upper: bool) -> str:
    """The least or the greatest value, as text; of texts and lists, of their lengths."""
    exact = found.high if upper else found.low
    if exact is None:
        return at(found, 1.0 if upper else 0.0)
    if found.kind == "number" and not found.dtype.startswith("Float"):
        size = Decimal(exact)
        return f"{size:,}" if abs(size) < 10**15 else f"{size:.6e}"
    return _number(found, float(exact))


def said(found: Column, value: Value) -> str:
    """A frequent value, as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else _number(found, value)


def shape(found: Column, bars: int = BARS) -> Shape | None:
    """The bars of a column; None where nothing was kept that has a shape."""
    if found.kind == "time" and found.days.starts:
        return _in_time(found, bars)
    if found.kind in ("text", "truth"):
        counted = sketch.top(found)[:bars]
        named = tuple(said(found, v) for v, _ in counted)
        rest = found.rows - found.nulls - sum(n for _, n in counted)
        return Shape(tuple(n for _, n in counted), named, "", "", 0, rest) if counted else None
    if found.kind in ("number", "span", "list") and found.quantiles.n > found.infinite:
        return _in_bins(found, bars)
    return None


def blocks(found: Shape | None) -> str:
    """The bars as block characters; a bar that has any row is seen."""
    if found is None:
        return ""
    most = max(found.counts, default=0) or 1
    return "".join(_BLOCKS[max(1, round(8 * n / most))] if n else _BLOCKS[0] for n in found.counts)


def apart(a: Column, b: Column) -> float | None:
    """How far two columns lie apart, 0 to 1: of numbers and times the greatest difference between the shares of rows that
    are at most some value (Kolmogorov and Smirnov), of categories half the sum of differences of shares. Nulls are left out.
    """
    if a.kind != b.kind:
        return None
    if a.kind in ("number", "span", "time", "list"):
        if not a.quantiles.n or not b.quantiles.n:
            return None
        steps = [k / 200 for k in range(201)]
        points = {quantiles.quantile(x.quantiles, q) for x in (a, b) for q in steps} - {None}
        return max(
            abs(quantiles.rank(a.quantiles, p) / a.quantiles.n - quantiles.rank(b.quantiles, p) / b.quantiles.n)
            for p in points
            if p is not None
        )
    left, right = (dict(zip(x.frequent.values, x.frequent.counts, strict=True)) for x in (a, b))
    n, m = a.rows - a.nulls, b.rows - b.nulls
    if not n or not m or not (left or right):
        return None
    shares = [(left.get(v, 0) / n, right.get(v, 0) / m) for v in {*left, *right}]
    rest = abs(sum(x for x, _ in shares) - sum(y for _, y in shares))
    return min(1.0, (sum(abs(x - y) for x, y in shares) + rest) / 2)


def day(number: int) -> str:
    """A day that is counted since 1970."""
    try:
        return (_EPOCH + timedelta(days=number)).date().isoformat()
    except OverflowError:
        return f"day {number:,}"


def _number(found: Column, value: float) -> str:
    if found.kind == "time":
        return _moment(found, value)
    if found.kind == "span":
        return f"{value:,.6g} s"
    if found.kind == "number" and "Float" not in found.dtype and "Decimal" not in found.dtype and abs(value) < 10**15:
        return f"{value:,.0f}"
    if found.kind in ("text", "list"):
        return f"{value:,.0f} {'chars' if found.kind == 'text' else 'items'}"
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "NaN"
    size = abs(value)
    if size >= 10**12 or 0 < size < 1e-4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def _moment(found: Column, micros: float) -> str:
    try:
        moment = _EPOCH + timedelta(microseconds=int(micros))
    except OverflowError:
        return f"{micros / DAY:,.0f} days from 1970"
    return f"{moment:%Y-%m-%d}" if found.dtype == "Date" else f"{moment:%Y-%m-%d %H:%M}"


def _in_time(found: Column, bars: int) -> Shape:
    width = 1 << found.days.coarse
    first, last = found.days.starts[0], found.days.starts[-1]
    step = max(1, -(-(last - first + 1) // bars))
    counts = [0] * (-(-(last - first + 1) // step))
    for start, n in zip(found.days.starts, found.days.counts, strict=True):
        counts[(start - first) // step] += n
    begins = [(first + k * step) * width for k in range(len(counts))]
    ends = [min(b + step * width, (last + 1) * width) - 1 for b in begins]
    labels = tuple(day(b) if b == e else f"{day(b)} to {day(e)}" for b, e in zip(begins, ends, strict=True))
    return Shape(tuple(counts), labels, day(begins[0]), day(ends[-1]))


def _in_bins(found: Column, bars: int) -> Shape:
    """Bars of numbers: of each value where there are few whole ones, else of equal widths without a far tail."""
    values = found.quantiles
    low, high = _axis(found)
    whole = found.kind == "list" or (found.kind == "number" and found.dtype.lstrip("U").startswith("Int"))
    if whole and high - low < 2**53:
        step = max(1.0, float(np.ceil((high - low + 1) / bars)))
        edges = np.arange(low - 1, high + step, step)
    else:
        edges = np.linspace(low, high, bars + 1) if high > low else np.array([np.nextafter(low, -np.inf), low])
    counts = np.maximum(quantiles.counts(values, edges), 0)
    edge = [_number(found, float(e)) for e in edges]
    one = whole and edges[1] - edges[0] == 1
    labels = [edge[k + 1] if one else f"over {edge[k]}, ≤ {edge[k + 1]}" for k in range(len(counts))]
    below = quantiles.rank(values, float(np.nextafter(edges[0], -np.inf)))
    above = values.n - below - int(counts.sum())
    return Shape(tuple(counts.tolist()), tuple(labels), _number(found, low), _number(found, high), below, max(0, above))


def _axis(found: Column) -> tuple[float, float]:
    """The finite ends of the axis: of all numbers, but for an end where 1 of 200 takes more room than all others."""
    marks = [quantiles.quantile(found.quantiles, q) or 0.0 for q in (0.0, TRIMMED, 1 - TRIMMED, 1.0)]
    big = float(np.finfo(np.float64).max) / 4
    low, p0, p1, high = (float(np.clip(m, -big, big)) for m in marks)
    room = (p1 - p0) or (abs(p1) + 1.0) * 1e-9
    flat = p1 == p0
    return (p0 if p0 - low > room and not flat else low), (p1 if high - p1 > room and not flat else high)
