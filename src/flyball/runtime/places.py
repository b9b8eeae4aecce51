"""Opening: the places of an app, by its placement. The only file that knows which adapter stands behind which port."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from flyball._kernel import ids
from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.facts import signed_part
from flyball._kernel.ports import Clock
from flyball.adapters.embedded import mounts, tokens
from flyball.adapters.embedded.alerts import LogAlerts, WebhookAlerts
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.clock import SteppedClock, SystemClock
from flyball.adapters.embedded.commit import commit
from flyball.adapters.embedded.delta_source import DeltaReader
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.frames import FrameReader
from flyball.adapters.embedded.inbox import FileInbox
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.journal_archive import DeltaArchive
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.embedded.lease import SqlLease
from flyball.adapters.embedded.objects import ObjectReader
from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.adapters.embedded.pushed import PushReader
from flyball.adapters.embedded.returning import Opened, ReturningFacts, ReturningLease
from flyball.adapters.embedded.routes import FileRoutes
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.embedded.sql import SqlReader
from flyball.adapters.embedded.tables import DeltaTables
from flyball.adapters.embedded.vault import SqliteVault
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.clock import VirtualClock, drawn
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.inbox import MemoryInbox
from flyball.adapters.memory.journal import MemoryJournal
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.lease import MemoryLease
from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.adapters.memory.tables import MemoryTables
from flyball.app import App
from flyball.cycle import account, arrivals, contracts, erasures, expectations, retrain, steps, suspected, touched
from flyball.cycle.session import Session
from flyball.data.kinds import Delta, Pushed, Sql, Yields
from flyball.data.source import Files, Objects, Readers
from flyball.learn.trying import trials
from flyball.release import approval, rollout, shadowing, version
from flyball.serve.auth import Keys
from flyball.serve.ingest import Inbox
from flyball.watch import observed
from flyball.watch.alert import Alerts

PROJECTIONS = (
    account.ACCOUNTS,
    approval.APPROVALS,
    contracts.CONTRACTED,
    erasures.ERASURES,
    expectations.BELIEVED,
    arrivals.COMPLETE,
    arrivals.INGESTED,
    arrivals.LAST,
    arrivals.SEEN,
    arrivals.WITHDRAWN,
    observed.OBSERVED,
    retrain.TRAININGS,
    steps.DONE,
    steps.FAILURES,
    steps.LAST,
    steps.PINS,
    suspected.SUSPECTED,
    touched.TOUCHED,
    trials.TRIALS,
    rollout.ROLLOUTS,
    shadowing.SHADOWS,
    version.VERSIONS,
)


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
        databases: name -> where it is, as a URL or by reference: `env:NAME`, `file:PATH`; FLYBALL_DATABASE_<NAME> by default.
    """

    root: Path
    home: Path | None = None
    key: Path | None = None
    clock: Path | None = None
    create: bool = True
    databases: Mapping[str, str] = field(default_factory=dict, repr=False)


