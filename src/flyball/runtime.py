"""Where an application runs: the only place where ports meet adapters.

    load(path)            the app that a file declares, with the folder that its sources are relative to
    open(app, placement)  the app with its places opened, as a Session
    serve(session, edge)  one server process

A placement is data: which home, which key, which clock. It never changes what an app means.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import get_args

import msgspec
import uvicorn
import uvloop

from flyball._kernel import ids
from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError
from flyball._kernel.place import Place
from flyball._kernel.ports import Clock
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.clock import SteppedClock, SystemClock
from flyball.adapters.embedded.commit import commit
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.embedded.lease import SqlLease
from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.embedded.routes import FileRoutes
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.embedded.tables import DeltaTables
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.journal import MemoryJournal
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.lease import MemoryLease
from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.adapters.memory.tables import MemoryTables
from flyball.app import App
from flyball.cycle import account, answering, gather, steps
from flyball.cycle.session import Session
from flyball.release import version
from flyball.serve.http import Server
from flyball.serve.journal import Durability, Settings
from flyball.serve.plan import Plan

__all__ = ["Edge", "Loaded", "Placement", "Session", "load", "open", "serve"]

PROJECTIONS = (
    account.ACCOUNTS,
    gather.COMPLETE,
    gather.INGESTED,
    gather.SEEN,
    steps.DONE,
    steps.LAST,
    steps.PINS,
    version.CHAMPIONS,
    version.VERSIONS,
)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an app runs.

    Attributes:
        root: the folder that the app's sources are relative to.
        home: where state lies; `.flyball` in the root by default.
        key: the signing key's file, outside the home; by default FLYBALL_KEY, else flyball/signing.pem in the user's
            configuration folder.
        clock: rehearsal only: the file that the time is read from.
        create: False opens only what is there: a home that does not exist yet is read as an empty one, and not made.
    """

    root: Path
    home: Path | None = None
    key: Path | None = None
    clock: Path | None = None
    create: bool = True


@dataclass(frozen=True, slots=True)
class Loaded:
    """An app, and the folder of its file."""

    app: App
    root: Path


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a server listens, and what its answers wait for.

    Attributes:
        durability: "acknowledged" (recorded before it leaves) or "interval" (recorded within 20 ms).
    """

    host: str = "127.0.0.1"
    port: int = 8741
    durability: str = "acknowledged"


def open(app: App, placement: Placement) -> Session:  # noqa: A001 - fb.open, as in io.open
    """Open an app's places.

    Raises:
        StateError, AdapterError: what is stored cannot be used; see docs/reference/errors.md.
    """
    home = placement.home or placement.root / ".flyball"
    clock: Clock = SteppedClock(placement.clock) if placement.clock is not None else SystemClock()
    facts = home / "facts.sqlite"
    if not placement.create and not facts.exists():
        return _nothing_yet(app, home, clock)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = FileSigner(placement.key or _key())
    return Session(
        app=app,
        home=home,
        clock=clock,
        facts=SqlFacts(facts, clock, signer, PROJECTIONS),
        blobs=FileBlobs(home / "artifacts"),
        lease=SqlLease(facts, clock),
        signer=signer,
        tables=DeltaTables(home / "tables"),
        online=SqlOnline(home / "online.sqlite"),
        reader=FileReader(),
        routes=FileRoutes(home / "route.json"),
        journals=lambda settings: SqliteJournal(home / "journal", clock, settings),
        commit=lambda: commit(placement.root),
        holder=f"{socket.gethostname()}:{os.getpid()}:{ids.uuid7(SystemClock().now())[-12:]}",
    )


def _nothing_yet(app: App, home: Path, clock: Clock) -> Session:
    """A home that was never made, read as an empty one: looking at a plan must leave nothing behind."""
    signer = MemorySigner()
    return Session(
        app=app,
        home=home,
        clock=clock,
        facts=MemoryFacts(clock, signer, PROJECTIONS),
        blobs=MemoryBlobs(),
        lease=MemoryLease(clock),
        signer=signer,
        tables=MemoryTables(),
        online=MemoryOnline(),
        reader=FileReader(),
        routes=MemoryRoutes(),
        journals=lambda settings: MemoryJournal(clock, settings),
        commit=lambda: "",
        holder="nobody",
    )


def serve(session: Session, edge: Edge, ready: Callable[[str, dict[str, str]], None]) -> None:
    """Answer questions until told to stop (SIGINT or SIGTERM), then drain and close the journal.

    Args:
        ready: called with the address and model -> version once the server listens.

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
        runner.run(_serve(session, edge, plans, ready))


async def _serve(
    session: Session, edge: Edge, plans: Mapping[str, Plan], ready: Callable[[str, dict[str, str]], None]
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
        await _Uvicorn(server, lambda: ready(address, versions), recorder.close).serve([listening])
    finally:
        recorder.close()


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


def load(path: str) -> Loaded:
    """The app that a folder (with app.py), a file or a module declares.

    Raises:
        DeclarationError: `no-such-app`, `app-file-broken`, `no-app-in-file`, or whatever the file itself declares wrongly.
    """
    file, top = Path(path), Path()
    file = file / "app.py" if file.is_dir() else file
    if file.suffix == ".py":
        if not file.is_file():
            raise _no_such_app(path, f"There is no file {file}.")
        name, top = _module_name(file.resolve())
        if str(top) not in sys.path:
            sys.path.insert(0, str(top))
    else:
        name = path
        sys.path.insert(0, os.getcwd())
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise _no_such_app(path, "There is no such folder, file or module.")
    present = sys.modules.get(name)
    if present is not None and file.suffix == ".py" and Path(present.__file__ or "").resolve() != file.resolve():
        # Another file of the same name, such as the app.py of another folder, was loaded before it.
        del sys.modules[name]
        sys.path.remove(str(top))
        sys.path.insert(0, str(top))
    return _found(_import(name, file), path)


def _module_name(file: Path) -> tuple[str, Path]:
    """The dotted name of a file, and the folder that must be on the path: the first above that is no package."""
    parts, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def _import(name: str, file: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except FlyballError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        mine = [f for f in frames if f.filename == str(file.resolve())] or frames[-1:]
        where = Place(mine[-1].filename, mine[-1].lineno or 0) if mine else None
        if isinstance(error, SyntaxError):
            where = Place(error.filename or str(file), error.lineno or 0)
        raise DeclarationError(
            "app-file-broken",
            f"The app file cannot be imported: {type(error).__name__}: {error}",
            where=where,
            why="Python itself refuses it.",
            next="Mend that line, then run the same command again.",
        ) from error


def _found(module: ModuleType, path: str) -> Loaded:
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    if len(apps) != 1:
        raise DeclarationError(
            "no-app-in-file",
            f"{path} declares {len(apps) or 'no'} apps.",
            where=Place(module.__file__ or path, 1),
            why="The file of an application has one value of type fb.App.",
            next="Write app = fb.App(...), once.",
        )
    (app,) = apps.values()
    return Loaded(app, Path(module.__file__ or ".").resolve().parent)


def _no_such_app(path: str, what: str) -> DeclarationError:
    return DeclarationError(
        "no-such-app",
        what,
        why=f"{path!r} should be a folder with app.py, a Python file, or a module.",
        next="flyball new NAME makes one that runs.",
    )


def _key() -> Path:
    named = os.environ.get("FLYBALL_KEY")
    if named:
        return Path(named)
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "flyball" / "signing.pem"
