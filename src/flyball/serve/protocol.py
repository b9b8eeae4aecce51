"""What is asked: the request is compiled from the contract, and judged as ingest judges a row.

A request is the contract minus its outcomes. The key and what features read must be there; other columns may be. An outcome
in a request, or a column that the contract does not have, is refused by name: it would be ignored otherwise, and a
misspelt column is found by its sender and by nobody else.

A **cell** comes as JSON says its type (`"12"` is no number) and becomes the value that the table would hold. What the
msgspec type and a cell's `fit` cannot say exactly is a **residual** rule: the very expression that ingest evaluates, on a
frame of the request. A contract without residual rules pays for none. Each question is judged as if it came alone; a rule
over a column that a question may not have, or has left out, says nothing against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_float
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import dataframely as dy
import msgspec
import polars as pl
from dataframely.columns import Column as DyColumn

from flyball._kernel.errors import DataError, DeclarationError, bounded
from flyball.data import coerce, contract, rules
from flyball.data.contract import Contract, Spec

Row = dict[str, Any]
Fit = Callable[[Any], Any]
"""A cell as msgspec read it -> the value that the table would hold; raises ValueError or OverflowError."""

_INT64 = range(-(2**63), 2**63)
"""msgspec knows no limits beyond."""
_ABOUT_ABSENCE = frozenset({"nullability", "unique"})
"""The type of the request says what may be missing, and one row is always unique."""
_LIMITS = {"min": "ge", "min_exclusive": "gt", "max": "le", "max_exclusive": "lt"}
_JSON_LIMITS = {
    "min": "minimum",
    "min_exclusive": "exclusiveMinimum",
    "max": "maximum",
    "max_exclusive": "exclusiveMaximum",
}


def request_type(question: type[Contract], reads: frozenset[str]) -> type[msgspec.Struct]:
    """The struct of a request; its encoded names are the contract's, which need not be identifiers.

    Args:
        question: the contract that is asked about.
        reads: the columns that features read; they and the key are required, nullable ones may be null or left out.

    Raises:
        DeclarationError: `column-not-askable`.
    """
    spec = contract.spec(question)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    cells = _cells(question, reads)
    for name, field in zip(cells, _fields(cells), strict=True):
        if name in _required(spec, reads):
            fields.append((field, cells[name].type))
        else:
            fields.append((field, cells[name].type | None, None))
    return msgspec.defstruct(
        f"{spec.title}Request",
        fields,
        rename=dict(zip(_fields(cells), cells, strict=True)),
        forbid_unknown_fields=True,
        frozen=True,
        kw_only=True,
        gc=False,
    )


def decoder(question: type[Contract], reads: frozenset[str]) -> Callable[[bytes], tuple[list[Row], bool]]:
    """Bytes -> (rows, whether it was a list), where each row maps column to value; instants are in their column's zone.

    Raises:
        DeclarationError: `column-not-askable`.
        DataError: when called: `request-breaks-contract`, naming the field and the rule.
    """
    type_ = request_type(question, reads)
    one, many = msgspec.json.Decoder(type_), msgspec.json.Decoder(list[type_])  # type: ignore[valid-type]
    cells = _cells(question, reads)
    renamed = [(field, name) for field, name in zip(_fields(cells), cells, strict=True) if field != name]
    fits = [(name, cell.fit) for name, cell in cells.items() if cell.fit is not None]
    judge = _residual(question, reads)

    def fitted(value: msgspec.Struct, index: int | None) -> Row:
        row = msgspec.structs.asdict(value)
        for field, name in renamed:
            row[name] = row.pop(field)
        for name, fit in fits:
            if (cell := row[name]) is not None:
                try:
                    row[name] = fit(cell)
                except (ValueError, OverflowError) as problem:
                    # Overflow: a time near the year 1 or 9999 whose zone puts it beyond.
                    raise _refusal(question, f"{problem} - at `{_at(index)}.{name}`") from None
        return row

    def decode(body: bytes) -> tuple[list[Row], bool]:
        is_list = body.lstrip()[:1] == b"["
        try:
            found: Any = many.decode(body) if is_list else one.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise _refusal(question, str(problem)) from None
        rows = [fitted(value, i) for i, value in enumerate(found)] if is_list else [fitted(found, None)]
        if judge is not None and rows:
            judge(rows, is_list)
        return rows, is_list

    return decode


def schema(question: type[Contract], reads: frozenset[str]) -> dict[str, Any]:
    """The JSON schema of a request."""
    (_,), components = msgspec.json.schema_components(
        [request_type(question, reads)], ref_template="#/components/schemas/{name}"
    )
    found: dict[str, Any] = components[f"{contract.spec(question).title}Request"]
    for name, column in question.columns().items():
        if column.description and name in found["properties"]:
            found["properties"][name]["description"] = column.description
    return found


def _refusal(question: type[Contract], problem: str) -> DataError:
    spec = contract.spec(question)
    outcome = next((n for n in sorted(spec.late) if f"`{n}`" in problem), None)
    why = f"{outcome} is an outcome: it is not known when the question is asked." if outcome else bounded(problem, 400)
    return DataError(
        "request-breaks-contract",
        f"The request does not fit {question.__name__}.",
        where=spec.place,
        why=why,
        next="GET /openapi.json describes each field.",
    )


def _at(index: int | None) -> str:
    return "$" if index is None else f"$[{index}]"


def _fields(names: Iterable[str]) -> list[str]:
    """The struct's own names: a contract's name may be none that Python takes, but none starts with an underscore."""
    return [name if name.isidentifier() else f"_{position}" for position, name in enumerate(names)]


def _required(spec: Spec, reads: frozenset[str]) -> frozenset[str]:
    return frozenset(c.name for c in spec.request if (c.key or c.name in reads) and not c.nullable)


# --- rules that types cannot say


def _residual(question: type[Contract], reads: frozenset[str]) -> Callable[[Sequence[Row], bool], None] | None:
    """What refuses rows that break a residual rule; None if the contract has no such rule."""
    spec, cells = contract.spec(question), _cells(question, reads)
    dtypes = {name: spec.dtypes[name] for name in cells}
    said = {f"{name}|{kind}" for name, cell in cells.items() for kind in cell.says | _ABOUT_ABSENCE}
    absent = {c.name for c in spec.request if not c.nullable} - _required(spec, reads)
    declared = rules.of(question)
    # One question is no group: what looks at a group of rows is judged where a whole file is.
    alone = {**declared.single, **{n: rule for n, rule in declared.grouped.items() if not rules.windowed(rule)}}
    asked = {
        name: _unless_absent(rule, absent)
        for name, rule in alone.items()
        if name not in said and _can_be_asked(rule, pl.LazyFrame(schema=dtypes))
    }
    if not asked:
        return None
    together = all(rules.row_wise(rule) for rule in asked.values())
    if not any(rule.meta.has_multiple_outputs() for rule in asked.values()):  # such as pl.all(), which has no names
        read = {name for rule in asked.values() for name in rule.meta.root_names()}
        dtypes = {name: dtype for name, dtype in dtypes.items() if name in read} or dtypes

    def judge(rows: Sequence[Row], is_list: bool) -> None:
        cells = [tuple([row[name] for name in dtypes]) for row in rows]
        frame = pl.DataFrame(cells, schema=dtypes, orient="row")
        for start, part in enumerate([frame] if together else frame.iter_slices(1)):
            for rule, breaks in rules.broken(part, asked, spec):
                place = _at(start + int(breaks.arg_true()[0]) if is_list else None)
                column = rule.rpartition("|")[0]
                raise _refusal(question, f"Breaks the rule {rule!r} - at `{place}{column and '.'}{column}`")

    return judge


def _can_be_asked(rule: pl.Expr, request: pl.LazyFrame) -> bool:
    try:
        request.select(rule).collect_schema()
    except pl.exceptions.ColumnNotFoundError:
        return False
    except pl.exceptions.PolarsError:
        return True  # ingest cannot run it either, and says so
    return True


def _unless_absent(rule: pl.Expr, absent: set[str]) -> pl.Expr:
    """The rule, for rows that have all its columns: a null in one that is not nullable is a cell left out."""
    reads = sorted(absent & set(rule.meta.root_names()))
    return pl.any_horizontal(pl.col(reads).is_null()) | rule if reads else rule


# --- cells


@dataclass(frozen=True, slots=True)
class _Cell:
    """How a column is read.

    Attributes:
        type: what msgspec decodes and documents.
        fit: what remains to be done to a cell, or None.
        says: the kinds of dataframely's rules that type and fit together hold exactly.
    """

    type: Any
    fit: Fit | None = None
    says: frozenset[str] = frozenset()


def _cells(question: type[Contract], reads: frozenset[str]) -> dict[str, _Cell]:
    """Column of the request -> how it is read."""
    spec, declared, found = contract.spec(question), question.columns(), {}
    for column in spec.request:
        named = column.name.isprintable() and not {'"', "\\"} & set(column.name)
        cell = _cell(declared[column.name], column.dtype) if named else None
        if cell is not None:
            found[column.name] = cell
        elif column.key or column.name in reads:
            raise DeclarationError(
                "column-not-askable",
                f"{spec.name}.{column.name} is {column.dtype}, and a request cannot carry it.",
                where=spec.place,
                why="A request is JSON: its cells are texts, numbers, truth values and times, under names without quotes.",
                next="Declare a column of a plain type that says the same, or take it out of the key and the features.",
            )
    return found


def _cell(column: DyColumn, dtype: pl.DataType) -> _Cell | None:
    """How a column of this type is read; None if JSON has no exact form for it."""
    match dtype:
        case pl.Boolean():
            return _Cell(bool)
        case pl.Enum() if dtype.categories.len():
            return _Cell(Literal[tuple(dtype.categories)])
        case pl.String() | pl.Categorical():
            return _text(column)
        case pl.Float32() | pl.Float64():
            return _float(column, single=dtype == pl.Float32)
        case pl.Date():
            return _Cell(date)
        case pl.Time():
            return _Cell(Annotated[time, msgspec.Meta(tz=False)])
        case pl.Duration():
            return _Cell(timedelta, _stored(dtype))
        case pl.Datetime():
            return _datetime(dtype)
    return _integer(column, dtype) if dtype.is_integer() else None


def _text(column: DyColumn) -> _Cell:
    """Lengths are counted in bytes, of which a character has one to four; a pattern is Rust's, which Python cannot tell."""
    if not isinstance(column, dy.String):
        return _Cell(str)
    low, high = column.min_length, column.max_length
    told = {"pattern": column.regex} if column.regex is not None else None
    limits = msgspec.Meta(min_length=-(-low // 4) if low else None, max_length=high, extra_json_schema=told)

    def fit(value: str) -> str:
        length = len(value) if value.isascii() else len(value.encode())
        if low is not None and length < low:
            raise ValueError(f"Expected `str` of {low} bytes or more")
        if high is not None and length > high:
            raise ValueError(f"Expected `str` of {high} bytes or fewer")
        return value

    bare = low is None and high is None
    return _Cell(Annotated[str, limits], None if bare else fit, frozenset({"min_length", "max_length"}))


def _float(column: DyColumn, *, single: bool) -> _Cell:
    """JSON has no NaN and no infinity, and msgspec refuses what overflows; but a double may overflow a single."""
    limits: dict[str, Any] = {kind: getattr(column, kind, None) for kind in _LIMITS}
    exact = {kind: value for kind, value in limits.items() if type(value) in (int, float) and math.isfinite(value)}
    if not single:
        meta = msgspec.Meta(**{_LIMITS[kind]: value for kind, value in exact.items()})
        return _Cell(Annotated[float, meta], None, frozenset({*exact, "inf", "nan"}))

    def fit(value: float) -> float:
        found = c_float(value).value
        if math.isinf(found):
            raise ValueError("Expected `float` that 32 bits can hold")
        return found

    # The limits are for what is left after rounding, so the type can only tell them.
    meta = msgspec.Meta(extra_json_schema={_JSON_LIMITS[kind]: value for kind, value in exact.items()})
    return _Cell(Annotated[float, meta], fit, frozenset({"inf", "nan"}))


def _integer(column: DyColumn, dtype: pl.DataType) -> _Cell:
    """Limits of the contract and of the type, and the values that `is_in` lists."""
    name = str(dtype)
    bits = int("".join(ch for ch in name if ch.isdigit()))
    low, high = (0, 2**bits - 1) if name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    limits = {kind: getattr(column, kind, None) for kind in _LIMITS}
    exact = {kind: value for kind, value in limits.items() if type(value) is int}
    low = max(low, exact.get("min", low), exact.get("min_exclusive", low - 1) + 1)
    high = min(high, exact.get("max", high), exact.get("max_exclusive", high + 1) - 1)
    listed = getattr(column, "is_in", None)
    if listed is not None and all(type(each) is int for each in listed):
        allowed = [each for each in listed if low <= each <= high]
        if allowed and all(each in _INT64 for each in allowed):
            return _Cell(Literal[tuple(allowed)], None, frozenset({*exact, "is_in"}))

    def fit(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"Expected `int` from {low} to {high}")
        return value

    inside = low in _INT64 and high in _INT64
    meta = msgspec.Meta(ge=low if low in _INT64 else None, le=high if high in _INT64 else None)
    return _Cell(Annotated[int, meta], None if inside else fit, frozenset(exact))


def _datetime(dtype: pl.Datetime) -> _Cell:
    """An instant comes with a zone, any, and goes into the column's; a wall time comes without one."""
    stored = None if dtype.time_unit == "us" else _stored(dtype)
    if dtype.time_zone is None:
        return _Cell(Annotated[datetime, msgspec.Meta(tz=False)], stored)
    zone = UTC if dtype.time_zone == "UTC" else ZoneInfo(dtype.time_zone)

    def fit(value: datetime) -> datetime:
        # By way of UTC, since an offset of the 19th century has seconds, which no text says.
        return (value if stored is None else stored(value.astimezone(UTC))).astimezone(zone)

    return _Cell(Annotated[datetime, msgspec.Meta(tz=True)], fit)


def _stored(dtype: pl.Datetime | pl.Duration) -> Fit:
    """What Python and the column do not hold alike, by the expression that ingest uses."""

    def fit(value: datetime | timedelta) -> Any:
        said: Any = value.isoformat() if isinstance(value, datetime) else value
        cell = pl.Series("cell", [said]).to_frame()
        found = cell.select(coerce.cell("cell", cell.schema["cell"], dtype)).item()
        # Nanoseconds reach from 1677 to 2262, and text beyond wraps round.
        if found is None or abs(found - value) >= timedelta(milliseconds=1):
            raise ValueError(f"Expected a value that {dtype} can hold")
        return found

    return fit
