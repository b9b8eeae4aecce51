"""The edge: an ASGI application that answers questions, and records every answer before (or while) it leaves.

The way of one question, from top to bottom: guard (Host, Origin, size, type) -> the plan of its model -> decode and check ->
answer -> journal -> response. Prediction is handled before any router, since it is what the server is for; everything else
is a small Starlette application. The core is synchronous; this file is the only asynchronous one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import prometheus_client as prometheus
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from flyball._kernel.clock import Clock, from_micros
from flyball._kernel.errors import AdapterError, DataError, FlyballError, StateError
from flyball.serve import journal as journals
from flyball.serve import plan as plans
from flyball.serve.journal import Answer, Entry, Recorder
from flyball.serve.openapi import document
from flyball.serve.plan import Plan

_json = msgspec.json.Encoder()
JSON = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask of the server.

    Attributes:
        body: bytes of one request.
        rows: questions in one request.
        hosts: values of the Host header that are answered, without port; protects a local server from DNS rebinding.
    """

    body: int = 1024 * 1024
    rows: int = 1000
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
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
    asked: str
    within_tolerance: bool


class Refused(Exception):
    """A request that is not answered: status, and the error that says why."""

    def __init__(self, status: int, error: FlyballError) -> None:
        self.status, self.error = status, error
        super().__init__(str(error))


