"""The loop as a process: one pass after the other, until it is told to stop; what it thinks lies in `loop.json`.

A pass that fails is said and tried again; whoever answers keeps answering. Whoever holds the lease is the one that acts.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from flyball._kernel.errors import FlyballError, RetryableError
from flyball.cycle import reconcile
from flyball.cycle.archiving import Tender
from flyball.cycle.reconcile import Decided, Looked, Worker
from flyball.cycle.session import TAKEN, Event, Session, Tell, held, still_held
from flyball.cycle.watching import Watch
from flyball.watch import alert
from flyball.watch.alert import Alerts

STATE = "loop.json"
"""What the loop thought in its last pass; derived, so that it may be lost."""

RECENT = 50
"""Decisions that are shown; the facts have all of them."""

AGAIN = 15.0
"""Seconds after which a channel that failed is tried again: one that hangs must not slow every look."""

PROMPTLY = 0.1
"""Seconds between two looks into the inbox, while a loop rests."""

STANDBY = 1.0
"""Seconds between two looks at a lease that another holds."""


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
    watch, told, archive = Watch(session), Channels(channels), Tender(session, tell)
    recent = deque[Decided](maxlen=RECENT)
    while not stop.is_set():
        try:
            still_held(session, reconcile.LEASE)
            looked = reconcile.reconcile(session, watch, worker, tell)
            recent.extend(Decided(at=looked.at, what=what) for what in looked.did)
            write(session.home, msgspec.structs.replace(looked, recent=list(recent)))
        except FlyballError as problem:
            if problem.code == TAKEN:
                raise
            tell(_failed(problem))
            watch = watch.anew()
        told.tell(session, tell)
        archive.look()
        _rest(session, watch, worker, every, stop)
    archive.end()


def _rest(session: Session, watch: Watch, worker: Worker, every: float, stop: threading.Event) -> None:
    """Wait for the next pass, which comes early where rows are pushed meanwhile that it can take in.

    Only the time of a pass hangs on it, never what it does: whoever misses a body here finds it at the next pass.
    """
    end = time.perf_counter() + every
    while (left := end - time.perf_counter()) > 0 and not stop.wait(min(left, PROMPTLY)):
        try:
            if not worker.busy() and watch.arriving.comes(session):
                return
        except FlyballError:
            continue  # the inbox cannot be looked at; the pass says so


class Channels:
    """Where alerts go: what each channel has heard, and when one that failed is tried again; none holds up another."""

    def __init__(self, channels: Sequence[Alerts]) -> None:
        self._channels = tuple(channels)
        self._through = [0] * len(self._channels)
        self._again = [0.0] * len(self._channels)

    def tell(self, session: Session, tell: Tell) -> None:
        """Send what is new."""
        now = session.clock.monotonic()
        for n, channel in enumerate(self._channels):
            if now >= self._again[n]:
                delivery = alert.deliver(session.facts, channel, session.app.name, self._through[n])
                self._through[n] = delivery.through
                if delivery.problem is not None:
                    self._again[n] = now + AGAIN
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
