"""Reconcile: look at what is declared and what is recorded, and take the next step; again and again.

Level-driven, as a Kubernetes controller: a pass decides from state alone, never from what woke it. Wake-ups that are dropped,
repeated or reordered, and a crash at any point, end in the same state. A pass is short; what takes long (ingest and training)
is given to a **worker** and looked at again in the next pass, so a candidate that fails is aborted while a training runs.

    servers that died -> what the worker came back with -> who answers -> what was seen -> new data and code -> training
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec

from flyball._kernel.conditions import Outcome
from flyball._kernel.errors import FlyballError, RetryableError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import account, apply, arrivals, artifacts, causes, expectations, gather, pipeline, retrain, steps
from flyball.cycle.apply import ModelApplied
from flyball.cycle.retrain import Retrained, Retraining
from flyball.cycle.session import TAKEN, Event, Session, Tell, held, silent
from flyball.cycle.steps import Failed, Planned
from flyball.cycle.watching import Watch
from flyball.cycle.work import Work
from flyball.data import contract
from flyball.learn.model import Model
from flyball.release import moves, rollout, route
from flyball.release.moves import Move
from flyball.release.rollout import RolledBack, Rollout
from flyball.watch import observed
from flyball.watch.observed import Observed

RETRY = timedelta(minutes=10)
"""After an apply failed that no training asked for (a file that cannot be read, say), a worker rests so long."""

LEASE = "loop"
"""Who holds it reconciles; another that is started waits."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker came back with.

    Attributes:
        until: what it was begun with.
        models: how it stands with each model that was brought forward.
        failed: the code of what stopped it; "" if nothing did.
    """

    until: datetime | None
    models: tuple[ModelApplied, ...] = ()
    failed: str = ""


class Worker(Protocol):
    """Where heavy steps run: in a child process with limited memory, or here and now."""

    def busy(self) -> str:
        """What it is at; "" for nothing."""

    def rests(self) -> str:
        """Why an apply that no training asked for is not tried again yet; "" if it may be."""

    def begin(self, until: datetime | None, model: str) -> None:
        """Apply: all that is pending, or (with `until`) a training of one model from what was known before then."""

    def ended(self) -> Ended | None:
        """What came of the last that was begun, once; None before it is over."""


class ModelSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop thinks of one model, and what it will do next and why.

    Attributes:
        release: what the rollout waits for, or what was just decided.
        training: why a model is trained now, or is not.
        next: when time alone may change one of them.
        monitors: name -> state and why.
    """

    model: str
    champion: str
    candidate: str
    release: str
    training: str
    next: datetime | None
    monitors: dict[str, str]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the loop did, and when by its clock."""

    at: datetime
    what: str


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """One pass of the loop.

    Attributes:
        at: when it looked, by its clock.
        working: what the worker is at.
        hindered: why nothing can be begun; "" if it can.
        did: what was decided in this pass.
        recent: what was decided lately, this pass included, the latest last.
    """

    at: datetime
    working: str
    models: list[ModelSeen]
    sources: dict[str, str]
    did: list[str]
    hindered: str = ""
    recent: list[Decided] = []


def reconcile(session: Session, watch: Watch, worker: Worker, tell: Tell = silent) -> Looked:
    """One pass; the caller holds the lease `LEASE`.

    Raises:
        StateError, AdapterError: what is stored cannot be used; the next pass looks anew.
    """
    did: list[str] = []

    def say(step: str, what: str) -> None:
        did.append(what)
        tell(Event(step=step, state="done", detail=what))

    account.account(session)
    _collect(session, worker, say)
    watch.refresh()
    moved, problems = list[Move](), list[FlyballError]()
    for model in session.app.models:
        try:
            moved.append(_model(session, model, watch, say))
        except FlyballError as problem:
            problems.append(problem)
    route.sync(session.facts, session.routes, session.app.name, session.models)
    # All models are judged before anything else may fail: what cannot be read must keep no bad candidate answering.
    if problems:
        raise problems[0]
    seen = [(move, watch.monitors(model)) for model, move in zip(session.app.models, moved, strict=True)]
    for model, (_, monitors) in zip(session.app.models, seen, strict=True):
        _write(session, model.name, monitors)
    sources = watch.sources()
    _write(session, "", sources)
    try:
        _work(session, watch, worker, say)
        hindered = _paused(session)
    except FlyballError as problem:
        hindered = f"nothing can be begun: {problem}"
    return Looked(
        at=session.clock.now(),
        working=worker.busy(),
        hindered=hindered,
        models=[_seen(session, model, *found) for model, found in zip(session.app.models, seen, strict=True)],
        sources={said.monitor: _told(said) for said in sources},
        did=did,
    )


Say = Callable[[str, str], None]


def _collect(session: Session, worker: Worker, say: Say) -> None:
    """What the worker came back with; a training that nobody works on any more is over, or is begun again below."""
    ended = worker.ended()
    if ended is None or ended.failed == TAKEN:
        return  # nothing, or another apply was at work: what was begun is begun again
    if ended.failed:
        say("work", f"the work failed: {ended.failed}; whoever answers keeps answering")
        _note_failure(session, ended.failed)
    came = {each.model: each for each in ended.models}

    def over() -> list[Fact]:
        return [
            Fact(session.app.name, model.name, _retrained(row.until, ended, came.get(model.name)))
            for model, row in retrain.unfinished(session)
            if row.until == ended.until and (model.name in came or ended.failed)
        ]

    for fact in rollout.decided(session.facts, over):
        found, said = came.get(fact.model), fact.said
        name = found.version if found is not None else fact.model
        if isinstance(said, Retrained):
            told = said.decision or f"failed, {said.failed}"
            say("train", f"{name}: {told}" + (f", {said.reason}" if said.reason else ""))


def _retrained(until: datetime, ended: Ended, found: ModelApplied | None) -> Retrained:
    """What came of a training."""
    if found is None:
        return Retrained(until=until, decision="", failed=ended.failed)
    against = "; ".join(moves.words(v) for v in found.verdicts if v.outcome is not Outcome.PASS)
    return Retrained(until=until, decision=found.decision, failed=ended.failed, reason=against)


def _note_failure(session: Session, code: str) -> None:
    """Write down of what is next what a worker that died could not: it is told, and not tried again before its rest."""

    def failures() -> list[Fact]:
        found = arrivals.look(session)
        files = [each.file.name for each in found.pending] + [each.source.name for each in found.hidden]
        next_ = [("", "ingest", files[0])] if files else []
        if not files:
            next_ = [(m.name, todo.step, todo.key) for m in session.app.models for todo in _todo(session, m)[:1]]
        return [
            Fact(session.app.name, model, Failed(step=step, key=key, code=code))
            for model, step, key in next_
            if not _failed_lately(session, model, step, key)
        ]

    rollout.decided(session.facts, failures)


def _todo(session: Session, model: Model) -> list[Planned]:
    """The steps of a model that are not done."""
    pin = steps.pin(session.facts, session.app.name, model.name)
    return [p for p in pipeline.walk(Work(session, model, pin, silent)) if p.done is None]


def _model(session: Session, model: Model, watch: Watch, say: Say) -> Move:
    patience = session.app.release.patience
    judged = rollout.now(session.facts, session.app.name, model.name)
    verdicts = watch.guards(model, judged)
    found: list[Move] = []

    def choose(now: Rollout) -> Sequence[Said]:
        if (now.candidate, now.stage, now.term) != (judged.candidate, judged.stage, judged.term):
            found.append(
                Move(said=None, why="somebody decided while the guards were judged; the next look judges anew")
            )
            return []
        found.append(_followed(session, model, moves.decide(now, session.clock.now(), verdicts, patience)))
        said = found[-1].said
        return [said] if said is not None else []

    for each in rollout.record(session.facts, session.app.name, model.name, choose):
        say("release", rollout.told(each))
    return found[-1]


def _followed(session: Session, model: Model, move: Move) -> Move:
    """The move, unless it returns to a version that no server of this code can answer by."""
    if not isinstance(move.said, RolledBack):
        return move
    manifest = artifacts.load_manifest(session, move.said.to)
    changed = causes.changed_features(model, manifest.causes["examples"])
    if not changed:
        return move
    why = f"{move.why}; but {move.said.to} reads other features ({', '.join(changed)}), by which these servers cannot answer"
    return Move(said=None, why=why)


def _write(session: Session, model: str, said: Sequence[Observed]) -> None:
    """Write down what is new of these monitors."""

    def new() -> list[Fact]:
        before, now = observed.rows(session.facts, session.app.name, model), session.clock.now()
        found = (observed.worth_writing(before.get(one.monitor), one, now) for one in said)
        return [Fact(session.app.name, model, each) for each in found if each is not None]

    rollout.decided(session.facts, new)


def _work(session: Session, watch: Watch, worker: Worker, say: Say) -> None:
    """Give the worker what is to do: new data and changed code first, then a training that is due."""
    if worker.busy():
        return
    received = watch.arriving.left(session) if _paused(session) else watch.arriving.take(session, silent)
    outstanding = _outstanding(session, received=received)
    if outstanding and not worker.rests():
        say("work", outstanding)
        worker.begin(None, "")
        return
    _follow(session, watch)
    for model in session.app.models:
        for fact in rollout.decided(session.facts, partial(_begun, session, model)):
            if isinstance(fact.said, Retraining):
                say("train", f"{model.name} is trained anew: {fact.said.reason}")
        row = retrain.last(session, model)
        if row is not None and row.ended is None:
            worker.begin(row.until, model.name)
            return


def _begun(session: Session, model: Model) -> list[Fact]:
    """The decision to train, where one is due that was not written down yet."""
    fact = retrain.begin(session, model, retrain.due(session, model))
    return [fact] if fact is not None else []


def _follow(session: Session, watch: Watch) -> None:
    """Bring the online features up to tables that moved: an apply does, unless it died between the two."""
    heads = {name: session.tables.head(name).batch for name in (contract.spec(t).name for t in session.app.tables())}
    if heads == watch.followed:
        return
    try:
        with held(session, apply.LEASE):
            gather.follow(session)
    except RetryableError as problem:
        if problem.code != TAKEN:
            raise
    else:
        watch.followed = heads


def _outstanding(session: Session, *, received: bool) -> str:
    """What an apply would do, and why; "" if nothing, or if it failed for the same causes a while ago."""
    if _paused(session):
        return ""
    # What was pushed since a moment ago is taken in by the next pass.
    found = arrivals.look(session, {each.name for each in session.app.sources if not (received and each.at.together)})
    if found.pending:
        n = len(found.pending)
        return f"{n} new or changed file{'s' if n > 1 else ''}: {found.pending[0].file.name}"
    if found.hidden:  # an apply says so as a failure, which is told; until its rest is over, trainings go on
        return f"{found.hidden[0].source.name} cannot be looked at: {found.hidden[0].problem.what}"
    if tables := expectations.waiting(session):
        return f"{', '.join(tables)} to be judged by what is expected"
    for model in session.app.models:
        row = retrain.last(session, model)
        if row is not None and row.ended is None:
            continue
        todo = _todo(session, model)
        if todo and not _failed_lately(session, model.name, todo[0].step, todo[0].key):
            return f"{model.name}: {todo[0].step} is to be run, {'; '.join(todo[0].why)}"
    return ""


def _paused(session: Session) -> str:
    """Why nothing is ingested or applied: a pause of one model holds up both, since an apply brings all models forward."""
    states = {name: rollout.now(session.facts, session.app.name, name).paused for name in session.models}
    return "; ".join(
        f"{name} is paused, so nothing is ingested or applied: {why}" for name, why in states.items() if why
    )


def _failed_lately(session: Session, model: str, step: str, key: str) -> bool:
    """Whether this very step failed, and its rest is not over."""
    row = session.facts.get(steps.FAILURES.name, f"{session.app.name}/{model}/{step}")
    if row is None:
        return False
    failure = msgspec.json.decode(row, type=steps.Failure)
    return failure.key == key and session.clock.now() < failure.at + session.app.retrain.rest


def _seen(session: Session, model: Model, move: Move, monitors: Sequence[Observed]) -> ModelSeen:
    now = rollout.now(session.facts, session.app.name, model.name)
    due = retrain.due(session, model)
    return ModelSeen(
        model=model.name,
        champion=now.champion,
        candidate=now.candidate,
        release=move.why,
        training=due.why,
        next=min((when for when in (move.due, due.next) if when is not None), default=None),
        monitors={said.monitor: _told(said) for said in monitors},
    )


def _told(said: Observed) -> str:
    found = "" if said.estimate is None else f" {said.estimate:.3g}"
    return f"{said.state}{found}" + (f" ({said.reason})" if said.reason else "")


class Here:
    """A worker that does it at once, in this process: for tests, and for rehearsals on a virtual clock."""

    def __init__(self, session: Session, tell: Tell = silent) -> None:
        self._session, self._tell = session, tell
        self._ended: Ended | None = None
        self._rested = session.clock.now()

    def busy(self) -> str:
        """What it came back with must be looked at first."""
        return "done" if self._ended is not None else ""

    def rests(self) -> str:
        """For ten minutes after one that failed."""
        return "after a failure" if self._session.clock.now() < self._rested else ""

    def begin(self, until: datetime | None, model: str) -> None:
        """Apply, and remember what came of it."""
        try:
            applied = apply.apply(self._session, until=until, only=model, tell=self._tell)
        except FlyballError as problem:
            self._ended = Ended(until=until, failed=problem.code)
            if until is None:
                self._rested = self._session.clock.now() + RETRY
        else:
            self._ended = Ended(until=until, models=tuple(applied.models))

    def ended(self) -> Ended | None:
        """What came of it, once."""
        ended, self._ended = self._ended, None
        return ended
