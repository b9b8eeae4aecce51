"""What others pushed and still waits in the inbox, brought into its tables: whoever is to find a row looks there alone."""

from __future__ import annotations

from flyball.cycle import arrivals, contracts, gather, pushed
from flyball.cycle.session import Session, Tell, silent
from flyball.data.ingest import Ingested
from flyball.data.kinds import Pushed


def ingest(session: Session, tell: Tell = silent) -> list[Ingested]:
    """Ingest what waits, and no other file; to be called under the lease on the tables.

    Raises:
        DataError, AdapterError, StateError: as `gather.gather`; what was ingested before stays.
    """
    inbox = session.inbox
    sources = {source.name: source.at.name for source in session.app.sources if isinstance(source.at, Pushed)}
    if inbox is None or not any(inbox.files(name) for name in sources.values()):
        return []
    contracts.settle(session, tell)
    gather.repaired(session)
    done: list[Ingested] = []
    for each in arrivals.look(session).pending:
        if each.source.name in sources and (problem := gather.one(session, each, done, tell)) is not None:
            raise problem
    pushed.clear(session, arrivals.ingested)
    gather.follow(session)
    return done
