"""What others pushed and still waits in the inbox, brought into its tables: by itself, beside the full pass that an apply is.

So whoever is to find a row looks in the tables alone, and a row that was pushed is in the online features a moment later.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from flyball._kernel.errors import FlyballError
from flyball.cycle import arrivals, contracts, gather, pushed, suspected
from flyball.cycle.arrivals import Pending
from flyball.cycle.pushed import Waiting
from flyball.cycle.session import Session, Tell, silent
from flyball.data.ingest import Ingested
from flyball.data.kinds import Pushed


def ingest(session: Session, tell: Tell = silent) -> list[Ingested]:
    """Ingest what waits, and no other file; to be called under the lease on the tables.

    Raises:
        DataError, AdapterError, StateError: the first that kept a body from being ingested; the others are in.
    """
    done: list[Ingested] = []
    for problem in take(session, done, tell).values():
        raise problem
    return done


def take(
    session: Session,
    done: list[Ingested],
    tell: Tell = silent,
    most: int | None = None,
    but: Collection[Waiting] = (),
) -> dict[Waiting, FlyballError]:
    """The same, in part; returns what kept bodies from being ingested, in their order.

    Args:
        done: gets what is ingested.
        most: commits of each source, the earliest bodies first; None for all.
        but: bodies that are left where they are.

    Raises:
        AdapterError, StateError, DeclarationError: what is no body's fault.
    """
    if not pushed.waiting(session):
        return {}
    contracts.settle(session, tell)
    done += (said for said in gather.repaired(session) if isinstance(said, Ingested))
    failed: dict[Waiting, FlyballError] = {}
    unfinished = {each.name for each in session.app.sources if not each.at.together}
    for name in sorted({each.name for each in session.app.sources} - unfinished):
        pending = arrivals.look(session, {name}).pending
        groups = list(arrivals.groups([each for each in pending if _body(each) not in but]))
        tried = list(islice(groups, most))
        for group in tried:
            kept = zip(group, gather.several(session, group, done, tell), strict=True)
            failed |= {_body(each): problem for each, problem in kept if problem is not None}
        if sum(len(group) for group in tried) < len(pending) or any(_body(each) in failed for each in pending):
            unfinished.add(name)  # its history ends when all that waits is in
    gather.complete(session, unfinished)
    pushed.clear(session, done)
    gather.follow(session)
    suspected.look(session, done, tell)
    return failed


def _body(each: Pending) -> Waiting:
    assert isinstance(each.source.at, Pushed)  # noqa: S101 - no other source shows many small files
    return each.source.at.name, each.file
