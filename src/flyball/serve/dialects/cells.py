"""What dialects of others share: their columns and rows become the JSON of a request, which the contract judges like any other.

So there is one judge and one wording, whatever was spoken. Three things are theirs alone, because data frames and tensors
know no better: a number that is whole fits a whole column (`8.0` is 8), "not a number" is null, and a CSV cell is a text
that the column's kind reads. An infinite number is nothing that a table holds, and is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec

from flyball._kernel.errors import DataError, FlyballError, bounded
from flyball.serve import guard
from flyball.serve.guard import Refused
from flyball.serve.plan import Plan

Kind = Literal["truth", "whole", "number", "instant", "text"]
"""What a column of a request holds; an instant is a time with a zone, and a text is everything that JSON writes as one."""

T = TypeVar("T")

ROWS: Final = 4096
"""More than any server answers at once: columns beyond are not made into rows, which take a hundred times their bytes."""

_encode = msgspec.json.Encoder().encode
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TYPES: Final[Mapping[str, Kind]] = {"boolean": "truth", "integer": "whole", "number": "number"}
_INT64: Final = 2**63


def kinds(plan: Plan) -> dict[str, Kind]:
    """Column of the request -> its kind."""
    return {name: _kind(each) for name, each in plan.schema["properties"].items()}


def few(rows: int) -> None:
    """Let a table through that is not far too long; the server's own limit is looked at later.

    Raises:
        Refused: 413 `request-too-large`.
    """
    if rows > ROWS:
        raise Refused(413, guard.too_large(f"{rows:,} questions or more", f"below {ROWS:,} in one request"))


def judged(plan: Plan, rows: Sequence[Mapping[str, Any]], dialect: str) -> list[dict[str, Any]]:
    """The questions, as `Plan.decode` gives them.

    Raises:
        DataError: `request-breaks-contract`; or `request-not-in-dialect`, where a cell is nothing that JSON can say.
    """
    whole = [name for name, kind in kinds(plan).items() if kind == "whole"]
    try:
        if whole:
            rows = [_mended(row, whole) for row in rows]
        body = _encode(rows)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise unreadable(dialect, str(problem)) from None
    return plan.decode(body)[0]


def loose(body: bytes, decoder: msgspec.json.Decoder[T], dialect: str) -> T:
    """JSON of a type; where NaN stands in it, which is no JSON but what Python and RapidJSON write for a missing number, null.

    Raises:
        DataError: `request-not-in-dialect`.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.DecodeError:
            if b"NaN" not in body:
                raise
            found: T = msgspec.convert(json.loads(body.decode(), parse_constant=_constant), decoder.type)
            return found
    except (msgspec.DecodeError, ValueError, RecursionError) as problem:
        raise unreadable(dialect, str(problem)) from None


def finite(values: Iterable[float], name: str) -> list[float | None]:
    """The numbers of one column, null where there is none.

    Raises:
        ValueError: one of them is infinite.
    """
    found = [None if value != value else value for value in values]
    if any(value is not None and math.isinf(value) for value in found):
        raise ValueError(f"Expected finite numbers - at `{name}`")
    return found


def spelt(text: str, kind: Kind) -> Any:
    """A CSV cell as JSON would have it; null where it is empty. What its kind cannot read stays a text, and is refused so."""
    if not text:
        return None
    if kind == "truth":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in ("whole", "number") and len(text) < 400 and _NUMBER.fullmatch(text) is not None:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text


def unreadable(dialect: str, why: str, next: str = "GET /openapi.json has the form of each request.") -> DataError:
    """The refusal of what is not in a dialect.

    Args:
        dialect: its name, in a sentence.
    """
    return DataError("request-not-in-dialect", f"The request is not in {dialect}.", why=bounded(why, 400), next=next)


def sentence(error: FlyballError) -> str:
    """An error as one text, for dialects that have room for no more."""
    said = [part if part.endswith((".", "?")) else f"{part}." for part in (error.what, error.why, error.next) if part]
    return " ".join([*said, f"[{error.code}]"])


def _kind(schema: Mapping[str, Any]) -> Kind:
    """Of one column's JSON schema; one that may be null has `anyOf`."""
    schema = next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), schema)
    if schema.get("format") == "date-time":
        return "instant"
    if "enum" in schema:
        return "whole" if all(type(each) is int for each in schema["enum"]) else "text"
    return _TYPES.get(schema.get("type", ""), "text")


def _mended(row: Mapping[str, Any], whole: Sequence[str]) -> Mapping[str, Any]:
    """The row, with whole numbers where a whole column has a float that is one."""
    mended = {
        name: int(value)
        for name in whole
        if isinstance(value := row.get(name), float) and abs(value) < _INT64 and value.is_integer()
    }
    return {**row, **mended} if mended else row


def _constant(said: str) -> None:
    if said != "NaN":
        raise ValueError(f"Expected finite numbers, got {said}")
