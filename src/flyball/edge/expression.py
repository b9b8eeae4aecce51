"""Expressions over a request, as data: nested lists, an operator first. `compiled` makes a function of one.

Cells are as Polars holds them: moments are whole microseconds, days whole days, null is None. What an operator does is what
Polars does; where it may not be, the row is refused, so that whoever asks can hand the value over.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from .refused import Refused

Row = Mapping[str, Any]
Run = Callable[[Row], Any]

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_EPOCH = date(1970, 1, 1)


def compiled(node: list[Any]) -> Run:
    """The function of an expression: cells by column -> value.

    Raises:
        Refused: when called: a value is beyond what is known to be the same as on the server; or an unknown operator.
    """
    kind, *rest = node
    if kind == "column":
        return operator.itemgetter(rest[0])
    if kind == "literal":
        return lambda row: rest[0]
    if kind == "whole":
        return _whole(rest[0], compiled(rest[1]), compiled(rest[2]), *rest[3:])
    if kind == "wall":
        return _wall(compiled(rest[0]), rest[1], rest[2])
    inputs = [compiled(each) for each in rest]
    if kind in _ANY:
        return _any(_ANY[kind], inputs)
    if kind in _STRICT:
        return _strict(_STRICT[kind], inputs)
    raise Refused(f"This bundle knows no {kind!r}.")


def _any(apply: Callable[..., Any], inputs: list[Run]) -> Run:
    return lambda row: apply(*[each(row) for each in inputs])


def _strict(apply: Callable[..., Any], inputs: list[Run]) -> Run:
    """Null where an input is."""

    def run(row: Row) -> Any:
        values = [each(row) for each in inputs]
        return None if None in values else apply(*values)

    return run


def _whole(name: str, left: Run, right: Run, low: int, high: int) -> Run:
    """Arithmetic of whole numbers; beyond their type Polars wraps round."""
    apply = {"+": operator.add, "-": operator.sub, "*": operator.mul}[name]

    def run(row: Row) -> Any:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        found = apply(a, b)
        if not low <= found <= high:
            raise Refused("A whole number is beyond its type.")
        return found

    return run


def _wall(moment: Run, since: list[int], offset: list[int]) -> Run:
    """What the clocks of a zone show, by a table of since when (microseconds) which offset holds."""

    def run(row: Row) -> Any:
        value = moment(row)
        if value is None:
            return None
        if not since[0] <= value < since[-1]:
            raise Refused("A moment is before 1970, or after 2099.")
        return value + offset[bisect_right(since, value) - 1]

    return run


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    if a == 0 or a != a:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _below(a: Any, b: Any) -> bool:
    """Of numbers NaN is the greatest."""
    return bool(a < b or (b != b and a == a))


def _same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _and(a: Any, b: Any) -> Any:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: Any, b: Any) -> Any:
    return True if a is True or b is True else None if a is None or b is None else False


def _ascii(text: str) -> str:
    if not text.isascii():
        raise Refused("A text that is changed holds letters beyond ASCII.")
    return text


def _on(moment: int) -> date:
    days = moment // _DAY
    if not -719_162 <= days <= 2_932_896:
        raise Refused("A moment is beyond the calendar.")
    return _EPOCH + timedelta(days=days)


_ANY: dict[str, Callable[..., Any]] = {
    "if": lambda test, yes, no: yes if test else no,
    "and": _and,
    "or": _or,
    "coalesce": lambda a, b: b if a is None else a,
    "null": lambda a: a is None,
    "there": lambda a: a is not None,
}
_STRICT: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "float": float,
    "int": int,
    "abs": abs,
    "not": operator.not_,
    "==": _same,
    "!=": lambda a, b: not _same(a, b),
    "<": _below,
    "<=": lambda a, b: not _below(b, a),
    ">": lambda a, b: _below(b, a),
    ">=": lambda a, b: not _below(a, b),
    "lower": lambda a: _ascii(a).lower(),
    "upper": lambda a: _ascii(a).upper(),
    "length": len,
    "starts": str.startswith,
    "ends": str.endswith,
    "hour": lambda a: a % _DAY // _HOUR,
    "minute": lambda a: a % _HOUR // 60_000_000,
    "weekday": lambda a: (a // _DAY + 3) % 7 + 1,
    "day": lambda a: _on(a).day,
    "month": lambda a: _on(a).month,
    "year": lambda a: _on(a).year,
    "ordinal": lambda a: _on(a).timetuple().tm_yday,
}
