"""Apply: carry the plan out, one step after the other, and write each down when it is done.

Killed anywhere, the next apply goes on after the last finished step; applied twice, the second does nothing. A step that fails
leaves everything that was before it, and whoever answered keeps answering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from flyball import app as apps
from flyball._kernel.conditions import Verdict
from flyball._kernel.errors import DataError, FlyballError, StateError
from flyball._kernel.facts import Fact
from flyball.cycle import adopting, arrivals, card, expectations, gather, judging, pipeline, snapshot, steps, suspected
from flyball.cycle.session import Event, Session, Tell, held, silent, still_held
from flyball.cycle.steps import Done, Failed, Planned
from flyball.cycle.work import Work
from flyball.learn import adopted
from flyball.learn.fit import train
from flyball.learn.model import Model
from flyball.release import rollout, route

LEASE = "apply"
"""Who holds it moves the tables and the versions of an app; nobody else does."""


class ModelApplied(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with one model."""

    model: str
    ran: list[str]
    version: str
    decision: str
    champion: str
    verdicts: list[Verdict]
    artifacts: dict[str, str]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply did: the files it ingested and the steps it ran.

    Attributes:
        changed: those of the files that were ingested before, with another content.
        doubted: table -> why its last version is not believed, and so not learned from.
    """

    app: str
    ingested: list[str]
    models: list[ModelApplied]
    doubted: dict[str, str] = msgspec.field(default_factory=dict)
    changed: list[str] = []

    @property
    def ran(self) -> bool:
        """Whether anything was to do."""
        return bool(self.ingested) or any(m.ran for m in self.models)


def apply(session: Session, *, until: datetime | None = None, only: str = "", tell: Tell = silent) -> Applied:
    """Ingest what is new, then bring every model from its pinned data to a decision.

    Args:
        until: learn from what was known before this moment; pins the data anew. By default the pin stays, and the first
            apply pins all that was ingested.
        only: the model to bring forward, from what was ingested; by default all of them, after ingesting what is new: so a
            file that cannot be read keeps no training from what is there.

    Raises:
        DeclarationError: the app contradicts itself; nothing moved.
        GateError: `table-not-believed`: a pin is wanted, and nothing of a table may be learned from yet.
        DataError, StateError, AdapterError: a step failed; what was before it stays, and whoever answered keeps answering.
        RetryableError: `somebody-else-is-at-it`.
    """
    apps.check(session.app)
    for model in session.app.models:
        train.check(model)
    with held(session, LEASE):
        _route(session)  # a crash may have come between a promotion and the file
        ingested = [] if only else gather.gather(session, tell)
        files = [said.file for said in ingested]
        suspected.look(session, ingested, tell)
        doubted = {
            b.table: b.why for b in expectations.judge(session, tell) if b.judged is not None and b.judged.failed
        }
        wanted = [session.app.model(only)] if only else session.app.models
        models = [_model(session, model, until, tell) for model in wanted]
        changed = arrivals.rewritten(session, ingested)
        applied = Applied(app=session.app.name, ingested=files, models=models, doubted=doubted, changed=changed)
        if not applied.ran:
            gather.tidy(session)
    return applied


def _route(session: Session) -> None:
    route.sync(session.facts, session.routes, session.app.name, session.models)


def _model(session: Session, model: Model, until: datetime | None, tell: Tell) -> ModelApplied:
    before = steps.pin(session.facts, session.app.name, model.name)
    pinning = snapshot.pin if adopted.of(model) is None else adopting.pin
    pin = pinning(session, model, before, until)
    try:
        done, ran = _steps(Work(session, model, pin, tell))
    except DataError:
        # A moment at which nothing can be learned: whoever comes next without one goes on where it was.
        if before is not None and pin != before:
            snapshot.record(session, model, before)
        raise
    finally:
        _route(session)
    return standing(session, model, done, ran)


def _steps(work: Work) -> tuple[dict[str, Done], list[str]]:
    """What all steps left behind, and which of them ran now."""
    done: dict[str, Done] = {}
    ran: list[str] = []
    for planned in pipeline.walk(work):
        if planned.done is None:
            done[planned.step] = _run(work, planned, done)
            ran.append(planned.step)
        else:
            done[planned.step] = planned.done
    return done, ran


def _run(work: Work, planned: Planned, done: dict[str, Done]) -> Done:
    step = next(s for s in pipeline.of(work.model) if s.name == planned.step)
    work.say(step.name, "; ".join(planned.why))
    started = work.session.clock.monotonic()
    try:
        ran = step.run(replace(work, key=planned.key), done)
    except FlyballError as problem:
        failed = Failed(step=step.name, key=planned.key, code=problem.code)
        work.session.facts.append([Fact(*work.about, failed)])
        raise
    seconds = work.session.clock.monotonic() - started
    still_held(work.session, LEASE)
    said = Done(step=step.name, key=planned.key, causes=dict(planned.causes), outputs=dict(ran.outputs))
    fact = Fact(*work.about, said, {"seconds": seconds, **ran.measured})
    try:
        work.session.facts.append([*ran.facts, fact], expect=ran.expect)
    except StateError as problem:
        if problem.code != "moved-on":
            raise
        return _run(work, planned, done)  # somebody decided in between; what the step found may no longer hold
    work.tell(Event(step=step.name, state="done", detail=ran.said, seconds=seconds))
    return said


def standing(session: Session, model: Model, done: dict[str, Done], ran: Sequence[str]) -> ModelApplied:
    """Where a model stands once its steps are done."""
    now = rollout.now(session.facts, session.app.name, model.name)
    return ModelApplied(
        model=model.name,
        ran=list(ran),
        version=done["register"].outputs["version"],
        decision=done["gates"].outputs["decision"],
        champion=now.champion,
        verdicts=judging.verdicts(session, done["gates"]),
        artifacts=done["gates"].outputs,
    )


def write_report(session: Session, model: ModelApplied) -> Path:
    """Write the report of a version beside the state, for a person to open; returns the HTML file.

    Drawn from what is recorded, after the fact: no training waits for it. One that is there is drawn anew where its gates
    were judged since.
    """
    folder = session.home / "reports" / model.version
    page = folder / "report.html"
    if "gates" in model.ran or not page.is_file():
        card.write(card.report_of(session, model.version), folder, "report")
    return page
