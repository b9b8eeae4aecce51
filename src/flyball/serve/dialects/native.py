"""Our own: typed JSON, one question or a list of them, `POST /predict/MODEL`; `POST /predict` where the app has one model.

The request is the contract's own JSON, so what `Plan.decode` reads is the body as it came; the answer is `reply.Prediction`.
This is the hot path: nothing is done to a row here but what its answer needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

from flyball._kernel.errors import FlyballError, StateError
from flyball.serve import reply
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
    if len(routed) == 1:
        yield PREDICT, next(iter(routed))
    for model in routed:
        yield f"{PREDICT}/{quote(model, safe='')}", model


def pages(app: str, routed: Mapping[str, Routed]) -> Mapping[str, Page]:
    """None: what there is to read is the server's own."""
    return {}


def absent(path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
    """See `Dialect`."""
    if path != PREDICT and not path.startswith(f"{PREDICT}/"):
        return None
    model = path[len(PREDICT) + 1 :]
    return StateError(
        "no-such-model",
        f"No model {model!r} answers here." if model else "Which of the models shall answer?",
        why=f"Answering: {', '.join(routed) or 'none'}.",
        next=f"POST {PREDICT}/<model>",
    )


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
