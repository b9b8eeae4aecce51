"""Plan: what apply would do, and which input changed. Moves nothing, reads no data, takes no lease."""

from __future__ import annotations

import msgspec

from flyball import app as apps
from flyball.cycle import gather, pipeline, steps
from flyball.cycle.pipeline import Work
from flyball.cycle.session import Session, silent
from flyball.learn.model import Model


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that would be ingested."""

    source: str
    file: str
    why: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step, whether it would run, and why."""

    step: str
    runs: bool
    why: list[str]


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one model, and the data that it is pinned to."""

    model: str
    state: str
    steps: list[Step]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What apply would do.

    Attributes:
        work: how many things there are to do, in words; empty when there are none.
        notes: what a reader should know besides.
    """

    app: str
    files: list[File]
    models: list[ModelPlan]
    work: str
    notes: list[str]


def plan(session: Session) -> Plan:
    """Lay what is declared beside what is recorded.

    Raises:
        DeclarationError: the app contradicts itself, leaks, or reaches code that cannot be followed.
    """
    app = apps.check(session.app)
    files = [File(source=p.source.name, file=p.file.name, why=p.why) for p in gather.pending(session)]
    models = [_model(session, model) for model in app.models]
    runs = sum(step.runs for model in models for step in model.steps)
    counted = [(len(files), "file"), (runs, "step")]
    work = " and ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in counted if n)
    return Plan(app=app.name, files=files, models=models, work=work, notes=_notes(files, models))


def _model(session: Session, model: Model) -> ModelPlan:
    pin = steps.pin(session.facts, session.app.name, model.name)
    work = Work(session, model, pin, silent)
    found = pipeline.walk(work)
    state = "not trained yet: the first apply pins its data"
    if pin is not None:
        state = f"learns from what was known before {pin.cutoff:%Y-%m-%d %H:%M} UTC"
    planned = [Step(step=p.step, runs=p.done is None, why=list(p.why)) for p in found]
    return ModelPlan(model=model.name, state=state, steps=planned)


def _notes(files: list[File], models: list[ModelPlan]) -> list[str]:
    if files and any("learns" in m.state for m in models):
        return ["New rows do not move what a model learns from; a retraining does, or apply --until."]
    return []
