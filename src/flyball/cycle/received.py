"""What others pushed and still waits in the inbox, brought into its tables: by itself, beside the full pass that an apply is.

So whoever is to find a row looks in the tables alone, and a row that was pushed is in the online features a moment later.
"""

from __future__ import annotations

from itertools import islice

from flyball.cycle import arrivals, contracts, gather, pushed, suspected
from flyball.cycle.session import Session, Tell, silent
from flyball.data.ingest import Ingested


def ingest(session: Session, tell: Tell = silent, most: int | None = None) -> list[Ingested]:
    """Ingest what waits, and no other file; to be called under the lease on the tables.

    Args:
        most: commits of each source, the earliest bodies first; None for all.

    Raises:
        DataError, AdapterError, StateError: the first that kept a body from being ingested; the others are in.
    """
    if not pushed.waiting(session):
        return []
    contracts.settle(session, tell)
    done = [said for said in gather.repaired(session) if isinstance(said, Ingested)]
    names = {source.name for source in session.app.sources if source.at.together}
    groups = [
        group
        for name in sorted(names)
        for group in islice(arrivals.groups(arrivals.look(session, {name}).pending), most)
    ]
    failed = [
        (each.source.name, problem)
        for group in groups
        for each, problem in zip(group, gather.several(session, group, done, tell), strict=True)
        if problem is not None
    ]
    gather.complete(session, {each.name for each in session.app.sources} - names | {name for name, _ in failed})
    pushed.clear(session, done)
    gather.follow(session)
    suspected.look(session, done, tell)
    if failed:
        raise failed[0][1]
    return done
