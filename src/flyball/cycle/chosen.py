"""Which version answers where no server does: files, a predictor in this process, a bundle."""

from __future__ import annotations

from flyball._kernel.errors import StateError
from flyball.cycle import artifacts
from flyball.cycle.session import Session
from flyball.learn.model import Model
from flyball.release import rollout
from flyball.release.version import Manifest


def chosen(session: Session, model: Model, version: str | None) -> Manifest:
    """The manifest of the version that is named, or of who answers now.

    Raises:
        StateError: `nothing-released`, `no-such-version`, `version-of-another-model`, `signature-broken`.
    """
    if version is None:
        now = rollout.now(session.facts, session.app.name, model.name)
        if not now.champion:
            raise StateError(
                "nothing-released",
                f"No version of {model.name!r} was ever released.",
                where=model.place,
                why="It is answered by the version that answers everybody.",
                next="flyball apply",
            )
        version = now.champion
    manifest = artifacts.load_manifest(session, version)
    if manifest.model != model.name:
        raise StateError(
            "version-of-another-model",
            f"{version} is a version of {manifest.model!r}, and {model.name!r} is asked.",
            why="It was trained on other questions.",
            next=f"Add --model {manifest.model}, or name a version of {model.name}.",
        )
    return manifest
