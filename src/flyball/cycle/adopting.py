"""The way of an adopted model from its file to a decision: nothing is trained, and it is released as every other.

adopt -> register -> gates -> release
`adopt` looks into the file anew, proves on the sample that it is asked as its owner asks it, and keeps what monitors compare
with. `gates` judge it on the labelled rows of the app's sources, all of them: which of them it was trained on is not known
here. Without gates it is released unjudged, which plan says; with gates and without labelled rows it is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import conditions, facts
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement
from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball._kernel.facts import Fact
from flyball.cycle import artifacts, causes, environment, judging, rival, snapshot
from flyball.cycle.session import Session
from flyball.cycle.steps import Done, Pinned, Ran, Step
from flyball.cycle.work import Work
from flyball.data import contract
from flyball.learn import adopted as declaring
from flyball.learn import examples as building
from flyball.learn import gates, reference
from flyball.learn import model as models
from flyball.learn.adopted import File
from flyball.learn.examples import Counts, Examples
from flyball.learn.export import adopted, predictor
from flyball.learn.export.adopted import Adopted, Form
from flyball.learn.export.adopted_look import Look
from flyball.learn.fit import fitting
from flyball.learn.model import Model
from flyball.learn.quality.evaluate import HeldOut
from flyball.learn.task import Answers
from flyball.release import approval, version
from flyball.release.version import Judged, Manifest, Registered, Snapshot

SAMPLED = datetime(1970, 1, 1, tzinfo=UTC)
"""The day that the rows of a sample are counted under: it says how values are spread, and not when they were."""

ALONE = 20
"""Rows of a sample that are also asked one by one."""

UNJUDGED = "no labelled row, so no gate can be judged: give a source that yields the outcome, or take the gates out"


def file_of(work: Work) -> File:
    """The file of the model that is worked on."""
    file = declaring.of(work.model)
    if file is None:
        raise TypeError(f"{work.model.name} is not adopted")
    return file


def pin(session: Session, model: Model, now: Pinned | None, until: datetime | None) -> Pinned | None:
    """The labelled rows that gates look at, pinned as what others learn from; None while there are none.

    Raises:
        GateError: `table-not-believed`.
    """
    if not any(snapshot.present(session, model).values()):
        return now
    return snapshot.pin(session, model, now, until)


def adopt_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    """The file, how it is asked, and the libraries that answer."""
    file, model = file_of(work), work.model
    library = ("scikit-learn", "skops") if file.path.suffix == ".skops" else ("onnx", "onnxruntime")
    return {
        "file": file.digest,
        "sample": file.sample_digest,
        **causes.of_features(model),
        "question": causes.of_question(model),
        **causes.environment("numpy", "polars", "flyball", *library),
    }


def adopt(work: Work, _: Mapping[str, Done]) -> Ran:
    """Take the file in, and prove on the sample that it answers here as it answers its owner."""
    blobs, model, file = work.session.blobs, work.model, file_of(work)
    found, form, rows, answers = _asked(model, file)
    outputs = {
        predictor.ARTIFACTS[form.kind]: blobs.put(found.data),
        adopted.ARTIFACT: blobs.put(msgspec.json.encode(form)),
        reference.ARTIFACT: blobs.put(facts.encode(_reference(model, rows, answers))),
    }
    proven = f"answers {rows.height:,} rows of the sample as by itself, bit for bit" if rows.height else "no sample"
    return Ran(outputs, said=f"{file.path.name}, {proven}")


def tried(model: Model) -> int:
    """Ask an adopted model its sample, as the step does that takes it in; of none, a row of zeros where it is of numbers.

    Returns:
        The rows that it was proven on.

    Raises:
        DeclarationError: `adopted-answers-differ`, `adopted-sample-unreadable`, `adopted-sample-needed`, and what
            `learn.adopted.read` refuses.
    """
    file = declaring.of(model)
    return _asked(model, file)[2].height if file is not None else 0


def _asked(model: Model, file: File) -> tuple[Look, Form, pl.DataFrame, Answers]:
    found, form = declaring.read(model, file)
    loaded = adopted.load(form, found.data)
    rows = sample(model, file) if file.sample is not None else _no_rows(model)
    try:
        answers = form.answers(rows, loaded.batch)
        if not rows.height and form.kind == "sklearn":
            # Which columns are texts is told by nothing but a trial.
            loaded.row(adopted.compile_row(form)([0] * len(form.columns)))
    except (DataError, StateError) as error:
        raise DeclarationError(
            "adopted-sample-needed",
            f"The adopted model {model.name!r} does not answer {'its sample' if rows.height else 'a row of zeros'}.",
            where=model.place,
            why=f"{error.what} {error.why}",
            next="Declare its columns in the types that it was trained on: flyball adopt FILE --sample rows.parquet, with rows "
            "that it was trained on, and without missing values where it knows none.",
        ) from error
    if rows.height:
        prove(loaded, file.path.read_bytes(), rows, answers)
    return found, form, rows, answers


def prove(loaded: Adopted, data: bytes, rows: pl.DataFrame, answers: Answers) -> None:
    """Hold the answers against what the file gives to whole columns, as its owner would ask it.

    Raises:
        DeclarationError: `adopted-answers-differ`.
    """
    form = loaded.form
    own = adopted.numbers(adopted.home(form.kind).own(data, form, rows), rows.height, form.task)
    alone = np.array([loaded.row(row) for row in adopted.cells(rows.head(ALONE), form.columns)])
    if not np.array_equal(own, answers, equal_nan=True):
        worst = int(np.nanargmax(np.abs(own - answers).reshape(len(own), -1).max(axis=1)))
        raise DeclarationError(
            "adopted-answers-differ",
            "The adopted file answers otherwise here than by itself.",
            why=f"Row {worst} of the sample differs.",
            next="Report it, with the file; meanwhile declare its columns in the types that it was trained on.",
        )
    if not np.allclose(alone, answers[: len(alone)], rtol=1e-6, atol=1e-7, equal_nan=True):
        raise DeclarationError(
            "adopted-answers-differ",
            "The adopted file answers one row otherwise than many.",
            why="Its answer to a row depends on the rows beside it.",
            next="Export it so that each row is answered by itself.",
        )


def sample(model: Model, file: File) -> pl.DataFrame:
    """The columns that the model reads, in the contract's types, of the rows of its sample.

    Raises:
        DeclarationError: `adopted-sample-unreadable`.
    """
    path, spec = str(file.sample), contract.spec(model.question)
    wanted = {o.name: spec.column(o.name).dtype for o in model.features.outputs(model.question)}
    try:
        read = pl.read_csv(path) if path.endswith(".csv") else pl.read_parquet(path)
        return read.select(pl.col(name).cast(dtype) for name, dtype in wanted.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DeclarationError(
            "adopted-sample-unreadable",
            f"The sample of the adopted model {model.name!r} cannot be read.",
            where=model.place,
            why=type(error).__name__ + f": it is a Parquet or CSV file with the columns {', '.join(wanted)}.",
            next="Mend the file, or leave sample= out: then monitors of drift have nothing to compare with.",
        ) from error


def _no_rows(model: Model) -> pl.DataFrame:
    spec = contract.spec(model.question)
    return pl.DataFrame(schema={o.name: spec.column(o.name).dtype for o in model.features.outputs(model.question)})


def _reference(model: Model, rows: pl.DataFrame, answers: Answers) -> reference.Reference:
    asked = pl.Series("_asked", [SAMPLED], dtype=pl.Datetime("us", "UTC")).new_from_index(0, rows.height)
    counts = Counts(learned=0, void=0, unsettled=0, unaskable=0)
    examples = Examples(rows.with_columns(asked.alias("_asked")), tuple(rows.columns), counts)
    return reference.reference(model, examples, np.ones(rows.height, dtype=np.bool_), answers)


def register(work: Work, done: Mapping[str, Done]) -> Ran:
    """Give the file a version's name and a signed manifest."""
    session, took = work.session, done["adopt"]
    pinned, now = work.pin, session.clock.now()
    cutoff = pinned.cutoff if pinned is not None else now
    form = adopted.from_bytes(session.blobs.get(took.outputs[adopted.ARTIFACT]))
    # Under the name by which servers and operators ask what a version reads.
    reads = {name: value for name, value in took.causes.items() if name == "question" or name.startswith("feature ")}
    manifest = Manifest(
        app=work.about[0],
        model=work.about[1],
        version=f"{work.model.name}-{len(version.versions(session.facts, *work.about)) + 1}",
        created=now,
        snapshot=Snapshot(batches=pinned.batches if pinned is not None else {}, cutoff=cutoff),
        tested_from=cutoff,
        tested_until=cutoff,
        knobs={},
        steps={name: each.key for name, each in done.items()},
        causes={"examples": reads, **{name: each.causes for name, each in done.items()}},
        artifacts=took.outputs,
        predictor=form.kind,
        head=session.facts.head().anchor(),
        environment=environment.recorded(session.app),
        commit=session.commit(),
    )
    digest = version.write(manifest, session.blobs, session.signer)
    fact = Fact(*work.about, Registered(version=manifest.version, manifest=digest))
    outputs = {"version": manifest.version, "manifest": digest}
    return Ran(outputs, (fact,), said=f"{manifest.version}, adopted, answers by {form.kind}")


