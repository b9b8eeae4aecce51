"""Ask a flyball server from Python: typed answers, typed errors, connections that are kept; needs nothing but msgspec.

    with Client("http://127.0.0.1:8741") as shop:
        answer = shop.predict({"order_id": "o1", ...})
        shop.outcome(True, prediction=answer.id)         # needs a token with the scope label

What is tried again is what cannot have been done twice: a connection that was not made, and a 429 or 503 that says when to come
again. An outcome and what is only read are also tried again when a reply is lost: the same outcome twice is one. A **question**
whose reply was lost is not: it may be recorded, and a second one would be another prediction. That is the caller's to decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Self, TypeVar, overload
from urllib.parse import quote

import msgspec

from flyball._kernel.errors import AdapterError, DataError, DeclarationError, FlyballError, RetryableError
from flyball.client.line import Line, Lost, Reply

T = TypeVar("T")


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question; see docs/reference/http.md. Of the last three it has what its model has.

    Spelt as `serve.reply` spells it, and not taken from there: a caller has none of the libraries of a server.
    """

    id: str
    model: str
    version: str
    role: str
    output: float
    asked: datetime
    within_tolerance: bool
    decision: bool | str | None = None
    probabilities: dict[str, float] | None = None
    quantiles: dict[str, float] | None = None


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to answer a question, as the journal has it: `serve.journal.Entry`, for a caller.

    Attributes:
        asked: microseconds since 1970 UTC.
        role: "champion", "canary", "shadow" or "override"; or the fallback that answered.
        key: of the question, as JSON.
        inputs: the request by column, personal columns as keyed hashes.
        features: what the model read, by name.
        output: None where the attempt failed; `outputs`: of an answer of several numbers all of them.
        latency_us: microseconds that it took; `via`: which predictor.
        failed: the code of the error of an attempt that gave no answer; "" if it gave one.
        process, segment, seq: where it lies in the journal.
    """

    id: str
    asked: int
    app: str
    model: str
    version: str
    epoch: int
    role: str
    within_tolerance: bool
    key: str
    inputs: Mapping[str, Any]
    features: Mapping[str, float | int | str | None]
    output: float | None
    outputs: tuple[float, ...] = ()
    decision: bool | str | None = None
    latency_us: int
    via: str
    failed: str = ""
    process: str
    segment: str
    seq: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a question.

    Attributes:
        outcome: true or false, a number, or the name of a class; None is void.
        prediction: the id of an answer; or else
        key: the key of the question, by column, with
        model: whose it is, where there are several.
        settled: when it came to be known, with a zone; None: when it is received.
    """

    outcome: bool | float | str | None
    prediction: str = ""
    key: Mapping[str, Any] | None = None
    model: str = ""
    settled: datetime | None = None


