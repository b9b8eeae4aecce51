"""What was pushed leaves the inbox when its rows are in their table and its fact is recorded: after both, never between.

A crash in between leaves the body there; the next look sees by its name and digest that it is ingested, and it leaves then.
Where several sources read what is pushed under one name, it stays until the last of them has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.cycle import arrivals
from flyball.cycle.session import Session
from flyball.data.ingest import Ingested
from flyball.data.kinds import Pushed
from flyball.data.source import File

MARK = "receiving"
"""A file in the home, for as long as a pass of the loop takes in what was pushed: see `arriving`."""

Waiting = tuple[str, File]
"""A body that waits, and under which name."""


def clear(session: Session, recorded: Sequence[Ingested] = ()) -> None:
    """Take out of the inbox what is ingested from all sources that read it; `recorded`: what was just now, to ask less."""
    if session.inbox is None:
        return
    now = {(said.source, said.file, said.digest) for said in recorded}
    for name in names(session):
        waiting = session.inbox.files(name)
        done = set(waiting)
        for source in session.app.sources:
            if source.at == Pushed(name):
                new = {file for file in done if (source.name, file.name, file.digest) in now}
                done = new | arrivals.already(session, source, done - new)
        session.inbox.drop(name, done)


def waiting(session: Session) -> frozenset[Waiting]:
    """What lies in the inbox for sources that are declared: (name, body)."""
    if session.inbox is None:
        return frozenset()
    return frozenset((name, file) for name in names(session) for file in session.inbox.files(name))


def names(session: Session) -> frozenset[str]:
    """Under which names rows are pushed."""
    return frozenset(source.at.name for source in session.app.sources if isinstance(source.at, Pushed))
