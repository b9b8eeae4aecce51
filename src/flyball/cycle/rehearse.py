"""Rehearse: history once more through the whole loop, on a virtual clock, before any of it touches a user.

Every question of a span is asked at its declared moment by the code that serves, its outcome is posted when it settled, and
the loop looks as often as it is told to: retrains, shadows, promotes, aborts, as it would. Places are in memory, durations are
drawn from a seed, and what is said is hashed into a trace: one seed, one trace, so a policy can be compared with another.

Not rehearsed: the network, a full disk, two processes at once. A tail of shadows is never dropped here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import polars as pl

from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import DataError, DeclarationError
from flyball.cycle import answering, apply, reconcile, retrain
from flyball.cycle.reconcile import Decided, Here
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.cycle.watching import Watch
from flyball.data import contract, dataset
from flyball.data.tables import OUTCOME_KNOWN
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.release import rollout
from flyball.serve import outcomes
from flyball.serve.journal import Recorder
from flyball.serve.outcomes import New
from flyball.serve.router import Router

BY = "rehearsal"
"""Who posts the outcomes of a rehearsal."""

SHARES = 1 << 20
"""Into so many parts questions are cut by the hash of their key, of which a sample takes some."""


class Movable(Clock, Protocol):
    """A clock that the rehearsal moves."""

    def advance(self, duration: timedelta) -> datetime:
        """Move on; returns the new present."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is rehearsed.

    Attributes:
        start, end: questions asked from `start` on, until `end`.
        every: how often the loop looks.
        sample: the share of the questions that are asked, by the hash of their key.
    """

    start: datetime
    end: datetime
    every: timedelta = timedelta(hours=6)
    sample: float = 1.0


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        trace: the hash of all that was said: the same for the same seed, code and data.
        asked, refused: questions, and those of them that broke the contract.
        answered: "version role" -> attempts, of those that left and of shadows.
        outcomes: accepted, and void among them.
        trainings: that a trigger asked for.
        decided: in order.
        champions: model -> who answers at the end.
    """

    trace: str
    transactions: int
    asked: int
    refused: int
    answered: dict[str, int]
    outcomes: dict[str, int]
    trainings: int
    decided: list[Decided]
    champions: dict[str, str]


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    asked: datetime
    model: str
    body: bytes
    outcome: float | str | None
    settled: datetime


def rehearse(session: Session, clock: Movable, span: Span, tell: Tell = silent) -> Rehearsed:
    """Live through a span.

    Args:
        session: in memory; nothing in it is kept.
        clock: the session's, at or before `span.start`.
        span: what is rehearsed.

    Raises:
        DeclarationError: `rehearsal-span`.
        DataError: `nothing-to-rehearse`, or what the first training raises.
    """
    if not span.start < span.end or not 0 < span.sample <= 1 or span.every <= timedelta():
        raise DeclarationError(
            "rehearsal-span",
            f"There is nothing between {span.start} and {span.end}, at a sample of {span.sample:g}.",
            why="A rehearsal goes forward through a share of the questions, in steps.",
            next="flyball rehearse APP --from 2013-07-01 --to 2013-08-01 --sample 0.1",
        )
    _to(clock, span.start)
    apply.apply(session, until=span.start, tell=tell)
    questions = [q for model in session.app.models for q in _questions(session, model, span)]
    if not questions:
        raise DataError(
            "nothing-to-rehearse",
            f"No question was asked between {span.start:%Y-%m-%d} and {span.end:%Y-%m-%d}.",
            where=session.app.place,
            why="Questions are the rows of the tables whose declared moment lies in that span.",
            next="Choose another span, or a greater --sample.",
        )
    return _Stage(session, clock, span, tell).play(sorted(questions, key=lambda q: (q.asked, q.model, q.body)))


