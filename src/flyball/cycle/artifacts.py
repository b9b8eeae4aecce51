"""What a version answers with, read back from the store and verified."""

from __future__ import annotations

import msgspec

from flyball.cycle.session import Session
from flyball.learn import encode
from flyball.learn.export import predictor
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
    """The predictor that was chosen for a version, over its verified artifacts."""
    kind = msgspec.convert(manifest.predictor, type=predictor.Kind)
    name = predictor.ARTIFACTS[kind]
    return predictor.load(kind, {name: session.blobs.get(manifest.artifacts[name])})


def load_encoder(session: Session, manifest: Manifest) -> encode.Encoder:
    """The encoder of a version."""
    return encode.from_bytes(session.blobs.get(manifest.artifacts[encode.ARTIFACT]))
