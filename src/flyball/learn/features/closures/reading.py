"""Reading an expression: from the JSON of Polars to a term, node by node.

The JSON form is documented as readable, not as stable: whatever is not exactly as known here is Untranslated. The types of
nodes are asked of Polars, never worked out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import polars as pl

from flyball.learn.features.closures import logic, numbers, texts, times
from flyball.learn.features.closures.term import (
    FAILURES,
    Call,
    Term,
    Untranslated,
    cast,
    fixed,
    is_float,
    is_text,
    is_ticks,
    limits,
)

FUNCTIONS: dict[str, Callable[[Call], Term]] = {
    **numbers.FUNCTIONS,
    **logic.FUNCTIONS,
    **texts.FUNCTIONS,
    **times.FUNCTIONS,
}
_INPUTS: dict[str, tuple[int, int]] = {
    "Coalesce": (1, 99),
    "MaxHorizontal": (1, 99),
    "MinHorizontal": (1, 99),
    "Boolean.AllHorizontal": (1, 99),
    "Boolean.AnyHorizontal": (1, 99),
    "StringExpr.ConcatHorizontal": (1, 99),
    "Clip": (2, 3),
    "FillNull": (2, 2),
    "Log": (2, 2),
    "Pow.Generic": (2, 2),
    "Boolean.IsIn": (2, 2),
    "Boolean.IsBetween": (3, 3),
    "StringExpr.StartsWith": (2, 2),
    "StringExpr.EndsWith": (2, 2),
    "StringExpr.Contains": (2, 2),
    "StringExpr.Head": (2, 2),
    "StringExpr.Tail": (2, 2),
    "StringExpr.StripChars": (2, 2),
    "StringExpr.Slice": (3, 3),
    "TemporalExpr.ReplaceTimeZone": (2, 2),
}
"""How many inputs, where it is not one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was met while an expression was read.

    Attributes:
        empty: a frame of the columns that there are.
        columns: those that it reads.
        literals: the values that it compares and computes with.
        zones: the time zones that it converts to.
        parts: the expression and all within it, by their nodes.
    """

    empty: pl.DataFrame
    columns: set[str] = field(default_factory=set)
    literals: list[Any] = field(default_factory=list)
    zones: set[str] = field(default_factory=set)
    parts: dict[str, pl.Expr] = field(default_factory=dict)

    def term(self, expression: pl.Expr) -> Term:
        """The root of an expression.

        Raises:
            Untranslated: when a node is not known, or not for these types.
        """
        try:
            read = expression.meta.serialize(format="json")
            self._take_apart(expression)
        except FAILURES as problem:  # such as one with a Python function in it
            raise Untranslated from problem
        return self._node(json.loads(read))

    def _take_apart(self, expression: pl.Expr) -> None:
        """Keep every part of an expression under its node: to make one of JSON is what must never be done."""
        left = [expression]
        while left:
            part = left.pop()
            self.parts[_key(json.loads(part.meta.serialize(format="json")))] = part
            left += part.meta.pop()

    def _part(self, node: Any) -> pl.Expr:
        part = self.parts.get(_key(node))
        if part is None:
            raise Untranslated(node)
        return part

    def _node(self, node: Any) -> Term:
        match node:
            case {"Column": str(name)} if len(node) == 1 and name in self.empty.columns:
                return self._column(name)
            case {"Literal": literal} if len(node) == 1:
                return self._literal(node, literal)
            case {"Alias": [inner, str()]} if len(node) == 1:
                return self._node(inner)
            case {"BinaryExpr": {"left": left, "op": str(op), "right": right}} if len(node) == 1:
                return self._binary(node, op, self._node(left), self._node(right))
            case {"Ternary": {"predicate": predicate, "truthy": yes, "falsy": no}} if len(node) == 1:
                inputs = self._node(predicate), self._node(yes), self._node(no)
                return self._folded(node, inputs) or logic.choose(self._dtype(self._part(node)), *inputs)
            case {"Cast": {"expr": inner, "dtype": _, "options": "Strict" | "NonStrict"}} if len(node) == 1:
                return self._cast(node, self._node(inner))
            case {"Function": {"input": list(inputs), "function": function, **rest}} if len(node) == 1 and not rest:
                name, options = _named(function)
                return self._function(node, name, options, tuple(self._node(each) for each in inputs))
        raise Untranslated(node)

    def _dtype(self, part: pl.Expr) -> pl.DataType:
        try:
            return self.empty.select(part.alias("value")).schema["value"]
        except FAILURES as problem:
            raise Untranslated from problem

    def _column(self, name: str) -> Term:
        dtype = self.empty.schema[name]
        if not (limits(dtype) or is_float(dtype) or is_text(dtype) or is_ticks(dtype) or dtype == pl.Boolean):
            raise Untranslated(dtype)
        self.columns.add(name)
        return Term(dtype, itemgetter(name))

    def _literal(self, node: Any, literal: Any) -> Term:
        match literal:
            case {"Dyn": {"Int": int(value)}}:
                found = fixed(pl.Int32() if -(2**31) <= value < 2**31 else pl.Int64(), value, loose=True)
            case {"Dyn": {"Float": float(value)}}:
                found = fixed(pl.Float64(), value, loose=True)
            case {"Dyn": _}:
                raise Untranslated(literal)
            case _:
                found = self._evaluated(node)
        self.literals.extend(found.value if isinstance(found.value, list) else [found.value])
        return found

    def _evaluated(self, node: Any) -> Term:
        """What needs no row is what Polars says that it is."""
        try:
            series = pl.select(self._part(node).alias("value")).to_series()
        except FAILURES as problem:
            raise Untranslated(node) from problem
        dtype = series.dtype
        inner = pl.Series(dtype=dtype.inner).dtype if isinstance(dtype, pl.List) else dtype
        plain = limits(inner) or is_float(inner) or is_text(inner) or inner in (pl.Boolean, pl.Null)
        if len(series) != 1 or not (plain or is_ticks(inner)):
            raise Untranslated(dtype)
        if is_ticks(inner):
            series = series.to_physical()
        value = series.item()
        return fixed(dtype, value.to_list() if isinstance(value, pl.Series) else value)

    def _folded(self, node: Any, inputs: tuple[Term, ...]) -> Term | None:
        """A node whose inputs are all constant; None if one is not."""
        if not all(t.constant for t in inputs):
            return None
        if any(t.loose for t in inputs):
            raise Untranslated(node)
        return self._evaluated(node)

    def _cast(self, node: Any, inner: Term) -> Term:
        return self._evaluated(node) if inner.constant else cast(inner, self._dtype(self._part(node)))

    def _binary(self, node: Any, op: str, left: Term, right: Term) -> Term:
        folded = self._folded(node, (left, right))
        if folded is not None:
            return folded
        if op in logic.COMPARISONS:
            numeric = all(is_float(t.dtype) or limits(t.dtype) is not None for t in (left, right))
            sides = node["BinaryExpr"]
            return logic.compare(
                op,
                left,
                right,
                self._dtype(self._part(sides["left"]) + self._part(sides["right"])) if numeric else None,
            )
        if op in ("And", "Or", "Xor"):
            return logic.connect(op, left, right)
        dtype = self._dtype(self._part(node))
        if op == "Plus" and dtype == pl.String:
            return texts.joined_text(left, right)
        if is_ticks(dtype):
            return times.arithmetic(op, dtype, left, right)
        return numbers.arithmetic(op, dtype, left, right)

    def _function(self, node: Any, name: str, options: Any, inputs: tuple[Term, ...]) -> Term:
        low, high = _INPUTS.get(name, (1, 1))
        if name not in FUNCTIONS or not low <= len(inputs) <= high:
            raise Untranslated(name)
        folded = self._folded(node, inputs)
        if folded is not None:
            return folded
        dtype = self._dtype(self._part(node))
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
            self.zones.add(dtype.time_zone)
        found = FUNCTIONS[name](Call(dtype, inputs, options))
        return Term(dtype, found.run, loose=found.loose or (inputs[0].loose and not inputs[0].constant))


def _key(node: Any) -> str:
    return json.dumps(node, sort_keys=True)


def _named(function: Any) -> tuple[str, Any]:
    """A function's path, such as Boolean.IsIn, and its options."""
    match function:
        case str():
            return function, None
        case dict() if len(function) == 1:
            (name, inner), *_ = function.items()
            if isinstance(inner, str) or (
                isinstance(inner, dict) and len(inner) == 1 and next(iter(inner))[:1].isupper()
            ):
                deeper, options = _named(inner)
                return f"{name}.{deeper}", options
            return name, inner
    raise Untranslated(function)
