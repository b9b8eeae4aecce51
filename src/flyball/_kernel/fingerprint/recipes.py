"""How a value of a known type is said in plainer values. Pure data where it can be: a type's name, and what it is made of.

`LEAVES` turns a scalar into text or bytes. `said` takes anything else apart by one step (`Parts`); whoever asks goes on
with the parts. Nothing heavy is imported: a value of Polars, NumPy, dataframely or scikit-learn is known by its type's name, or
by a module that the value itself must have loaded.

What is left out on purpose: descriptions and places (documentation is not behaviour), record fields with
`compare=False` (equality is the fingerprint), the fitted state of an estimator. -0.0 counts as 0.0, and every NaN as one: each
pair behaves alike in every comparison. Moments count by instant. Array elements count by their exact bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, EllipsisType, FunctionType, NotImplementedType
from typing import Any

import msgspec

from flyball._kernel import clock
from flyball._kernel.fingerprint import origin


class Refused(Exception):
    """A value that must not be said; the text says why."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A class that counts with the version of its distribution, where a mere record counts by the class's name."""

    cls: type


@dataclass(frozen=True, slots=True)
class Parts:
    """A value, taken apart: a tag, its class where that matters, and named parts (the names are paths for a person)."""

    tag: str
    items: Mapping[str, object]
    cls: type | Versioned | None = None


def _instant(value: datetime) -> str:
    if value.utcoffset() is None:
        raise Refused("A time without a zone is no instant: give it tzinfo=UTC.")
    return str(clock.micros(value))


def _float(value: float) -> bytes:
    if value != value:
        return b"nan"
    return struct.pack(">d", value + 0.0)


