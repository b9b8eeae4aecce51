"""Who answers: one small file with an epoch, replaced as a whole after the fact commits, followed by every server process.

The file is derived: facts say who is champion, and a crash between the fact and the file is mended by deriving it again.
A server never answers by a route that is older than the one it has.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from flyball._kernel.ports import Facts
from flyball.release import rollout, version


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The routing of one app: model -> who answers, and since which epoch."""

    app: str
    models: dict[str, Answering]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version on its way: it answers this share of the entities, and every other question beside the champion."""

    version: str
    manifest: str
    share: float


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for one model.

    Attributes:
        epoch: grows with every change; recorded with each answer.
        champion: the version that answers.
        manifest: the digest of its signed manifest.
        previous: who answered before, the first fallback; "" if nobody.
        candidate: who is on the way to be champion, if anybody.
    """

    epoch: int
    champion: str
    manifest: str
    previous: str = ""
    candidate: Candidate | None = None


class Routes(Protocol):
    """Where the route lies."""

    def read(self) -> Route | None:
        """The present route, or None if nothing was ever released."""

    def publish(self, route: Route) -> None:
        """Replace it atomically."""


def derive(log: Facts, app: str, models: tuple[str, ...]) -> Route:
    """The route that the facts say."""
    found: dict[str, Answering] = {}
    for model in models:
        now = rollout.now(log, app, model)
        if now.champion:
            found[model] = Answering(
                epoch=now.epoch,
                champion=now.champion,
                manifest=version.find(log, app, now.champion).manifest,
                previous=now.previous,
                candidate=_candidate(log, app, now),
            )
    return Route(app=app, models=found)


def _candidate(log: Facts, app: str, now: rollout.Rollout) -> Candidate | None:
    if not now.candidate:
        return None
    manifest = version.find(log, app, now.candidate).manifest
    return Candidate(version=now.candidate, manifest=manifest, share=now.share)


def sync(log: Facts, routes: Routes, app: str, models: tuple[str, ...]) -> Route:
    """Bring the file up to what the facts say.

    The facts are signed and the file is not, so it is what the facts say that is returned and answered by, whatever the file
    says. Where they differ the facts are read once more before writing: whoever was faster had recorded a newer fact first.
    """
    said = derive(log, app, models)
    if routes.read() != said:
        said = derive(log, app, models)
        routes.publish(said)
    return said
