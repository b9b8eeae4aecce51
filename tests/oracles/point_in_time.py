"""The naive oracle: point-in-time features straight from their definition, over all rows, for one question.

Nothing is shared with the code under test: rows are dictionaries, moments are datetimes, and nothing is sorted to be fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

Row = Mapping[str, Any]


def as_of(rows: Sequence[Row], key: Sequence[str], late: Sequence[str], asked: datetime) -> list[Row]:
    """Of each key the last version known before the question; its outcomes hidden unless they had settled by then."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (r["_known"], r["_batch"])):
        if row["_known"] < asked:
            last[tuple(row[k] for k in key)] = row
    settled = {k: r for k, r in last.items() if r.get("_outcome_known") is not None and r["_outcome_known"] < asked}
    return [r if k in settled else {**r, **dict.fromkeys(late), "_outcome_known": None} for k, r in last.items()]


def latest(
    seen: Sequence[Row], key: Sequence[str], event: str, asked: datetime, max_age: timedelta | None
) -> Row | None:
    """The greatest event time, then the last known, then the last batch, then the greatest key; at most `max_age` old."""
    best = max(seen, key=lambda r: (r[event], r["_known"], r["_batch"], *(r[k] for k in key)), default=None)
    return best if best is None or max_age is None or asked - best[event] <= max_age else None


def window(
    seen: Sequence[Row], known: str, asked: datetime, over: timedelta, value: Callable[[Row], Any], how: str
) -> float | int | None:
    """Over the rows that became known in [asked - over, asked): in whole 2**-40ths where it is about floats."""
    within = [value(r) for r in seen if r[known] is not None and asked - over <= r[known] < asked]
    values = [v for v in within if v is not None and math.isfinite(v)]
    if how == "count":
        return len(values)
    floating = any(isinstance(v, float) for v in values)
    total = float(sum(round(v * 2**40) if floating else v for v in values))
    unit = 2.0**-40 if floating else 1.0
    if how == "sum":
        return total * unit
    return total / len(values) * unit if values else None


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
