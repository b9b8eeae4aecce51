"""What a version answers with, read back from the store and verified."""

from __future__ import annotations

import msgspec

from flyball.cycle.session import Session
from flyball.learn import encode
from flyball.learn.export import predictor
from flyball.release.version import Manifest


def load_predictor(session: Session, manifest: Manifest) -> predictor.Predictor:
    """The predictor that was chosen for a version, over its verified artifacts."""
    kind = msgspec.convert(manifest.predictor, type=predictor.Kind)
    name = predictor.ARTIFACTS[kind]
    return predictor.load(kind, {name: session.blobs.get(manifest.artifacts[name])})


def load_encoder(session: Session, manifest: Manifest) -> encode.Encoder:
    """The encoder of a version."""
    return encode.from_bytes(session.blobs.get(manifest.artifacts[encode.ARTIFACT]))
