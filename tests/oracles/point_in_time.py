"""The naive oracle: point-in-time features straight from their definition, over all rows, for one question.

Nothing is shared with the code under test: rows are dictionaries, moments are datetimes, and nothing is sorted to be fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]


def as_of(rows: Sequence[Row], key: Sequence[str], late: Sequence[str], asked: datetime) -> list[Row]:
    """Of each key the last version known before the question; its outcomes hidden unless they had settled by then.

    Each with when a version of its key was first known, and when an outcome of one was: `_known_first`, `_outcome_first`.
    """
    last: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (r["_known"], r["_batch"])):
        if row["_known"] < asked:
            of = tuple(row[k] for k in key)
            before = last.get(of, row)
            outcomes = [
                r.get(n) for r, n in ((before, "_outcome_first"), (row, "_outcome_known")) if r.get(n) is not None
            ]
            first = before.get("_known_first", row["_known"])
            last[of] = {**row, "_known_first": first, "_outcome_first": min(outcomes, default=None)}
    settled = {k: r for k, r in last.items() if r.get("_outcome_known") is not None and r["_outcome_known"] < asked}
    hidden = {**dict.fromkeys(late), "_outcome_known": None, "_outcome_first": None}
    return [r if k in settled else {**r, **hidden} for k, r in last.items()]


def latest(
    seen: Sequence[Row], key: Sequence[str], event: str, asked: datetime, max_age: timedelta | None
) -> Row | None:
    """The greatest event time, then the last known, then the last batch, then the greatest key; at most `max_age` old."""
    best = max(seen, key=lambda r: (r[event], r["_known"], r["_batch"], *(r[k] for k in key)), default=None)
    return best if best is None or max_age is None or asked - best[event] <= max_age else None


def window(
    seen: Sequence[Row],
    known: str,
    span: tuple[datetime, datetime],
    value: Callable[[Row], Any],
    how: tuple[str, float, str],
) -> float | int | None:
    """Over the rows that became known in a span; in whole 2**-40ths where floats are added up.

    `how`: the aggregate, the level of a quantile or the degrees of freedom, and what a quantile takes between two values.
    """
    within = [(value(r), r[known]) for r in seen if r[known] is not None and span[0] <= r[known] < span[1]]
    pairs = [(v, k) for v, k in within if v is not None and (not isinstance(v, float) or math.isfinite(v))]
    values = [v for v, _ in pairs]
    kind, level, pick = how
    if kind == "count":
        return len(values)
    if kind == "n_unique":
        return len(set(values))
    if kind in ("min", "max"):
        return float({"min": min, "max": max}[kind](values)) if values else None
    if kind == "quantile":
        return quantile(sorted(float(v) for v in values), level, pick) if values else None
    floating = any(isinstance(v, float) for v in values)
    unit = Fraction(1, 2**40) if floating else Fraction(1)
    exact = [(Fraction(round(v * 2**40)) * unit if floating else Fraction(v), k) for v, k in pairs]
    total, n = sum((v for v, _ in exact), Fraction()), len(exact)
    if kind == "sum":
        return float(total / unit) * float(unit)
    if kind == "mean":
        return float(total / unit) / n * float(unit) if n else None
    if kind == "trend":
        return slope(exact, unit)
    if n <= level:
        return None
    variance = (n * sum((v / unit) ** 2 for v, _ in exact) - (total / unit) ** 2) / (n * (n - int(level)))
    return float(variance) * float(unit) ** 2 if kind == "var" else math.sqrt(float(variance)) * float(unit)


def slope(pairs: Sequence[tuple[Fraction, datetime]], unit: Fraction) -> float | None:
    """Least squares, value per day."""
    times = [Fraction((k - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) for _, k in pairs]
    values = [v / unit for v, _ in pairs]
    n, t, v = len(pairs), sum(times), sum(values)
    below = n * sum(x * x for x in times) - t * t
    above = n * sum(x * y for x, y in zip(times, values, strict=True)) - t * v
    return float(Fraction(above * 86_400_000_000, below)) * float(unit) if below else None


def quantile(values: Sequence[float], level: float, pick: str) -> float:
    """Definition 7 of Hyndman and Fan."""
    place = level * (len(values) - 1)
    below, above, part = values[math.floor(place)], values[math.ceil(place)], place - math.floor(place)
    between = {"lower": below, "higher": above, "nearest": above if part >= 0.5 else below}
    return (
        between[pick] if pick in between else below + (above - below) * (0.5 if pick == "midpoint" and part else part)
    )


def since(
    seen: Sequence[Row], known: str, span: tuple[datetime, datetime], asked: datetime, value: Callable[[Row], Any]
) -> float | None:
    """Seconds from when the last row of a span was known to the question."""
    moments = [
        r[known] for r in seen if r[known] is not None and span[0] <= r[known] < span[1] and value(r) is not None
    ]
    return (asked - max(moments)).total_seconds() if moments else None


def question(versions: Sequence[Row], event: str, known: timedelta, lead: timedelta) -> tuple[Row, datetime] | None:
    """The version that a key's question was asked with, and when: current then, or the first and carried by the request.

    Of versions that became known in one moment only the last was ever current.
    """
    ordered = sorted(versions, key=lambda r: (r["_known"], r["_batch"]))
    ordered = [
        v
        for v, later in zip(ordered, [*ordered[1:], None], strict=True)
        if later is None or later["_known"] > v["_known"]
    ]
    for version in ordered:
        asked = version[event] - lead
        current = [w for w in ordered if w["_known"] < asked][-1:]
        if current == [version] or (version is ordered[0] and not current and version[event] - known <= asked):
            return version, asked
    return None


def end(last: Row, label: str, event: str, void_after: timedelta | None, times: tuple[datetime, datetime]) -> str:
    """What came of a question, as known at the cutoff; nobody asks what was known already. `times`: asked, cutoff."""
    asked, cutoff = times
    if last["_outcome_known"] is not None and last["_outcome_known"] <= asked:
        return "unaskable"
    if last["_outcome_known"] is not None and last["_outcome_known"] < cutoff:
        return "void" if last[label] is None else "learned"
    return "void" if void_after is not None and last[event] + void_after <= cutoff else "unsettled"
