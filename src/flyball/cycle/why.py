"""Why: everything that led to one answer, from the journal to the data that the version learned from.

Each link is checked on the way: the manifest's signature, and that the history which it was signed against is still there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flyball._kernel import history
from flyball._kernel.clock import from_micros
from flyball._kernel.errors import StateError
from flyball.cycle.session import Session
from flyball.release import version
from flyball.release.version import Snapshot


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its causes.

    Attributes:
        inputs: the request as it was recorded; personal values are keyed hashes.
        features: the values that the model saw, as known when asked.
        snapshot: the data that the version learned from.
        causes: step -> cause -> fingerprint.
        proof: what was checked on the way.
    """

    prediction: str
    output: float
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
    manifest: str
    snapshot: Snapshot
    knobs: dict[str, float]
    causes: dict[str, dict[str, str]]
    environment: dict[str, str]
    commit: str
    proof: str


def why(session: Session, prediction: str) -> Why:
    """Explain one recorded answer.

    Raises:
        StateError: `no-such-prediction`; `signature-broken`, `history-broken` or `history-truncated` where a link fails.
    """
    entry = session.journal.find(prediction)
    if entry is None:
        raise StateError(
            "no-such-prediction",
            f"No answer {prediction!r} is recorded.",
            why="Every answer is recorded under the id that the caller got.",
            next="Check the id; flyball status says how many answers there are.",
        )
    row = version.find(session.facts, session.app.name, entry.version)
    manifest = version.read(session.app.name, row, session.blobs, session.signer)
    history.holds(session.facts, manifest.head)
    return Why(
        prediction=entry.id,
        output=entry.output,
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
        manifest=row.manifest,
        snapshot=manifest.snapshot,
        knobs=manifest.knobs,
        causes=manifest.causes,
        environment=manifest.environment,
        commit=manifest.commit,
        proof="the manifest's signature holds, and the history that it was signed against is still there",
    )
