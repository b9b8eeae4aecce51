"""When a model is trained anew, and what came of the last time.

A trigger asks; a pause, a rollout that is not over, a training that runs, and the rest after the last one, hold it back. A
decision to train is written down with its cutoff before anything runs, and its end with what came of it: so a loop that died
in between knows what it had begun, and goes on with the very same training.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from flyball._kernel import facts
from flyball._kernel.durations import short
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball.cycle import arrivals, erasures, snapshot, steps
from flyball.cycle.session import Session
from flyball.cycle.steps import Pinned
from flyball.data import contract
from flyball.learn.model import Model
from flyball.release import rollout, version
from flyball.watch import observed
from flyball.watch.monitor import Breach, Every, Trigger


class Retraining(Said, frozen=True, kw_only=True, tag="cycle.retraining"):
    """A training was decided upon: from what was known before `until`."""

    reason: str
    until: datetime


class Retrained(Said, frozen=True, kw_only=True, tag="cycle.retrained"):
    """It is over: what its gates decided and which of them stood in the way, or the code of what stopped it."""

    until: datetime
    decision: str = ""
    reason: str = ""
    failed: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The last training: why, from when on, until when it learned, and how it ended (None: not yet)."""

    reason: str
    until: datetime
    began: datetime
    ended: datetime | None = None
    decision: str = ""
    failed: str = ""


def _fold(row: bytes | None, fact: Stored) -> bytes:
    if fact.kind == facts.kind(Retraining):
        said = facts.decode(fact, Retraining)
        return facts.encode(Row(reason=said.reason, until=said.until, began=fact.at))
    end = facts.decode(fact, Retrained)
    before = msgspec.json.decode(row or b"", type=Row)
    return facts.encode(msgspec.structs.replace(before, ended=fact.at, decision=end.decision, failed=end.failed))


ERASED = "rows that it learned from were erased"
"""Asks for a training wherever any trigger is declared; without one, `status` says so and a person decides."""

BEGUN = frozenset({facts.kind(Retraining)})
TRAININGS = Projection(
    "cycle.trainings", frozenset({facts.kind(Retraining), facts.kind(Retrained)}), facts.about, _fold
)


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to train now (`until` says from what), why or why not, and when time alone may change that."""

    until: datetime | None
    why: str
    next: datetime | None = None


def last(session: Session, model: Model) -> Row | None:
    """The last training that a trigger asked for."""
    row = session.facts.get(TRAININGS.name, f"{session.app.name}/{model.name}")
    return msgspec.json.decode(row, type=Row) if row is not None else None


def due(session: Session, model: Model) -> Due:
    """Whether a model is to be trained now."""
    now = session.clock.now()
    before, pin = last(session, model), steps.pin(session.facts, session.app.name, model.name)
    state = rollout.now(session.facts, session.app.name, model.name)
    policy = session.app.retrain
    if before is not None and before.ended is None:
        return Due(until=before.until, why=f"a training that was begun is not over: {before.reason}")
    if pin is None:
        return Due(until=None, why="not trained yet: flyball apply pins its first data")
    asked = [found for trigger in policy.triggers if (found := _asks(session, model, pin, trigger))]
    asked += [(since, ERASED)] if policy.triggers and (since := _erased(session, model)) is not None else []
    reasons = [why for when, why in asked if when is not None and when <= now]
    upcoming = min((when for when, _ in asked if when is not None and when > now), default=None)
    if not reasons:
        later = "; ".join(why for _, why in asked)
        return Due(until=None, why=later or "nothing asks for a training", next=upcoming)
    reason = "; ".join(reasons)
    if state.paused:
        return Due(until=None, why=f"{reason}, but paused: {state.paused}")
    if state.candidate:
        return Due(until=None, why=f"{reason}, but {state.candidate} is on its way")
    if before is not None and now < before.began + policy.rest:
        rested = before.began + policy.rest
        return Due(until=None, why=f"{reason}, but rests until {rested:%Y-%m-%d %H:%M} UTC", next=rested)
    return Due(until=now, why=reason)


def _erased(session: Session, model: Model) -> datetime | None:
    """Since when the model's last version is one that learned from rows that were erased."""
    made = version.versions(session.facts, session.app.name, model.name)
    return erasures.marked(session).get(made[-1].version) if made else None


def _asks(session: Session, model: Model, pin: Pinned, trigger: Trigger) -> tuple[datetime | None, str] | None:
    """When a trigger asks (or asked), None where it is not known; and in which words. None where there are none."""
    match trigger:
        case Every():
            when = pin.cutoff + trigger.span
            words = f"every {short(trigger.span)}: what it learned from ends {pin.cutoff:%Y-%m-%d %H:%M} UTC"
            if when <= session.clock.now() and not _news(session, model, pin):
                return None, f"{words}, and nothing came after it"
            return when, words
        case Breach():
            rows = observed.rows(session.facts, session.app.name, model.name)
            bad = [row for name, row in rows.items() if name in trigger.monitors and row.last.state == "breach"]
            fresh = [row for row in bad if row.at > pin.cutoff]
            if not fresh:
                return None
            told = ", ".join(f"{row.last.monitor} since {row.since:%Y-%m-%d %H:%M} UTC" for row in fresh)
            return min(row.since for row in fresh), f"breach: {told}"
        case _:
            grown = _grown(session, model, pin)
            if grown < trigger.rows:
                return None
            return session.clock.now(), f"{grown:,} new rows"


def _news(session: Session, model: Model, pin: Pinned) -> bool:
    """Whether a training now would see anything that the last did not: the same rows would give the same version."""
    batches = snapshot.believed(session, model)
    if any(batch < pin.batches.get(table, 0) for table, batch in batches.items()):
        return False  # less is believed now than was learned from
    if batches != pin.batches:
        return True
    return min(session.clock.now(), snapshot.greatest(session, model, batches)) > pin.cutoff


def _grown(session: Session, model: Model, pin: Pinned) -> int:
    """Rows that came into the model's tables after the pinned batches, and may be learned from."""
    believed = snapshot.believed(session, model)
    sources = [s.name for s in session.app.sources if contract.spec(s.contract).name in believed]
    said = [each for name in sources for each in arrivals.ingested(session, name)]
    return sum(s.accepted for s in said if pin.batches.get(s.table, 0) < s.batch <= believed[s.table])


def begin(session: Session, model: Model, what: Due) -> Fact | None:
    """The fact of a decision to train; None where it was decided before."""
    before = last(session, model)
    if what.until is None or (before is not None and before.ended is None):
        return None
    return Fact(session.app.name, model.name, Retraining(reason=what.why, until=what.until))


def unfinished(session: Session) -> Iterator[tuple[Model, Row]]:
    """The trainings that were begun and are not over."""
    for model in session.app.models:
        row = last(session, model)
        if row is not None and row.ended is None:
            yield model, row
