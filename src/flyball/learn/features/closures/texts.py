"""Text: lengths, pieces and what is found in it.

Characters are code points in both languages. What changes case or trims goes by tables of Unicode whose versions differ, so
only ASCII is answered here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import polars as pl

from flyball.learn.features.closures.term import Call, Row, Term, Unsure, Untranslated, is_text, one

_SPACE = " \t\n\r\x0b\x0c"


def joined_text(left: Term, right: Term) -> Term:
    """`+` of two texts; null if one is null.

    Raises:
        Untranslated: for what is not both plain text.
    """
    return _concatenated(Call(pl.String(), (left, right), {"delimiter": "", "ignore_nulls": False}))


def _concatenated(call: Call) -> Term:
    match call.options:
        case {"delimiter": str(delimiter), "ignore_nulls": False}:
            pass
        case _:
            raise Untranslated(call.options)
    if any(t.dtype != pl.String for t in call.inputs):
        raise Untranslated(call.dtype)
    runs = [t.run for t in call.inputs]

    def run(row: Row) -> str | None:
        parts = [each(row) for each in runs]
        return None if None in parts else delimiter.join(parts)

    return Term(pl.String(), run)


def _subject(call: Call) -> Term:
    if call.inputs[0].dtype != pl.String:
        raise Untranslated(call.inputs[0].dtype)
    return call.inputs[0]


def _of(apply: Callable[[str], Any]) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        return Term(call.dtype, one(apply, _subject(call).run))

    return build


def _ascii(apply: Callable[[str], str]) -> Callable[[str], str]:
    def checked(value: str) -> str:
        if value.isascii():
            return apply(value)
        raise Unsure

    return checked


def _holds(test: Callable[[str, str], bool]) -> Callable[[Call], Term]:
    """Whether a literal stands in a text."""

    def build(call: Call) -> Term:
        x, pattern = _subject(call), call.inputs[1]
        literal = call.options is None or (isinstance(call.options, dict) and call.options.get("literal") is True)
        if not literal or not pattern.constant or not is_text(pattern.dtype) or pattern.value is None:
            raise Untranslated(call.options)
        sought = pattern.value
        return Term(call.dtype, one(lambda value: test(value, sought), x.run))

    return build


def _count(term: Term) -> int:
    if term.constant and type(term.value) is int and term.value >= 0:
        return term.value
    raise Untranslated(term)


def _slice(call: Call) -> Term:
    x, start = _subject(call), _count(call.inputs[1])
    length = call.inputs[2]
    end = None if length.constant and length.value is None else start + _count(length)
    return Term(call.dtype, one(lambda value: value[start:end], x.run))


def _head(call: Call) -> Term:
    x, length = _subject(call), _count(call.inputs[1])
    return Term(call.dtype, one(lambda value: value[:length], x.run))


def _tail(call: Call) -> Term:
    x, length = _subject(call), _count(call.inputs[1])
    return Term(call.dtype, one(lambda value: value[max(len(value) - length, 0) :], x.run))


def _stripped(call: Call) -> Term:
    x, what = _subject(call), call.inputs[1]
    if not what.constant or what.value is not None:
        raise Untranslated(what)
    return Term(call.dtype, one(_ascii(lambda value: value.strip(_SPACE)), x.run))


FUNCTIONS: dict[str, Callable[[Call], Term]] = {
    "StringExpr.LenChars": _of(len),
    "StringExpr.LenBytes": _of(lambda value: len(value.encode())),
    "StringExpr.Lowercase": _of(_ascii(str.lower)),
    "StringExpr.Uppercase": _of(_ascii(str.upper)),
    "StringExpr.StripChars": _stripped,
    "StringExpr.StartsWith": _holds(str.startswith),
    "StringExpr.EndsWith": _holds(str.endswith),
    "StringExpr.Contains": _holds(operator.contains),
    "StringExpr.Slice": _slice,
    "StringExpr.Head": _head,
    "StringExpr.Tail": _tail,
    "StringExpr.ConcatHorizontal": _concatenated,
}
