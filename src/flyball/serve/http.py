"""The edge: an ASGI application that answers questions, and records every answer before (or while) it leaves.

The way of one question, from top to bottom: guard (Host, Origin, size, type) -> the plan of its model -> decode and check ->
answer -> journal -> response. Every other page is one entry in a table. Whatever goes wrong leaves as JSON that says what,
why and what next, and is counted by its code. The core is synchronous; this edge is the only asynchronous part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, Bug, DataError, FlyballError, RetryableError, StateError
from flyball.serve import guard, openapi, tally
from flyball.serve import plan as plans
from flyball.serve.guard import Limits, Receive, Refused
from flyball.serve.journal import Answer, Entry, Recorder
from flyball.serve.plan import Plan
from flyball.serve.protocol import Prediction

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
Page = tuple[int, bytes, bytes]
"""Status, content type, body."""

PREDICT = "/predict"
RECORDED = "/predictions/"
PAUSE = 32
"""Answers of one list after which others get their turn: a thousand rows must not stop the server."""

_json = msgspec.json.Encoder()
_JSON = b"application/json"
_JSON_HEADER = (b"content-type", _JSON)
_log = logging.getLogger("flyball.serve")


class Waiting:
    """One response, which leaves when the journal has said of each of its answers that it may.

    The journal calls `done` on the event loop's thread: at once under "interval" durability, so that nothing is waited for.
    """

    __slots__ = ("_error", "_future", "_gone", "_kept", "_left", "_tally")

    def __init__(self, answers: int, counts: tally.Tally) -> None:
        self._left, self._kept, self._tally = answers, 0, counts
        self._gone = False
        self._error: BaseException | None = None
        self._future: asyncio.Future[None] | None = None
        counts.waiting += answers

    def done(self, error: BaseException | None) -> None:
        """One answer may leave, or must not."""
        self._left -= 1
        self._tally.waiting -= 1
        if error is not None:
            self._error = error
        elif self._gone:
            self._tally.withheld += 1
        else:
            self._kept += 1
        if self._left == 0 and self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def all(self, seconds: float) -> None:
        """Wait for every answer.

        Raises:
            AdapterError: what the journal said of one of them; `journal-slow`.
        """
        if self._left:
            self._future = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._future
            except TimeoutError:
                raise RetryableError(
                    "journal-slow",
                    f"The answer was not on disk within {seconds:g} s.",
                    why="An answer leaves after it is recorded.",
                    next="Try again; if it lasts, find out why the disk is slow.",
                ) from None
        if self._error is not None:
            raise self._error

    def give_up(self, never: int = 0) -> None:
        """The response does not leave: what is recorded of it, now or later, is withheld.

        Args:
            never: answers that the journal has not been given.
        """
        self._gone = True
        self._left -= never
        self._tally.waiting -= never
        self._tally.withheld += self._kept


class Server:
    """One process's server: plans by model, a recorder, and what it has counted.

    Args:
        app: the app's name.
        plans: model -> plan; replaced as a whole by `swap`.
        recorder: where answers go; it must deliver on the event loop's thread.
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
        self.app, self._recorder, self._find, self._clock = app, recorder, find, clock
        self.limits = limits or Limits()
        self.tally = tally.Tally()
        self._hosts = frozenset(h.lower().encode() for h in self.limits.hosts)
        self._pages: dict[str, Callable[[], Page]] = {
            "/healthz": lambda: (200, _JSON, _json.encode({"status": "alive"})),
            "/readyz": self._ready,
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST.encode(), self.tally.text()),
            "/openapi.json": lambda: (200, _JSON, _json.encode(openapi.document(self.app, self._plans))),
        }
        self.swap(plans)

    def swap(self, plans: Mapping[str, Plan]) -> None:
        """From the next question on, answer by `plans`; a question that is being answered keeps its own."""
        self._plans = dict(plans)
        self._by_path = {f"{PREDICT}/{model}": plan for model, plan in plans.items()}
        if len(plans) == 1:
            self._by_path[PREDICT] = next(iter(plans.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await _turn_away(scope, receive, send)
            return
        try:
            headers = guard.admit(scope["headers"], self._hosts)
            plan = self._by_path.get(scope["path"])
            if plan is not None and scope["method"] == "POST":
                answered = await self._predict(plan, headers, receive)
                await _send(send, 200, [_JSON_HEADER], answered)
                return
            status, kind, body = await self._page(scope["path"], scope["method"])
            await _send(send, status, [(b"content-type", kind), (b"x-content-type-options", b"nosniff")], body)
        except Refused as refusal:
            await self._refuse(send, refusal.status, refusal.error, refusal.headers)
        except FlyballError as error:
            await self._refuse(send, _status(error), error)
        except Exception as error:  # noqa: BLE001 - the edge of the process: whatever is left is our bug, told as one
            _log.exception("a request failed")
            bug = Bug("server-failed", f"The server failed on this request: {type(error).__name__}.", next="Report it.")
            await self._refuse(send, 500, bug)

    async def _predict(self, plan: Plan, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        body = await guard.body(headers, receive, self.limits)
        started = time.perf_counter()
        rows, many = plan.decode(body)
        if len(rows) > self.limits.rows:
            raise Refused(413, guard.too_large(f"{len(rows):,} questions", f"{self.limits.rows:,} in one request"))
        asked = self._clock.now()
        answers = []
        for row in rows:
            answers.append(plans.answer(plan, row, asked, started))
            if len(answers) % PAUSE == 0:
                await asyncio.sleep(0)
        await self._record(answers)
        self.tally.of(plan.model, plan.version).add(len(answers), time.perf_counter() - started)
        found = [_prediction(each, asked) for each in answers]
        return _json.encode(found if many else found[0])

    async def _record(self, answers: list[Answer]) -> None:
        """Hand the answers to the journal, and wait until it says that they may leave."""
        waiting = Waiting(len(answers), self.tally)
        handed = 0
        try:
            for each in answers:
                self._recorder.record(each, waiting.done)
                handed += 1
            await waiting.all(self.limits.seconds)
        except BaseException:
            waiting.give_up(never=len(answers) - handed)
            raise

    async def _page(self, path: str, method: str) -> Page:
        """What is not a prediction.

        Raises:
            Refused: 404 `no-such-page`, `no-such-model`, `no-such-prediction`; 405 `wrong-method`.
        """
        page = self._pages.get(path)
        asks = path == PREDICT or path.startswith(f"{PREDICT}/")
        looks = page is not None or path.startswith(RECORDED)
        if asks and path not in self._by_path:
            raise self._no_such_model(path)
        if not (asks or looks):
            error = StateError("no-such-page", "There is no such page.", next="GET /openapi.json lists what there is.")
            raise Refused(404, error)
        if asks or method not in ("GET", "HEAD"):
            wanted = "POST" if asks else "GET"
            error = StateError("wrong-method", f"{path} takes {wanted}.", next=f"Send {wanted}.")
            raise Refused(405, error, ((b"allow", b"POST" if asks else b"GET, HEAD"),))
        return page() if page is not None else await self._prediction(path.removeprefix(RECORDED))

    def _ready(self) -> Page:
        versions = {model: plan.version for model, plan in self._plans.items()}
        return (200 if versions else 503), _JSON, _json.encode({"app": self.app, "answering": versions})

    async def _prediction(self, wanted: str) -> Page:
        entry = await asyncio.get_running_loop().run_in_executor(None, self._find, wanted)
        if entry is None:
            raise Refused(404, StateError("no-such-prediction", "No such prediction is recorded."))
        return 200, _JSON, _json.encode(entry)

    def _no_such_model(self, path: str) -> Refused:
        model = path[len(PREDICT) + 1 :]
        return Refused(
            404,
            StateError(
                "no-such-model",
                f"No model {model!r} answers here." if model else "Which of the models shall answer?",
                why=f"Answering: {', '.join(self._plans) or 'none'}.",
                next=f"POST {PREDICT}/<model>",
            ),
        )

    async def _refuse(self, send: Send, status: int, error: FlyballError, more: Iterable[Header] = ()) -> None:
        self.tally.refused[error.code] += 1
        headers = [_JSON_HEADER, *more]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        said = {"code": error.code, "what": error.what, "why": error.why, "next": error.next}
        await _send(send, status, headers, _json.encode({"error": said}))


def _prediction(answer: Answer, asked: datetime) -> Prediction:
    return Prediction(
        id=answer.id,
        model=answer.model,
        version=answer.version,
        output=answer.output,
        asked=asked,
        within_tolerance=answer.within_tolerance,
    )


def _status(error: FlyballError) -> int:
    """The caller's data, or a world that may be better in a moment, or ourselves."""
    if isinstance(error, DataError):
        return 422
    return 503 if isinstance(error, AdapterError) or error.code == "journal-closed" else 500


async def _send(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing but HTTP is spoken here; a lifespan is told that there is nothing to begin or to end."""
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
    await receive()
    await send({"type": "websocket.close", "code": 1008})
