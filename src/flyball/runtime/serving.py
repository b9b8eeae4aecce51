"""Serving: one server process, which listens where it may, follows the route, and closes its journal when it is done.

Several may share a port: the kernel hands each connection to one of them, and each follows the route by itself. They agree,
because a route is one file that is replaced as a whole, and the lot of an entity is the same in every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import NamedTuple, get_args

import msgspec
import polars as pl
import uvloop

from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError
from flyball.cycle import answering, catalog, followed
from flyball.cycle.session import Session
from flyball.data.kinds import Pushed
from flyball.release.route import Route
from flyball.runtime import exposure
from flyball.runtime.exposure import Settled
from flyball.runtime.tls import Certificate
from flyball.serve.guard import Limits
from flyball.serve.http import Ground, Server
from flyball.serve.journal import Durability, Journal, Recorder, Settings, WhenFull
from flyball.serve.router import Routed
from flyball.serve.wire import Wire

FOLLOWS_EVERY = 0.1
"""Seconds between two looks at the route."""

TRIES_AGAIN = 5.0
"""Seconds after which a route that could not be followed is tried once more."""

MEASURES_EVERY = 2.0
"""Seconds between two looks at how far behind tables and features are."""

GARBAGE_AFTER = 50_000
"""Objects that came and did not go, after which garbage is looked for: what an error leaves behind is small."""

QUICKENS_EVERY = 0.5
"""Seconds between two looks at whether somebody new answers, who could answer faster."""

DRAINS_WITHIN = 10.0
"""Seconds in which what was asked is still answered, once the process is told to end."""

FILES = 512
"""Descriptors for tables, segments, libraries, and handshakes that are not connections yet."""

RENEWS_EVERY = 60.0
"""Seconds between two looks at whether the certificate was renewed."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a server listens, who reaches it, and what its answers wait for.

    Attributes:
        durability: "acknowledged" (recorded before it leaves) or "interval" (recorded within 20 ms).
        when_full: what becomes of an answer that the disk does not take: it is turned away ("refuse"), or leaves "unlogged".
        shared: whether others may listen on the same port, so that several processes answer there.
        names, keys_needed, plain: see `exposure.Asked`.
        tls: what it encrypts with.
    """

    host: str = "127.0.0.1"
    port: int = 8741
    durability: str = "acknowledged"
    when_full: str = "refuse"
    shared: bool = False
    names: tuple[str, ...] = ()
    keys_needed: bool = False
    plain: bool = False
    tls: Certificate | None = None


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
        DeclarationError: `no-such-durability`; what `exposure.settle` raises.
        AdapterError: `port-taken`; `journal-write`.
    """
    asked = exposure.Asked(edge.host, edge.names, edge.keys_needed, edge.tls is not None, edge.plain)
    settled = exposure.settle(asked, session.keys.all(), session.clock.now())
    if edge.durability not in get_args(Durability) or edge.when_full not in get_args(WhenFull):
        raise DeclarationError(
            "no-such-durability",
            f"There is no durability {edge.durability!r}, or nothing called {edge.when_full!r} to do when the disk is full.",
            why="An answer leaves after its commit (acknowledged), or at most 20 ms before it (interval).",
            next="--durability acknowledged or interval; --when-full refuse or unlogged",
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
        runner.run(_serve(session, edge, settled, _Begun(seen, routed, left), (ready, tell)))


async def _serve(
    session: Session,
    edge: Edge,
    settled: Settled,
    begun: _Begun,
    told: tuple[Callable[[str, dict[str, str]], None], Say],
) -> None:
    ready, say = told
    # An event loop must not wait for room in the journal: it refuses at once, and the caller tries again.
    settings = Settings(
        durability=msgspec.convert(edge.durability, Durability),
        when_full=msgspec.convert(edge.when_full, WhenFull),
        patience=timedelta(0),
    )
    journal = session.journals(settings)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        listening = undo.enter_context(contextlib.closing(_listen(edge)))
        recorder = undo.enter_context(
            contextlib.closing(
                journal.open(session.app.name, head=session.facts.head, deliver=loop.call_soon_threadsafe)
            )
        )
        limits = Limits(
            hosts=settled.hosts,
            seconds=settings.slow.total_seconds(),
            connections=connections(Limits().connections),
            unlogged=edge.when_full == "unlogged",
        )
        server = Server(session.app.name, begun.routed, _ground(session, journal, recorder, settled, say), limits)
        wire = Wire(server, session.clock)
        await wire.listen(listening, edge.tls.context if edge.tls is not None else None)
        following = loop.create_task(follow(session, server, begun.route, say, begun.left))
        following.add_done_callback(lambda task: _ended(task, say))
        beside = [following, loop.create_task(_measure(session, server)), loop.create_task(quicken(session, server))]
        if edge.tls is not None:
            beside.append(loop.create_task(_renew(edge.tls, session, say)))
        scheme = "http" if edge.tls is None else "https"
        shown = f"[{edge.host}]" if ":" in edge.host else edge.host
        versions = {name: each.champion.version for name, each in begun.routed.items()}
        ready(f"{scheme}://{shown}:{listening.getsockname()[1]}", versions)
        _settle_memory()
        await _told_to_end(wire)
        for each in beside:
            each.cancel()
        if dropped := server.end():
            say(f"{dropped:,} shadow answers were dropped since this server began")


def _ground(session: Session, journal: Journal, recorder: Recorder, settled: Settled, say: Say) -> Ground:
    def tripped(model: str, version: str, why: str) -> None:
        say(f"{version} is taken out of this process, and answers nothing of {model} any more: {why}")

    pushed = frozenset(each.at.name for each in session.app.sources if isinstance(each.at, Pushed))
    keys = session.keys.freeing(settled.free)
    return Ground(recorder, journal.find, session.clock, keys, session.outcomes, session.inbox, pushed, tripped)


def connections(wanted: int) -> int:
    """So many connections as there may be open files for; the system's soft limit is raised to what they need, where it may.

    Without a descriptor nobody is told anything: so the limit of ours comes first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):  # a system that knows a limit beside these two
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, soft - FILES), soft // 2, 1) if soft < needed else wanted


def _settle_memory() -> None:
    """Look for garbage among what comes from now on, and seldom: nothing that was loaded is garbage, and no request leaves any.

    Python looks after every 700 new objects, now and then through all of them: measured, a third of the time of an answer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 50, 100)


