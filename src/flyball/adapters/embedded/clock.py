"""Time from the machine, and time that a rehearsal steps through a file.

`SystemClock` is the only place in flyball that asks the machine what time it is. `SteppedClock` gives the processes of
one rehearsal the instant that its driver has written to a file with `step`. Durations are real in both: they are
measured, never said.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flyball._kernel.clock import EPOCH, Clock, micros
from flyball._kernel.errors import AdapterError

_GLANCE: Final = 0.005
"""Seconds between two looks at the file while a stepped clock sleeps."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class SteppedClock:
    """The instant in a file, which the driver of a rehearsal replaces.

    It never goes back: an earlier instant in the file leaves it where it is.

    Args:
        path: the file that `step` writes.
        real: measures durations, and paces the looks at the file.

    Raises:
        AdapterError: `instant-unreadable`, from `now` and `sleep`.
    """

    def __init__(self, path: str | Path, real: Clock | None = None) -> None:
        self._path, self._real = Path(path), real or SystemClock()
        self._version: tuple[int, int] | None = None
        self._now = EPOCH

    def now(self) -> datetime:
        """The instant in the file; the file is read only when it was replaced."""
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_ino)
            if version != self._version:
                self._now = max(self._now, datetime.fromisoformat(self._path.read_text("ascii")).astimezone(UTC))
                self._version = version
        except (OSError, ValueError) as error:
            raise AdapterError(
                "instant-unreadable",
                f"The instant of the rehearsal cannot be read from {self._path}",
                why=str(error),
                next="start processes of a rehearsal after its driver has written the first instant",
            ) from error
        return self._now

    def monotonic(self) -> float:
        """Real seconds since some fixed moment; never goes back."""
        return self._real.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait until the driver has stepped at least `seconds` on."""
        end = micros(self.now()) + round(seconds * 1_000_000)
        while micros(self.now()) < end:
            self._real.sleep(_GLANCE)


def step(path: str | Path, moment: datetime) -> None:
    """Replace the instant in the file at once: a reader sees the one before, or this one."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(moment.astimezone(UTC).isoformat())
    # The modification time is the instant itself: two steps within one tick of the file system differ in it, where a
    # real one (and the inode, which is reused) may not.
    os.utime(temporary, ns=(micros(moment) * 1_000, micros(moment) * 1_000))
    os.replace(temporary, target)