class NotTaken(msgspec.Struct, frozen=True, kw_only=True):
    """Why the outcome in place `at` of a list was not taken."""

    at: int
    code: str
    what: str
    why: str
    next: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """How many outcomes were taken, and how; and those that were not."""

    accepted: int
    repeated: int
    corrected: int
    refused: tuple[NotTaken, ...]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Which version answers each model; {} while none does."""

    app: str
    answering: dict[str, str]


class Refused(FlyballError):
    """The server said no: `code`, `what`, `why` and `next` are its own words.

    Attributes:
        status: of the reply.
        again: seconds after which it may be tried again; None where the server does not say so.
    """

    def __init__(self, status: int, said: _Said, again: float | None) -> None:
        super().__init__(said.code, said.what, why=said.why, next=said.next)
        self.status, self.again = status, again


class _Said(msgspec.Struct, frozen=True):
    code: str
    what: str
    why: str = ""
    next: str = ""


class _Error(msgspec.Struct, frozen=True):
    error: _Said


class Client:
    """A server, as one caller sees it; threads may share it.

    Args:
        url: of the server, such as `http://127.0.0.1:8741`; a path in it goes before every path.
        token: of a key; None where none is needed.
        timeout: seconds that the server may be silent, and that all waiting for a second try may take.
        ca_file: certificates that are trusted instead of the system's, PEM.
        tries: of one call, at most.
        wait: how to let seconds pass.

    Raises:
        DeclarationError: `server-address`, `token-unreadable`.
        AdapterError: `ca-file-unreadable`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        ca_file: str | None = None,
        tries: int = 3,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Accept": "application/json"}
        if token is not None:
            token = token.strip()  # as it comes from a file
            # What no header can hold is refused here: the error of the header would show it.
            if not (token.isascii() and token.isprintable() and token):
                raise DeclarationError("token-unreadable", "This is no token of a key.", next="Give one line of text.")
            headers["Authorization"] = f"Bearer {token}"
        self._line = Line(url, headers, timeout, ca_file)
        self._timeout, self._tries, self._wait = timeout, max(1, tries), wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept; it can be used again."""
        self._line.close()

    @overload
    def predict(self, asked: Mapping[str, Any], model: str = "") -> Prediction: ...
    @overload
    def predict(self, asked: Sequence[Mapping[str, Any]], model: str = "") -> list[Prediction]: ...
    def predict(
        self, asked: Mapping[str, Any] | Sequence[Mapping[str, Any]], model: str = ""
    ) -> Prediction | list[Prediction]:
        """Ask one question, or several at once, which are all answered or all refused.

        Args:
            asked: the columns of the contract by name; times are datetimes with a zone, or ISO text; NaN is sent as null.
            model: whom; "" where the app has one model.

        Raises:
            Refused: the server said no.
            DataError: `question-unsendable`.
            AdapterError: `answer-unknown`: the reply was lost; the question may be recorded. `reply-unreadable`.
            RetryableError: `server-unreachable`.
        """
        path = f"/predict/{quote(model, safe='')}" if model else "/predict"
        got = self._went_well(self._send("POST", path, _encoded(asked), again=False))
        return _decoded(got, Prediction) if isinstance(asked, Mapping) else _decoded(got, list[Prediction])

    def outcome(
        self,
        outcome: bool | float | str | None,
        *,
        prediction: str = "",
        key: Mapping[str, Any] | None = None,
        model: str = "",
        settled: datetime | None = None,
    ) -> Literal["accepted", "repeated", "corrected"]:
        """Say what came of one question; see `Outcome`. It is on the server's disk when this returns.

        Raises:
            Refused, DataError, AdapterError, RetryableError: as `outcomes`; also where this outcome is not taken.
        """
        one = Outcome(outcome=outcome, prediction=prediction, key=key, model=model, settled=settled)
        taken = self.outcomes([one])
        if taken.refused:
            first = taken.refused[0]
            raise Refused(422, _Said(first.code, first.what, first.why, first.next), None)
        return "accepted" if taken.accepted else "repeated" if taken.repeated else "corrected"

    def outcomes(self, outcomes: Sequence[Outcome]) -> Taken:
        """Say what came of several questions; each is taken or refused on its own.

        Raises:
            Refused: none of them could be looked at; or the key lacks the scope `label`.
            DataError: `question-unsendable`.
            AdapterError: `reply-unreadable`.
            RetryableError: `server-unreachable`; sending the same again does no harm.
        """
        reply = self._send("POST", "/outcomes", _encoded(outcomes), again=True)
        if reply.status == 422 and b'"refused"' in reply.body:
            return _decoded(reply.body, Taken)
        return _decoded(self._went_well(reply), Taken)

    def recorded(self, prediction: str) -> Recorded:
        """What is recorded of an answer, by its id; on an exposed server it needs the scope `read`.

        Raises:
            Refused: `no-such-prediction`, among others.
            AdapterError, RetryableError: as `outcomes`.
        """
        reply = self._send("GET", f"/predictions/{quote(prediction, safe='')}", None, again=True)
        return _decoded(self._went_well(reply), Recorded)

    def ready(self) -> Ready:
        """Who answers.

        Raises:
            Refused, AdapterError, RetryableError: as `outcomes`.
        """
        reply = self._send("GET", "/readyz", None, again=True)
        return _decoded(reply.body if reply.status == 503 and reply.again is None else self._went_well(reply), Ready)

    def metrics(self) -> str:
        """What the server has counted, in the Prometheus text format.

        Raises:
            Refused, RetryableError: as `outcomes`.
        """
        return self._went_well(self._send("GET", "/metrics", None, again=True)).decode("utf-8", "replace")

    def _went_well(self, reply: Reply) -> bytes:
        if reply.status in (200, 202):
            return reply.body
        try:
            said = msgspec.json.decode(reply.body, type=_Error).error
        except (msgspec.DecodeError, UnicodeDecodeError):  # said by no server of ours, but by something before it
            said = _Said(f"http-{reply.status}", f"The status is {reply.status}, and what was said is not a server's.")
        raise Refused(reply.status, said, reply.again)

    def _send(self, method: str, path: str, body: bytes | None, *, again: bool) -> Reply:
        """Send until there is a reply.

        Args:
            again: whether sending it twice is the same as once.
        """
        waited, tried = 0.0, 0
        while True:
            tried += 1
            pause, reply = 0.1 * 2**tried, None
            try:
                reply = self._line.once(method, path, body)
                if reply.status not in (429, 503) or reply.again is None:
                    return reply
                pause = max(reply.again, 0.0)
            except Lost as lost:
                if lost.sent and not again:
                    raise AdapterError(
                        "answer-unknown",
                        f"The server was asked, and no reply came: {lost.why}.",
                        why="The question may be answered and recorded all the same.",
                        next="Ask again if a second prediction of the same does no harm.",
                    ) from None
                if tried >= self._tries or waited + pause > self._timeout:
                    raise RetryableError(
                        "server-unreachable",
                        f"The server at {self._line.host} could not be reached: {lost.why}.",
                        next="See whether it runs; GET /healthz answers without a key.",
                    ) from None
            if reply is not None and (tried >= self._tries or waited + pause > self._timeout):
                return reply
            self._wait(pause)
            waited += pause


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise DataError("question-unsendable", "This has no form in JSON.", why=str(problem)) from None


def _decoded(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise AdapterError(
            "reply-unreadable",
            "What came back is not what a server of flyball says.",
            why=str(problem),
            next="Compare the versions of both, and the address.",
        ) from None
