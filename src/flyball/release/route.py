"""Who answers: one small file with an epoch, replaced as a whole after the fact commits, followed by every server process.

The file is derived: facts say who is champion, and a crash between the fact and the file is mended by deriving it again.
While the facts can be read they decide, and the file only says that something changed. It is signed by the key that signs
them, so that a server to which they are **away** goes on by what it says, and by nothing that anybody else put there. What it
names it names by the digests of signed manifests, so that nothing else of the history is needed to answer.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from flyball._kernel.ports import Facts
from flyball.release import rollout, shadowing, version


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The routing of one app: model -> who answers, and since which epoch."""

    app: str
    models: dict[str, Answering]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version on its way: it answers this share of the entities, and every other question beside the champion."""

    version: str
    manifest: str
    share: float


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A version that computes the questions of this share of the entities beside whoever answers, and answers none."""

    version: str
    manifest: str
    share: float


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for one model.

    Attributes:
        epoch: grows with every change of who answers; recorded with each answer.
        champion: the version that answers.
        manifest: the digest of its signed manifest.
        previous: who answered before, the first fallback; "" if nobody.
        previous_manifest: the digest of its signed manifest.
        candidate: who is on the way to be champion, if anybody.
        shadows: who computes beside, and is neither champion nor candidate.
    """

    epoch: int
    champion: str
    manifest: str
    previous: str = ""
    previous_manifest: str = ""
    candidate: Candidate | None = None
    shadows: tuple[Beside, ...] = ()


class Routes(Protocol):
    """Where the route lies."""

    def read(self) -> Route | None:
        """The present route, whoever wrote it, or None if nothing was ever released: says that something changed."""

    def proven(self) -> Route | None:
        """The present route if it was published with our key, else None: may be answered by."""

    def publish(self, route: Route) -> None:
        """Replace it atomically, signed."""


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
                previous_manifest=version.find(log, app, now.previous).manifest if now.previous else "",
                candidate=_candidate(log, app, now),
                shadows=tuple(
                    Beside(
                        version=each.version, manifest=version.find(log, app, each.version).manifest, share=each.share
                    )
                    for each in shadowing.now(log, app, model)
                    if each.version not in (now.champion, now.candidate)
                ),
            )
    return Route(app=app, models=found)


def _candidate(log: Facts, app: str, now: rollout.Rollout) -> Candidate | None:
    if not now.candidate:
        return None
    manifest = version.find(log, app, now.candidate).manifest
    return Candidate(version=now.candidate, manifest=manifest, share=now.share)


def sync(log: Facts, routes: Routes, app: str, models: tuple[str, ...]) -> Route:
    """Bring the file up to what the facts say.

    It is what the facts say that is returned and answered by, whatever the file says. Where they differ the facts are read
    once more before writing: whoever was faster had recorded a newer fact first.
    """
    said = derive(log, app, models)
    if routes.proven() != said:
        said = derive(log, app, models)
        routes.publish(said)
    return said


def older(found: Route, epochs: dict[str, int]) -> list[str]:
    """The models of which a route says less than is known: an old file that somebody put back, say."""
    return [model for model, epoch in epochs.items() if model in found.models and found.models[model].epoch < epoch]
