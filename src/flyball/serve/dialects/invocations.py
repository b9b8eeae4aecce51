"""The formats of MLflow's scoring server: `POST /invocations`, so that what asks a model served by MLflow can ask one of ours.

JSON as `dataframe_split`, `dataframe_records`, `instances` or `inputs` (rows, or columns), or CSV with a header. The columns
are those of the contract, by name: a tensor without names is refused. `params` are refused by name, since our models have
none, and an answer that ignores what was asked is a wrong one. Each prediction is the record that our own JSON has, as
MLflow writes a model's data frame.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from typing import Any, Final

import msgspec

from flyball._kernel.errors import DataError, FlyballError
from flyball.serve import dialect, reply
from flyball.serve.dialect import Asked, Page
from flyball.serve.dialects import cells
from flyball.serve.journal import Answer
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Routed

INVOCATIONS: Final = "/invocations"
FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

kinds: Final = frozenset({b"text/csv"})

_NAME: Final = "a format of MLflow's scoring server"
_NEXT: Final = f"Send a JSON object with exactly one of {', '.join(FORMS)}, or text/csv with a header."
_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any])


def paths(routed: Mapping[str, Routed]) -> Iterable[tuple[str, str]]:
    """See `Dialect`."""
    return dialect.under(INVOCATIONS, routed)


def pages(app: str, routed: Mapping[str, Routed]) -> Mapping[str, Page]:
    """See `Dialect`; the version is flyball's."""
    ping = Page(Reply(200 if routed else 503, b"\n"), free=True)
    said = Reply(200, version("flyball").encode(), b"text/plain; charset=utf-8")
    return {"/ping": ping, "/health": ping, "/version": Page(said)}


def absent(path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
    """See `Dialect`."""
    return dialect.not_under(INVOCATIONS, path, routed)


def read(plan: Plan, request: Request) -> Asked:
    """See `Dialect`.

    Raises:
        DataError: `request-not-in-dialect`, `request-breaks-contract`.
        Refused: 413 `request-too-large`.
    """
    kind, _, more = request.headers.get(b"content-type", b"").partition(b";")
    csv_sent = kind.strip().lower() == b"text/csv"
    rows = _csv(plan, request.body, more) if csv_sent else _json(request.body)
    return Asked(cells.judged(plan, rows, _NAME))


def write(plan: Plan, shape: object, answers: Sequence[Answer], asked: datetime) -> Reply:
    """See `Dialect`."""
    task = plan.task
    return Reply(200, _encode({"predictions": [reply.prediction(each, asked, task) for each in answers]}))


def refuse(status: int, error: FlyballError) -> bytes:
    """See `Dialect`; the codes are MLflow's."""
    code = _CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return _encode({"error_code": code, "message": cells.sentence(error)})


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    """A data frame as pandas splits it; its index says nothing that a contract knows."""

    data: list[list[Any]]
    columns: list[str]
    index: Any = None


def _json(body: bytes) -> Sequence[Mapping[str, Any]]:
    found = cells.loose(body, _object, _NAME)
    if "params" in found:
        raise _refused("`params` are not taken: a model here has none.", "Leave params out.")
    if len(found) != 1 or not set(found) <= set(FORMS):
        raise _refused(f"It has the fields {', '.join(map(repr, found)) or 'none'}.")
    ((form, value),) = found.items()
    if form == "dataframe_split":
        try:
            split = msgspec.convert(value, _Split)
        except msgspec.ValidationError as problem:
            raise _refused(f"{problem}, in `{form}`") from None
        cells.few(len(split.data))
        return _table(split.columns, split.data)
    if form == "inputs" and isinstance(value, dict):
        return _columns(value)
    if not isinstance(value, list) or not set(map(type, value)) <= {dict}:
        raise _refused(f"Expected a list of rows, which are objects, in `{form}`.")
    cells.few(len(value))
    return value


def _columns(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Rows of columns, which are lists of one length; or one row, of cells."""
    lists = [value for value in given.values() if isinstance(value, list)]
    if not lists and given:
        return [given]
    if len(lists) < len(given) or len({len(each) for each in lists}) > 1:
        raise _refused("The columns in `inputs` are not lists of one length.")
    cells.few(len(lists[0]) if lists else 0)
    return [dict(zip(given, row, strict=True)) for row in zip(*lists, strict=True)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Mapping[str, Any]]:
    if len(set(columns)) < len(columns):
        ((name, _),) = Counter(columns).most_common(1)
        raise _refused(f"The column {name!r} is there twice.")
    found: list[Mapping[str, Any]] = []
    for at, row in enumerate(rows):
        if len(row) != len(columns):
            raise _refused(f"Row {at} has {len(row)} cells, and there are {len(columns)} columns.")
        found.append(dict(zip(columns, row, strict=True)))
    return found


def _csv(plan: Plan, body: bytes, more: bytes) -> Sequence[Mapping[str, Any]]:
    """Rows of a CSV table with a header, in UTF-8; empty lines are none.

    Args:
        more: parameters of the media type.
    """
    charset = more.strip().lower().removeprefix(b"charset=").strip(b'"')
    if charset not in (b"", b"utf-8", b"us-ascii"):
        raise _refused("Its charset is not UTF-8.", "Send text/csv; charset=utf-8.")
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header, *rows = list(islice(filter(None, lines), cells.ROWS + 2)) or [[]]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise _refused(str(problem)) from None
    if not header:
        raise _refused("It has no header.")
    cells.few(len(rows))
    if "" in header:
        raise _refused("A column has no name.", "Write the table without its index: to_csv(index=False).")
    of = cells.kinds(plan)
    readers = [of.get(name, "text") for name in header]
    table = ([cells.spelt(*each) for each in zip(row, readers, strict=False)] + row[len(header) :] for row in rows)
    return _table(header, table)


def _refused(why: str, next: str = _NEXT) -> DataError:
    return cells.unreadable(_NAME, why, next)
