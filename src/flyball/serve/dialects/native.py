"""Our own: typed JSON, one question or a list of them, `POST /predict/MODEL`; `POST /predict` where the app has one model.

The request is the contract's own JSON, so what `Plan.decode` reads is the body as it came; the answer is `reply.Prediction`.
This is the hot path: nothing is done to a row here but what its answer needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from flyball._kernel.errors import FlyballError
from flyball.serve import dialect, reply
from flyball.serve.dialect import Asked, Page
from flyball.serve.journal import Answer
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Routed

PREDICT: Final = "/predict"

kinds: Final[frozenset[bytes]] = frozenset()

_encode = msgspec.json.Encoder().encode


def paths(routed: Mapping[str, Routed]) -> Iterable[tuple[str, str]]:
    """See `Dialect`."""
    return dialect.under(PREDICT, routed)


def pages(app: str, routed: Mapping[str, Routed]) -> Mapping[str, Page]:
    """None: what there is to read is the server's own."""
    return {}


def absent(path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
    """See `Dialect`."""
    return dialect.not_under(PREDICT, path, routed)


def read(plan: Plan, request: Request) -> Asked:
    """See `Dialect`; the shape is whether it was a list.

    Raises:
        DataError: see `Plan.decode`.
    """
    rows, many = plan.decode(request.body)
    return Asked(rows, many)


def write(plan: Plan, shape: bool, answers: Sequence[Answer], asked: datetime) -> Reply:
    """See `Dialect`."""
    task = plan.task
    if not shape:
        return Reply(200, _encode(reply.prediction(answers[0], asked, task)))
    return Reply(200, _encode([reply.prediction(each, asked, task) for each in answers]))


def refuse(status: int, error: FlyballError) -> bytes:
    """See `Dialect`."""
    return _encode({"error": {"code": error.code, "what": error.what, "why": error.why, "next": error.next}})
