"""Arithmetic as Polars does it on many rows: integers wrap round, division by zero of integers is null, floats follow IEEE 754.

Ways of Polars that are not Python's: a float divided by a literal is multiplied by the literal's inverse (in a frame of two
rows or more), `%` is `a - floor(a / b) * b`, and adding a literal zero does nothing. Float32 is computed in doubles and rounded
once: for + - * / and square roots that is what single precision yields, since 53 >= 2 * 24 + 2 bits (Figueroa 1995).

Logarithms, exponentials, sines and cosines come from the machine's libm in both; `_same` shows it for this process, else they
stay with Polars.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import polars as pl

from flyball.learn.features.closures.term import (
    Call,
    Row,
    Term,
    Untranslated,
    is_float,
    joined,
    limits,
    one,
    single,
    two,
)

Number = int | float
SAMPLES = 2000


def arithmetic(op: str, dtype: pl.DataType, left: Term, right: Term) -> Term:
    """+ - * / // % of numbers, of which `dtype` is the result.

    Raises:
        Untranslated: when a type or operator is not known.
    """
    x, y = joined(left, dtype, (left, right)), joined(right, dtype, (left, right))
    bounds = limits(dtype)
    if bounds is not None and op in _WHOLE:
        apply: Callable[[Any, Any], Any] = _wrapping(_WHOLE[op], *bounds)
    elif is_float(dtype) and op in _FLOATING:
        apply = _beside_zero(op, x, y) or _floating(op, dtype, y)
    else:
        raise Untranslated(op)
    return Term(dtype, two(apply, x, y), loose=left.loose and right.loose)


def _quotient(a: int, b: int) -> int | None:
    return a // b if b else None


def _remainder(a: int, b: int) -> int | None:
    return a % b if b else None


_WHOLE: dict[str, Callable[[int, int], int | None]] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
    "FloorDivide": _quotient,
    "Modulus": _remainder,
}


def _wrapping(apply: Callable[..., int | None], low: int, high: int) -> Callable[..., int | None]:
    size = high - low + 1

    def wrap(*values: int) -> int | None:
        found = apply(*values)
        return found if found is None or low <= found <= high else (found - low) % size + low

    return wrap


def divide(a: float, b: float) -> float:
    """IEEE 754 division."""
    if b:
        return a / b
    if a == 0 or a != a:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def floor(value: float) -> float:
    """The greatest whole float that is not above; keeps the sign of zero."""
    return math.copysign(math.floor(value), value) if math.isfinite(value) else value


def ceil(value: float) -> float:
    """The least whole float that is not below; keeps the sign of zero."""
    return math.copysign(math.ceil(value), value) if math.isfinite(value) else value


_FLOATING: dict[str, Callable[[float, float], float]] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
    "TrueDivide": divide,
    "FloorDivide": divide,
    "Modulus": divide,
}


def _beside_zero(op: str, x: Term, y: Term) -> Callable[[float, float], float] | None:
    """Adding a literal zero does nothing in Polars, not even to the sign of another zero; `0 - b` is -b."""
    if y.constant and y.value == 0 and op in ("Plus", "Minus"):
        return lambda a, b: a
    if x.constant and x.value == 0 and op in ("Plus", "Minus"):
        return (lambda a, b: b) if op == "Plus" else (lambda a, b: -b)
    return None


def _floating(op: str, dtype: pl.DataType, by: Term) -> Callable[[float, float], float]:
    apply = _FLOATING[op]
    if dtype == pl.Float32:
        apply = _in_single(apply)
    if op not in ("TrueDivide", "FloorDivide", "Modulus"):
        return apply
    ratio = _scaled(apply(1.0, by.value), dtype) if by.constant and by.value is not None else apply
    if op == "TrueDivide":
        return ratio
    if op == "FloorDivide":
        return lambda a, b: floor(ratio(a, b))
    if dtype == pl.Float32:
        return lambda a, b: single(a - single(floor(ratio(a, b)) * b))
    return lambda a, b: a - floor(ratio(a, b)) * b


def _in_single(apply: Callable[[float, float], float]) -> Callable[[float, float], float]:
    return lambda a, b: single(apply(a, b))


def _scaled(inverse: float, dtype: pl.DataType) -> Callable[[float, float], float]:
    """Division by a literal: it goes by its inverse."""
    if dtype == pl.Float32:
        return lambda a, b: single(a * inverse)
    return lambda a, b: a * inverse


# --- functions of one number


def _numeric(call: Call) -> Term:
    """The input, when the result has its type and that is a number."""
    x = call.inputs[0]
    if x.dtype != call.dtype or not (is_float(x.dtype) or limits(x.dtype) is not None):
        raise Untranslated(call.dtype)
    return x


def _negate(call: Call) -> Term:
    x, bounds = _numeric(call), limits(call.dtype)
    if bounds is None:
        return Term(call.dtype, one(operator.neg, x.run))
    if not bounds[0]:
        raise Untranslated(call.dtype)
    return Term(call.dtype, one(_wrapping(operator.neg, *bounds), x.run))


def _abs(call: Call) -> Term:
    x, bounds = _numeric(call), limits(call.dtype)
    return Term(call.dtype, one(abs if bounds is None else _wrapping(abs, *bounds), x.run))


def _sign(call: Call) -> Term:
    x, whole = _numeric(call), limits(call.dtype) is not None

    def sign(value: Number) -> Number:
        found = (value > 0) - (value < 0)
        return found if whole else float(found) if found else value

    return Term(call.dtype, one(sign, x.run))


def _whole(to: Callable[[float], float]) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        x = _numeric(call)
        return Term(call.dtype, one(to, x.run) if is_float(call.dtype) else x.run)

    return build


def nearest(value: float) -> float:
    """The nearest whole float, half to even; keeps the sign of zero."""
    return math.copysign(round(value), value) if math.isfinite(value) else value


def _round(call: Call) -> Term:
    x = _numeric(call)
    match call.options:
        case {"decimals": int(decimals), "mode": "HalfToEven"} if decimals <= 15:
            pass
        case _:
            raise Untranslated(call.options)
    if limits(call.dtype) is not None:
        return Term(call.dtype, x.run)
    if not decimals:
        return Term(call.dtype, one(nearest, x.run))
    if call.dtype != pl.Float64:
        raise Untranslated(call.dtype)
    scale = 10.0**decimals

    def rounded(value: float) -> float:
        scaled = value * scale
        return value if math.isinf(scaled) else nearest(scaled) / scale

    return Term(call.dtype, one(rounded, x.run))


def _sqrt(call: Call) -> Term:
    x = joined(call.inputs[0], call.dtype)
    if call.dtype == pl.Float64:
        return Term(call.dtype, one(_root, x.run))
    if call.dtype == pl.Float32:
        return Term(call.dtype, one(lambda value: single(_root(value)), x.run))
    raise Untranslated(call.dtype)


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _power(call: Call) -> Term:
    """Squares and cubes; what Polars does to other exponents depends on how many rows there are."""
    x, exponent = call.inputs
    if not (exponent.constant and exponent.value in (2, 3)):
        raise Untranslated(exponent)
    base, bounds = joined(x, call.dtype, call.inputs), limits(call.dtype)
    cube = exponent.value == 3
    if bounds is not None and isinstance(exponent.value, int):
        times: Callable[[Any], Any] = _wrapping((lambda v: v * v * v) if cube else (lambda v: v * v), *bounds)
    elif call.dtype == pl.Float64:
        times = (lambda v: v * v * v) if cube else (lambda v: v * v)
    else:
        raise Untranslated(call.dtype)
    return Term(call.dtype, one(times, base.run))


# --- libm


def _log(value: float) -> float:
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


def _log1p(value: float) -> float:
    if value > -1:
        return math.log1p(value)
    return -math.inf if value == -1 else math.nan


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _sin(value: float) -> float:
    return math.nan if math.isinf(value) else math.sin(value)


def _cos(value: float) -> float:
    return math.nan if math.isinf(value) else math.cos(value)


_LIBM: dict[str, tuple[Callable[[float], float], Callable[[pl.Expr], pl.Expr]]] = {
    "Log": (_log, pl.Expr.log),
    "Log1p": (_log1p, pl.Expr.log1p),
    "Exp": (_exp, pl.Expr.exp),
    "Sin": (_sin, pl.Expr.sin),
    "Cos": (_cos, pl.Expr.cos),
}


@cache
def _same(name: str) -> bool:
    """Whether Polars and Python have the same function, bit for bit, on many numbers of all sizes."""
    chance = random.Random(1788)  # noqa: S311 - repeatable is what it must be
    small = [chance.uniform(-40, 40) for _ in range(SAMPLES)]
    values = [*small, *(chance.gauss(0, 1) * 10.0 ** chance.randint(-12, 12) for _ in range(SAMPLES))]
    ours, theirs = _LIBM[name]
    found = pl.DataFrame({"x": values}).select(theirs(pl.col("x")))["x"].to_list()
    return all(a == b or (a != a and b != b) for a, b in zip(map(ours, values), found, strict=True))


def _libm(name: str) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        if call.dtype != pl.Float64 or len(call.inputs) != 1 or call.inputs[0].dtype == pl.Float32 or not _same(name):
            raise Untranslated(name)
        return Term(call.dtype, one(_LIBM[name][0], joined(call.inputs[0], call.dtype).run))

    return build


def _logarithm(call: Call) -> Term:
    x, base = call.inputs
    natural = _libm("Log")(Call(call.dtype, (x,), None))
    if not (base.constant and isinstance(base.value, int | float) and base.value > 0):
        raise Untranslated(base)
    if base.value == math.e:
        return natural
    scale = _log(base.value)
    return Term(call.dtype, one(lambda value: divide(value, scale), natural.run))


# --- several numbers


def _extreme(better: Callable[[Any, Any], bool]) -> Callable[[Call], Term]:
    """The least or greatest of the values that are neither null nor NaN; of equal ones the last."""

    def build(call: Call) -> Term:
        if not (is_float(call.dtype) or limits(call.dtype) is not None):
            raise Untranslated(call.dtype)
        terms = [joined(t, call.dtype, call.inputs) for t in call.inputs]
        runs = [t.run for t in terms]

        def run(row: Row) -> Any:
            best = None
            for each in runs:
                value = each(row)
                if value is not None and (best is None or best != best or not (value != value or better(best, value))):
                    best = value
            return best

        return Term(call.dtype, run, loose=all(t.loose for t in call.inputs))

    return build


def _clip(call: Call) -> Term:
    """Between literals; NaN stays."""
    x, bounds = _numeric(call), list(call.inputs[1:])
    if x.loose or not all(b.constant and b.value is not None and b.value == b.value for b in bounds):
        raise Untranslated(call.dtype)
    match call.options:
        case {"has_min": bool(has_low), "has_max": bool(has_high)} if has_low + has_high == len(bounds):
            pass
        case _:
            raise Untranslated(call.options)
    low = joined(bounds[0], call.dtype).value if has_low else None
    high = joined(bounds[-1], call.dtype).value if has_high else None
    if low is not None and high is not None and low > high:
        raise Untranslated(call.options)

    def clip(value: Number) -> Any:
        if low is not None and value < low:
            return low
        return high if high is not None and value > high else value

    return Term(call.dtype, one(clip, x.run))


FUNCTIONS: dict[str, Callable[[Call], Term]] = {
    "Negate": _negate,
    "Abs": _abs,
    "Sign": _sign,
    "Floor": _whole(floor),
    "Ceil": _whole(ceil),
    "Round": _round,
    "Pow.Sqrt": _sqrt,
    "Pow.Generic": _power,
    "Log": _logarithm,
    "Log1p": _libm("Log1p"),
    "Exp": _libm("Exp"),
    "Trigonometry.Sin": _libm("Sin"),
    "Trigonometry.Cos": _libm("Cos"),
    "MaxHorizontal": _extreme(operator.gt),
    "MinHorizontal": _extreme(operator.lt),
    "Clip": _clip,
}
