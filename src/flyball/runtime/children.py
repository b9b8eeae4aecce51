"""The worker of a real loop: heavy steps in a child process with limited memory.

A training that runs out of memory, or crashes in a library, takes neither the loop nor a server with it: the child is gone, the
loop says so, and whoever answers keeps answering.
"""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from flyball._kernel.clock import Clock
from flyball.adapters.embedded import process
from flyball.cycle.apply import ModelApplied
from flyball.cycle.reconcile import RETRY, Ended
from flyball.cycle.session import TAKEN

STUCK = 60.0
"""Seconds that a child may stand at its limit. Not every allocator fails where it gets nothing: jemalloc, in Polars, was seen
to try for ever."""

MARGIN = 16 << 10
"""Kilobytes below the limit that count as at it: the next thread's stack does not fit."""

WAIT = 10.0
"""Seconds after which it is tried again where another apply was at work."""

OUT_OF_MEMORY = "out-of-memory"
GONE = "worker-died"

_WITHOUT_MEMORY = ("MemoryError", "can't start new thread", "Cannot allocate memory")
_STARVED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGTRAP, -signal.SIGKILL)
"""How a process dies that gets no memory: libraries abort or fall over, and the kernel kills when all of it is used."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the worker is at."""

    process: subprocess.Popen[bytes]
    until: datetime | None
    said: Path


class _Error(msgspec.Struct, frozen=True):
    code: str = GONE
    what: str = ""
    why: str = ""


class _Said(msgspec.Struct, frozen=True):
    """What `apply --json` says: what it did, or its error."""

    models: list[ModelApplied] = []
    error: _Error = _Error()


class Child:
    """See `reconcile.Worker`: `flyball apply` in a child process, so that no training takes the loop or a server down with it.

    Args:
        arguments: the app, and where its state lies, as every verb takes them.
        clock: for the rest after a failure.
        folder: for what the child says.
        memory_mb: how much memory it may take; None for as much as there is.
    """

    def __init__(self, arguments: Sequence[str], clock: Clock, folder: Path, memory_mb: int | None = None) -> None:
        self._arguments, self._clock, self._folder, self._memory_mb = tuple(arguments), clock, folder, memory_mb
        self._running: Running | None = None
        self._at_limit: float | None = None
        self._waits = -math.inf
        self._rests: tuple[datetime, str] | None = None

    def busy(self) -> str:
        """What it is at."""
        if self._running is None:
            return "waiting for another apply to end" if self._clock.monotonic() < self._waits else ""
        until = self._running.until
        return f"training from what was known before {until:%Y-%m-%d %H:%M} UTC" if until else "applying"

    def rests(self) -> str:
        """Why an apply is not tried again yet."""
        if self._rests is not None and self._clock.now() < self._rests[0]:
            return f"until {self._rests[0]:%H:%M} UTC, after {self._rests[1]}"
        return ""

    def begin(self, until: datetime | None, model: str) -> None:
        """Start the child."""
        wanted = [
            *(["--until", until.replace(tzinfo=None).isoformat()] if until else []),
            *(["--model", model] if model else []),
        ]
        said = self._folder / "work.json"
        with said.open("wb") as file:
            child = process.start(["apply", *self._arguments, *wanted, "--no-report", "--json"], self._memory_mb, file)
        self._running, self._at_limit = Running(child, until, said), None

    def ended(self) -> Ended | None:
        """What came of it, once it is over."""
        running = self._running
        if running is None:
            return None
        if running.process.poll() is None:
            self._free(running)
            return None
        self._running = None
        ended = _outcome(running)
        if ended.failed and running.until is None:
            self._rests = (self._clock.now() + RETRY, ended.failed)
        if ended.failed == TAKEN:
            self._waits = self._clock.monotonic() + WAIT
        return ended

    def _free(self, running: Running) -> None:
        """Kill it if it has stood at its limit for too long."""
        now = self._clock.monotonic()
        if self._memory_mb is None or _private_kb(running.process.pid) < (self._memory_mb << 10) - MARGIN:
            self._at_limit = None
        elif self._at_limit is None:
            self._at_limit = now
        elif now - self._at_limit > STUCK:
            running.process.kill()

    def stop(self) -> None:
        """End it: what it had finished is kept, and the next apply goes on there."""
        if self._running is not None:
            self._running.process.terminate()
            self._running.process.wait()


def _private_kb(process: int) -> int:
    """The private memory of a process; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)


def _outcome(running: Running) -> Ended:
    """What a child that ended had said; one that said nothing was killed, or ran out of memory."""
    code = running.process.returncode
    try:
        said = msgspec.json.decode(running.said.read_bytes(), type=_Said)
    except msgspec.DecodeError:
        said = _Said()
    if code in (0, 3) and said.models:
        return Ended(until=running.until, models=tuple(said.models))
    told = f"{said.error.what} {said.error.why}"
    if code in _STARVED or any(words in told for words in _WITHOUT_MEMORY):
        return Ended(until=running.until, failed=OUT_OF_MEMORY)
    return Ended(until=running.until, failed=said.error.code)
