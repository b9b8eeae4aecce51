"""A session: one app with the places where it runs, opened. Every verb of the loop is a function of a session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec

from flyball._kernel.errors import AdapterError, RetryableError
from flyball._kernel.ports import Blobs, Clock, Facts, Lease, Signer
from flyball.app import App
from flyball.data import seal
from flyball.data.seal import Seal, Vault
from flyball.data.source import Reader
from flyball.data.tables import Tables
from flyball.learn.features.online import Online
from flyball.release.route import Routes
from flyball.serve.auth import Keys
from flyball.serve.ingest import Inbox
from flyball.serve.journal import Journal, Settings
from flyball.serve.outcomes import Outcomes


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person who waits would like to know. Not a fact: nothing is decided by it."""

    step: str
    state: str
    detail: str = ""
    seconds: float | None = None


Tell = Callable[[Event], None]


def silent(_: Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Session:
    """An app and its places.

    Attributes:
        home: the folder where state and reports lie.
        holder: names this process in leases.
        inbox: where rows wait that others pushed; None where nobody can.
        journals: settings -> the journal of all server processes.
        outcomes: what became of questions, as it was posted.
        vault: what ties tokens to the personal values that they stand for; None where nothing is sealed, see `seal.Seal`.
        keys: who may do what.
        commit: the git commit of the app file, with a + when there are changes; "" outside a repository.
    """

    app: App
    home: Path
    clock: Clock
    facts: Facts
    blobs: Blobs
    lease: Lease
    signer: Signer
    tables: Tables
    online: Online
    reader: Reader
    routes: Routes
    journals: Callable[[Settings], Journal]
    outcomes: Outcomes
    vault: Vault | None
    keys: Keys
    commit: Callable[[], str]
    holder: str
    inbox: Inbox | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the app's models."""
        return tuple(m.name for m in self.app.models)

    @property
    def seal(self) -> Seal:
        """How personal cells are sealed here."""
        return Seal(self.signer.secret(seal.PURPOSE), self.vault)

    @property
    def journal(self) -> Journal:
        """All answers of all server processes, for reading."""
        return self.journals(Settings())


TERM = timedelta(minutes=2)
"""For how long a lease is taken. It is renewed while the work goes on, so the term bounds only how long a holder that died
where nobody can look at it (in another container) is waited for."""

TAKEN = "somebody-else-is-at-it"
"""The code of a lease that another holds: taken before we came, or while this process was stopped for longer than its term."""

RENEWALS = 4
"""Renewals a term: three may fail on a busy disk before the lease lapses."""


@contextmanager
def held(session: Session, what: str) -> Iterator[None]:
    """Hold the lease on `what` of this app, so that two processes never do the same step; renewed however long it takes.

    Raises:
        RetryableError: `somebody-else-is-at-it`, naming the holder.
    """
    name = _lease(session, what)
    if not _taken(session, name):
        raise _taken_by_another(session, name)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(session, name, over), name=f"lease {name}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        session.lease.release(name, session.holder)


def still_held(session: Session, what: str) -> None:
    """Refuse to write what was decided under a lease that is no longer ours: the process was stopped for too long.

    Raises:
        RetryableError: `somebody-else-is-at-it`.
    """
    name = _lease(session, what)
    if session.lease.holder(name) != session.holder and not _taken(session, name):
        raise _taken_by_another(session, name)


def _lease(session: Session, what: str) -> str:
    return f"{session.app.name}/{what}"


def _taken(session: Session, name: str) -> bool:
    return session.lease.acquire(name, session.holder, session.clock.now() + TERM) is not None


def _renew(session: Session, name: str, over: threading.Event) -> None:
    while not over.wait(TERM.total_seconds() / RENEWALS):
        # A busy disk: the next renewal may come through, and `still_held` has the last word.
        with suppress(AdapterError):
            if not _taken(session, name):
                return


def _taken_by_another(session: Session, name: str) -> RetryableError:
    return RetryableError(
        "somebody-else-is-at-it",
        f"Another process works on {name}.",
        why=f"The lease is held by {session.lease.holder(name)}.",
        next="Wait for it to end; a lease of a process that died is free again at once.",
    )
