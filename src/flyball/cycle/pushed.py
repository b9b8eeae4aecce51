"""What was pushed leaves the inbox when its rows are in their table and its fact is recorded: after both, never between.

A crash in between leaves the body there; the next look sees by its name and digest that it is ingested, and it leaves then.
Where several sources read what is pushed under one name, it stays until the last of them has it.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.cycle.session import Session
from flyball.data.ingest import Ingested
from flyball.data.kinds import Pushed


def clear(session: Session, ingested: Callable[[Session, str], list[Ingested]]) -> None:
    """Take out of the inbox what `ingested` says of all sources that read it."""
    if session.inbox is None:
        return
    for name in {source.at.name for source in session.app.sources if isinstance(source.at, Pushed)}:
        waiting = session.inbox.files(name)
        if not waiting:
            continue
        readers = [source.name for source in session.app.sources if source.at == Pushed(name)]
        done = [{(said.file, said.digest) for said in ingested(session, reader)} for reader in readers]
        session.inbox.drop(name, [file for file in waiting if all((file.name, file.digest) in each for each in done)])