class _Stage:
    """The rehearsal while it goes on."""

    def __init__(self, session: Session, clock: Movable, span: Span, tell: Tell) -> None:
        self._session, self._clock, self._span, self._tell = session, clock, span, tell
        self._watch, self._worker = Watch(session), Here(session, tell)
        self._router = Router(clock)
        self._answered: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._refused = 0
        self._waiting: list[tuple[datetime, New]] = []
        self._decided: list[Decided] = []

    def play(self, questions: list[_Question]) -> Rehearsed:
        """Question after question, looking in between."""
        recorder = self._session.journal.open(self._session.app.name, head=self._session.facts.head)
        rest, now = iter(questions), self._span.start
        following = next(rest, None)
        while now < self._span.end:
            now = self._look(now)
            while following is not None and following.asked < now:
                self._ask(following, recorder)
                following = next(rest, None)
            _to(self._clock, now)
            self._post(now)
        self._look(now)
        recorder.close()
        return self._told(len(questions))

    def _look(self, now: datetime) -> datetime:
        """Let the loop look until it has nothing to do at this moment; returns when to look next."""
        while True:
            looked = reconcile.reconcile(self._session, self._watch, self._worker, self._tell)
            self._decided += [Decided(at=looked.at, what=what) for what in looked.did]
            for what in looked.did:
                self._tell(Event(step=f"{looked.at:%Y-%m-%d %H:%M}", state="done", detail=what))
            if not looked.did and not looked.working:
                break
        self._router.swap(answering.routed(self._session, {n: w.routed for n, w in self._router.ways.items()}))
        due = [seen.next for seen in looked.models if seen.next is not None and seen.next > now]
        return min([now + self._span.every, self._span.end, *due])

    def _ask(self, question: _Question, recorder: Recorder) -> None:
        _to(self._clock, question.asked)
        way = self._router.ways[question.model]
        try:
            (row,), _ = way.routed.champion.decode(question.body)
        except DataError:
            self._refused += 1
            return
        (given,) = self._router.ask(way, [row], question.asked, 0.0)
        shadow = self._router.shadow(given.shadow) if given.shadow is not None else None
        for answer in (*given.failed, given.answer, shadow):
            if answer is not None:
                recorder.record([answer])
                self._answered[f"{answer.version} {answer.role}"] += 1
        if given.answer is not None:
            new = New(
                received=question.settled,
                by=BY,
                model=question.model,
                prediction="",
                key=given.answer.key,
                value=outcomes.of_class(question.outcome) if isinstance(question.outcome, str) else question.outcome,
                settled=question.settled,
            )
            self._waiting.append((question.settled, new))

    def _post(self, now: datetime) -> None:
        ready = sorted((at, n) for n, (at, _) in enumerate(self._waiting) if at < now)
        self._session.outcomes.post([self._waiting[n][1] for _, n in ready])
        self._outcomes["accepted"] += len(ready)
        self._outcomes["void"] += sum(self._waiting[n][1].value is None for _, n in ready)
        self._waiting = [each for each in self._waiting if each[0] >= now]

    def _told(self, asked: int) -> Rehearsed:
        session = self._session
        head = session.facts.head()
        trainings = session.facts.read(kinds=retrain.BEGUN, app=session.app.name)
        return Rehearsed(
            trace=head.trace,
            transactions=head.tx,
            asked=asked,
            refused=self._refused,
            answered=dict(sorted(self._answered.items())),
            outcomes=dict(self._outcomes),
            trainings=sum(1 for _ in trainings),
            decided=self._decided,
            champions={name: rollout.now(session.facts, session.app.name, name).champion for name in session.models},
        )


def _questions(session: Session, model: Model, span: Span) -> Iterator[_Question]:
    """The rows of the question's table as requests, with what came of them; each key once, as it was last known."""
    spec, asked = contract.spec(model.question), model.asked
    rows = dataset.last(
        dataset.read(session.tables, model.question, dataset.latest(session.tables, model.question)), spec
    )
    moment = pl.col(asked.column.name) - pl.lit(asked.lead)
    rows = rows.with_columns(_asked=moment).filter(pl.col("_asked").is_between(span.start, span.end, closed="left"))
    if span.sample < 1:
        part = pl.struct(spec.key).hash(seed=0) % SHARES
        rows = rows.filter(part < int(span.sample * SHARES))
    request = [column.name for column in spec.request]
    wait = spec.void_after or timedelta()
    said = pl.col(model.predicts.name).cast(pl.String if models.task(model).classes else pl.Float64)
    taken = rows.select("_asked", OUTCOME_KNOWN, *request, _outcome=said)
    for row in taken.sort("_asked", *spec.key).collect().iter_rows(named=True):
        settled = row[OUTCOME_KNOWN] or row[asked.column.name] + wait
        body = msgspec.json.encode({name: row[name] for name in request if row[name] is not None})
        yield _Question(
            asked=row["_asked"],
            model=model.name,
            body=body,
            outcome=row["_outcome"],
            settled=max(settled, row["_asked"]),
        )


def _to(clock: Movable, moment: datetime) -> None:
    """Move the clock to a moment, unless it is there already."""
    ahead = moment - clock.now()
    if micros(moment) > micros(clock.now()):
        clock.advance(ahead)