class Server:
    """One process's server: plans by model, a recorder, and what it has counted.

    Args:
        app: the app's name.
        plans: model -> plan; replaced as a whole by `swap`.
        recorder: where answers go.
        find: prediction id -> the recorded answer.
        clock: the time at which questions are asked.
        limits: what one request may ask.
    """

    def __init__(
        self,
        app: str,
        plans: Mapping[str, Plan],
        recorder: Recorder,
        find: Callable[[str], Entry | None],
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self.app, self._plans, self._recorder, self._find, self._clock = app, dict(plans), recorder, find, clock
        self.limits = limits or Limits()
        self._registry = prometheus.CollectorRegistry()
        self._answered = prometheus.Counter(
            "flyball_answers", "Questions answered.", ["model", "version"], registry=self._registry
        )
        self._refused = prometheus.Counter(
            "flyball_refusals", "Requests refused, by error code.", ["code"], registry=self._registry
        )
        self._seconds = prometheus.Histogram(
            "flyball_answer_seconds",
            "From the bytes of a request to its response.",
            registry=self._registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
        )
        self._counters: dict[tuple[str, str], Any] = {}
        self._hosts = frozenset(h.encode() for h in self.limits.hosts)
        self._rest = Starlette(routes=self._routes())

    def swap(self, plans: Mapping[str, Plan]) -> None:
        """From the next question on, answer by `plans`; a question that is being answered keeps its own."""
        self._plans = dict(plans)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        try:
            self._guard(scope)
            if scope["path"].startswith("/predict") and scope["method"] == "POST":
                await _send(send, 200, await self._predict(scope, receive))
            else:
                await self._rest(scope, receive, send)
        except Refused as refusal:
            self._refused.labels(refusal.error.code).inc()
            await _send(send, refusal.status, _body(refusal.error))

    async def _predict(self, scope: Scope, receive: Receive) -> bytes:
        started = time.perf_counter()
        plan = self._plan(scope["path"])
        body = await _read(scope, receive, self.limits.body)
        try:
            rows, many = plan.decode(body)
            if len(rows) > self.limits.rows:
                raise Refused(413, _too_large(f"{len(rows):,} questions", f"{self.limits.rows:,} in one request"))
            asked = self._clock.now()
            answers = [plans.answer(plan, row, asked) for row in rows]
            await self._record(answers, started)
        except DataError as error:
            raise Refused(422, error) from None
        except AdapterError as error:
            raise Refused(503, error) from None
        key = (plan.model, plan.version)
        counter = self._counters.get(key) or self._counters.setdefault(key, self._answered.labels(*key))
        counter.inc(len(answers))
        self._seconds.observe(time.perf_counter() - started)
        found = [_prediction(each) for each in answers]
        return _json.encode(found if many else found[0])

    async def _record(self, answers: list[Answer], started: float) -> None:
        """Hand the answers to the journal, and wait until it says that they may leave."""
        loop = asyncio.get_running_loop()
        taken = int((time.perf_counter() - started) * 1e6)
        waiting = []
        for each in answers:
            future: asyncio.Future[None] = loop.create_future()
            self._recorder.record(msgspec.structs.replace(each, latency_us=taken), journals.resolve(future))
            waiting.append(future)
        for future in waiting:
            await future

    def _plan(self, path: str) -> Plan:
        model = path.removeprefix("/predict").strip("/")
        found = self._plans.get(model) if model else next(iter(self._plans.values()), None)
        if found is None or (not model and len(self._plans) != 1):
            raise Refused(
                404,
                StateError(
                    "no-such-model",
                    f"No model {model!r} answers here.",
                    why=f"Answering: {', '.join(self._plans) or 'none'}.",
                    next="POST /predict/<model>",
                ),
            )
        return found

    def _guard(self, scope: Scope) -> None:
        """Refuse what a browser could have been tricked into sending: a foreign Host or Origin, whatever the method."""
        host = origin = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        bare = host.rpartition(b":")[0] if host[-1:] != b"]" and b":" in host else host
        if bare not in self._hosts or (origin and origin.rpartition(b"//")[2] != host):
            raise Refused(
                403,
                StateError(
                    "foreign-host",
                    "This server answers to its own name only.",
                    why="A page elsewhere could otherwise speak to it through your browser.",
                    next="Send Host: localhost, and no Origin of another site.",
                ),
            )

    def _routes(self) -> list[Route]:
        def get(path: str, body: Callable[[Request], Awaitable[Response]]) -> Route:
            return Route(path, body, methods=["GET"])

        return [
            get("/healthz", self._health),
            get("/readyz", self._ready),
            get("/metrics", self._metrics),
            get("/openapi.json", self._openapi),
            get("/predictions/{id}", self._prediction_of),
        ]

    async def _health(self, _: Request) -> Response:
        return _reply({"status": "alive"})

    async def _ready(self, _: Request) -> Response:
        versions = {m: p.version for m, p in self._plans.items()}
        return _reply({"app": self.app, "answering": versions}, 200 if versions else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(prometheus.generate_latest(self._registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    async def _openapi(self, _: Request) -> Response:
        return _reply(document(self.app, self._plans, Prediction))

    async def _prediction_of(self, request: Request) -> Response:
        entry = await asyncio.get_running_loop().run_in_executor(None, self._find, request.path_params["id"])
        if entry is None:
            return _reply({"error": {"code": "no-such-prediction", "what": "No such prediction is recorded."}}, 404)
        return Response(_json.encode(entry), media_type="application/json")


def _prediction(answer: Answer) -> Prediction:
    return Prediction(
        id=answer.id,
        model=answer.model,
        version=answer.version,
        output=answer.output,
        asked=from_micros(answer.asked).isoformat(),
        within_tolerance=answer.within_tolerance,
    )


def _reply(value: Any, status: int = 200) -> Response:
    return Response(_json.encode(value), status, media_type="application/json")


def _body(error: FlyballError) -> bytes:
    said = {"code": error.code, "what": error.what, "why": error.why, "next": error.next}
    return _json.encode({"error": said})


def _too_large(what: str, limit: str) -> DataError:
    return DataError(
        "request-too-large", f"The request carries {what}.", why=f"The limit is {limit}.", next="Send less."
    )


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; refused before it is read where its length is known to be too much, and while it is otherwise."""
    headers = dict(scope["headers"])
    if not headers.get(b"content-type", b"").startswith(b"application/json"):
        # A form or text/plain would reach us from any web page without the browser asking first.
        error = DataError("not-json", "The body is not application/json.", next="Send Content-Type: application/json.")
        raise Refused(415, error)
    declared = headers.get(b"content-length", b"0")
    chunks: list[bytes] = []
    size = int(declared) if declared.isdigit() else 0
    if size <= limit:
        size = 0
        more = True
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, DataError("gone", "The caller left before the body was whole."))
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
    if size > limit:
        raise Refused(413, _too_large(f"more than {limit:,} bytes", f"{limit:,} bytes"))
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [*JSON, (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