def gate_causes(work: Work, done: Mapping[str, Done]) -> Mapping[str, object]:
    """The gates, whom they compare with, and the rows that they look at."""
    pinned = work.pin
    rows = {"data": (pinned.batches, pinned.cutoff)} if pinned is not None and work.session.app.gates else {}
    return {**judging.gate_causes(work, done), **rows}


def judge(work: Work, done: Mapping[str, Done]) -> Ran:
    """Judge the gates on labelled rows; there are none to judge where none are declared."""
    session, app = work.session, work.session.app
    manifest = artifacts.load_manifest(session, done["register"].outputs["version"])
    answering = adopted.stored(manifest.artifacts, session.blobs.get)
    rows = labelled(work)
    if answering is None or rows is None or not rows.frame.height:
        told = dict(_elsewhere(work, manifest.version))
        said_of = [(gate, told.get(str(gate), (None, UNJUDGED))) for gate in app.gates]
        judged = gates.Judged(tuple(conditions.judge(g, found, reason=why) for g, (found, why) in said_of), {})
    else:
        judged = _judged(work, done, rows, answering, manifest.version)
    said = Judged(version=manifest.version, decision=judged.decision, verdicts=list(judged.verdicts))
    outputs = {"decision": judged.decision, judging.VERDICTS: session.blobs.put(msgspec.json.encode(said.verdicts))}
    words = judged.decision if app.gates else "release, unjudged: the app declares no gates"
    return Ran(outputs, (Fact(*work.about, said),), judged.measured, said=words)


