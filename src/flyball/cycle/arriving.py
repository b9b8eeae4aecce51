"""Arriving: what was pushed is taken in by the pass itself, as much as one commit brings, so that it is online a moment later.

A worker is a process that has to be started first, and a pass must be short. So a pass takes in what is little; a backlog, and
what could not be taken in, is left to the worker, as every other file. While a pass is at it a mark lies in the home: where one
is found, a process died over what waits, and the worker, whose death harms nobody, has to take it.
"""

from __future__ import annotations

from flyball._kernel.errors import DeclarationError, RetryableError
from flyball.cycle import apply, pushed, received
from flyball.cycle.pushed import MARK, Waiting
from flyball.cycle.session import TAKEN, Session, Tell, held


class Arriving:
    """What the passes of one loop have seen of the inbox. It may be forgotten: then all that waits is news."""

    def __init__(self) -> None:
        self._seen: frozenset[Waiting] = frozenset()
        self._failed: frozenset[Waiting] = frozenset()

    def comes(self, session: Session) -> bool:
        """Whether anything came since the last pass."""
        return not pushed.waiting(session) <= self._seen

    def left(self, session: Session) -> bool:
        """A pass leaves what waits where it is, and so does a worker."""
        self._seen = pushed.waiting(session)
        return True

    def take(self, session: Session, tell: Tell) -> bool:
        """Take in what waits, up to one commit a source; returns whether that was all of it, so that no worker is needed.

        What failed once is the worker's, so that it costs no pass any more, and keeps nobody waiting who came later.

        Raises:
            StateError, AdapterError: the tables cannot be used; all that waits still does.
        """
        self._seen = waiting = pushed.waiting(session)
        mark = session.home / MARK
        if not waiting:
            mark.unlink(missing_ok=True)
            return True
        try:
            with held(session, apply.LEASE):
                if mark.exists():
                    pushed.clear(session)  # it may have died when all was in
                    return not pushed.waiting(session) & waiting
                if waiting <= self._failed:
                    return False
                mark.touch()
                try:
                    failed = frozenset(received.take(session, [], tell, most=1, but=self._failed))
                finally:
                    mark.unlink(missing_ok=True)
        except DeclarationError:
            failed = waiting  # a rule that does not run on one of them: the worker says so, and rests
        except RetryableError as problem:
            if problem.code != TAKEN:
                raise
            return False
        still = pushed.waiting(session) & waiting
        self._failed = (self._failed | failed) & still
        self._seen = waiting - (still - self._failed)  # a backlog is worth another pass at once
        return not still
