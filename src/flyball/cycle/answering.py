"""From the route to who answers: the one place where what was trained meets what is declared.

Features are code, and code is never read from a store: a server answers by the features that the app file declares, and only
if their fingerprints are those that the version was trained on. A changed feature therefore needs a new version first.

The champion of a model must be ready, or whoever answered it goes on; the other models are not concerned. What else there is
(a candidate, and those who are asked when the champion fails) is left out where it cannot be made ready, and that is said: it
must never keep a champion from answering. The route is derived here and never published: that is for who changes it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

import numpy as np

from flyball._kernel import conditions, ids
from flyball._kernel.clock import EPOCH
from flyball._kernel.errors import Bug, FlyballError, StateError
from flyball.cycle import artifacts, catalog, causes
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.learn import adopted
from flyball.learn import model as models
from flyball.learn.export.adopted import Adopted
from flyball.learn.export.predictor import Kind, Matrix, Predictor
from flyball.learn.features import lookup
from flyball.learn.model import Model
from flyball.learn.task import Answer, Answers, Task
from flyball.release import version as versions
from flyball.release.policy import Release
from flyball.release.route import Answering
from flyball.release.version import Manifest
from flyball.serve import breaker, pace, protocol
from flyball.serve.plan import NEVER, Plan, Row
from flyball.serve.router import Beside, Routed

SUBJECTS = "subjects"
"""The purpose under which personal values are hashed; one per home, so that the same person is found again."""

SCORES: Final = "scores.npy"
"""What training left of its models on the held-out rows, float64 (models, rows) or (models, rows, width): the declared one
first, the baseline last.
Named as in `learn.fit.fitting`, which a server does not load: it would bring LightGBM and scikit-learn with it."""

Say = Callable[[str], None]
Known = Mapping[tuple[str, str], Plan]
"""Plans that are ready, by (role, version); role is "" for a version itself."""


def routed(
    session: Session, before: Mapping[str, Routed] | None = None, say: Say = lambda text: None
) -> dict[str, Routed]:
    """Who answers each model that has a champion, by the route.

    Args:
        before: who answers now: plans of versions that stay are used again, so that a change costs what is new in it.
        say: told whom it goes without, and why: what may be tried again.

    Raises:
        StateError: `nothing-released`, or what `plan_of` raises about a champion, where no model can be answered; and as
            `catalog.route_now`.
    """
    known_epochs = {name: each.epoch for name, each in (before or {}).items()}
    now = catalog.route_now(session, known_epochs, say)
    if not now.models:
        raise StateError(
            "nothing-released",
            f"No version of {session.app.name!r} was ever released.",
            where=session.app.place,
            why="A server answers with a version that passed its gates.",
            next="flyball apply",
        )
    known = {key: plan for each in (before or {}).values() for key, plan in _plans(each)}
    found: dict[str, Routed] = {}
    problems: list[FlyballError] = []
    for name, each in now.models.items():
        try:
            found[name] = _routed(session, session.app.model(name), each, known, say)
        except FlyballError as problem:
            problems.append(problem)
            if before is not None and name in before:
                found[name] = before[name]
                say(f"{name} goes on as before, without {each.champion}: {problem}")
            else:
                say(f"{name} is not answered, without {each.champion}: {problem}")
    if not found:
        raise problems[0]
    return found


def plan_of(session: Session, model: Model, version: str, digest: str = "") -> Plan:
    """Compile one version.

    Raises:
        StateError: `features-changed` or `task-changed` when the app file no longer declares what the version was trained
            on; `signature-broken`, `artifact-changed`, `hostile-model` when what is stored cannot be trusted.
    """
    manifest = _manifest(session, version, digest)
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    spec = contract.spec(model.question)
    finish, task = artifacts.load_finish(session, manifest), task_of(session, model, manifest)
    grouped = {finish.by} if finish.by else set()
    reads = model.features.reads(model.question) | {*spec.entity, *grouped}
    trained = adopted.of(model) is None
    reads |= {model.asked.column.name} if trained else set()
    decode = protocol.decoder(model.question, reads)
    secret = session.signer.secret(SUBJECTS)
    predictor = artifacts.load_predictor(session, manifest)
    seal = partial(session.seal.row, spec) if spec.sealed else None
    encode, encode_rows = artifacts.load_row(session, manifest)
    return Plan(
        model=model.name,
        version=manifest.version,
        decode=decode if trained else adopted.dated(decode, model.asked.column.name, session.clock),
        decode_key=protocol.decoder(model.question, frozenset()),
        schema=protocol.schema(model.question, reads),
        outputs=tuple(o.name for o in model.features.outputs(model.question)),
        lookup=lookup.Lookup(model.features, model.question, session.online),
        encode=encode,
        predictor=predictor,
        key=spec.key,
        entity=spec.entity,
        asked_of=model.asked.column.name,
        lead=model.asked.lead,
        tolerance=model.asked.tolerance,
        personal=frozenset(spec.with_role(contract.Personal)),
        hash=_hasher(secret),
        task=task,
        finish=finish,
        seal=seal,
        batches=_batches(session, manifest, predictor),
        encode_rows=encode_rows,
    )


def _batches(session: Session, manifest: Manifest, predictor: Predictor) -> int:
    clock, asked = session.clock.monotonic, cast("object", predictor)
    if not isinstance(asked, Adopted):
        return pace.batches(predictor, clock)
    probes = artifacts.load_probes(session, manifest, asked.form, pace.ROWS) if asked.rowwise else None
    return NEVER if probes is None else pace.batches(predictor, clock, probes)


def task_of(session: Session, model: Model, manifest: Manifest) -> Task:
    """What is declared, if the version was trained on that: else its numbers would be told under wrong names.

    Raises:
        StateError: `task-changed`.
    """
    declared, trained = models.task(model), artifacts.load_trained_for(session, manifest)
    other = causes.other_outcome(model, manifest.causes["examples"])
    if other or trained != declared:
        what = (
            "on other classes or quantiles than"
            if trained.kind == declared.kind
            else f"as {trained.kind}, which is not what"
        )
        if other:
            what = f"to predict {model.question.__name__}.{other}, which is not what"
        raise StateError(
            "task-changed",
            f"{manifest.version} was trained {what} {model.name!r} declares now.",
            where=model.place,
            why="Its numbers would be told as something that they are not.",
            next=f"flyball apply trains a version on them; until then use the app file of {manifest.commit or 'that time'}.",
        )
    return declared


def baseline_of(session: Session, champion: Plan, digest: str = "") -> Plan:
    """The champion's baseline: what it always answered to the held-out rows. It looks nothing up and encodes nothing, so
    that it answers when the online store or the champion's own artifacts do not.

    Raises:
        StateError: `baseline-not-constant`; `artifact-changed`.
    """
    manifest = _manifest(session, champion.version, digest)
    scores = np.load(io.BytesIO(session.blobs.get(manifest.artifacts[SCORES])), allow_pickle=False)[-1]
    if not len(scores) or not np.isfinite(scores[0]).all() or (scores != scores[0]).any():
        raise StateError(
            "baseline-not-constant",
            f"The baseline of {champion.version} is not one answer.",
            why="It is answered when nothing else can be asked, so it must not depend on a question.",
            next="flyball apply",
        )
    said: Answer = float(scores[0]) if scores.ndim == 1 else tuple(scores[0].tolist())
    constant = _Constant(said)
    nothing = replace(champion, outputs=(), lookup=_nothing, encode=constant.no_row, encode_rows=None)
    return replace(nothing, predictor=constant, batches=NEVER)


def _routed(session: Session, model: Model, now: Answering, known: Known, say: Say) -> Routed:
    def optional(role: str, version: str, make: Callable[[], Plan]) -> Plan | None:
        if not version:
            return None
        try:
            return known.get(("baseline" if role == "baseline" else "", version)) or _made(version, make)
        except FlyballError as problem:
            say(f"{model.name} goes without the {role} {version}: {problem}")
            return None

    def version(role: str, name: str, digest: str) -> Plan | None:
        return optional(role, name, lambda: plan_of(session, model, name, digest))

    champion = known.get(("", now.champion)) or _made(
        now.champion, lambda: plan_of(session, model, now.champion, now.manifest)
    )
    way = now.candidate
    candidate = version("candidate", way.version, way.manifest) if way is not None else None
    # Of an adopted model nothing is known that it could always answer.
    learned = now.champion if adopted.of(model) is None else ""
    fallbacks = (
        ("previous", version("previous", now.previous, now.previous_manifest)),
        ("baseline", optional("baseline", learned, lambda: baseline_of(session, champion, now.manifest))),
    )
    besides = [(version("shadow", each.version, each.manifest), each.share) for each in now.shadows]
    return Routed(
        epoch=now.epoch,
        champion=champion,
        candidate=candidate,
        share=way.share if way is not None and candidate is not None else 0.0,
        fallbacks=tuple((role, plan) for role, plan in fallbacks if plan is not None),
        default=model.default,
        slow=_slow(session.app.release),
        shadows=tuple(Beside(plan, share) for plan, share in besides if plan is not None),
    )


def _manifest(session: Session, name: str, digest: str) -> Manifest:
    """The manifest that the route names, whose signature says whose it is; by the history where no digest is given."""
    if not digest:
        return artifacts.load_manifest(session, name)
    row = versions.Row(version=name, manifest=digest, registered=EPOCH)
    return versions.read(session.app.name, row, session.blobs, session.signer)


def _made(version: str, make: Callable[[], Plan]) -> Plan:
    try:
        return make()
    except FlyballError:
        raise
    except Exception as error:
        said = f"{version} cannot be made ready: {type(error).__name__}: {error}"
        raise Bug("version-not-ready", said, next="Report it.") from error


def _plans(each: Routed) -> Iterator[tuple[tuple[str, str], Plan]]:
    besides = [("", beside.plan) for beside in each.shadows]
    for role, plan in (("", each.champion), ("", each.candidate), *each.fallbacks, *besides):
        if plan is not None:
            yield ("baseline" if role == "baseline" else "", plan.version), plan


def _slow(release: Release) -> float:
    """Twice what was declared to be the limit of the slowest hundredth, where one is; never less than usual."""
    limits = [c.threshold for c in release.abort_unless if c.metric == conditions.p99_latency and c.whom is None]
    return max([breaker.SLOW, *(2 * limit for limit in limits)])


class _Constant:
    """A model that always says the same, whatever it is shown."""

    name: Kind = "sklearn"
    features = 0

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def no_row(self, _: Any) -> np.ndarray:
        return np.empty(0, dtype=np.float32)

    def row(self, values: Matrix) -> Answer:
        return self._answer

    def batch(self, matrix: Matrix) -> Answers:
        return np.array([self._answer] * len(matrix), dtype=np.float64)


def _nothing(_: Row, __: datetime) -> tuple[object, ...]:
    return ()


def _hasher(secret: bytes) -> Callable[[str], str]:
    return lambda value: ids.keyed_hash(secret, value)
