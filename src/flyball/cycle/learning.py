"""The steps that learn, from pinned data to what is known of a trained version: examples, search, train, evaluate, examine.

What each leaves behind follows from its causes to the byte, so that any of it can be made again. Causes are named, so that
`plan` can say which of them changed.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from flyball._kernel import facts
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import bounded
from flyball.cycle import causes, examining, snapshot, tested, trying
from flyball.cycle.examining import Trained
from flyball.cycle.session import Session
from flyball.cycle.steps import Done, Ran
from flyball.cycle.work import Work
from flyball.data import contract
from flyball.data.contract import Protected
from flyball.learn import examples as building
from flyball.learn import knobs, split, treatment
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.doubts import suspects
from flyball.learn.doubts.suspects import Checked
from flyball.learn.examine import telling
from flyball.learn.examine.examined import Examined
from flyball.learn.examples import Examples
from flyball.learn.fit import automatic, fitting
from flyball.learn.model import Model
from flyball.learn.quality import evaluate as evaluating
from flyball.learn.quality import metrics
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.split import Bounds
from flyball.learn.trying.explore import Found


def examples_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """Which rows are learned from, and what is made of them."""
    model = work.model
    data = (work.pin.batches, work.pin.cutoff) if work.pin is not None else None
    erased = {"erased": work.pin.erased} if work.pin is not None and work.pin.erased else {}
    return {
        "data": data,
        **erased,
        **causes.of_sources(work.session.app.sources, snapshot.tables_of(model)),
        **causes.of_features(model),
        "question": causes.of_question(model),
        **causes.environment("polars", "flyball"),
    }


def examples(work: Work, _: Mapping[str, Done]) -> Ran:
    """Build the examples from the pinned rows."""
    tables = snapshot.read(work.session, work.model, work.pinned.batches)
    built = building.build(work.model, tables, work.pinned.cutoff)
    counts = built.counts
    return Ran(
        {"examples": work.session.blobs.put(building.to_bytes(built))},
        said=f"{counts.learned:,} settled, {counts.void:,} void, {counts.unsettled:,} not settled yet",
    )


def _learner(model: Model) -> dict[str, object]:
    """What learns, and how; what is left at its default is no cause, so that an earlier version stays what it was."""
    said = {
        "treatment": None if model.treatment == treatment.NONE else model.treatment,
        "quantiles": model.quantiles,
        "unsupervised": model.unsupervised,
    }
    return {"estimator": model.build or automatic.build, **{name: value for name, value in said.items() if value}}


def search_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """How the knobs are chosen."""
    return {
        "search": work.session.app.search.cause,
        "knobs": work.model.knobs,
        **_learner(work.model),
        **causes.environment("numpy", "scipy", "scikit-learn", "lightgbm", "optuna"),
    }


def search(work: Work, done: Mapping[str, Done]) -> Ran:
    """Choose the knobs, from where a killed search left off."""
    settings, loaded = work.session.app.search, tested.load_examples(work.session, done)
    bounds = work.bounds(loaded)
    found, tried = trying.search(work, lambda course: fitting.explore(work.model, settings, loaded, bounds, course))
    said = f"{len(found.trials)} trials, best {settings.optimize} {found.score:.4f} with {knobs.said(found.knobs)}"
    return Ran({"found": work.session.blobs.put(facts.encode(found))}, tried, said=said)


def train_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """What is fitted, on which rows."""
    return {
        **_learner(work.model),
        "split": work.session.app.search.split,
        **causes.environment("numpy", "scipy", "scikit-learn", "lightgbm", "onnx", "onnxmltools", "skl2onnx", "skops"),
    }


def train(work: Work, done: Mapping[str, Done]) -> Ran:
    """Fit the declared model and its rivals, and pack them."""
    found = chosen(work.session, done)
    examples = tested.load_examples(work.session, done)
    trained = fitting.train_all(work.model, found.knobs, examples, work.bounds(examples))
    outputs = {name: work.session.blobs.put(data) for name, data in trained.items()}
    return Ran(outputs, said=f"{work.model.name}, {', '.join(fitting.rivals(trained))} as {len(outputs)} artifacts")


def evaluate_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """What is measured, and how rows are cut."""
    shown = [m.name for m in measured(work.model)]
    return {"metrics": shown, "slices": tested.slices(work.model), "protected": protected(work.model)}


def measured(model: Model) -> tuple[Metric, ...]:
    """The metrics that an evaluation shows: those of decisions where one is declared, or where somebody is protected."""
    kind = models.task(model).kind
    decides = model.treatment.decide is not None or model.treatment.mitigate is not None
    if kind in ("binary", "anomaly") and (decides or protected(model)):
        return metrics.measurable(kind)
    return metrics.PLAINLY[kind]


def protected(model: Model) -> tuple[str, ...]:
    """The columns whose groups are compared."""
    shown = set(tested.slices(model))
    return tuple(n for n in contract.spec(model.question).with_role(Protected) if n in shown)


def evaluate(work: Work, done: Mapping[str, Done]) -> Ran:
    """Measure the version and its rivals on the rows that none of them has seen."""
    found = tested.tested(work.session, work.model, done, work.pinned.cutoff, tested.slices(work.model))
    data = evaluation(work.model, found)
    told = msgspec.json.decode(data, type=Evaluation)
    names = [m.name for m in measured(work.model) if m.name in told.measurements]
    shown = ", ".join(f"{name} {told.measurements[name].estimate:.3f}" for name in names[:2])
    answers = found.held_out.scores[found.held_out.main]
    profiled = reference(work.model, found.examples, found.bounds, answers)
    return Ran(
        {"evaluation": work.session.blobs.put(data), references.ARTIFACT: work.session.blobs.put(profiled)},
        said=f"{told.n:,} held-out questions, {shown}",
    )


def evaluation(model: Model, found: tested.Tested) -> bytes:
    """The evaluation on held-out rows, as it is stored."""
    return facts.encode(evaluating.evaluate(found.held_out, measured(model), protected(model)))


def reference(model: Model, examples: Examples, bounds: Bounds, answers: np.ndarray) -> bytes:
    """What monitors compare the version's traffic with, as it is stored."""
    held_out = split.cut(examples, bounds).test
    return facts.encode(references.reference(model, examples, held_out, answers))