def open(app: App, placement: Placement) -> Session:  # noqa: A001 - fb.open, as in io.open
    """Open an app's places.

    Raises:
        StateError, AdapterError: what is stored cannot be used; see docs/reference/errors.md.
    """
    home = placement.home or placement.root / ".flyball"
    clock: Clock = SteppedClock(placement.clock) if placement.clock is not None else SystemClock()
    facts, released = home / "facts.sqlite", (home / "route.json").exists()
    if not placement.create and not facts.exists() and not released:
        return _nothing_yet(app, home, clock, placement)
    mounts.refuse_network(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = placement.key or signing_key()
    signer = _signer(key, facts, signed=released or facts.exists())

    def log() -> SqlFacts:
        opened = SqlFacts(facts, clock, signer, PROJECTIONS)
        _signed_by_us(opened, signer, key)
        return opened

    inbox, archive = FileInbox(home / "inbox"), DeltaArchive(home / "journal")
    return Session(
        app=app,
        home=home,
        clock=clock,
        facts=ReturningFacts(_opened(facts, log, there=released)),
        blobs=FileBlobs(home / "artifacts"),
        lease=ReturningLease(Opened(facts, lambda: SqlLease(facts, clock), create=False)),
        signer=signer,
        tables=DeltaTables(home / "tables"),
        online=SqlOnline(home / "online.sqlite"),
        reader=_readers(placement.databases, inbox, home),
        routes=FileRoutes(home / "route.json", signer),
        journals=lambda settings: SqliteJournal(home / "journal", clock, settings, archive=archive),
        outcomes=SqliteOutcomes(home / "outcomes.sqlite"),
        vault=SqliteVault(home / "vault.sqlite"),
        keys=tokens.open_keys(home, clock),
        commit=lambda: commit(placement.root),
        holder=f"{socket.gethostname()}:{os.getpid()}:{ids.uuid7(SystemClock().now())[-12:]}",
        inbox=inbox,
    )


def _opened(place: Path, open_: Callable[[], SqlFacts], *, there: bool) -> Opened[SqlFacts]:
    """The history, opened now; where it cannot be and `there` is a route to answer by, opened when asked."""
    opened = Opened(place, open_, create=not there)
    with contextlib.suppress(AdapterError) if there else contextlib.nullcontext():
        opened.now()
    return opened


def _signer(key: Path, facts: Path, *, signed: bool) -> FileSigner:
    """The key, which is made only for a home that is made with it: another could never prove what was signed before."""
    if signed and not key.exists():
        raise StateError(
            "key-missing",
            f"There is no signing key at {key}.",
            why=f"{facts.parent} was signed by a key, and a new one could not prove what is recorded there.",
            next="Restore the key, or say where it is: FLYBALL_KEY=/path/to/signing.pem",
        )
    return FileSigner(key)


def _signed_by_us(log: SqlFacts, signer: FileSigner, key: Path) -> None:
    head = log.head()
    if head.tx and not signer.verify(signed_part(head.tx, head.hash, head.trace), head.signature):
        raise StateError(
            "signed-by-another-key",
            f"This home was not signed by the key {key}.",
            why="Its history ends in a signature that is another key's, or that was changed.",
            next="Say which key it is: FLYBALL_KEY=/path/to/signing.pem. If it is this one, the history was tampered with.",
        )


def _nothing_yet(app: App, home: Path, clock: Clock, placement: Placement) -> Session:
    """A home that was never made, read as an empty one: looking at a plan must leave nothing behind."""
    return _in_memory(app, home, clock, MemorySigner(), placement.databases)


def _readers(databases: Mapping[str, str], inbox: Inbox, home: Path | None = None) -> Readers:
    """One reader a kind of source; a home keeps the digests of files from one process to the next."""
    kept = home / "cache" / "digests.json" if home is not None else None
    return Readers(
        {
            Files: FileReader(kept=kept),
            Objects: ObjectReader(),
            Sql: SqlReader(databases),
            Delta: DeltaReader(),
            Yields: FrameReader(),
            Pushed: PushReader(inbox),
        }
    )


def rehearsal(app: App, placement: Placement, start: datetime, seed: int) -> tuple[Session, VirtualClock]:
    """An app's places in memory, on a virtual clock whose durations are drawn from `seed`; nothing on disk is touched."""
    clock = VirtualClock(start, drawn(seed))
    home = placement.home or placement.root / ".flyball"
    return _in_memory(app, home, clock, MemorySigner(seed), placement.databases), clock


def _in_memory(app: App, home: Path, clock: Clock, signer: MemorySigner, databases: Mapping[str, str]) -> Session:
    journal, inbox = MemoryJournal(clock), MemoryInbox()
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
        reader=_readers(databases, inbox),
        routes=MemoryRoutes(),
        journals=lambda _: journal,
        outcomes=MemoryOutcomes(),
        vault=None,
        keys=Keys(lambda: (), clock),
        commit=lambda: "",
        holder="rehearsal",
        inbox=inbox,
    )


def channels(session: Session, webhook: str | None, allow: Sequence[str]) -> list[Alerts]:
    """Where alerts go: always a log in the home, and a webhook where one is named.

    Raises:
        DeclarationError: `webhook-url`.
    """
    found: list[Alerts] = [LogAlerts(session.home / "alerts.jsonl")]
    if webhook:
        told = max((fact.seq for fact in session.facts.read()), default=0)
        place = session.home / "alerts.webhook.json"
        found.append(WebhookAlerts(webhook, place, allow=allow, since=told))
    return found


def signing_key() -> Path:
    """Where the signing key lies where no placement says it: FLYBALL_KEY, else the user's configuration folder."""
    named = os.environ.get("FLYBALL_KEY")
    if named:
        return Path(named)
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "flyball" / "signing.pem"
