"""A dialect: one way to speak of questions and answers over HTTP. The bytes of a request become rows, answers become bytes.

What lies between the two is the same for all: guard, contract, router, journal. So a dialect reads and writes, and decides
nothing. `serve.dialects` has those that there are; each is a module, and `dialects.spoken.ALL` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from flyball._kernel.errors import FlyballError, StateError
from flyball.serve.journal import Answer
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Routed


class Asked(NamedTuple):
    """What a request asks.

    Attributes:
        rows: the questions, as `Plan.decode` gives them.
        shape: what `Dialect.write` must know of the request to answer in its form.
    """

    rows: list[dict[str, Any]]
    shape: Any = None


class Page(NamedTuple):
    """What is read by GET.

    Attributes:
        free: whether it needs no key anywhere, as probes do: it says nothing that was asked.
    """

    reply: Reply
    free: bool = False


class Dialect(Protocol):
    """See the module."""

    @property
    def kinds(self) -> frozenset[bytes]:
        """Media types of a body that it reads beside application/json; b"" stands for a request that names none."""

    def paths(self, routed: Mapping[str, Routed]) -> Iterable[tuple[str, str]]:
        """(path, model) of everything that takes questions by POST; asked anew whenever who answers changes."""

    def pages(self, app: str, routed: Mapping[str, Routed]) -> Mapping[str, Page]:
        """What is read by GET, by path; asked anew whenever who answers changes."""

    def absent(self, path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
        """Why there is nothing at a path of this dialect, which is in neither of the above; None: it is not its path."""

    def read(self, plan: Plan, request: Request) -> Asked:
        """The questions of a request.

        Raises:
            DataError: what is asked is not in this dialect, or breaks the contract; see `Plan.decode`.
            Refused: a status of its own.
        """

    def write(self, plan: Plan, shape: Any, answers: Sequence[Answer], asked: datetime) -> Reply:
        """What the caller gets; `shape` is that of `read`."""

    def refuse(self, status: int, error: FlyballError) -> bytes:
        """The body of a refusal, JSON."""


def under(base: str, routed: Mapping[str, Routed]) -> Iterable[tuple[str, str]]:
    """(path, model) of `base`/MODEL for each model; of `base` itself where there is one."""
    if len(routed) == 1:
        yield base, next(iter(routed))
    for model in routed:
        yield f"{base}/{quote(model, safe='')}", model


def not_under(base: str, path: str, routed: Mapping[str, Routed]) -> FlyballError | None:
    """Why no model answers at a path `under` the same base; None: it is not of these."""
    if path != base and not path.startswith(f"{base}/"):
        return None
    model = path[len(base) + 1 :]
    return StateError(
        "no-such-model",
        f"No model {model!r} answers here." if model else "Which of the models shall answer?",
        why=f"Answering: {', '.join(routed) or 'none'}.",
        next=f"POST {base}/<model>",
    )
