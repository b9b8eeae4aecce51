"""The catalog's database, where it may go away and come back: locked, moved, on a disk that is gone.

SQLite keeps reading a file that was moved away, and makes an empty one where none is. Neither may happen to a history: so each
use looks whether the file at the place is the one that was opened, says that it is **away** where there is none, and opens
what lies there anew. A server goes on without it meanwhile; see `cycle.catalog`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from flyball._kernel.errors import AdapterError
from flyball._kernel.facts import Fact, Head, Stored
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.lease import SqlLease

T = TypeVar("T", SqlFacts, SqlLease)


class Opened(Generic[T]):
    """What is opened on a file, as long as that file is there.

    Args:
        place: the file.
        open: opens it.
        create: whether `open` may make it where it is missing: once, at the beginning.
    """

    def __init__(self, place: Path, open: Callable[[], T], *, create: bool) -> None:
        self._place, self._create = place, create
        self._open: Callable[[], T] = open
        self._lock = threading.Lock()
        self._found: tuple[int, int] | None = None
        self._opened: T | None = None

    def now(self) -> T:
        """What lies there.

        Raises:
            AdapterError: `catalog-away`; what `open` raises.
        """
        with self._lock:
            found = self._there()
            if self._opened is not None and found == self._found:
                return self._opened
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            if found is None and not self._create:
                raise AdapterError(
                    "catalog-away",
                    f"The history is not there: {self._place}",
                    why="It was, since what it decided is here. A new one in its place would begin with nothing.",
                    next="Put it back, or restore a backup; servers go on answering meanwhile.",
                )
            self._opened = self._open()
            self._create, self._found = False, self._there()
            return self._opened

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _there(self) -> tuple[int, int] | None:
        try:
            stat = self._place.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino


class ReturningFacts:
    """See `ports.Facts`; every method raises `catalog-away` beside what `SqlFacts` does."""

    def __init__(self, opened: Opened[SqlFacts]) -> None:
        self._opened = opened

    def append(self, facts: Sequence[Fact], *, expect: int | None = None) -> Head:
        """Record `facts` as one transaction."""
        return self._opened.now().append(facts, expect=expect)

    def read(self, *, after: int = 0, kinds: frozenset[str] | None = None, app: str | None = None) -> Iterator[Stored]:
        """Facts up to the head at the time of the call."""
        return self._opened.now().read(after=after, kinds=kinds, app=app)

    def get(self, projection: str, key: str) -> bytes | None:
        """One row of a projection."""
        return self._opened.now().get(projection, key)

    def scan(self, projection: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Rows of a projection whose key starts with `prefix`."""
        return self._opened.now().scan(projection, prefix)

    def head(self) -> Head:
        """The end of the chain."""
        return self._opened.now().head()

    def verify(self) -> Head:
        """Walk the whole chain, and compare the state with what the facts say."""
        return self._opened.now().verify()

    def rebuild(self) -> None:
        """Fold the projections anew from the facts."""
        self._opened.now().rebuild()

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()


class ReturningLease:
    """See `ports.Lease`; every method raises `catalog-away` beside what `SqlLease` does."""

    def __init__(self, opened: Opened[SqlLease]) -> None:
        self._opened = opened

    def acquire(self, name: str, holder: str, until: datetime) -> int | None:
        """Take or extend the lease."""
        return self._opened.now().acquire(name, holder, until)

    def release(self, name: str, holder: str) -> None:
        """Give the lease back."""
        self._opened.now().release(name, holder)

    def holder(self, name: str) -> str | None:
        """Who has it now."""
        return self._opened.now().holder(name)
