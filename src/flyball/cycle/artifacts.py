"""What a version answers with, read back from the store and verified."""

from __future__ import annotations

import contextlib
from typing import Literal, cast

import msgspec

from flyball._kernel.errors import FlyballError, StateError
from flyball.cycle.session import Session
from flyball.learn import finish, rule
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.encoding import encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export import adopted, predictor
from flyball.learn.export.adopted import Cells, Form
from flyball.learn.task import Kind, Task
from flyball.release import version
from flyball.release.version import Manifest
from flyball.serve.plan import EncodeRow, EncodeRows


def load_manifest(session: Session, name: str) -> Manifest:
    """The manifest of a version by its name, with its signature checked.

    Raises:
        StateError: `no-such-version`, `signature-broken`.
    """
    row = version.find(session.facts, session.app.name, name)
    return version.read(session.app.name, row, session.blobs, session.signer)


def load_learned(session: Session, name: str) -> Manifest:
    """The same, of a version that was trained here: whoever tells what it learned, and how well, asks for this one.

    Raises:
        StateError: `adopted-not-trained`.
    """
    manifest = load_manifest(session, name)
    _learned(manifest)
    return manifest


def _learned(manifest: Manifest) -> None:
    if adopted.ARTIFACT in manifest.artifacts:
        raise StateError(
            "adopted-not-trained",
            f"{manifest.version} was adopted, and not trained here.",
            why="It has no encoder, no examples and no evaluation of ours, from which this is told.",
            next="flyball why APP PREDICTION tells what is recorded of an answer; flyball status APP, how it does.",
        )


def load_predictor(session: Session, manifest: Manifest) -> predictor.Predictor:
    """The predictor that was chosen for a version, over its verified artifacts, with what follows it: it gives answers.

    Raises:
        StateError: `rule-changed` where a rule answers, which is code, and the app does not declare it any more.
    """
    if (answering := adopted.stored(manifest.artifacts, session.blobs.get)) is not None:
        return cast("predictor.Predictor", answering)
    kind = msgspec.convert(manifest.predictor, type=predictor.Kind)
    name = predictor.ARTIFACTS[kind]
    data = session.blobs.get(manifest.artifacts[name])
    if kind == "rule":
        model = session.app.model(manifest.model)
        function = rule.of(model, manifest.knobs)
        found = rule.load(data, function, load_encoder(session, manifest), models.task(model))
    else:
        found = predictor.load(kind, {name: data})
    return finish.finished(found, load_finish(session, manifest))


def load_form(session: Session, manifest: Manifest) -> Form | None:
    """How an adopted version is asked; None of one that was trained here.

    Raises:
        StateError: `hostile-model`.
    """
    if adopted.ARTIFACT not in manifest.artifacts:
        return None
    return adopted.from_bytes(session.blobs.get(manifest.artifacts[adopted.ARTIFACT]))


def load_inputs(session: Session, manifest: Manifest) -> Encoder | Form:
    """What makes rows of features into what the predictor of a version reads: `names`, and `answers` to a frame."""
    return load_form(session, manifest) or load_encoder(session, manifest)


def load_row(session: Session, manifest: Manifest) -> tuple[EncodeRow, EncodeRows | None]:
    """The same for one row of plain Python values, and for many at once where that is to be had."""
    if (form := load_form(session, manifest)) is not None:
        return adopted.compile_row(form), None
    encoder = load_encoder(session, manifest)
    return encode.compile_row(encoder), encode.compile_rows(encoder)


def load_probes(session: Session, manifest: Manifest, form: Form, rows: int) -> Cells | None:
    """Made-up rows for an adopted version; None where nobody knows any.

    What its columns hold is what the reference tells: categories that many rows of the sample share, and quantiles.
    """
    known = {}
    # An answer does not need what monitors compare with: where it cannot be had, questions are asked alone.
    with contextlib.suppress(FlyballError, KeyError):
        found = references.from_bytes(session.blobs.get(manifest.artifacts[references.ARTIFACT]))
        known = {each.name: each.edges.categories or each.edges.cuts[1:] for each in found.features}
    return adopted.probes(form, rows, known)


def load_finish(session: Session, manifest: Manifest) -> finish.Finish:
    """What follows the predictor of a version; nothing where an earlier release made it.

    Raises:
        StateError: `finish-damaged`.
    """
    if finish.ARTIFACT not in manifest.artifacts:
        return finish.NOTHING
    return finish.from_bytes(session.blobs.get(manifest.artifacts[finish.ARTIFACT]))


def load_task(session: Session, manifest: Manifest) -> Task | None:
    """What the answers of a version are made of, where they are several numbers; None where they are one.

    Raises:
        StateError: `reference-unreadable`.
    """
    if references.ARTIFACT not in manifest.artifacts:
        return None
    says = references.from_bytes(session.blobs.get(manifest.artifacts[references.ARTIFACT])).says
    return says.task if says is not None and says.task.width > 1 else None


class _Evaluated(msgspec.Struct, frozen=True):
    """What an evaluation says of the task; a server reads no more of it."""

    classifies: bool
    kind: Kind | Literal[""] = ""
    classes: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()


def load_trained_for(session: Session, manifest: Manifest) -> Task:
    """What kind of thing a version predicts, as it was evaluated; or as it was adopted."""
    if (form := load_form(session, manifest)) is not None:
        return form.task
    data = session.blobs.get(manifest.artifacts["evaluation"])
    says = msgspec.json.decode(data, type=_Evaluated)
    kind: Kind = says.kind or ("binary" if says.classifies else "regression")
    return Task(kind=kind, classes=says.classes, quantiles=says.quantiles)


def load_encoder(session: Session, manifest: Manifest) -> encode.Encoder:
    """The encoder of a version.

    Raises:
        StateError: `adopted-not-trained`.
    """
    _learned(manifest)
    return encode.from_bytes(session.blobs.get(manifest.artifacts[encode.ARTIFACT]))
