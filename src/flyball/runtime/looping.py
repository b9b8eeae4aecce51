"""The loop as a process: one pass after the other, until it is told to stop; what it thinks lies in `loop.json`.

A pass that fails is said and tried again; whoever answers keeps answering. Whoever holds the lease is the one that acts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from flyball._kernel.errors import FlyballError, RetryableError
from flyball.cycle import reconcile
from flyball.cycle.reconcile import Looked, Worker
from flyball.cycle.session import Event, Session, Tell, held, still_held
from flyball.cycle.watching import Watch
from flyball.watch import alert
from flyball.watch.alert import Alerts

STATE = "loop.json"
"""What the loop thought in its last pass; derived, so that it may be lost."""

STANDBY = 1.0
"""Seconds between two looks at a lease that another holds."""


TAKEN = "somebody-else-is-at-it"
"""The code of a lease that another holds: taken before we came, or while this process was stopped for longer than its term."""


class Stopping(Worker, Protocol):
    """A worker that can be told to end."""

    def stop(self) -> None:
        """End what it is at."""


def loop(
    session: Session,
    worker: Stopping,
    channels: Sequence[Alerts],
    every: float,
    stop: threading.Event,
    tell: Tell,
) -> None:
    """Reconcile every so many real seconds until `stop` is set; wait while another holds the lease."""
    while not stop.is_set():
        try:
            with held(session, reconcile.LEASE):
                _passes(session, worker, channels, every, stop, tell)
        except RetryableError as problem:
            if problem.code != TAKEN:
                raise
            stop.wait(STANDBY)
    worker.stop()


def _passes(
    session: Session,
    worker: Stopping,
    channels: Sequence[Alerts],
    every: float,
    stop: threading.Event,
    tell: Tell,
) -> None:
    watch, through = Watch(session), dict[int, int]()
    while not stop.is_set():
        try:
            still_held(session, reconcile.LEASE)
            write(session.home, reconcile.reconcile(session, watch, worker, tell))
            _alert(session, channels, through, tell)
        except FlyballError as problem:
            if problem.code == TAKEN:
                raise
            tell(_failed(problem))
            watch = Watch(session)  # what was folded before the failure may be half of it
        stop.wait(every)


def _alert(session: Session, channels: Sequence[Alerts], through: dict[int, int], tell: Tell) -> None:
    """Tell each channel what it has not heard; one that fails is told again in the next pass, and holds up no other."""
    for n, channel in enumerate(channels):
        delivery = alert.deliver(session.facts, channel, session.app.name, through.get(n, 0))
        through[n] = delivery.through
        if delivery.problem is not None:
            tell(_failed(delivery.problem))


def _failed(problem: FlyballError) -> Event:
    """A pass that failed, told."""
    return Event(step="loop", state="failed", detail=f"{problem} The next pass looks anew.")


def write(home: Path, looked: Looked) -> None:
    """Replace what the loop thinks, atomically."""
    aside = home / f"{STATE}.{os.getpid()}"
    aside.write_bytes(msgspec.json.encode(looked))
    aside.replace(home / STATE)


def read(home: Path) -> Looked | None:
    """What the loop last thought; None if it never ran here."""
    try:
        return msgspec.json.decode((home / STATE).read_bytes(), type=Looked)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
