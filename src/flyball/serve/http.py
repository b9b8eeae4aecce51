"""The edge: an ASGI application that answers questions, and records every answer before (or while) it leaves.

The way of one question, from top to bottom: guard (Host, Origin, key, size, type) -> the way of its model -> decode and
check -> router -> journal -> response -> shadow. Every other page is one entry in a table. Whatever goes wrong leaves as JSON
that says what, why and what next, and is counted by its code. The core is synchronous; this edge is the only asynchronous
part.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, Bug, DataError, FlyballError, RetryableError, StateError
from flyball.serve import guard, ingest, openapi, outcomes, reply, tally
from flyball.serve.aside import Aside
from flyball.serve.auth import Keys
from flyball.serve.guard import Limits, Receive, Refused
from flyball.serve.ingest import Inbox
from flyball.serve.journal import Answer, Entry, Recorder
from flyball.serve.outcomes import Outcomes
from flyball.serve.posts import Post
from flyball.serve.router import Routed, Router, Tripped, Way
from flyball.serve.shadows import Shadows

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
Page = tuple[int, bytes, bytes]
"""Status, content type, body."""

PREDICT = "/predict"
RECORDED = "/predictions/"
OUTCOMES, INGEST = "/outcomes", "/ingest"
PROBES = frozenset({"/healthz", "/readyz"})
"""Pages that need no key anywhere: they say nothing that was asked."""
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


@dataclass(frozen=True, slots=True)
class Ground:
    """What a server stands on.

    Attributes:
        recorder: where answers go; it must deliver on the event loop's thread.
        find: prediction id -> the recorded answer.
        clock: the time at which questions are asked.
        keys: who may do what; None: nobody is asked, and nothing that is posted is taken.
        outcomes: where outcomes go; None: they are not taken.
        inbox: where the rows go that others push; None: they are not taken.
        pushed: the names under which they push.
        tripped: told that a candidate was taken out of this process.
    """

    recorder: Recorder
    find: Callable[[str], Entry | None]
    clock: Clock
    keys: Keys | None = None
    outcomes: Outcomes | None = None
    inbox: Inbox | None = None
    pushed: frozenset[str] = frozenset()
    tripped: Tripped = lambda model, version, why: None


class Server:
    """One process's server: who answers each model, a recorder, and what it has counted.

    Args:
        app: the app's name.
        routed: model -> who answers; replaced as a whole by `swap`.
        ground: what it stands on.
        limits: what one request may ask.
    """

    def __init__(self, app: str, routed: Mapping[str, Routed], ground: Ground, limits: Limits | None = None) -> None:
        self.app, self.ground, self._clock = app, ground, ground.clock
        self.limits = limits or Limits()
        self.tally = tally.Tally()
        self._router = Router(ground.clock, self._tripped)
        self._shadows = Shadows(self._router, ground.recorder, self.tally, self.limits.shadows, self._clock)
        self._aside, self._posts = Aside(), _posts(self)
        self._hosts = frozenset(h.lower().encode() for h in self.limits.hosts)
        self._pages: dict[str, Callable[[], Page]] = {
            "/healthz": lambda: (200, _JSON, _json.encode({"status": "alive"})),
            "/readyz": self._ready,
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST.encode(), self.tally.text()),
            "/openapi.json": lambda: (
                200,
                _JSON,
                _json.encode(openapi.document(self.app, self.routed, self.ground.pushed)),
            ),
        }
        self.swap(routed)

    @property
    def routed(self) -> dict[str, Routed]:
        """Who answers now, by model."""
        return {model: way.routed for model, way in self._router.ways.items()}

    def swap(self, routed: Mapping[str, Routed]) -> None:
        """From the next request on, answer by `routed`; a request that is being answered keeps its own."""
        self._router.swap(routed)
        ways = self._router.ways
        self._by_path = {f"{PREDICT}/{model}": way for model, way in ways.items()}
        if len(ways) == 1:
            self._by_path[PREDICT] = next(iter(ways.values()))

    def end(self, seconds: float = 1.0) -> int:
        """No request comes any more: compute the shadows that are left within so long; returns how many were dropped."""
        self._aside.close()
        return self._shadows.end(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await _turn_away(scope, receive, send)
            return
        try:
            headers = guard.admit(scope["headers"], self._hosts)
            way = self._by_path.get(scope["path"])
            if way is not None and scope["method"] == "POST":
                answered = await self._predict(way, headers, receive)
                await _send(send, 200, [_JSON_HEADER], answered)
                return
            if scope["method"] == "POST" and (post := self._posts.get(scope["path"])) is not None:
                (status, body), kind = await post.receive(headers, receive, self.limits, self._aside), _JSON
            else:
                status, kind, body = await self._page(scope["path"], scope["method"], headers)
            await _send(send, status, [(b"content-type", kind), (b"x-content-type-options", b"nosniff")], body)
        except Refused as refusal:
            await self._refuse(send, refusal.status, refusal.error, refusal.headers)
        except FlyballError as error:
            await self._refuse(send, _status(error), error)
        except Exception as error:  # noqa: BLE001 - the edge of the process: whatever is left is our bug, told as one
            _log.exception("a request failed")
            bug = Bug("server-failed", f"The server failed on this request: {type(error).__name__}.", next="Report it.")
            await self._refuse(send, 500, bug)

    async def _predict(self, way: Way, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        if self.ground.keys is not None:
            self.ground.keys.who(headers, "predict")
        body = await guard.body(headers, receive, self.limits)
        self._shadows.asking += 1
        try:
            return await self._answer(way, body)
        finally:
            self._shadows.asking -= 1

    async def _answer(self, way: Way, body: bytes) -> bytes:
        started = self._clock.monotonic()
        rows, many = way.routed.champion.decode(body)
        if len(rows) > self.limits.rows:
            raise Refused(413, guard.too_large(f"{len(rows):,} questions", f"{self.limits.rows:,} in one request"))
        asked = self._clock.now()
        spent = (self._clock.monotonic() - started) / (len(rows) or 1)
        answers, shadows = [], []
        for row in rows:
            each = self._router.ask(way, row, asked, spent)
            if each.failed:
                self._shadows.failed(each.failed)
            if each.shadow is not None:
                shadows.append(each.shadow)
            if each.answer is None:
                raise each.error or Bug("server-failed", "A question got neither an answer nor a reason.")
            answers.append(each.answer)
            if len(answers) % PAUSE == 0:
                await asyncio.sleep(0)
        await self._record(answers)
        self._count(answers, self._clock.monotonic() - started)
        if shadows:
            self._shadows.add(shadows)
        task = way.routed.champion.task
        found = [reply.prediction(each, asked, task) for each in answers]
        return _json.encode(found if many else found[0])

    def _count(self, answers: list[Answer], seconds: float) -> None:
        if len(answers) == 1:  # which a Counter would take longer to count than to answer
            self.tally.of((answers[0].model, answers[0].version, answers[0].role)).add(1, seconds)
            return
        for who, count in Counter((each.model, each.version, each.role) for each in answers).items():
            self.tally.of(who).add(count, seconds)

    def _tripped(self, model: str, version: str, why: str) -> None:
        self.tally.opened[model, version] += 1
        try:
            self.ground.tripped(model, version, why)
        except Exception:  # noqa: BLE001 - whoever is told is not ours, and no caller's answer may depend on it
            _log.exception("nobody could be told that %s is taken out", version)

    async def _record(self, answers: list[Answer]) -> None:
        """Hand the answers to the journal, and wait until it says that they may leave."""
        waiting = Waiting(len(answers), self.tally)
        handed = 0
        try:
            for each in answers:
                self.ground.recorder.record(each, waiting.done)
                handed += 1
            await waiting.all(self.limits.seconds)
        except BaseException:
            waiting.give_up(never=len(answers) - handed)
            raise

    async def _page(self, path: str, method: str, headers: dict[bytes, bytes]) -> Page:
        """What is not a prediction.

        Raises:
            Refused: 404 `no-such-page`, `no-such-model`, `no-such-prediction`; 405 `wrong-method`; what `Keys.who` raises.
        """
        page = self._pages.get(path)
        asks = path == PREDICT or path.startswith(f"{PREDICT}/")
        looks = page is not None or path.startswith(RECORDED)
        posts = asks or path in self._posts
        if asks and path not in self._by_path:
            raise self._no_such_model(path)
        if not (posts or looks):
            raise _no_such_page()
        if posts or method not in ("GET", "HEAD"):
            wanted = "POST" if posts else "GET"
            error = StateError("wrong-method", f"{path} takes {wanted}.", next=f"Send {wanted}.")
            raise Refused(405, error, ((b"allow", b"POST" if posts else b"GET, HEAD"),))
        if self.ground.keys is not None and path not in PROBES:
            self.ground.keys.who(headers, "read")
        return page() if page is not None else await self._prediction(path.removeprefix(RECORDED))

    def _ready(self) -> Page:
        ways = self._router.ways
        answering = {model: way.routed.champion.version for model, way in ways.items()}
        candidates = {
            model: {"version": c.version, "share": way.routed.share, "taken_out": way.breaker.why}
            for model, way in ways.items()
            if (c := way.routed.candidate) is not None
        }
        said = {"app": self.app, "answering": answering, "candidates": candidates}
        return (200 if ways else 503), _JSON, _json.encode(said)

    async def _prediction(self, wanted: str) -> Page:
        entry = await self._aside.run(partial(self.ground.find, wanted))
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
                why=f"Answering: {', '.join(self._router.ways) or 'none'}.",
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


def _posts(server: Server) -> dict[str, Post]:
    """What is taken besides questions, by path."""
    ground, found = server.ground, dict[str, Post]()
    if (keys := ground.keys) is None:
        return found
    if (store := ground.outcomes) is not None:
        found[OUTCOMES] = Post(
            keys, "label", lambda _, body, by: outcomes.receive(body, server.routed, store, ground.clock, by)
        )
    if (inbox := ground.inbox) is not None:
        for name in ground.pushed:
            take = partial(ingest.receive, inbox, name, server.tally)
            found[f"{INGEST}/{name}"] = Post(keys, "ingest", take, ingest.KINDS)
    return found


def _no_such_page() -> Refused:
    return Refused(
        404, StateError("no-such-page", "There is no such page.", next="GET /openapi.json lists what there is.")
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
