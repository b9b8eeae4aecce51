"""Arriving: what was pushed is taken in by the pass itself, as much as one commit brings, so that it is online a moment later.

A worker is a process that has to be started first, and a pass must be short. So a pass takes in what is little; a backlog, and
what could not be taken in, is left to the worker, as every other file. While a pass is at it a mark lies in the home: where one
is found, a process died over what waits, and the worker, whose death harms nobody, has to take it.
"""

from __future__ import annotations

from flyball._kernel.errors import AdapterError, DataError, RetryableError
from flyball.cycle import apply, pushed, received
from flyball.cycle.session import TAKEN, Session, Tell, held
from flyball.data.source import File

MARK = "receiving"
"""A file in the home, for as long as a pass takes in what was pushed."""


class Arriving:
    """What the passes of one loop have seen of the inbox. It may be forgotten: then all that waits is news."""

    def __init__(self) -> None:
        self._seen: frozenset[tuple[str, File]] = frozenset()
        self._left: frozenset[tuple[str, File]] = frozenset()

    def comes(self, session: Session) -> bool:
        """Whether anything came since the last pass."""
        return not pushed.waiting(session) <= self._seen

    def left(self, session: Session) -> bool:
        """A pass leaves what waits where it is, and so does a worker."""
        self._seen = pushed.waiting(session)
        return True

    def take(self, session: Session, tell: Tell) -> bool:
        """Take in what waits, up to one commit a source; returns whether that was all of it, so that no worker is needed.

        Raises:
            StateError, AdapterError: the tables cannot be used; all that waits still does.
        """
        self._seen = waiting = pushed.waiting(session)
        mark = session.home / MARK
        if not waiting:
            mark.unlink(missing_ok=True)
            return True
        if mark.exists() or waiting <= self._left:
            return False
        failed = False
        try:
            with held(session, apply.LEASE):
                mark.touch()
                try:
                    received.ingest(session, tell, most=1)
                finally:
                    mark.unlink()
        except RetryableError as problem:
            if problem.code != TAKEN:
                raise
            return False
        except (DataError, AdapterError) as problem:
            places = {source.place for source in session.app.sources}
            if not isinstance(problem, DataError) and problem.where not in places:
                raise  # it is not a body's: see `gather.one`
            failed = True
        still = pushed.waiting(session) & waiting
        self._left = still if failed else frozenset()
        self._seen = waiting if failed else waiting - still  # a backlog is worth another pass at once
        return not still