LEAVES: Mapping[type, Callable[[Any], str | bytes]] = {
    type(None): lambda _: "",
    EllipsisType: lambda _: "",
    NotImplementedType: lambda _: "",
    object: lambda _: "",  # a sentinel: what tells it from others is the name that it is read by
    bool: lambda v: "1" if v else "0",
    int: str,
    float: _float,
    str: lambda v: v,
    bytes: lambda v: v,
    datetime: _instant,
    date: date.isoformat,
    timedelta: lambda v: str(v // clock.MICROSECOND),
    Decimal: str,
}
"""Exact types only: a subclass may mean more than its value."""


def _reduced(value: Any) -> object:
    return value.__reduce__()[1:]


_KNOWN: Mapping[str, Callable[[Any], object]] = {
    "builtins.classmethod": operator.attrgetter("__func__"),
    "builtins.complex": operator.attrgetter("real", "imag"),
    "builtins.method": operator.attrgetter("__func__", "__self__"),
    "builtins.method-wrapper": operator.attrgetter("__name__", "__self__"),
    "builtins.method_descriptor": operator.attrgetter("__objclass__", "__name__"),
    "builtins.property": operator.attrgetter("fget", "fset", "fdel"),
    "builtins.range": operator.attrgetter("start", "stop", "step"),
    "builtins.slice": operator.attrgetter("start", "stop", "step"),
    "builtins.staticmethod": operator.attrgetter("__func__"),
    "builtins.wrapper_descriptor": operator.attrgetter("__objclass__", "__name__"),
    "collections.Counter": dict,
    "collections.OrderedDict": lambda v: list(v.items()),
    "collections.abc._CallableGenericAlias": operator.attrgetter("__origin__", "__args__"),
    "collections.defaultdict": lambda v: (v.default_factory, dict(v)),
    "collections.deque": lambda v: (list(v), v.maxlen),
    "dataframely._rule.RuleFactory": operator.attrgetter("validation_fn"),
    "datetime.time": lambda v: (v.replace(tzinfo=None).isoformat(), v.tzinfo),
    "datetime.timezone": lambda v: v.utcoffset(None),
    "flyball._kernel.place.Place": lambda _: (),
    "fractions.Fraction": operator.attrgetter("numerator", "denominator"),
    "functools._lru_cache_wrapper": lambda v: (v.__wrapped__, v.cache_parameters()),
    "functools.cached_property": operator.attrgetter("func"),
    "functools.partial": operator.attrgetter("func", "args", "keywords"),
    "functools.partialmethod": operator.attrgetter("func", "args", "keywords"),
    "functools.singledispatchmethod": operator.attrgetter("func", "dispatcher"),
    "logging.Logger": operator.attrgetter("name"),  # what is logged is no result
    "operator.attrgetter": _reduced,
    "operator.itemgetter": _reduced,
    "operator.methodcaller": _reduced,
    "polars.datatypes.classes.Categories": lambda v: (v.name(), v.namespace(), v.physical()),
    "polars.datatypes.classes.Field": operator.attrgetter("name", "dtype"),
    "polars.schema.Schema": lambda v: list(v.items()),
    "re.Pattern": operator.attrgetter("pattern", "flags"),
    "types.GenericAlias": operator.attrgetter("__origin__", "__args__"),
    "types.UnionType": operator.attrgetter("__args__"),
    "typing.ForwardRef": operator.attrgetter("__forward_arg__"),
    "typing.NewType": operator.attrgetter("__name__", "__supertype__"),
    "typing.ParamSpec": operator.attrgetter("__name__"),
    "typing.TypeVar": operator.attrgetter("__name__", "__bound__", "__constraints__"),
    "typing._CallableGenericAlias": operator.attrgetter("__origin__", "__args__"),
    "typing._GenericAlias": operator.attrgetter("__origin__", "__args__"),
    "typing._LiteralGenericAlias": operator.attrgetter("__origin__", "__args__"),
    "typing._SpecialForm": operator.attrgetter("_name"),
    "typing._UnionGenericAlias": operator.attrgetter("__origin__", "__args__"),
    "uuid.UUID": operator.attrgetter("int"),
    "zoneinfo.ZoneInfo": operator.attrgetter("key"),
}


def name(cls: type) -> str:
    """Module and qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def hook(value: object) -> Callable[[], object] | None:
    """The `__fingerprint__` that speaks for a value: a method speaks for instances, a classmethod for the class itself."""
    kind = type(value)
    if isinstance(value, type):
        own = _lookup(value)
        if isinstance(own, (classmethod, staticmethod)):
            return functools.partial(own.__func__, *([value] if isinstance(own, classmethod) else []))
    own = _lookup(kind)
    return functools.partial(own, value) if isinstance(own, FunctionType) else None


def _lookup(cls: type) -> object:
    return next((vars(c)["__fingerprint__"] for c in cls.__mro__ if "__fingerprint__" in vars(c)), None)


def said(value: Any) -> Parts | None:
    """One step plainer, or None if nobody knows such a value.

    Raises:
        Refused: if it is known and must not be said.
    """
    kind = type(value)
    if (known := _KNOWN.get(name(kind))) is not None:
        return Parts(name(kind), {"": known(value)})
    if isinstance(value, Enum):
        return Parts("enum", {".name": value.name, ".value": value.value}, kind)
    if isinstance(value, PurePath):
        return Parts("path", {"": value.as_posix()})
    if isinstance(value, BuiltinFunctionType):
        owner = value.__self__ if value.__self__ is not None else sys.modules.get(value.__module__ or "")
        return Parts("builtin", {".__self__": owner, ".__qualname__": value.__qualname__})
    if (fields := _fields(kind)) is not None:
        return Parts("record", {f".{f}": getattr(value, f) for f in fields}, kind)
    for library in (_numpy, _polars, _dataframely):
        if (parts := library(value)) is not None:
            return parts
    if callable(getattr(kind, "get_params", None)):
        params = value.get_params(deep=True)
        return Parts("estimator", {f".{k}": params[k] for k in sorted(params)}, Versioned(kind))
    return None


def _fields(kind: Any) -> list[str] | None:
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind) if f.compare]
    if issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    return list(kind._fields) if issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def _numpy(value: Any) -> Parts | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.dtype):
        return Parts("numpy.dtype", {"": value.descr if value.fields else value.str})
    if type(value) is not numpy.ndarray and not isinstance(value, numpy.generic):
        return None
    array = numpy.asarray(value)
    data = array.tolist() if array.dtype.hasobject else array.tobytes()
    tag = "numpy.array" if type(value) is numpy.ndarray else "numpy.scalar"
    return Parts(tag, {".dtype": array.dtype, ".shape": array.shape, "": data})


def _polars(value: Any) -> Parts | None:
    polars = sys.modules.get("polars")
    if polars is None:
        return None
    if isinstance(value, polars.DataType):
        parts = {f".{k}": v.to_list() if isinstance(v, polars.Series) else v for k, v in vars(value).items()}
        return Parts("polars.dtype", {".name": name(type(value)), **parts})
    if not isinstance(value, polars.Expr):
        return None
    try:
        stored = value.meta.serialize()
    except polars.exceptions.PolarsError as problem:
        raise Refused(f"Polars cannot serialise the expression: {problem}") from problem
    return Parts("polars.expression", {"": _expression(msgspec.msgpack.decode(stored)), ".version": polars})


_OPAQUE = "It calls a Python function, which Polars stores opaquely: write it with Polars expressions."


def _expression(node: Any) -> Any:
    """A serialised expression without what a serialisation hides: Python functions are refused, plugins count by version.

    A Python function is pickled into the expression by reference (a changed body would go unseen) or by value (a moved
    line would count), so neither is a fingerprint.
    """
    if isinstance(node, dict):
        if "FfiPlugin" in node:
            return {"FfiPlugin": {**node["FfiPlugin"], "lib": _plugin(node["FfiPlugin"]["lib"])}}
        return {key: _expression(part) for key, part in node.items()}
    if isinstance(node, list):
        if re.match(rb"[^\x80]{0,4}\x80[\x02-\x05]", _octets(node), re.DOTALL):
            raise Refused(_OPAQUE)
        return [_expression(part) for part in node]
    if isinstance(node, bytes) and node.startswith(b"PLPYFN"):
        raise Refused(_OPAQUE)
    return node


def _octets(node: list[Any]) -> bytes:
    return bytes(node) if all(isinstance(part, int) and 0 <= part < 256 for part in node) else b""


def _plugin(library: str) -> str:
    inside = PurePath(library).as_posix().rpartition("-packages/")[2]
    owner = origin.label(inside.partition("/")[0])
    if owner is None or inside == library:
        raise Refused(f"It calls the compiled plugin {library}, which has no version.")
    return f"{owner}/{inside}"


def _dataframely(value: Any) -> Parts | None:
    if _is_column(value):
        # What starts with _ is bookkeeping; None is what a newer dataframely adds with every new option.
        own = {k: v for k, v in vars(value).items() if not k.startswith("_") and k != "description" and v is not None}
        return Parts("column", {f".{k}": own[k] for k in sorted(own)}, type(value))
    if not is_schema(value):
        return None
    rest = {
        f".{attribute}": part
        for cls in reversed(value.__mro__)
        if is_schema(cls) and origin.label(cls.__module__) is None
        for attribute, part in vars(cls).items()
        if not attribute.startswith("__") and attribute != "_abc_impl" and not _is_column(part)
    }
    return Parts(
        "schema", {".name": value.__name__, ".columns": list(value.columns().items()), **dict(sorted(rest.items()))}
    )


def _is_column(value: object) -> bool:
    return any(name(c) == "dataframely.columns._base.Column" for c in type(value).__mro__)


def is_schema(value: object) -> bool:
    """Whether a value is a class that dataframely made from columns."""
    meta: Any = type(value)
    return issubclass(meta, type) and any(name(c) == "dataframely._base_schema.SchemaMeta" for c in meta.__mro__)
