"""A row, read as the server reads a request: typed, within the contract's limits, and nothing in it that is not declared."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

from .refused import Refused

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - Python 3.10 has no datetime.UTC
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:([Zz])|([+-])(\d\d):?(\d\d))?", re.ASCII
)


def reader(columns: list[dict[str, Any]]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Row -> cells by column, as expressions read them.

    Raises:
        Refused: when called: a column that is not declared or not there, or a value that its contract forbids.
    """
    known = {column["name"]: column for column in columns}

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        for name in row:
            if name not in known:
                raise Refused(f"The request has no column {name!r}.")
        found: dict[str, Any] = {}
        for name, column in known.items():
            value = row.get(name)
            if value is None:
                if not column["nullable"] and (name in row or column["required"]):
                    raise Refused(f"{name!r} is missing.")
                found[name] = None
            else:
                found[name] = _read(column, value)
        return found

    return read


def _read(column: dict[str, Any], value: Any) -> Any:
    try:
        cell = _TYPES[column["type"]](value)
    except (ValueError, OverflowError, TypeError):
        raise Refused(f"{column['name']!r} is no {column['type']}.") from None
    values = column.get("values")
    if values is not None and cell not in values:
        raise Refused(f"{column['name']!r} is none of {', '.join(map(str, values))[:200]}.")
    size = len(cell.encode()) if column["type"] == "text" else 0
    for rule, limit in column["limits"].items():
        kept = _LIMITS[rule](size if rule.endswith("bytes") else cell, limit)
        if not kept:
            raise Refused(f"{column['name']!r} breaks {rule} {limit}.")
    return cell


def _exactly(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return check


def _float(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _single(value: Any) -> float:
    found: float = struct.unpack("f", struct.pack("f", _float(value)))[0]
    return found


def _moment(value: Any) -> int:
    if type(value) is str:
        value = _parsed(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError
    return (value - _EPOCH) // _MICROSECOND


def _parsed(text: str) -> datetime:
    found = _MOMENT.fullmatch(text)
    if found is None or not (found[8] or found[9]):
        raise ValueError
    year, month, day, hour, minute, second = (int(found[n]) for n in range(1, 7))
    wall = datetime(year, month, day, hour, minute, second, int((found[7] or "0").ljust(6, "0")))
    offset = timedelta(hours=int(found[10]), minutes=int(found[11])) if found[9] else timedelta(0)
    return wall.replace(tzinfo=timezone(-offset if found[9] == "-" else offset))


def _day(value: Any) -> int:
    if type(value) is str:
        value = date.fromisoformat(value)
    if type(value) is not date:
        raise TypeError
    return (value - _EPOCH.date()).days


_TYPES: dict[str, Callable[[Any], Any]] = {
    "bool": _exactly(bool),
    "int": _exactly(int),
    "float": _float,
    "float32": _single,
    "text": _exactly(str),
    "moment": _moment,
    "day": _day,
    "any": lambda value: value,
}
_LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "min": lambda cell, limit: cell >= limit,
    "max": lambda cell, limit: cell <= limit,
    "min_exclusive": lambda cell, limit: cell > limit,
    "max_exclusive": lambda cell, limit: cell < limit,
    "min_bytes": lambda size, limit: size >= limit,
    "max_bytes": lambda size, limit: size <= limit,
}
