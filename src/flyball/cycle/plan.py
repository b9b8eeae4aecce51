"""Plan: what apply would do, and which input changed. Moves nothing, reads no data, takes no lease."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball import app as apps
from flyball._kernel.conditions import Outcome
from flyball.cycle import adopting, arrivals, contracts, judging, pipeline, steps, suspected
from flyball.cycle.session import Session, silent
from flyball.cycle.steps import Done, Pinned, Planned
from flyball.cycle.work import Work
from flyball.learn import adopted
from flyball.learn import model as learnt
from flyball.learn.features.declare import Called
from flyball.learn.fit import train
from flyball.learn.model import Model
from flyball.release import rollout
from flyball.watch import times


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
    """The steps of one model, the data that it is pinned to, and how it will be served."""

    model: str
    state: str
    steps: list[Step]
    served: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What apply would do.

    Attributes:
        work: how many things there are to do, in words; empty when there are none.
        notes: what a reader should know besides.
        ends: how long a version that goes bad on its way may stay, at worst.
    """

    app: str
    files: list[File]
    models: list[ModelPlan]
    work: str
    notes: list[str]
    ends: list[str] = []


def plan(session: Session) -> Plan:
    """Lay what is declared beside what is recorded.

    Raises:
        DeclarationError: the app contradicts itself, leaks, or reaches code that cannot be followed.
        DataError, AdapterError: no source can be looked at.
    """
    app = apps.check(session.app)
    for model in app.models:
        train.check(model)
    look = arrivals.look(session)
    if len(look.hidden) == len(app.sources) > 0:
        raise look.hidden[0].problem
    files = [File(source=p.source.name, file=p.file.name, why=p.why) for p in look.pending]
    models, notes = [], [f"{each.source.name} cannot be looked at: {each.problem.what}" for each in look.hidden]
    notes += [*look.notes, *contracts.check(session), *map(str, suspected.standing(session))]
    for model in app.models:
        pin = steps.pin(session.facts, app.name, model.name)
        found = pipeline.walk(Work(session, model, pin, silent))
        models.append(_model(model, pin, found))
        notes += adopting.notes(session, model)
        notes += _refusal(session, model, {p.step: p.done for p in found if p.done is not None})
    notes += sorted({note for model in app.models for note in _slow(model)})
    if files and any(steps.pin(session.facts, app.name, model.name) for model in app.models):
        notes.append("New rows do not move what a model learns from; a retraining does, or apply --until.")
    runs = sum(step.runs for model in models for step in model.steps)
    counted = [(len(files), "file"), (runs, "step")]
    work = " and ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in counted if n)
    return Plan(app=app.name, files=files, models=models, work=work, notes=notes, ends=_ends(session))


def _ends(session: Session) -> list[str]:
    """How long a version that goes bad may stay; where models differ, the one with the most classes is the slowest to tell."""
    tasks = [learnt.task(each) for each in session.app.models]
    slowest = max(tasks, key=lambda task: (task.kind == "regression", task.width), default=None)
    pace = times.Pace(task=slowest) if slowest is not None else None
    return times.told(session.app.release, pace)


def _model(model: Model, pin: Pinned | None, found: list[Planned]) -> ModelPlan:
    trained = adopted.of(model) is None
    state = "not trained yet: the first apply pins its data" if trained else "adopted: nothing is trained"
    if pin is not None:
        what = "learns from" if trained else "adopted; its gates look at"
        state = f"{what} what was known before {pin.cutoff:%Y-%m-%d %H:%M} UTC"
    planned = [Step(step=p.step, runs=p.done is None, why=list(p.why)) for p in found]
    return ModelPlan(model=model.name, state=state, steps=planned, served=train.check(model))


def _slow(model: Model) -> list[str]:
    """What is said of features that are Python functions."""
    return [
        f"The feature {f.name} is a Python function ({f.place}): 0.05 ms a question and more, where an expression takes 0.001."
        for f in model.features.features
        if isinstance(f, Called)
    ]


def _refusal(session: Session, model: Model, done: Mapping[str, Done]) -> list[str]:
    """Why the version of what is declared does not answer, where its gates have said so."""
    judged = done.get("gates")
    if judged is None or judged.outputs["decision"] == "release":
        return []
    against = [v for v in judging.verdicts(session, judged) if v.outcome is not Outcome.PASS]
    now = rollout.now(session.facts, session.app.name, model.name)
    said = "; ".join(f"{v.condition} {v.outcome.value}" + (f" ({v.reason})" if v.reason else "") for v in against)
    answering = f"{now.champion} keeps answering" if now.champion else "nobody answers"
    return [f"{done['register'].outputs['version']} is {judged.outputs['decision']}: {said}; {answering}."]
