"""The account of the journal: what became of every answer of a process that has ended, as a fact.

A process that was killed may have handed out numbers that nobody finds again. They are counted here, once a segment, so that
served = recorded + unlogged + a bounded unknown, and the last two raise an alarm (`watch.alert`) instead of being silence.
"""

from __future__ import annotations

from flyball._kernel import facts
from flyball._kernel.facts import Fact, Projection, Said
from flyball.cycle.session import Session


class Accounted(Said, frozen=True, kw_only=True, tag="serve.accounted"):
    """One segment of the journal is over.

    Attributes:
        closed: whether its process closed it; otherwise it died.
        recorded: answers in it.
        refused: answers that could not be written, whose callers were told so.
        unknown: numbers that may have been handed out and are nowhere. None of them was acknowledged, unless the durability
            was "interval", where an answer may leave before it is recorded, or a slow disk was not waited for.
        unlogged: answers that left though the disk did not take them, as `Settings.when_full` said.
    """

    segment: str
    durability: str
    closed: bool
    recorded: int
    refused: int
    unknown: int
    unlogged: int = 0


ACCOUNTS = Projection(
    "serve.accounts",
    frozenset({facts.kind(Accounted)}),
    lambda fact: facts.about(fact, facts.decode(fact, Accounted).segment),
    lambda _, fact: fact.said,
)


def account(session: Session) -> list[Accounted]:
    """Record the account of every segment that has ended since the last time; returns the new ones."""
    name = session.app.name
    known = {key.removeprefix(f"{name}//") for key, _ in session.facts.scan(ACCOUNTS.name, f"{name}//")}
    new = [
        Accounted(
            segment=r.segment,
            durability=r.header.durability,
            closed=r.closed,
            recorded=r.recorded,
            refused=r.refused,
            unknown=r.unknown,
            unlogged=r.unlogged,
        )
        for r in session.journal.recover(known)
    ]
    if new:
        session.facts.append([Fact(name, "", said) for said in new])
    return new
