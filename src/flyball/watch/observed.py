"""What a monitor was last found to be: ok, in breach, or blind; written down when that changes, and once a day.

**Blind** is a state of its own: a monitor that cannot see (too few questions, no outcomes yet) raises no alarm, and is shown,
so that silence is never taken for health.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from flyball._kernel import facts
from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.facts import Projection, Said, Stored
from flyball._kernel.ports import Facts

State = Literal["ok", "breach", "blind"]

REPEATED = timedelta(days=1)
"""A state that does not change is written down again after so long: the points of a curve."""


class Observed(Said, frozen=True, kw_only=True, tag="watch.observed"):
    """A monitor, looked at.

    Attributes:
        monitor: its name; of a source that is watched for freshness, or of the volume, a name of our own.
        before: the state that was written last, "" at first: so one fact alone tells news from a point of a curve.
        version: the version that answered.
        estimate: what was measured; None where nothing could be.
        low, high: its 95 % interval.
        n: how many questions or rows are behind it.
        threshold: what it is held against.
    """

    monitor: str
    state: State
    before: State | Literal[""] = ""
    version: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    threshold: float | None = None
    reason: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The last that was written of a monitor, when, and since when its state has been this one."""

    last: Observed
    at: datetime
    since: datetime


def _fold(row: bytes | None, fact: Stored) -> bytes:
    said = facts.decode(fact, Observed)
    before = msgspec.json.decode(row, type=Row) if row is not None else None
    same = before is not None and before.last.state == said.state
    return facts.encode(Row(last=said, at=fact.at, since=before.since if same and before is not None else fact.at))


OBSERVED = Projection(
    "watch.observed",
    frozenset({facts.kind(Observed)}),
    lambda fact: facts.about(fact, facts.decode(fact, Observed).monitor),
    _fold,
)


def rows(log: Facts, app: str, model: str) -> dict[str, Row]:
    """Monitor -> what was last written of it."""
    found = [msgspec.json.decode(row, type=Row) for _, row in log.scan(OBSERVED.name, f"{app}/{model}/")]
    return {row.last.monitor: row for row in found}


def state_of(verdict: Verdict) -> State:
    """A failing monitor is in breach; one that is not sure is blind where nothing was measured, and else is still ok."""
    if verdict.outcome is Outcome.FAIL:
        return "breach"
    return "blind" if verdict.measurement is None else "ok"


def observed(monitor: str, version: str, verdict: Verdict) -> Observed:
    """What is written of a verdict."""
    found = verdict.measurement
    return Observed(
        monitor=monitor,
        state=state_of(verdict),
        version=version,
        estimate=found.estimate if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        n=found.n if found else 0,
        threshold=verdict.threshold,
        reason=verdict.reason,
    )


def worth_writing(before: Row | None, said: Observed, moment: datetime) -> Observed | None:
    """What is written of it: all of it with the state before, if that was another or is a day old; None otherwise."""
    if before is None:
        return said
    if before.last.state == said.state and moment - before.at < REPEATED:
        return None
    return msgspec.structs.replace(said, before=before.last.state)
