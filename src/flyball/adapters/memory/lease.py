"""Leases between the threads of one process, for rehearsals and tests."""

from __future__ import annotations

from datetime import datetime
from threading import Lock

from flyball._kernel.clock import EPOCH, Clock


class MemoryLease:
    """Leases of one process.

    Args:
        clock: decides when a lease has run out.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._taken: dict[str, tuple[str, int, datetime]] = {}

    def acquire(self, name: str, holder: str, until: datetime) -> int | None:
        """Take or extend the lease; see `ports.Lease`."""
        with self._lock:
            current, now = self.holder(name), self._clock.now()
            if until <= now or current not in (None, holder):
                return None
            token = self._taken.get(name, ("", 0, EPOCH))[1] + (current is None)
            self._taken[name] = (holder, token, until)
            return token

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        with self._lock:
            if self.holder(name) == holder:
                self._taken[name] = ("", self._taken[name][1], EPOCH)

    def holder(self, name: str) -> str | None:
        """Who has it now."""
        holder, _, until = self._taken.get(name, ("", 0, EPOCH))
        return holder if holder and self._clock.now() < until else None
