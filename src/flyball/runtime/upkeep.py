"""`flyball up`: a parent that keeps one loop and its servers alive, and does nothing else.

It loads no library and answers nobody, so it has little to die of. A child that dies is started again, each time a little
later; a changed app file starts the loop anew, which sees what changed. Servers are started when there is somebody to answer,
share one port, and are stopped first, drained, before the loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flyball._kernel.errors import AdapterError, DeclarationError
from flyball.adapters.embedded import process
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.routes import FileRoutes

LOOKS_EVERY = 0.2
"""Real seconds between two looks at the children."""

LATEST = 30.0
"""Real seconds that a child which keeps dying waits for its next start, at most."""

GRACE = 15.0
"""Real seconds that a child has to end in order."""

DRAINS = 10.0
"""Real seconds that a port may still be taken: servers whose parent was killed answer what they were asked, then end."""

_CLOCK = SystemClock()
"""Paces the starts: in real time, also while a rehearsal steps the time of the app."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What is kept up.

    Attributes:
        loop, server: the arguments of their verbs; a server's port is added.
        servers: how many answer.
        host, port: where; 0 takes a free one.
        route: says whether there is anybody to answer.
        code: whose Python files are watched.
    """

    loop: Sequence[str]
    server: Sequence[str]
    servers: int
    host: str
    port: int
    route: Path
    code: Path


@dataclass
class Kept:
    """One child: how it is started, and when it may be again."""

    name: str
    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    wait: float = 0.0
    deaths: int = field(default=0)


def up(upkeep: Upkeep, stop: threading.Event, ready: Say, say: Say) -> None:
    """Keep loop and servers up until `stop` is set.

    Args:
        ready: called with the address, once, when a server answers.
        say: told of deaths and starts.

    Raises:
        AdapterError: `port-taken`.
        DeclarationError: `child-refuses`.
    """
    with _reserved(upkeep.host, upkeep.port, stop, say) as held:
        port = held.getsockname()[1]
        wanted = [*upkeep.server, "--port", str(port), "--shared"]
        loop = Kept("the loop", upkeep.loop)
        servers = [Kept(f"server {n + 1}", wanted) for n in range(upkeep.servers)]
        begun = code = _newest(upkeep.code)
        told = routed = False
        try:
            while not stop.is_set():
                changed = _newest(upkeep.code)
                if changed != code:
                    say(
                        "A Python file beside the app changed: the loop is started anew to look at it. If it was training, "
                        "what that had finished is kept, and the rest is begun again."
                    )
                    _end([loop])
                    code, loop.wait = changed, 0.0
                if code == begun:
                    _obeyed([loop, *servers])
                _keep([loop], say)
                if routed or (routed := _released(upkeep.route)):
                    _keep(servers, say)
                    if not told and _answers(upkeep.host, port):
                        told = True
                        ready(f"http://{_named(upkeep.host)}:{port}")
                stop.wait(LOOKS_EVERY)
        finally:
            _end(servers)
            _end([loop])


def _released(place: Path) -> bool:
    """Whether anybody answers: the loop writes a route as soon as it looks, and it may name nobody."""
    found = FileRoutes(place).read()
    return found is not None and bool(found.models)


def _obeyed(kept: Iterable[Kept]) -> None:
    """See that nobody refuses what it was told: started again, it would say the same for ever.

    Not after a change of the code: a mistake in it is mended by the next change, and whoever answers goes on meanwhile.
    """
    for each in kept:
        if each.process is not None and each.process.poll() == DeclarationError.exit_code:
            raise DeclarationError(
                "child-refuses",
                f"{each.name} refuses what it was told, and is not started again.",
                why="It ended as one does whose arguments or app file are wrong, and said above what is.",
                next="Mend that, then run `flyball up` again.",
            )


def _keep(kept: Iterable[Kept], say: Say) -> None:
    """Start what does not run, unless it died a moment ago."""
    for each in kept:
        now = _CLOCK.monotonic()
        if each.process is not None and each.process.poll() is None:
            if now - each.begun > LATEST:
                each.deaths, each.wait = 0, 0.0
            continue
        if each.process is not None:
            each.deaths += 1
            each.wait = now + min(LATEST, 0.5 * 2 ** min(each.deaths, 6))
            say(f"{each.name} ended with {each.process.returncode}, and is started again in {each.wait - now:.0f} s.")
            each.process = None
        if now >= each.wait:
            each.process, each.begun = process.start(each.arguments), now


def _end(kept: Iterable[Kept]) -> None:
    """Ask each to end, and wait; one that does not is killed."""
    running = [each.process for each in kept if each.process is not None]
    for child in running:
        child.terminate()
    for child in running:
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
    for each in kept:
        each.process = None


def _reserved(host: str, port: int, stop: threading.Event, say: Say) -> socket.socket:
    """The port, held for our servers: bound and never listened on, so that the kernel gives every connection to them.

    Others who share a port would be let in beside us, another `up` for one; so it is looked first whether anybody is there.
    """
    end, told = _CLOCK.monotonic() + DRAINS, False
    while True:
        try:
            if port:
                # With this option it passes over connections that ended a moment ago, and nothing else.
                _bound(host, port, socket.SO_REUSEADDR).close()
            return _bound(host, port, socket.SO_REUSEPORT)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _CLOCK.monotonic() > end or stop.wait(LOOKS_EVERY):
                raise AdapterError(
                    "port-taken",
                    f"The servers cannot listen on {host}:{port}.",
                    why=str(error),
                    next="Choose another with --port; --port 0 takes a free one.",
                ) from error
            if not told:
                say(
                    f"Somebody listens on {host}:{port}. A server whose parent is gone ends within {DRAINS:.0f} s: waiting."
                )
                told = True


def _bound(host: str, port: int, option: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _newest(folder: Path) -> int:
    """The latest change of a Python file in the folder, in nanoseconds; environments and hidden folders are passed over."""
    newest = 0
    for here, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f[0] not in "._" and not Path(here, f, "pyvenv.cfg").exists()]
        for name in files:
            if name.endswith(".py"):
                with contextlib.suppress(OSError):  # it was being replaced
                    newest = max(newest, os.stat(Path(here, name)).st_mtime_ns)
    return newest
