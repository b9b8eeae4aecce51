"""A request as plain data: the columns of a contract with their types and limits, for whoever has no flyball."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import polars as pl
from dataframely.columns import Column as DyColumn

from flyball.data import contract, rules
from flyball.learn.features.closures.term import limits
from flyball.learn.model import Model

_LIMITS = ("min", "max", "min_exclusive", "max_exclusive")
_SAID = frozenset({*_LIMITS, "nullability", "inf", "nan", "min_length", "max_length", "is_in", "unique"})
"""Kinds of rules that types and limits say."""


def described(model: Model, by: Collection[str]) -> list[dict[str, Any]]:
    """Each column of a request: `name`, `type`, `nullable`, `required`, `limits`, and `values` where they are listed.

    Args:
        by: columns that are read beside those of the features.
    """
    spec = contract.spec(model.question)
    reads = {*model.features.reads(model.question), model.asked.column.name, *spec.entity, *spec.key, *by}
    declared = model.question.columns()
    found = []
    for column in spec.request:
        own = declared[column.name]
        said: dict[str, Any] = {
            "name": column.name,
            "type": _type(column.dtype),
            "nullable": column.nullable,
            "required": column.name in reads and not column.nullable,
            "limits": _limits(own, column.dtype),
        }
        values = list(column.dtype.categories) if isinstance(column.dtype, pl.Enum) else _listed(own)
        found.append(said | ({"values": values} if values else {}))
    return found


def unchecked(model: Model) -> list[str]:
    """The rules of a contract that `described` does not say."""
    spec, declared = contract.spec(model.question), rules.of(model.question)
    columns = {c["name"]: c for c in described(model, ())}
    left = []
    for rule in (*declared.single, *declared.grouped):
        name, _, kind = rule.rpartition("|")
        if name in spec.late or (name in columns and columns[name]["type"] != "any" and _says(columns[name], kind)):
            continue
        left.append(rule)
    return sorted(left)


def _says(column: dict[str, Any], kind: str) -> bool:
    if kind in _LIMITS:
        return kind in column["limits"]
    if kind in ("min_length", "max_length"):
        return f"{kind[:3]}_bytes" in column["limits"]
    return kind in _SAID and (kind != "is_in" or "values" in column)


def _type(dtype: pl.DataType) -> str:
    if limits(dtype) is not None:
        return "int"
    match dtype:
        case pl.Boolean():
            return "bool"
        case pl.Float64():
            return "float"
        case pl.Float32():
            return "float32"
        case pl.String() | pl.Categorical() | pl.Enum():
            return "text"
        case pl.Datetime(time_unit="us", time_zone=str()):
            return "moment"
        case pl.Date():
            return "day"
    return "any"


def _limits(column: DyColumn, dtype: pl.DataType) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    whole = limits(dtype)
    if whole is not None:
        found = {"min": whole[0], "max": whole[1]}
    for name in _LIMITS:
        value = getattr(column, name, None)
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = value
    for name, said in (("min_length", "min_bytes"), ("max_length", "max_bytes")):
        value = getattr(column, name, None)
        if type(value) is int:
            found[said] = value
    return found


def _listed(column: DyColumn) -> list[Any]:
    values = getattr(column, "is_in", None)
    return list(values) if isinstance(values, list | tuple) and all(type(v) in (int, str) for v in values) else []
