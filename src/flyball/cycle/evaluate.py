"""Evaluate: how good would this model be, trained until one moment and tested until another. Releases nothing.

The same code as `apply` trains with, on bounds that the caller chooses: the honest question is always one of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from flyball import app as apps
from flyball._kernel.errors import DeclarationError
from flyball._kernel.facts import Fact
from flyball.cycle import gather, learning, snapshot, tested, touched
from flyball.cycle.session import Event, Session, Tell, held
from flyball.learn import examples as building
from flyball.learn import split
from flyball.learn.fit import fitting
from flyball.learn.model import Model
from flyball.learn.quality import evaluate as evaluating
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.reports import report
from flyball.learn.split import Bounds
from flyball.learn.trying.explore import Course, Found


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, and what it was made from."""

    evaluation: Evaluation
    subject: report.Subject


def evaluate(session: Session, name: str | None, train_until: datetime, test_until: datetime, tell: Tell) -> Evaluated:
    """Train on outcomes known before `train_until`, test on questions asked from then until `test_until`.

    Args:
        name: the model, where the app has several.

    Raises:
        DeclarationError: `bounds-out-of-order`.
        DataError: `too-little-history`.
    """
    if train_until >= test_until:
        raise DeclarationError(
            "bounds-out-of-order",
            f"The test would end ({test_until:%Y-%m-%d}) before it begins ({train_until:%Y-%m-%d}).",
            why="It tests questions asked after the training.",
            next="Give --test-until a later moment than --train-until.",
        )
    apps.check(session.app)
    model = session.app.model(name)
    with held(session, "apply"):
        gather.gather(session, tell)
    settings = session.app.search
    bounds = Bounds.between(train_until, test_until, settings.split)
    batches = snapshot.present(session, model)
    tell(Event(step="examples", state="run"))
    examples = building.build(model, snapshot.read(session, model, batches), snapshot.greatest(session, model, batches))

    course = Course(
        tell=lambda progress: tell(Event(step="search", state="run", detail=str(progress))),
        timer=session.clock.monotonic,
    )
    found = fitting.explore(model, settings, examples, bounds, course)
    tell(Event(step="train", state="run"))
    made = fitting.train_all(model, found.knobs, examples, bounds)
    rows = tested.held_out(model, examples, made, bounds, tested.slices(model))
    tell(Event(step="evaluate", state="run"))
    evaluation = evaluating.evaluate(rows.held_out, learning.measured(model), learning.protected(model))
    look = touched.of(session, model, touched.EVALUATE, examples, bounds)
    count = touched.counted(session, model.name, look)
    session.facts.append([Fact(session.app.name, model.name, look)])
    subject = _subject(session, model, evaluation, found, bounds)
    seen = touched.told(count, evaluation.measurements.get(settings.optimize.name))
    return Evaluated(evaluation, replace(subject, lineage={**subject.lineage, "looked at": seen}))


def _subject(session: Session, model: Model, evaluation: Evaluation, found: Found, bounds: Bounds) -> report.Subject:
    return report.Subject(
        title=f"{model.name}: evaluation",
        app=session.app.name,
        model=model.name,
        version="not registered",
        evaluation=evaluation,
        verdicts=(),
        lineage={
            "trained on": f"outcomes known before {bounds.test:%Y-%m-%d}",
            "tested on": split.told(bounds),
        },
        features=[o.name for o in model.features.outputs(model.question)],
        params=found.knobs,
    )


def write(found: Evaluated, folder: str) -> Path:
    """Write the report, Markdown and HTML with its figures; returns the HTML file."""
    return write_report(Path(folder), report.files(report.render(found.subject)))


def write_report(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a report's files into a folder; returns the HTML file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / "report.html"
