"""Serving: one server process, which listens on loopback, follows the route, and closes its journal when it is done."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import get_args

import msgspec
import uvicorn
import uvloop

from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError
from flyball.cycle import answering
from flyball.cycle.session import Session
from flyball.serve.http import Server
from flyball.serve.journal import Durability, Settings
from flyball.serve.plan import Plan

FOLLOWS_EVERY = 0.25
"""Seconds between two looks at the route."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a server listens, and what its answers wait for.

    Attributes:
        durability: "acknowledged" (recorded before it leaves) or "interval" (recorded within 20 ms).
    """

    host: str = "127.0.0.1"
    port: int = 8741
    durability: str = "acknowledged"


def serve(
    session: Session, edge: Edge, ready: Callable[[str, dict[str, str]], None], say: Callable[[str], None]
) -> None:
    """Answer questions until told to stop (SIGINT or SIGTERM), then drain and close the journal.

    Args:
        ready: called with the address and model -> version once the server listens.
        say: told of what happens while it answers, such as another version that answers from now on.

    Raises:
        StateError: `nothing-released`, `features-changed`.
        DeclarationError: `bind-without-keys`, `no-such-durability`.
        AdapterError: `port-taken`.
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
    plans = answering.plans(session)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(session, edge, plans, ready, say))


async def _serve(
    session: Session,
    edge: Edge,
    plans: Mapping[str, Plan],
    ready: Callable[[str, dict[str, str]], None],
    say: Callable[[str], None],
) -> None:
    # An event loop must not wait for room in the journal: it refuses at once, and the caller tries again.
    settings = Settings(durability=msgspec.convert(edge.durability, Durability), patience=timedelta(0))
    journal = session.journals(settings)
    deliver = asyncio.get_running_loop().call_soon_threadsafe
    listening = _listen(edge)
    recorder = journal.open(session.app.name, head=session.facts.head, deliver=deliver)
    try:
        server = Server(session.app.name, plans, recorder, journal.find, session.clock)
        address = f"http://{edge.host}:{listening.getsockname()[1]}"
        versions = {name: plan.version for name, plan in plans.items()}
        following = asyncio.create_task(_follow(session, server, say))
        await _Uvicorn(server, lambda: ready(address, versions), recorder.close).serve([listening])
        following.cancel()
    finally:
        recorder.close()


async def _follow(session: Session, server: Server, say: Callable[[str], None]) -> None:
    """Answer by the route: when it changes, compile the new plans beside the old ones and swap them as a whole.

    A version that this process cannot answer with (its features are code that was changed since it started) leaves whoever
    answers now, and that is said.
    """
    loop, seen = asyncio.get_running_loop(), session.routes.read()
    while True:
        await asyncio.sleep(FOLLOWS_EVERY)
        now = session.routes.read()
        if now is None or now == seen:
            continue
        seen = now
        try:
            plans = await loop.run_in_executor(None, answering.plans, session)
        except FlyballError as problem:
            say(f"The route changed, and this server goes on as before: {problem}")
            continue
        server.swap(plans)
        say(f"{', '.join(plan.version for plan in plans.values())} answers from now on")


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
