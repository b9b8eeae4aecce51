"""What is asked and what is answered. The request is compiled from the contract: one msgspec type decodes, checks and
documents it.

A request is the contract minus its outcomes. The key and what features read must be there; other columns may be. An outcome
in a request, or a column that the contract does not have, is refused by name: it would be ignored otherwise, and a
misspelt column is found by its sender and by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import dataframely as dy
import msgspec
import polars as pl
from dataframely.columns import Column as DyColumn

from flyball._kernel.errors import DataError, bounded
from flyball.data import contract
from flyball.data.contract import Contract

_PLAIN: Mapping[type[pl.DataType], type] = {pl.String: str, pl.Boolean: bool}
MAX_TEXT = 10_000
"""Characters of one text cell where the contract sets no limit: a request is a row, not a document store."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a caller gets for one question.

    Attributes:
        id: names this prediction for good: `flyball why ID`, and the outcome that comes later.
        version: the version that answered.
        output: probability, or predicted number.
        asked: the server's time of asking.
        within_tolerance: whether it was asked near its declared moment; otherwise the answer stands, but is not audited.
    """

    id: str
    model: str
    version: str
    output: float
    asked: datetime
    within_tolerance: bool


def request_type(question: type[Contract], reads: frozenset[str]) -> type[msgspec.Struct]:
    """The struct of a request.

    Args:
        question: the contract that is asked about.
        reads: the columns that features read; they and the key are required, nullable ones may be null or left out.
    """
    spec = contract.spec(question)
    declared = question.columns()
    required: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any, Any]] = []
    for column in spec.request:
        type_ = _cell_type(declared[column.name], column.dtype)
        if (column.key or column.name in reads) and not column.nullable:
            required.append((column.name, type_))
        else:
            optional.append((column.name, type_ | None, None))
    return msgspec.defstruct(
        f"{spec.name}Request", [*required, *optional], forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False
    )


def decoder(question: type[Contract], reads: frozenset[str]) -> Callable[[bytes], tuple[list[dict[str, Any]], bool]]:
    """Bytes -> (rows, whether it was a list), where each row maps column to value and times are UTC.

    Raises (when called):
        DataError: `request-breaks-contract`, naming the field and the rule.
    """
    type_ = request_type(question, reads)
    one, many = msgspec.json.Decoder(type_), msgspec.json.Decoder(list[type_])  # type: ignore[valid-type]
    late = contract.spec(question).late
    names = frozenset(type_.__struct_fields__)
    times = [n for n, t in contract.spec(question).dtypes.items() if isinstance(t, pl.Datetime) and n in names]

    def row(value: msgspec.Struct) -> dict[str, Any]:
        found = msgspec.structs.asdict(value)
        for name in times:
            if found[name] is not None:
                found[name] = found[name].astimezone(UTC)
        return found

    def decode(body: bytes) -> tuple[list[dict[str, Any]], bool]:
        is_list = body.lstrip()[:1] == b"["
        try:
            found = many.decode(body) if is_list else [one.decode(body)]
            return [row(value) for value in found], is_list
        except (msgspec.DecodeError, OverflowError, UnicodeDecodeError, RecursionError) as problem:
            # Overflow: a time near the year 1 or 9999 whose zone puts it beyond.
            raise _refusal(question, str(problem), late) from None

    return decode


def _refusal(question: type[Contract], problem: str, late: frozenset[str]) -> DataError:
    outcome = next((n for n in sorted(late) if f"`{n}`" in problem), None)
    why = f"{outcome} is an outcome: it is not known when the question is asked." if outcome else bounded(problem, 400)
    return DataError(
        "request-breaks-contract",
        f"The request does not fit {question.__name__}.",
        where=contract.spec(question).place,
        why=why,
        next="GET /openapi.json describes each field.",
    )


def schema(question: type[Contract], reads: frozenset[str]) -> dict[str, Any]:
    """The JSON schema of a request."""
    (_,), components = msgspec.json.schema_components(
        [request_type(question, reads)], ref_template="#/components/schemas/{name}"
    )
    found: dict[str, Any] = components[f"{contract.spec(question).name}Request"]
    for name, column in question.columns().items():
        if column.description and name in found["properties"]:
            found["properties"][name]["description"] = column.description
    return found


def _cell_type(column: DyColumn, dtype: pl.DataType) -> Any:
    if isinstance(column, dy.Enum):
        return Literal[tuple(column.categories)]
    if isinstance(column, dy.String):
        return Annotated[
            str,
            msgspec.Meta(
                min_length=column.min_length,
                max_length=column.max_length if column.max_length is not None else MAX_TEXT,
                pattern=column.regex,
            ),
        ]
    if dtype.is_numeric():
        limits = {"ge": "min", "gt": "min_exclusive", "le": "max", "lt": "max_exclusive"}
        found = {op: getattr(column, name, None) for op, name in limits.items()}
        if dtype.is_integer():
            low, high = _integer_limits(dtype)
            if found["ge"] is None and found["gt"] is None:
                found["ge"] = low
            if found["le"] is None and found["lt"] is None:
                found["le"] = high
        return Annotated[int if dtype.is_integer() else float, msgspec.Meta(**found)]
    if isinstance(dtype, pl.Datetime):
        return Annotated[datetime, msgspec.Meta(tz=True)]
    return _PLAIN.get(type(dtype), str)


def _integer_limits(dtype: pl.DataType) -> tuple[int | None, int | None]:
    """The bounds of the type itself, where JSON can say them: msgspec refuses limits beyond 64 bits."""
    bits = int("".join(ch for ch in str(dtype) if ch.isdigit()))
    if bits > 32:
        return (0, None) if str(dtype).startswith("U") else (None, None)
    return (0, 2**bits - 1) if str(dtype).startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