def examine_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """What it is examined by."""
    return {"metric": work.session.app.search.optimize.name, **causes.environment("flyball")}


def examine(work: Work, done: Mapping[str, Done]) -> Ran:
    """Look for what is suspicious, weak and worth knowing about the version."""
    session, trained = work.session, done["train"].outputs
    loaded = tested.load_examples(session, done)
    made = examining.examine(
        Trained(
            model=work.model,
            knobs=chosen(session, done).knobs,
            examples=loaded,
            bounds=work.bounds(loaded),
            trained={name: session.blobs.get(digest) for name, digest in trained.items()},
            evaluation=msgspec.json.decode(session.blobs.get(done["evaluate"].outputs["evaluation"]), type=Evaluation),
            metric=session.app.search.optimize,
        ),
        refit=REFIT,
    )
    told = suspects.told(msgspec.json.decode(made[examining.SUSPECTS], type=Checked))
    told += telling.told(msgspec.json.decode(made[examining.EXAMINED], type=Examined))
    outputs = {name: session.blobs.put(data) for name, data in made.items()}
    first = bounded(told[0], 160) if told else ""
    return Ran(outputs, said=f"{len(told)} remarks, such as: {first}" if told else "nothing to remark")


REFIT = True
"""Whether every training is also asked what more rows and other seeds would change."""


def chosen(session: Session, done: Mapping[str, Done]) -> Found:
    """What the search found."""
    return msgspec.json.decode(session.blobs.get(done["search"].outputs["found"]), type=Found)
