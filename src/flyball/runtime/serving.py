"""Serving: one server process, which listens on loopback, follows the route, and closes its journal when it is done.

Several may share a port: the kernel hands each connection to one of them, and each follows the route by itself. They agree,
because a route is one file that is replaced as a whole, and the lot of an entity is the same in every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NamedTuple, get_args

import msgspec
import polars as pl
import uvicorn
import uvloop

from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError
from flyball.cycle import answering, followed
from flyball.cycle.session import Session
from flyball.data.kinds import Pushed
from flyball.release.route import Route
from flyball.serve.http import Ground, Server
from flyball.serve.journal import Durability, Settings
from flyball.serve.router import Routed

FOLLOWS_EVERY = 0.1
"""Seconds between two looks at the route."""

TRIES_AGAIN = 5.0
"""Seconds after which a route that could not be followed is tried once more."""

MEASURES_EVERY = 2.0
"""Seconds between two looks at how far behind tables and features are."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a server listens, and what its answers wait for.

    Attributes:
        durability: "acknowledged" (recorded before it leaves) or "interval" (recorded within 20 ms).
        shared: whether others may listen on the same port, so that several processes answer there.
    """

    host: str = "127.0.0.1"
    port: int = 8741
    durability: str = "acknowledged"
    shared: bool = False


class _Begun(NamedTuple):
    """What a server begins with: the route that it read, who answers by it, and what was said of those who do not."""

    route: Route | None
    routed: Mapping[str, Routed]
    left: Sequence[str]


def serve(session: Session, edge: Edge, ready: Callable[[str, dict[str, str]], None], say: Say) -> None:
    """Answer questions until told to stop (SIGINT or SIGTERM), then drain and close the journal.

    Args:
        ready: called with the address and model -> version once the server listens.
        say: told of what happens while it answers, such as another version that answers from now on.

    Raises:
        StateError: `nothing-released`, `features-changed`.
        DeclarationError: `bind-without-keys`, `no-such-durability`.
        AdapterError: `port-taken`; `journal-write`.
    """
    if edge.host not in LOOPBACK:
        raise DeclarationError(
            "bind-without-keys",
            f"The server would listen on {edge.host}, where others can reach it.",
            why="Without keys everybody who can reach it may ask, and read what was asked.",
            next="Listen on 127.0.0.1, behind a proxy that authenticates.",
        )
    if edge.durability not in get_args(Durability):
        raise DeclarationError(
            "no-such-durability",
            f"There is no durability {edge.durability!r}.",
            why="An answer leaves after its commit (acknowledged), or at most 20 ms before it (interval).",
            next="--durability acknowledged, or --durability interval",
        )

    def tell(text: str) -> None:
        # Whoever listened may have gone, with standard output: no reason to stop answering.
        with contextlib.suppress(OSError, ValueError):
            say(text)

    # Read before it is compiled, so that a change in between is seen as one.
    seen, left = session.routes.read(), list[str]()
    routed = answering.routed(session, say=left.append)
    for each in left:
        tell(each)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(session, edge, _Begun(seen, routed, left), ready, tell))


async def _serve(
    session: Session,
    edge: Edge,
    begun: _Begun,
    ready: Callable[[str, dict[str, str]], None],
    say: Say,
) -> None:
    # An event loop must not wait for room in the journal: it refuses at once, and the caller tries again.
    settings = Settings(durability=msgspec.convert(edge.durability, Durability), patience=timedelta(0))
    journal = session.journals(settings)
    deliver = asyncio.get_running_loop().call_soon_threadsafe
    routed = begun.routed
    with contextlib.ExitStack() as undo:
        listening = undo.enter_context(contextlib.closing(_listen(edge)))
        recorder = undo.enter_context(
            contextlib.closing(journal.open(session.app.name, head=session.facts.head, deliver=deliver))
        )

        def tripped(model: str, version: str, why: str) -> None:
            say(f"{version} is taken out of this process, and the champion of {model} answers everything: {why}")

        pushed = frozenset(each.at.name for each in session.app.sources if isinstance(each.at, Pushed))
        server = Server(
            session.app.name,
            routed,
            Ground(
                recorder, journal.find, session.clock, session.keys, session.outcomes, session.inbox, pushed, tripped
            ),
        )

        def drained() -> None:
            if dropped := server.end():
                say(f"{dropped:,} shadow answers were dropped since this server began")
            recorder.close()

        address = f"http://{edge.host}:{listening.getsockname()[1]}"
        versions = {name: each.champion.version for name, each in routed.items()}
        following = asyncio.create_task(follow(session, server, begun.route, say, begun.left))
        following.add_done_callback(lambda task: _ended(task, say))
        measuring = asyncio.create_task(_measure(session, server))
        await _Uvicorn(server, lambda: ready(address, versions), drained).serve([listening])
        following.cancel()
        measuring.cancel()


async def _measure(session: Session, server: Server) -> None:
    """Look every so often, in a thread, how far online features and tables are behind, for whoever reads the metrics."""
    loop = asyncio.get_running_loop()
    while True:
        # A table whose files were joined just now, say; the next look comes.
        with contextlib.suppress(FlyballError, OSError, pl.exceptions.PolarsError):
            server.tally.behind = await loop.run_in_executor(None, followed.behind, session)
            server.tally.inbox = await loop.run_in_executor(None, followed.waiting, session)
        await asyncio.sleep(MEASURES_EVERY)


async def follow(session: Session, server: Server, seen: Route | None, say: Say, left: Sequence[str] = ()) -> None:
    """Answer by the route, until cancelled: when it changes, make ready who is new in it, and swap all as a whole.

    What this process cannot answer with (its features are code that was changed since it started) leaves whoever answers
    now, and that is said once; it is tried again, since what was in the way may be a disk.

    Args:
        seen: the route that `server` answers by.
        left: what was said of those whom it goes without.
    """
    # Threads of its own: whatever else waits for a disk in this process, a rollback does not wait for it.
    pool = ThreadPoolExecutor(1, thread_name_prefix="flyball-route")
    said, again = frozenset(left), session.clock.monotonic() + TRIES_AGAIN if left else math.inf
    try:
        while True:
            await asyncio.sleep(FOLLOWS_EVERY)
            missing: list[str] = []
            try:
                now = session.routes.read()
                if now is None or (now == seen and session.clock.monotonic() < again):
                    continue
                seen = now
                prepare = partial(answering.routed, session, server.routed, missing.append)
                routed = await asyncio.get_running_loop().run_in_executor(pool, prepare)
                before = {_who(each) for each in server.routed.values()}
                server.swap(routed)
                if changed := [who for who in map(_who, routed.values()) if who not in before]:
                    say("; ".join(changed))
            except Exception as problem:  # noqa: BLE001 - the edge of the process: no error may end this for good
                missing = [f"This server cannot follow the route, and goes on as before: {problem}"]
            again = session.clock.monotonic() + TRIES_AGAIN if missing else math.inf
            for each in missing:
                if each not in said:
                    say(each)
            said = frozenset(missing)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _who(routed: Routed) -> str:
    said = f"{routed.champion.version} answers from now on"
    if routed.candidate is None:
        return said
    share = f"{routed.share:.0%} by" if routed.share else "beside it"
    return f"{said}, {share} {routed.candidate.version}"


def _ended(task: asyncio.Task[None], say: Say) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        say(f"This server no longer follows the route, and goes on as before: {problem!r}")


class _Uvicorn(uvicorn.Server):
    """Uvicorn with our settings, which tells when it listens, and when nobody waits for an answer any more."""

    def __init__(self, server: Server, ready: Callable[[], None], drained: Callable[[], None]) -> None:
        self._ready, self._drained = ready, drained
        super().__init__(
            uvicorn.Config(
                server,
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                date_header=False,
                timeout_graceful_shutdown=10,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close what answers were recorded in: here, since uvicorn raises the signal anew when it is done."""
        await super().shutdown(sockets)
        self._drained()


def _listen(edge: Edge) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in edge.host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if edge.shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((edge.host, edge.port))
    except OSError as error:
        listening.close()
        raise AdapterError(
            "port-taken",
            f"The server cannot listen on {edge.host}:{edge.port}.",
            why=str(error),
            next="Choose another with --port; --port 0 takes a free one.",
        ) from error
    return listening
