"""Reproduce: make a version again from its recorded data, code and knobs, and compare every byte.

The code that runs is the code that is here, and only if its fingerprints are those that were signed: nothing from a store is
run. Where they differ, the cause is named and nothing is trained, since the result could only differ. The chosen knobs are
replayed, not the search.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball._kernel import fingerprint, history, ids
from flyball.cycle import pipeline, snapshot
from flyball.cycle.pipeline import Work
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.cycle.steps import Pinned
from flyball.learn import examples as building
from flyball.learn import fitting
from flyball.release import version
from flyball.release.version import Manifest

MADE = ("examples", "train")
"""The steps that are run again; the search's result is replayed."""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        identical: every compared artifact has the same bytes.
        compared: the artifacts that were made again, by name.
        step: the first step that differs; "" if none does.
        why: what differs there.
    """

    version: str
    identical: bool
    compared: list[str]
    step: str = ""
    why: str = ""


def reproduce(session: Session, name: str, tell: Tell = silent) -> Reproduction:
    """Make a version again.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `history-truncated`.
    """
    row = version.find(session.facts, session.app.name, name)
    manifest = version.read(row.manifest, session.blobs, session.signer)
    history.holds(session.facts, manifest.head)
    model = session.app.model(manifest.model)
    pin = Pinned(batches=manifest.snapshot.batches, cutoff=manifest.snapshot.cutoff, reason="reproduce")
    work = Work(session, model, pin, tell)
    for step in pipeline.STEPS:
        if step.name in MADE and (changed := _changed(fingerprint.parts(step.causes(work)), manifest, step.name)):
            return Reproduction(
                version=name, identical=False, compared=[], step=step.name, why=_explain(changed, manifest)
            )
    tell(Event(step="examples", state="run", detail="from the pinned batches"))
    examples = building.build(model, snapshot.read(session, model, pin.batches), pin.cutoff)
    found = _compare(name, manifest, "examples", {"examples": building.to_bytes(examples)}, [])
    if not found.identical:
        return found
    tell(Event(step="train", state="run", detail="with the recorded knobs"))
    made = fitting.train_all(model, manifest.knobs, examples, work.bounds)
    return _compare(name, manifest, "train", made, found.compared)


def _changed(now: Mapping[str, str], manifest: Manifest, step: str) -> list[str]:
    recorded = manifest.causes[step]
    return sorted(name for name in now.keys() | recorded.keys() if now.get(name) != recorded.get(name))


def _explain(changed: list[str], manifest: Manifest) -> str:
    where = f"; it was trained at commit {manifest.commit}" if manifest.commit else ""
    return f"not the code or environment of the version: {', '.join(changed)} changed{where}"


def _compare(name: str, manifest: Manifest, step: str, made: Mapping[str, bytes], before: list[str]) -> Reproduction:
    differing = [each for each, data in made.items() if manifest.artifacts.get(each) != ids.digest(data)]
    return Reproduction(
        version=name,
        identical=not differing,
        compared=[*before, *made],
        step=step if differing else "",
        why=f"other bytes: {', '.join(differing)}" if differing else "",
    )
