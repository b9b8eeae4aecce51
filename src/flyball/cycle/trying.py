"""What a search runs in: the trials that it made before it was killed, what the last search chose, and who writes trials down.

A trial is a fact as soon as it has ended. Those that end within a moment of one another are written together, so that a
search of a thousand quick trials waits for the disk a few times and not a thousand; what a crash can lose is that moment. A
search that was killed is told what it tried, by the key of its step, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DataError, DeclarationError
from flyball._kernel.facts import Fact
from flyball._kernel.ports import Facts
from flyball.cycle import steps
from flyball.cycle.session import Session
from flyball.cycle.steps import Done
from flyball.cycle.work import Work
from flyball.learn.knobs import Knob
from flyball.learn.trying import trials
from flyball.learn.trying.explore import Course, Found, Progress
from flyball.learn.trying.trials import Ended, Tried

TOGETHER: Final = 0.05
"""Seconds of trials that are written down together, at most."""


@dataclass(slots=True)
class Diary:
    """Writes the trials of one search down.

    Attributes:
        log: where.
        about: (app, model).
        key: of the step that searches.
        metric: by which trials are judged.
        timer: seconds, from any beginning.
        unwritten: the trials of the last moment; whoever ends the search writes them with its own fact.
    """

    log: Facts
    about: tuple[str, str]
    key: str
    metric: Metric
    timer: Callable[[], float]
    unwritten: list[Fact] = field(default_factory=list)
    written: float = field(init=False)

    def __post_init__(self) -> None:
        self.written = self.timer()

    def course(self, warm: Mapping[str, Knob], tell: Callable[[Progress], None]) -> Course:
        """What the search runs in.

        Args:
            warm: the knobs that are tried second.
            tell: is told after each trial.
        """
        done = self.log.get(steps.DONE.name, "/".join((*self.about, "search", self.key)))
        tried = past(self.log, self.about, self.key)
        return Course(past=tried, ended=done is not None, warm=warm, keep=self.keep, tell=tell, timer=self.timer)

    def keep(self, ended: Sequence[Ended]) -> None:
        """Write trials down, unless others were a moment ago."""
        higher = self.metric.better == "higher"
        for each in ended:
            said = Tried(key=self.key, metric=self.metric.name, higher=higher, trial=each.trial)
            self.unwritten.append(Fact(*self.about, said, {"seconds": each.seconds}))
        if self.timer() - self.written >= TOGETHER:
            self.write()

    def write(self) -> None:
        """Write down what is not yet."""
        if self.unwritten:
            self.log.append(self.unwritten)
            self.unwritten = []
        self.written = self.timer()


def search(work: Work, run: Callable[[Course], Found]) -> tuple[Found, tuple[Fact, ...]]:
    """Search under the key of the step that runs, and write down what is tried, also where nothing is found.

    Returns:
        What was found, and the trials that are yet to be written: together with the fact that the search is done.
    """
    session = work.session
    diary = Diary(session.facts, work.about, work.key, session.app.search.optimize, session.clock.monotonic)
    try:
        found = run(diary.course(_chosen(session, work.about), lambda now: work.say("search", str(now))))
    except (DataError, DeclarationError):
        diary.write()
        raise
    return found, tuple(diary.unwritten)


def past(log: Facts, about: tuple[str, str], key: str) -> tuple[Ended, ...]:
    """The trials of a search that have ended; none where none of them has a score: such a search begins anew, and says why."""
    rows = tuple(Ended(row.trial, row.seconds) for row in trials.rows(log, *about, key))
    return rows if any(each.trial.state == "complete" for each in rows) else ()


def _chosen(session: Session, about: tuple[str, str]) -> Mapping[str, Knob]:
    """The knobs that the last search of a model chose; empty where there was none, or its artifact is gone."""
    row = session.facts.get(steps.LAST.name, "/".join((*about, "search")))
    digest = msgspec.json.decode(row, type=Done).outputs.get("found", "") if row is not None else ""
    if not digest or not session.blobs.has(digest):
        return {}
    return msgspec.json.decode(session.blobs.get(digest), type=Found).knobs
