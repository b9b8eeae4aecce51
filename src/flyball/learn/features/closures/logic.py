"""Truth with three values, comparisons in a total order, and choices.

A null is neither true nor false: `null & false` is false, `null | true` is true, everything else with a null is null (Kleene).
NaN equals itself and is greater than every number. Members of an Enum come in the order of their categories, text in the order
of its code points, which is that of its UTF-8 bytes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import polars as pl

from flyball.learn.features.closures.term import (
    Call,
    Row,
    Run,
    Term,
    Untranslated,
    fixed,
    is_float,
    is_text,
    is_ticks,
    joined,
    limits,
    one,
    two,
)

Compare = Callable[[Any, Any], bool]
_BOOLEAN = pl.Boolean()
_PLAIN: dict[str, Compare] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}


def _below(a: float, b: float) -> bool:
    return a < b or (b != b and a == a)


def _equal(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


_TOTAL: dict[str, Compare] = {
    "Eq": _equal,
    "NotEq": lambda a, b: not _equal(a, b),
    "Lt": _below,
    "LtEq": lambda a, b: not _below(b, a),
    "Gt": lambda a, b: _below(b, a),
    "GtEq": lambda a, b: not _below(a, b),
}
_VALIDITY = {"EqValidity": "Eq", "NotEqValidity": "NotEq"}
COMPARISONS = frozenset({*_PLAIN, *_VALIDITY})


def compare(op: str, left: Term, right: Term, common: pl.DataType | None) -> Term:
    """A comparison.

    Args:
        op: one of COMPARISONS.
        left, right: what is compared.
        common: the type that a sum of both has; None if they have no sum.

    Raises:
        Untranslated: for types that are not known to be compared alike.
    """
    kind = _VALIDITY.get(op, op)
    x, y, apply = _comparable(kind, left, right, common)
    if op not in _VALIDITY:
        return Term(_BOOLEAN, two(apply, x, y))
    a, b, differs = x.run, y.run, kind == "NotEq"

    def run(row: Row) -> bool:
        first, second = a(row), b(row)
        if first is None or second is None:
            return (first is second) is not differs
        return apply(first, second)

    return Term(_BOOLEAN, run)


def _comparable(op: str, left: Term, right: Term, common: pl.DataType | None) -> tuple[Term, Term, Compare]:
    ldtype, rdtype = left.dtype, right.dtype
    if is_text(ldtype) and is_text(rdtype):
        return left, right, _of_text(op, left, right)
    if ldtype == rdtype and (ldtype == pl.Boolean or is_ticks(ldtype)):
        return left, right, _PLAIN[op]
    if limits(ldtype) is not None and limits(rdtype) is not None:
        return left, right, _of_integers(op, left, right)
    numeric = all(is_float(d) or limits(d) is not None for d in (ldtype, rdtype))
    if numeric and common is not None and is_float(common):
        return joined(left, common, (left, right)), joined(right, common, (left, right)), _TOTAL[op]
    raise Untranslated(op)


def _of_integers(op: str, left: Term, right: Term) -> Compare:
    """Exact, provided that Polars has a type for both."""
    for term, other in ((left, right), (right, left)):
        low, high = limits(other.dtype) or (0, 0)
        if term.loose and not (term.constant and term.value is not None and low <= term.value <= high):
            joined(term, other.dtype, (term, other))
    signs = {str(t.dtype)[0] for t in (left, right) if not t.loose}
    if len(signs) > 1 and "64" in f"{left.dtype}{right.dtype}":
        raise Untranslated(op)
    return _PLAIN[op]


def _of_text(op: str, left: Term, right: Term) -> Compare:
    enum = next((t.dtype for t in (left, right) if isinstance(t.dtype, pl.Enum)), None)
    if enum is None:
        if op not in ("Eq", "NotEq") and pl.Categorical in (left.dtype, right.dtype):
            raise Untranslated(op)
        return _PLAIN[op]
    places = {member: place for place, member in enumerate(enum.categories)}
    for term in (left, right):
        if term.dtype != enum and not (term.constant and term.value in places):
            raise Untranslated(op)
    apply = _PLAIN[op]
    return apply if op in ("Eq", "NotEq") else lambda a, b: apply(places[a], places[b])


# --- three values


def both(x: Run, y: Run) -> Run:
    """And."""

    def run(row: Row) -> bool | None:
        a, b = x(row), y(row)
        if a is False or b is False:
            return False
        return None if a is None or b is None else True

    return run


def either(x: Run, y: Run) -> Run:
    """Or."""

    def run(row: Row) -> bool | None:
        a, b = x(row), y(row)
        if a is True or b is True:
            return True
        return None if a is None or b is None else False

    return run


def connect(op: str, left: Term, right: Term) -> Term:
    """& | ^ of truth values.

    Raises:
        Untranslated: for numbers, whose bits they would combine.
    """
    if not {left.dtype, right.dtype} <= {_BOOLEAN, pl.Null()}:
        raise Untranslated(op)
    match op:
        case "And":
            return Term(_BOOLEAN, both(left.run, right.run))
        case "Or":
            return Term(_BOOLEAN, either(left.run, right.run))
        case "Xor":
            return Term(_BOOLEAN, two(operator.ne, left, right))
    raise Untranslated(op)


def _folded(connective: Callable[[Run, Run], Run]) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        if any(t.dtype != pl.Boolean for t in call.inputs):
            raise Untranslated(call.dtype)
        found = call.inputs[0].run
        for term in call.inputs[1:]:
            found = connective(found, term.run)
        return Term(_BOOLEAN, found)

    return build


def _not(call: Call) -> Term:
    if call.inputs[0].dtype != pl.Boolean:
        raise Untranslated(call.dtype)
    return Term(_BOOLEAN, one(operator.not_, call.inputs[0].run))


# --- questions about one value


def _is_null(call: Call) -> Term:
    x = call.inputs[0].run
    return Term(_BOOLEAN, lambda row: x(row) is None)


def _is_not_null(call: Call) -> Term:
    x = call.inputs[0].run
    return Term(_BOOLEAN, lambda row: x(row) is not None)


def _of_float(test: Callable[[float], bool]) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        if not is_float(call.inputs[0].dtype):
            raise Untranslated(call.dtype)
        return Term(_BOOLEAN, one(test, call.inputs[0].run))

    return build


def _between(call: Call) -> Term:
    closed = call.options.get("closed") if isinstance(call.options, dict) else None
    if closed not in ("Both", "Left", "Right", "None"):
        raise Untranslated(closed)
    x, low, high = call.inputs
    if any(t.loose and not t.constant for t in call.inputs):
        raise Untranslated(closed)
    common = x.dtype if is_float(x.dtype) else pl.Float64()
    above = compare("GtEq" if closed in ("Both", "Left") else "Gt", x, low, common)
    below = compare("LtEq" if closed in ("Both", "Right") else "Lt", x, high, common)
    return Term(_BOOLEAN, both(above.run, below.run))


def _is_in(call: Call) -> Term:
    x, listed = call.inputs
    inner = pl.Series(dtype=listed.dtype.inner).dtype if isinstance(listed.dtype, pl.List) else None
    if not listed.constant or listed.value is None or inner is None or call.options != {"nulls_equal": False}:
        raise Untranslated(call.options)
    alike = (
        (is_text(x.dtype) and inner == pl.String)
        or (x.dtype == inner and (is_ticks(inner) or inner in (pl.Boolean, pl.Float64) or is_text(inner)))
        or (limits(x.dtype) is not None and limits(inner) is not None and x.dtype != pl.UInt64 and inner != pl.UInt64)
    )
    if x.loose or not (alike or not listed.value) or any(v is None or v != v for v in listed.value):
        raise Untranslated(inner)
    members = frozenset(listed.value)
    return Term(_BOOLEAN, one(lambda value: value in members, x.run))


# --- choices


def choose(dtype: pl.DataType, predicate: Term, yes: Term, no: Term) -> Term:
    """when/then/otherwise: null is not true.

    Raises:
        Untranslated: when the branches have no type in common that is known.
    """
    if predicate.dtype != pl.Boolean:
        raise Untranslated(predicate.dtype)
    test, a, b = predicate.run, *(joined(t, dtype, (yes, no)).run for t in (yes, no))

    def run(row: Row) -> Any:
        truth, first, second = test(row), a(row), b(row)
        return first if truth else second

    return Term(dtype, run, loose=all(t.loose or t.dtype == pl.Null for t in (yes, no)))


def _first(call: Call) -> Term:
    """The first value that is not null: coalesce, and fill_null with a value."""
    runs = [joined(t, call.dtype, call.inputs).run for t in call.inputs]

    def run(row: Row) -> Any:
        found = [each(row) for each in runs]
        return next((value for value in found if value is not None), None)

    return Term(call.dtype, run, loose=all(t.loose or t.dtype == pl.Null for t in call.inputs))


def _place(call: Call) -> Term:
    """to_physical of an Enum."""
    x = call.inputs[0]
    if not isinstance(x.dtype, pl.Enum):
        raise Untranslated(x.dtype)
    places = {member: place for place, member in enumerate(x.dtype.categories)}
    if x.constant:
        return fixed(call.dtype, None if x.value is None else places[x.value])
    return Term(call.dtype, one(places.__getitem__, x.run))


FUNCTIONS: dict[str, Callable[[Call], Term]] = {
    "Boolean.Not": _not,
    "Boolean.IsNull": _is_null,
    "Boolean.IsNotNull": _is_not_null,
    "Boolean.IsNan": _of_float(math.isnan),
    "Boolean.IsNotNan": _of_float(lambda value: value == value),
    "Boolean.IsFinite": _of_float(math.isfinite),
    "Boolean.IsInfinite": _of_float(math.isinf),
    "Boolean.IsBetween": _between,
    "Boolean.IsIn": _is_in,
    "Boolean.AllHorizontal": _folded(both),
    "Boolean.AnyHorizontal": _folded(either),
    "Coalesce": _first,
    "FillNull": _first,
    "ToPhysical": _place,
}
