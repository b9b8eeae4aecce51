"""Expressions over a request as data, for whoever has no Polars: what `flyball.edge.expression` computes.

Read as `compiled` reads them, node by node, and tried as those are: what is not known, or says once something else than Polars,
is None, and its value is handed over instead. Fewer nodes are known here than there: what features of requests are made of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from flyball.edge import Refused, expression
from flyball.learn.features.closures import proof, times
from flyball.learn.features.closures.reading import Reading
from flyball.learn.features.closures.taking import take
from flyball.learn.features.closures.term import (
    FAILURES,
    Row,
    Unsure,
    Untranslated,
    is_float,
    is_text,
    is_ticks,
    limits,
)

Data = list[Any]

_ARITHMETIC = {"Plus": "+", "Minus": "-", "Multiply": "*"}
_COMPARED = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_CONNECTED = {"And": "and", "Or": "or", "LogicalAnd": "and", "LogicalOr": "or"}
_OF_ONE = {"Boolean.IsNull": "null", "Boolean.IsNotNull": "there", "Boolean.Not": "not", "Abs": "abs"}
_OF_TEXT = {
    "StringExpr.Lowercase": "lower",
    "StringExpr.Uppercase": "upper",
    "StringExpr.LenChars": "length",
    "StringExpr.StartsWith": "starts",
    "StringExpr.EndsWith": "ends",
}
_OF_TIME = {
    "TemporalExpr.Hour": "hour",
    "TemporalExpr.Minute": "minute",
    "TemporalExpr.WeekDay": "weekday",
    "TemporalExpr.Day": "day",
    "TemporalExpr.Month": "month",
    "TemporalExpr.Year": "year",
    "TemporalExpr.OrdinalDay": "ordinal",
}


class _Node(NamedTuple):
    data: Data
    dtype: pl.DataType

    @property
    def literal(self) -> bool:
        return bool(self.data[0] == "literal")


def of(computed: pl.Expr, schema: Mapping[str, pl.DataType]) -> Data | None:
    """An expression over columns of `schema` as data; None where it cannot be had with the same bits."""
    reading = _Portable(pl.DataFrame(schema=schema))
    try:
        data = reading.written(computed)
        run = expression.compiled(data)
    except (Untranslated, *FAILURES):
        return None

    def sure(row: Row) -> Any:
        try:
            return run(row)
        except (Refused, OverflowError):
            raise Unsure from None

    read = {name: dtype for name, dtype in schema.items() if name in reading.columns}
    rows = proof.rows(read, [reading])
    frame = pl.DataFrame([tuple(row.values()) for row in rows], schema=read, orient="row")
    takes = {name: take(dtype) for name, dtype in read.items()}
    cells: list[Mapping[str, Any] | None] = []
    for row in rows:
        try:
            cells.append({n: None if value is None else takes[n](value) for n, value in row.items()})
        except Unsure:
            cells.append(None)
    return data if proof.holds(sure, computed, frame, cells) else None


class _Portable(Reading):
    """A reading that writes data instead of closures."""

    def written(self, computed: pl.Expr) -> Data:
        """The root of an expression.

        Raises:
            Untranslated: when a node is not known, or not for these types.
        """
        read = computed.meta.serialize(format="json")
        self._take_apart(computed)
        found = self._write(json.loads(read))
        if not (found.dtype == pl.Boolean or is_float(found.dtype) or is_text(found.dtype) or limits(found.dtype)):
            raise Untranslated(found.dtype)
        return found.data

    def _write(self, node: Any) -> _Node:
        match node:
            case {"Column": str(name)} if name in self.empty.columns:
                return _Node(["column", name], self._column(name).dtype)
            case {"Literal": literal}:
                value = self._literal(node, literal)
                if isinstance(value.value, list) or is_ticks(value.dtype):
                    raise Untranslated(node)
                if isinstance(value.value, float) and not math.isfinite(value.value):
                    raise Untranslated(node)  # JSON has no such number
                return _Node(["literal", value.value], value.dtype)
            case {"Alias": [inner, str()]}:
                return self._write(inner)
            case {"BinaryExpr": {"left": left, "op": str(op), "right": right}}:
                return self._written_binary(node, op, self._write(left), self._write(right))
            case {"Ternary": {"predicate": predicate, "truthy": yes, "falsy": no}}:
                dtype, test = self._dtype(self._part(node)), self._write(predicate)
                return _Node(["if", test.data, _as(self._write(yes), dtype), _as(self._write(no), dtype)], dtype)
            case {"Cast": {"expr": inner, "dtype": _, "options": "Strict" | "NonStrict"}}:
                dtype = self._dtype(self._part(node))
                return _Node(_as(self._write(inner), dtype), dtype)
            case {"Function": {"input": list(inputs), "function": function}}:
                return self._written_function(node, _path(function), [self._write(each) for each in inputs])
        raise Untranslated(node)

    def _written_binary(self, node: Any, op: str, left: _Node, right: _Node) -> _Node:
        if op in _CONNECTED and left.dtype == right.dtype == pl.Boolean:
            return _Node([_CONNECTED[op], left.data, right.data], pl.Boolean())
        if op in _COMPARED:
            sides = node["BinaryExpr"]
            dtype = left.dtype
            if not (is_text(left.dtype) or is_ticks(left.dtype) or left.dtype == right.dtype == pl.Boolean):
                dtype = self._dtype(self._part(sides["left"]) + self._part(sides["right"]))
            if is_text(dtype) and op not in ("Eq", "NotEq"):
                raise Untranslated(node)  # an Enum is in the order of its members
            return _Node([_COMPARED[op], _as(left, dtype), _as(right, dtype)], pl.Boolean())
        dtype = self._dtype(self._part(node))
        bounds = limits(dtype)
        if bounds is not None and op in _ARITHMETIC:
            return _Node(["whole", _ARITHMETIC[op], _as(left, dtype), _as(right, dtype), *bounds], dtype)
        if dtype != pl.Float64:
            raise Untranslated(node)
        a, b = _as(left, dtype), _as(right, dtype)
        if op in _ARITHMETIC:
            if op != "Multiply" and b == ["literal", 0.0]:
                return _Node(a, dtype)  # adding a literal zero does nothing, not even to the sign of another
            return _Node([_ARITHMETIC[op], a, b], dtype)
        if op == "TrueDivide":
            if right.literal and b[1]:
                return _Node(["*", a, ["literal", 1.0 / b[1]]], dtype)  # Polars divides by a literal so
            return _Node(["/", a, b], dtype)
        raise Untranslated(node)

    def _written_function(self, node: Any, name: str, inputs: list[_Node]) -> _Node:
        dtype, first = self._dtype(self._part(node)), inputs[0]
        if name in _OF_ONE and len(inputs) == 1:
            return _Node([_OF_ONE[name], first.data], dtype)
        if name in _OF_TEXT and all(is_text(each.dtype) for each in inputs):
            return _Node([_OF_TEXT[name], *(each.data for each in inputs)], dtype)
        if name in _OF_TIME and isinstance(first.dtype, pl.Datetime) and first.dtype.time_unit == "us":
            return _Node([_OF_TIME[name], _wall(first)], dtype)
        if name.startswith("TemporalExpr.ConvertTimeZone") and isinstance(dtype, pl.Datetime):
            self.zones.add(str(dtype.time_zone))
            return _Node(first.data, dtype)
        if name == "FillNull" and len(inputs) == 2:
            return _Node(["coalesce", _as(first, dtype), _as(inputs[1], dtype)], dtype)
        raise Untranslated(name)


def _wall(moment: _Node) -> Data:
    zone = moment.dtype.time_zone if isinstance(moment.dtype, pl.Datetime) else None
    if zone in (None, "UTC"):
        return moment.data
    since, offset = times.offsets(str(zone))
    return ["wall", moment.data, [*since, times.LAST], list(offset)]


def _as(node: _Node, dtype: pl.DataType) -> Data:
    """A node in the type that it has in common with its neighbour."""
    if node.literal:
        value = node.data[1]
        if value is None or (is_text(dtype) and isinstance(value, str)) or (dtype == pl.Boolean and value in (0, 1)):
            return node.data
        if dtype == pl.Float64 and isinstance(value, int | float):
            return ["literal", float(value)]
        if limits(dtype) is not None and isinstance(value, int):
            return ["literal", int(value)]
        raise Untranslated(dtype)
    if node.dtype == dtype or (is_text(node.dtype) and dtype == pl.String):
        return node.data
    if dtype == pl.Float64 and (limits(node.dtype) is not None or node.dtype == pl.Boolean):
        return ["float", node.data]
    if limits(dtype) is not None and node.dtype == pl.Boolean:
        return ["int", node.data]
    mine, theirs = limits(node.dtype), limits(dtype)
    if mine is not None and theirs is not None and theirs[0] <= mine[0] and mine[1] <= theirs[1]:
        return node.data
    raise Untranslated(dtype)


def _path(function: Any) -> str:
    """A function's path, such as TemporalExpr.Hour; its options are seen in the type that Polars gives it."""
    match function:
        case str():
            return function
        case {"TemporalExpr": {"ConvertTimeZone": _}}:
            return "TemporalExpr.ConvertTimeZone"
        case dict() if len(function) == 1:
            ((name, inner),) = function.items()
            return f"{name}.{inner}" if isinstance(inner, str) else ""
    return ""