def _judged(work: Work, done: Mapping[str, Done], rows: Examples, answering: Adopted, name: str) -> gates.Judged:
    app, form = work.session.app, answering.form
    cells = adopted.cells(rows.frame.head(fitting.CALLS), form.columns)
    held_out = HeldOut(
        outcome=rows.labels,
        scores={work.model.name: form.answers(rows.frame, answering.batch)},
        slices={column: rows.request(column) for column in gates.columns(app.gates)},
        task=form.task,
    )
    champion = _champion(work, done, rows)
    if form.task.truth and isinstance(champion, np.ndarray):
        held_out = replace(held_out, decided={conditions.champion.name: champion > 0.5})
    timed = any(gate.metric.name == named.model_latency.name for gate in app.gates)
    latency = fitting.latency(answering, cells, work.session.clock.monotonic) if timed else None  # type: ignore[arg-type]
    return gates.judge_all(app.gates, held_out, champion=champion, latency=latency, told=dict(_elsewhere(work, name)))


def labelled(work: Work) -> Examples | None:
    """The settled rows of the app's sources; None while there are none."""
    if work.pin is None:
        return None
    tables = snapshot.read(work.session, work.model, work.pin.batches)
    return building.build(work.model, tables, work.pin.cutoff)


def _champion(work: Work, done: Mapping[str, Done], rows: Examples) -> Answers | str | None:
    """What whoever answers now says about the same rows, as `rival.answered`."""
    name, _ = rival.whom(work, done)
    if not name:
        return None
    manifest = artifacts.load_manifest(work.session, name)
    answering = adopted.stored(manifest.artifacts, work.session.blobs.get)
    if answering is None:
        return f"{name} was trained here, and may have learned from these rows"
    form = answering.form
    if form.task != models.task(work.model) or not set(form.columns) <= set(rows.frame.columns):
        return f"{name} reads other columns, or answers something else"
    return form.answers(rows.frame, answering.batch)


def _elsewhere(work: Work, name: str) -> Iterator[tuple[str, tuple[Measurement | None, str]]]:
    """What gates are told that no row shows."""
    for gate in work.session.app.gates:
        if gate.metric.name == approval.NAME:
            words = approval.said(work.session.facts, *work.about, name)
            yield str(gate), approval.told(gate, words, name)


STEPS: tuple[Step[Work], ...] = (
    Step("adopt", (), adopt_causes, adopt, repeats=True),
    Step("register", ("adopt",), judging.nothing, register),
    Step("gates", ("adopt", "register"), gate_causes, judge),
    Step("release", ("register", "gates"), judging.release_causes, judging.release),
)


def notes(session: Session, model: Model) -> list[str]:
    """What plan says of an adopted model."""
    file = declaring.of(model)
    if file is None:
        return []
    found = []
    if not session.app.gates:
        found.append(
            f"{model.name} is adopted and has no gates: every content of {file.path.name} is released unjudged."
        )
    elif not any(snapshot.present(session, model).values()):
        found.append(f"{model.name} is held until a source yields labelled rows that its gates can look at.")
    if file.sample is None:
        found.append(f"{model.name} has no sample, so drift has no reference: its monitors are blind.")
    return found
