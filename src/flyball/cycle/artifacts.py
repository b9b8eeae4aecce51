"""What a version answers with, read back from the store and verified."""

from __future__ import annotations

from typing import Literal

import msgspec

from flyball.cycle.session import Session
from flyball.learn import finish, rule
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.encoding import encode
from flyball.learn.export import predictor
from flyball.learn.task import Kind, Task
from flyball.release import version
from flyball.release.version import Manifest


def load_manifest(session: Session, name: str) -> Manifest:
    """The manifest of a version by its name, with its signature checked.

    Raises:
        StateError: `no-such-version`, `signature-broken`.
    """
    row = version.find(session.facts, session.app.name, name)
    return version.read(session.app.name, row, session.blobs, session.signer)


def load_predictor(session: Session, manifest: Manifest) -> predictor.Predictor:
    """The predictor that was chosen for a version, over its verified artifacts, with what follows it: it gives answers.

    Raises:
        StateError: `rule-changed` where a rule answers, which is code, and the app does not declare it any more.
    """
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
    """What kind of thing a version predicts, as it was evaluated."""
    data = session.blobs.get(manifest.artifacts["evaluation"])
    says = msgspec.json.decode(data, type=_Evaluated)
    kind: Kind = says.kind or ("binary" if says.classifies else "regression")
    return Task(kind=kind, classes=says.classes, quantiles=says.quantiles)


def load_encoder(session: Session, manifest: Manifest) -> encode.Encoder:
    """The encoder of a version."""
    return encode.from_bytes(session.blobs.get(manifest.artifacts[encode.ARTIFACT]))