async def _told_to_end(wire: Wire) -> None:
    """Until a signal to end, and until what was asked by then is answered; a second one cuts it short."""
    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, ends.set)
    await ends.wait()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, wire.cut)
    await wire.drain(DRAINS_WITHIN)


async def _renew(certificate: Certificate, session: Session, say: Say) -> None:
    """Take a certificate that was renewed; say what stands in the way, and when it ends, once each."""
    said = ""
    while True:
        await asyncio.sleep(RENEWS_EVERY)
        found = certificate.renew() or certificate.ends(session.clock.now())
        if found and found != said:
            say(found)
        said = found


async def _measure(session: Session, server: Server) -> None:
    """Look every so often, in a thread, how far online features and tables are behind, for whoever reads the metrics."""
    loop = asyncio.get_running_loop()
    while True:
        # A table whose files were joined just now, say; the next look comes.
        with contextlib.suppress(FlyballError, OSError, pl.exceptions.PolarsError):
            server.away = await loop.run_in_executor(None, catalog.away, session)
            server.tally.away = bool(server.away)
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


async def quicken(session: Session, server: Server) -> None:
    """Give whoever answers its fastest predictors, aside: what is slow to load keeps neither a start nor a rollback waiting."""
    loop, last = asyncio.get_running_loop(), dict[str, Routed]()
    while True:
        if (now := server.routed) != last:
            with contextlib.suppress(Exception):  # as before is good enough; the next version gets its turn
                found = await loop.run_in_executor(None, _quickened, session, now)
                if server.routed != now:  # another route came meanwhile: it counts, and its turn comes
                    continue
                server.swap(found)
            last = server.routed
        await asyncio.sleep(QUICKENS_EVERY)


def _quickened(session: Session, routed: Mapping[str, Routed]) -> dict[str, Routed]:
    """See `cycle.quickened`, which is loaded here and not before the server listens."""
    found: dict[str, Routed] = import_module("flyball.cycle.quickened").quickened(session, routed)
    return found


def _who(routed: Routed) -> str:
    said = f"{routed.champion.version} answers from now on"
    if routed.candidate is None:
        return said
    share = f"{routed.share:.0%} by" if routed.share else "beside it"
    return f"{said}, {share} {routed.candidate.version}"


def _ended(task: asyncio.Task[None], say: Say) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        say(f"This server no longer follows the route, and goes on as before: {problem!r}")


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
