"""From a registered version to a serving plan: the one place where what was trained meets what is declared.

Features are code, and code is never read from a store: a server answers by the features that the app file declares, and only
if their fingerprints are those that the version was trained on. A changed feature therefore needs a new version first.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball._kernel import ids
from flyball._kernel.errors import StateError
from flyball.cycle import artifacts, causes
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.learn import encode
from flyball.learn.features import lookup
from flyball.learn.model import Model
from flyball.release import route
from flyball.release.route import Answering
from flyball.serve import protocol
from flyball.serve.plan import Plan

SUBJECTS = "subjects"
"""The purpose under which personal values are hashed; one per home, so that the same person is found again."""


def plans(session: Session) -> dict[str, Plan]:
    """A plan for each model that has a champion, by the route.

    Raises:
        StateError: `nothing-released`, or what `plan_of` raises.
    """
    now = route.sync(session.facts, session.routes, session.app.name, session.models)
    if not now.models:
        raise StateError(
            "nothing-released",
            f"No version of {session.app.name!r} was ever released.",
            where=session.app.place,
            why="A server answers with a version that passed its gates.",
            next="flyball apply",
        )
    return {name: plan_of(session, session.app.model(name), answering) for name, answering in now.models.items()}


def plan_of(session: Session, model: Model, answering: Answering) -> Plan:
    """Compile one version.

    Raises:
        StateError: `features-changed` when the app file no longer declares what the version was trained on;
            `signature-broken`, `artifact-changed`, `hostile-model` when what is stored cannot be trusted.
    """
    manifest = artifacts.load_manifest(session, answering.champion)
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    spec = contract.spec(model.question)
    reads = model.features.reads(model.question) | {model.asked.column.name}
    secret = session.signer.secret(SUBJECTS)
    return Plan(
        model=model.name,
        version=manifest.version,
        epoch=answering.epoch,
        decode=protocol.decoder(model.question, reads),
        schema=protocol.schema(model.question, reads),
        outputs=tuple(o.name for o in model.features.outputs(model.question)),
        lookup=lookup.Lookup(model.features, model.question, session.online),
        encode=encode.compile_row(artifacts.load_encoder(session, manifest)),
        predictor=artifacts.load_predictor(session, manifest),
        key=spec.key,
        asked_of=model.asked.column.name,
        lead=model.asked.lead,
        tolerance=model.asked.tolerance,
        personal=frozenset(spec.with_role(contract.Personal)),
        hash=_hasher(secret),
    )


def _hasher(secret: bytes) -> Callable[[str], str]:
    return lambda value: ids.keyed_hash(secret, value)
