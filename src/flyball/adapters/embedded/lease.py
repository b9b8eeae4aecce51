"""Leases in the SQL database of the facts.

They share its file because what a lease protects is written there: they migrate, are backed up and are restored with
it, so a fencing token is never older than the facts that name it. A renewal is one short write every few seconds.
The token of a lease that is given back stays, for the next holder's to be greater.

A process that was killed cannot give anything back, so beside the holder lies the **process** that took the lease: a lease
whose process is gone is free at once, whatever its end. Where that cannot be known (another machine, another container),
the end decides.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from flyball._kernel.clock import Clock, micros
from flyball.adapters.embedded import schema
from flyball.adapters.embedded.database import PATIENCE, Database

_lease = schema.leases.c
_PROC = Path("/proc")
_BESIDE = "\n"
"""Between the holder and its process in one column; no name of a holder has it."""


class SqlLease:
    """Leases between the processes of one machine.

    Args:
        place: the path of the SQLite file of the facts, or a SQLAlchemy URL.
        clock: decides when a lease has run out.
        patience: seconds to wait for another process's transaction.

    Raises:
        StateError, AdapterError, RetryableError: as `SqlFacts`.
    """

    def __init__(self, place: str | Path, clock: Clock, patience: float = PATIENCE) -> None:
        self._clock = clock
        self.database = Database(place, patience)

    def acquire(self, name: str, holder: str, until: datetime) -> int | None:
        """Take or extend the lease; see `ports.Lease`."""
        with self.database.write() as connection:
            now = micros(self._clock.now())
            found = _find(connection, name)
            live = found.live(now)
            if micros(until) <= now or (live and found.holder != holder):
                return None
            token = found.token + (not live)
            connection.execute(sa.delete(schema.leases).where(_lease.name == name))
            stored = f"{holder}{_BESIDE}{_this_process()}"
            taken = {"name": name, "holder": stored, "token": token, "until": micros(until)}
            connection.execute(sa.insert(schema.leases), taken)
        return token

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        with self.database.write() as connection:
            if _find(connection, name).holder == holder:
                connection.execute(sa.update(schema.leases).where(_lease.name == name).values(holder=""))

    def holder(self, name: str) -> str | None:
        """Who has it now."""
        with self.database.read() as connection:
            found = _find(connection, name)
        return found.holder if found.live(micros(self._clock.now())) else None

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


class _Taken(NamedTuple):
    holder: str
    process: str
    token: int
    until: int

    def live(self, now: int) -> bool:
        return self.holder != "" and now < self.until and not _gone(self.process)


def _find(connection: sa.Connection, name: str) -> _Taken:
    """The lease as it is stored; one that nobody ever took is nobody's at token 0."""
    row = connection.execute(sa.select(schema.leases).where(_lease.name == name)).one_or_none()
    if row is None:
        return _Taken("", "", 0, 0)
    holder, _, process = row.holder.partition(_BESIDE)
    return _Taken(holder, process, row.token, row.until)


def _this_process() -> str:
    """What tells this process from all others: host, boot, process namespace, number, and start (numbers are reused)."""
    return "|".join((*_where(), str(os.getpid()), _started(os.getpid()) or ""))


def _gone(process: str) -> bool:
    """Whether a process is known to have ended; one that cannot be looked at is believed to live."""
    host, boot, namespace, number, start = process.split("|") if process.count("|") == 4 else [""] * 5
    here = _where()
    if host != here[0] or not number:
        return False
    if boot != here[1]:
        return True  # the machine was started anew since
    if namespace != here[2]:
        return False
    if start:
        return _started(int(number)) != start
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is there, and another user's
    return False


def _where() -> tuple[str, str, str]:
    boot = namespace = ""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
    return socket.gethostname(), boot, namespace


def _started(number: int) -> str | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22); None if it has ended."""
    try:
        stat = (_PROC / str(number) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The second field is the command in brackets, which may hold anything, so the fields are counted from its end.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]
