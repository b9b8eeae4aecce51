"""Reproduce: make a version again from its recorded data, code and knobs, and compare every byte.

The code that runs is the code that is here, and only if its fingerprints are those that were signed: nothing from a store is
run. Where they differ, the cause is named and nothing is trained, since the result could only differ. The chosen knobs are
replayed, not the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from flyball._kernel import fingerprint, history, ids
from flyball._kernel.errors import StateError
from flyball.cycle import artifacts, erasures, pipeline, snapshot, tested
from flyball.cycle.pipeline import Work
from flyball.cycle.session import Session, Tell, silent
from flyball.cycle.steps import Pinned
from flyball.learn import encode, fitting
from flyball.learn import examples as building
from flyball.learn import reference as references
from flyball.release.version import Manifest

MADE = ("examples", "train", "evaluate")
"""The steps that are run again; the search's result is replayed."""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        identical: every compared artifact has the same bytes.
        compared: the artifacts that were made again, by name.
        step: the first step that differs; "" if none does.
        why: what differs there.
        erased: whether it is reproducible but for rows that were erased: nothing was made again.
    """

    version: str
    identical: bool
    compared: list[str]
    step: str = ""
    why: str = ""
    erased: bool = False


def reproduce(session: Session, name: str, tell: Tell = silent) -> Reproduction:
    """Make a version again.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `history-truncated`.
    """
    manifest = artifacts.load_manifest(session, name)
    history.holds(session.facts, manifest.head)
    if (since := erasures.marked(session).get(name)) is not None:
        why = f"reproducible except erased rows: some that it learned from were erased on {since:%Y-%m-%d %H:%M} UTC"
        return Reproduction(version=name, identical=False, compared=[], step="examples", why=why, erased=True)
    model = session.app.model(manifest.model)
    pin = Pinned(batches=manifest.snapshot.batches, cutoff=manifest.snapshot.cutoff, reason="reproduce")
    work = Work(session, model, pin, tell)
    for step in pipeline.STEPS:
        if step.name in MADE and (changed := _changed(fingerprint.parts(step.causes(work, {})), manifest, step.name)):
            return Reproduction(
                version=name, identical=False, compared=[], step=step.name, why=_explain(changed, manifest)
            )
    compared: list[str] = []
    for step_name, made in _made(work, manifest):
        compared += made
        if why := _differs(session, manifest, made):
            return Reproduction(version=name, identical=False, compared=compared, step=step_name, why=why)
    return Reproduction(version=name, identical=True, compared=compared)


def _made(work: Work, manifest: Manifest) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The artifacts of each step, made again."""
    model, pin = work.model, work.pinned
    work.say("examples", "from the pinned batches")
    examples = building.build(model, snapshot.read(work.session, model, pin.batches), pin.cutoff)
    yield "examples", {"examples": building.to_bytes(examples)}
    work.say("train", "with the recorded knobs")
    made = fitting.train_all(model, manifest.knobs, examples, work.bounds(examples))
    yield "train", made
    work.say("evaluate", "on the held-out rows")
    trained = encode.from_bytes(made[encode.ARTIFACT]), fitting.read_scores(made[fitting.SCORES])
    rows = tested.held_out(model.name, examples, trained, work.bounds(examples), tested.slices(model))
    reference = pipeline.reference(model, examples, work.bounds(examples), trained[1][0])
    yield "evaluate", {"evaluation": pipeline.evaluation(rows), references.ARTIFACT: reference}


def _changed(now: Mapping[str, str], manifest: Manifest, step: str) -> list[str]:
    recorded = manifest.causes[step]
    # The rows are read from the pinned batches, not made again from files: what makes rows today does not matter.
    # How often others were erased before that is no cause of what they are either.
    named = {name for name in now.keys() | recorded.keys() if not name.startswith("source ") and name != "erased"}
    return sorted(name for name in named if now.get(name) != recorded.get(name))


def _explain(changed: list[str], manifest: Manifest) -> str:
    where = f"; it was trained at commit {manifest.commit}" if manifest.commit else ""
    return f"not the code or environment of the version: {', '.join(changed)} changed{where}"


def _differs(session: Session, manifest: Manifest, made: Mapping[str, bytes]) -> str:
    """What is not as it was signed: the bytes that were made now, or those that lie in the store; "" if all is."""
    other = [name for name, data in made.items() if manifest.artifacts.get(name) != ids.digest(data)]
    if other:
        return f"other bytes: {', '.join(other)}"
    lost = [name for name in made if not _sound(session, manifest.artifacts[name])]
    return f"made again to the byte, but changed or lost in the store: {', '.join(lost)}" if lost else ""


def _sound(session: Session, digest: str) -> bool:
    try:
        session.blobs.get(digest)
    except StateError:
        return False
    return True
