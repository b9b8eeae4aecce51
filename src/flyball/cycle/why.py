"""Why: everything that led to one answer, from the journal to the data that the version learned from.

Each link is checked on the way: the manifest's signature, and that the history which it was signed against is still there.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from flyball._kernel import history
from flyball._kernel.clock import from_micros
from flyball.cycle import archiving, artifacts
from flyball.cycle.session import Session
from flyball.learn import finish as finishes
from flyball.learn.finish import Finish
from flyball.learn.knobs import Knob
from flyball.release import rollout, version
from flyball.release.rollout import Rollout
from flyball.release.version import Snapshot
from flyball.serve import reply, router
from flyball.serve.journal import Entry


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its causes.

    Attributes:
        inputs: the request as it was recorded; personal values are keyed hashes.
        features: the values that the model saw, as known when asked.
        failed: the code of the error, where this attempt gave no answer.
        outputs: of an answer of several numbers all of them, by class or quantile.
        decision: what was decided; None where nothing is. `threshold`: from which on it is true, for such a question.
        because: how this version came to be asked.
        manifest, snapshot, knobs, causes, environment, commit: of the version; empty for the declared default, which is none.
        causes: step -> cause -> fingerprint.
        proof: what was checked on the way.
    """

    prediction: str
    output: float | None
    failed: str
    because: str
    model: str
    version: str
    epoch: int
    role: str
    via: str
    asked: str
    within_tolerance: bool
    latency_us: int
    inputs: dict[str, Any]
    features: dict[str, Any]
    outputs: dict[str, float] = {}
    decision: bool | str | None = None
    threshold: float | None = None
    manifest: str = ""
    snapshot: Snapshot | None = None
    knobs: dict[str, Knob] = {}
    causes: dict[str, dict[str, str]] = {}
    environment: dict[str, str] = {}
    commit: str = ""
    proof: str = "no version gave this answer: it is the default that the app declares"


def why(session: Session, prediction: str) -> Why:
    """Explain one recorded answer.

    Raises:
        StateError: `no-such-prediction`, `answer-not-kept`; `signature-broken`, `history-broken` or `history-truncated` where
            a link fails.
    """
    entry = session.journal.find(prediction)
    if entry is None:
        archiving.refuse(session, prediction)
    found = Why(
        prediction=entry.id,
        output=entry.output if math.isfinite(entry.output) else None,
        failed=entry.failed,
        because=_because(session, entry),
        model=entry.model,
        version=entry.version,
        epoch=entry.epoch,
        role=entry.role,
        via=entry.via,
        asked=from_micros(entry.asked).isoformat(),
        within_tolerance=entry.within_tolerance,
        latency_us=entry.latency_us,
        inputs=dict(entry.inputs),
        features=dict(entry.features),
        decision=entry.decision,
    )
    if entry.version == router.DEFAULT:
        return found
    row = version.find(session.facts, session.app.name, entry.version)
    manifest = version.read(session.app.name, row, session.blobs, session.signer)
    history.holds(session.facts, manifest.head)
    task, finish = artifacts.load_task(session, manifest), artifacts.load_finish(session, manifest)
    return msgspec.structs.replace(
        found,
        outputs=reply.named(task, entry.outputs) if task is not None else {},
        threshold=_threshold(finish, entry),
        manifest=row.manifest,
        snapshot=manifest.snapshot,
        knobs=dict(manifest.knobs),
        causes=manifest.causes,
        environment=manifest.environment,
        commit=manifest.commit,
        proof="the manifest's signature holds, and the history that it was signed against is still there",
    )


def _threshold(finish: Finish, entry: Entry) -> float | None:
    if not isinstance(entry.decision, bool) or finish.threshold is None:
        return None
    group = finishes.group(entry.inputs.get(finish.by))
    return finish.thresholds.get(group, finish.threshold) if finish.by else finish.threshold


def _because(session: Session, entry: Entry) -> str:
    """The decision about who answers by which the question was asked, and who was on the way then.

    It is told by the epoch: a server follows a decision a moment later, so a time would name one that it had not heard of.
    """
    state, decided = Rollout(), None
    for at, said in rollout.history(session.facts, session.app.name, entry.model):
        then = rollout.after(state, said, at)
        if then.epoch > entry.epoch:
            break
        if then.epoch != state.epoch:  # a pause changes nobody
            decided = said
        state = then
    if decided is None:
        return f"asked before anything was decided about {entry.model}"
    beside = f"; {state.candidate} was on its way, in {state.stages[state.stage]}" if state.candidate else ""
    told = f"{rollout.told(decided)}{beside}"
    if entry.role == router.OVERRIDE:
        return f"an operator asked {entry.version} by its name; {told}"
    if entry.role == "shadow" and entry.version not in (state.champion, state.candidate):
        return f"{entry.version} was set to compute beside; {told}"
    return told
