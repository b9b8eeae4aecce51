"""The chronicle of a model, as values: who answered when, what was decided and why, and what came of the answers.

It holds aggregates, names of versions and the words of decisions; never a row, a key or an input. `cycle.chronicle` gathers it,
`watch.report` makes it something to read.

    span      a version was the champion              way       a version went through the stages, and how that ended
    attempt   one version asked one question          answered  a question whose answer left, whoever gave it
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from flyball._kernel.conditions import Measurement, Verdict
from flyball.watch.observed import State


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A version was the champion from `start` to `end` (None: it still is).

    Attributes:
        by, why: who made it champion, and why.
        fell: why it was rolled back; "" if it was not.
    """

    version: str
    start: datetime
    end: datetime | None
    by: str
    why: str
    fell: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate was in a stage, with a share of the traffic, until `end` (None: it still is)."""

    name: str
    share: float
    start: datetime
    end: datetime | None


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One version on its way to be champion.

    Attributes:
        ended: "promoted" or "aborted"; "" while it is on its way.
        why: why it ended.
        by: who sent it; `overridden`: although its gates had not released it.
        questions: asked meanwhile; `both` of them computed by it and by another version.
    """

    version: str
    by: str
    overridden: bool
    stages: list[Stage]
    ended: str
    why: str
    questions: int = 0
    both: int = 0

    @property
    def start(self) -> datetime:
        """When it entered its first stage."""
        return self.stages[0].start

    @property
    def end(self) -> datetime | None:
        """When it was over."""
        return self.stages[-1].end


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about who answers, in words, with the numbers that it was made from."""

    at: datetime
    kind: str
    words: str
    verdicts: list[Verdict]


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training: why it began, and what came of it.

    Attributes:
        began: when it was decided upon; for an apply that was asked for, when its version was registered.
        ended: None while it runs.
        version: that it registered; "" for none.
        decision: of its gates.
        failed: the code of what stopped it.
    """

    began: datetime
    ended: datetime | None
    why: str
    version: str
    decision: str
    failed: str = ""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor was found to be at one time; see `watch.observed.Observed`."""

    at: datetime
    state: State
    version: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    threshold: float | None
    reason: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor over time; never empty. `watches`: what it measures, in words; "" for one of our own."""

    monitor: str
    watches: str
    points: list[Point]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What one version's answers of one period were worth, on the questions that are settled by now.

    Attributes:
        answered: of the n questions, those that it answered; the others it computed beside whoever did.
    """

    start: datetime
    end: datetime
    version: str
    measured: Measurement
    answered: int


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A metric over time.

    Attributes:
        days: the length of a period.
        threshold: of the monitor that watches it, if one does.
        unmeasured: settled answers in periods that had too few of them.
    """

    metric: str
    better: str
    days: int
    threshold: float | None
    points: list[Quality]
    unmeasured: int


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts of one day (UTC), version and role; `failed` of them gave no answer."""

    day: str
    version: str
    role: str
    attempts: int
    failed: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, counted: `questions` = `answered` + `failed`, `attempts` = `answered` + `shadows` + `failures`.

    Attributes:
        questions: that were asked.
        answered: whose answer left.
        failed: that nobody could answer.
        attempts: of all versions at all questions.
        shadows: attempts that gave an answer beside the one that left.
        failures: attempts that gave none.
        codes: error code -> attempts that failed with it.
        settled, void, pending: of the questions that were answered, by what is known of them now.
        unmatched: outcomes that were posted and reach no question.
        dropped: attempts and outcomes that were too many to be looked at; nothing above knows of them.
    """

    questions: int = 0
    answered: int = 0
    failed: int = 0
    attempts: int = 0
    shadows: int = 0
    failures: int = 0
    codes: dict[str, int] = {}
    settled: int = 0
    void: int = 0
    pending: int = 0
    unmatched: int = 0
    dropped: int = 0


class Chronicle(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, as of `at`.

    Attributes:
        paused: why the loop takes no step; "" if it does.
        held: versions that fell, and why.
        ways, spans, events, trainings: in the order of time.
    """

    app: str
    model: str
    at: datetime
    champion: str
    since: datetime | None
    epoch: int
    paused: str
    held: dict[str, str]
    spans: list[Span]
    ways: list[Way]
    events: list[Event]
    trainings: list[Training]
    monitors: list[Series]
    quality: list[Curve]
    days: list[Count]
    totals: Totals
