"""The edge: who may ask what, and where it goes. Every answer is recorded before (or while) it leaves.

The way of one question, from top to bottom: wire (bytes, limits, deadlines) -> `admit` (Host, Origin) -> `receive` (key, type)
-> batcher -> dialect -> router -> journal -> dialect -> wire -> shadow. Every other page is one entry in a table. Whatever goes
wrong leaves as JSON that says what, why and what next, and is counted by its code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, Bug, DataError, FlyballError, StateError
from flyball.serve import docs_page, guard, ingest, openapi, outcomes, tally
from flyball.serve.aside import Aside
from flyball.serve.auth import Keys
from flyball.serve.batcher import Batcher, Pending
from flyball.serve.dialect import Dialect, Page
from flyball.serve.dialects import native, spoken
from flyball.serve.guard import Limits, Refused
from flyball.serve.head import Head
from flyball.serve.ingest import Inbox
from flyball.serve.journal import Entry, Recorder
from flyball.serve.message import NOSNIFF, Reply, Request
from flyball.serve.outcomes import Outcomes
from flyball.serve.posts import Post
from flyball.serve.router import Beside, Routed, Router, Tripped, Way
from flyball.serve.shadows import Shadows

Answer = Callable[[Reply], None]

RECORDED = "/predictions/"
OUTCOMES, INGEST = "/outcomes", "/ingest"
BY_VERSION = b"flyball-version"
"""The header by which an operator says who shall answer."""

_json = msgspec.json.Encoder()
_log = logging.getLogger("flyball.serve")


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

    Attributes:
        away: why the catalog cannot be read at present; "" while it can.
    """

    def __init__(self, app: str, routed: Mapping[str, Routed], ground: Ground, limits: Limits | None = None) -> None:
        self.app, self.ground, self._clock = app, ground, ground.clock
        self.limits = limits or Limits()
        self.tally = tally.Tally()
        self.tally.journal = ground.recorder.standing
        self.away = ""
        self._router = Router(ground.clock, self._tripped)
        self._shadows = Shadows(self._router, ground.recorder, self.tally, self.limits.shadows, self._clock)
        self._batcher = Batcher(
            self._router, ground.recorder, self._shadows, self.limits, self._clock, lambda d, e: self._refusal(e, d)
        )
        self._aside, self._posts = Aside(), _posts(self)
        self._hosts = frozenset(h.lower().encode() for h in self.limits.hosts)
        self._later: set[asyncio.Task[None]] = set()
        self.swap(routed)

    @property
    def routed(self) -> dict[str, Routed]:
        """Who answers now, by model."""
        return {model: way.routed for model, way in self._router.ways.items()}

    def swap(self, routed: Mapping[str, Routed]) -> None:
        """From the next request on, answer by `routed`; a request that is being answered keeps its own."""
        self._router.swap(routed)
        ways = self._router.ways
        self._asks: dict[str, tuple[Way, Dialect]] = {
            path: (ways[model], each) for each in spoken.ALL for path, model in each.paths(routed)
        }
        said = {path: page for each in spoken.ALL for path, page in each.pages(self.app, routed).items()}
        # What is free is told apart from what is said: a page is made for those alone who may read it.
        self._free = {path for path, page in said.items() if page.free} | {"/healthz", "/readyz"}
        self._pages: dict[str, Callable[[Request], Reply]] = {
            path: partial(_same, page) for path, page in said.items()
        } | {
            "/healthz": lambda _: Reply(200, _json.encode({"status": "alive"})),
            "/readyz": self._ready,
            "/metrics": lambda _: Reply(200, self.tally.text(), CONTENT_TYPE_LATEST.encode()),
            "/openapi.json": lambda _: Reply(200, _json.encode(self._described())),
            "/docs": lambda asked: docs_page.page(self._described(), asked.headers[b"host"].decode("latin-1")),
        }

    def end(self, seconds: float = 1.0) -> int:
        """No request comes any more: compute the shadows that are left within so long; returns how many were dropped."""
        self._aside.close()
        return self._shadows.end(seconds)

    def admit(self, head: Head) -> Request:
        """See `wire.Application`."""
        return Request(head.method, head.path, head.query, guard.admit(head.headers, self._hosts))

    def receive(self, request: Request, answer: Answer) -> None:
        """See `wire.Application`."""
        try:
            if request.method == "POST":
                if (asks := self._asks.get(request.path)) is not None:
                    self._ask(*asks, request, answer)
                    return
                if (post := self._posts.get(request.path)) is not None:
                    self._wait(post.receive(request, self._aside), answer)
                    return
            if request.path.startswith(RECORDED) and request.method in ("GET", "HEAD"):
                self._may_read(request)
                self._wait(self._prediction(request.path.removeprefix(RECORDED)), answer)
                return
            reply = self._page(request)
        except Exception as problem:  # noqa: BLE001 - the edge of the process: whatever goes wrong is told, never raised
            reply = self._refusal(problem, spoken.of(request.path))
        answer(reply)

    def refused(self, refusal: Refused) -> Reply:
        """See `wire.Application`."""
        return self._refusal(refusal, native)

    def _ask(self, way: Way, dialect: Dialect, request: Request, answer: Answer) -> None:
        headers = request.headers
        wanted = headers.get(BY_VERSION)
        if self.ground.keys is not None:
            self.ground.keys.who(headers, "predict" if wanted is None else "operate")
        elif wanted is not None:
            raise Refused(403, _nobody_operates())
        guard.kind(headers, dialect.kinds)
        version = "" if wanted is None else wanted.decode("latin-1")
        self._batcher.add(Pending(way, dialect, request, answer, self._clock.monotonic(), version))

    def _wait(self, coming: Awaitable[Reply], answer: Answer) -> None:
        """Answer when it is there."""

        async def later() -> None:
            try:
                reply = await coming
            except Exception as problem:  # noqa: BLE001 - as in `receive`
                reply = self._refusal(problem, native)
            answer(reply)

        task = asyncio.get_running_loop().create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _tripped(self, model: str, version: str, why: str) -> None:
        self.tally.opened[model, version] += 1
        try:
            self.ground.tripped(model, version, why)
        except Exception:  # noqa: BLE001 - whoever is told is not ours, and no caller's answer may depend on it
            _log.exception("nobody could be told that %s is taken out", version)

    def _page(self, request: Request) -> Reply:
        """What is read.

        Raises:
            Refused: 404 `no-such-page`, `no-such-model`; 405 `wrong-method`; what `Keys.who` raises.
        """
        path, page = request.path, self._pages.get(request.path)
        posts = path in self._asks or path in self._posts
        if page is None and not posts and not path.startswith(RECORDED):
            absent = (each.absent(path, self.routed) for each in spoken.ALL)
            raise Refused(404, next((error for error in absent if error is not None), _no_such_page()))
        if page is None or request.method not in ("GET", "HEAD"):
            wanted = "POST" if posts else "GET"
            error = StateError("wrong-method", f"{path} takes {wanted}.", next=f"Send {wanted}.")
            raise Refused(405, error, ((b"allow", b"POST" if posts else b"GET, HEAD"),))
        if path not in self._free:
            self._may_read(request)
        reply = page(request)
        return reply._replace(headers=(*reply.headers, *NOSNIFF))

    def _may_read(self, request: Request) -> None:
        if self.ground.keys is not None:
            self.ground.keys.who(request.headers, "read")

    def _described(self) -> dict[str, Any]:
        return openapi.document(self.app, self.routed, self.ground.pushed, self.limits)

    def _ready(self, _: Request) -> Reply:
        ways = self._router.ways
        said = {
            "app": self.app,
            "answering": {model: way.routed.champion.version for model, way in ways.items()},
            "candidates": {
                model: {"version": c.version, "share": way.routed.share, "taken_out": way.breaker.why}
                for model, way in ways.items()
                if (c := way.routed.candidate) is not None
            },
            "shadows": {
                model: [_beside(way, each) for each in way.routed.shadows]
                for model, way in ways.items()
                if way.routed.shadows
            },
            "catalog": self.away or "there",
        }
        return Reply(200 if ways else 503, _json.encode(said))

    async def _prediction(self, wanted: str) -> Reply:
        entry = await self._aside.run(partial(self.ground.find, wanted))
        if entry is None:
            raise Refused(404, StateError("no-such-prediction", "No such prediction is recorded."))
        return Reply(200, _json.encode(entry), headers=NOSNIFF)

    def _refusal(self, problem: Exception, dialect: Dialect) -> Reply:
        """What is said of an error, whoever made it."""
        headers = NOSNIFF  # a refusal may repeat what was asked
        if isinstance(problem, Refused):
            status, error, headers = problem.status, problem.error, (*problem.headers, *NOSNIFF)
        elif isinstance(problem, FlyballError):
            status, error = _status(problem), problem
        else:
            _log.error("a request failed", exc_info=problem)
            said = f"The server failed on this request: {type(problem).__name__}."
            status, error = 500, Bug("server-failed", said, next="Report it.")
        self.tally.refused[error.code] += 1
        if status == 503:
            headers = (*headers, (b"retry-after", b"1"))
        return Reply(status, dialect.refuse(status, error), headers=headers)


def _same(page: Page, _: Request) -> Reply:
    return page.reply


def _beside(way: Way, shadow: Beside) -> dict[str, Any]:
    version = shadow.plan.version
    return {"version": version, "share": shadow.share, "taken_out": way.besides[version].why}


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


def _no_such_page() -> StateError:
    return StateError("no-such-page", "There is no such page.", next="GET /openapi.json lists what there is.")


def _nobody_operates() -> StateError:
    return StateError(
        "key-needed",
        "Who answers is an operator's to say.",
        why="This server knows no keys.",
        next="Leave it to the route.",
    )


def _status(error: FlyballError) -> int:
    """The caller's data, or a world that may be better in a moment, or ourselves."""
    if isinstance(error, DataError):
        return 422
    return 503 if isinstance(error, AdapterError) or error.code == "journal-closed" else 500
