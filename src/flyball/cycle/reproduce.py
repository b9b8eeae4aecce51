"""Reproduce: make a version again from its recorded data, code and knobs, and compare every byte.

The code that runs is the code that is here, and only if its fingerprints are those that were signed: nothing from a store is
run. Where they differ, the cause is named and nothing is trained, since the result could only differ; unless somebody wants to
know by how much (`anyway`). The chosen knobs are replayed, not the search. What differs is told with its size (`apart`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from flyball._kernel import fingerprint, history, ids
from flyball._kernel.errors import StateError
from flyball.cycle import apart, artifacts, erasures, examining, learning, pipeline, snapshot, tested
from flyball.cycle.apart import Apart
from flyball.cycle.examining import Trained
from flyball.cycle.session import Session, Tell, silent
from flyball.cycle.steps import Pinned
from flyball.cycle.work import Work
from flyball.learn import examples as building
from flyball.learn import reference as references
from flyball.learn.fit import fitting
from flyball.learn.quality.evaluate import Evaluation
from flyball.release.version import Manifest

MADE = ("examples", "train", "evaluate", "examine")
"""The steps that are run again; the search's result is replayed."""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        identical: every compared artifact has the same bytes.
        compared: the artifacts that were made again, by name.
        step: the first step that differs; "" if none does.
        why: what differs there.
        erased: whether it is reproducible but for rows that were erased: nothing was made again.
        apart: by how much; the first step that differs alone, and with `anyway` each that does.
        changed: step -> causes that are not as they were recorded.
    """

    version: str
    identical: bool
    compared: list[str]
    step: str = ""
    why: str = ""
    erased: bool = False
    apart: list[Apart] = []
    changed: dict[str, list[str]] = {}


def reproduce(session: Session, name: str, tell: Tell = silent, *, anyway: bool = False) -> Reproduction:
    """Make a version again.

    Args:
        anyway: also by code or libraries that are not the version's, to see what the difference comes to.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `history-truncated`.
    """
    manifest = artifacts.load_learned(session, name)
    history.holds(session.facts, manifest.head)
    if (since := erasures.marked(session).get(name)) is not None:
        why = f"reproducible except erased rows: some that it learned from were erased on {since:%Y-%m-%d %H:%M} UTC"
        return Reproduction(version=name, identical=False, compared=[], step="examples", why=why, erased=True)
    pin = Pinned(batches=manifest.snapshot.batches, cutoff=manifest.snapshot.cutoff, reason="reproduce")
    work = Work(session, session.app.model(manifest.model), pin, tell)
    changed = _changed(work, manifest)
    if changed and not anyway:
        step, causes = next(iter(changed.items()))
        why = _explain(causes, manifest)
        return Reproduction(version=name, identical=False, compared=[], step=step, why=why, changed=changed)
    return _compared(work, manifest, changed, anyway=anyway)


def _compared(work: Work, manifest: Manifest, changed: dict[str, list[str]], *, anyway: bool) -> Reproduction:
    """Make it, step by step, and compare each with what was signed."""
    session, first = work.session, ""
    compared: list[str] = []
    found: list[Apart] = []
    for step, made in _made(work, manifest):
        compared += made
        if not (why := _differs(session, manifest, made)):
            continue
        first = first or f"{step}: {why}"
        stored = {name: data for name in made if (data := _stored(session, manifest, name)) is not None}
        found.append(apart.apart(step, stored, made, work.model))
        if not anyway:
            break
    step, _, why = first.partition(": ")
    if changed and why:
        why = f"{why} ({_explain(sorted({c for causes in changed.values() for c in causes}), manifest)})"
    return Reproduction(
        version=manifest.version,
        identical=not first,
        compared=compared,
        step=step,
        why=why,
        apart=found,
        changed=changed,
    )


def _made(work: Work, manifest: Manifest) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The artifacts of each step, made again."""
    model, pin, session = work.model, work.pinned, work.session
    work.say("examples", "from the pinned batches")
    examples = building.build(model, snapshot.read(session, model, pin.batches), pin.cutoff)
    yield "examples", {"examples": building.to_bytes(examples)}
    work.say("train", "with the recorded knobs")
    bounds = work.bounds(examples)
    trained = fitting.train_all(model, manifest.knobs, examples, bounds)
    yield "train", trained
    work.say("evaluate", "on the held-out rows")
    rows = tested.held_out(model, examples, trained, bounds, tested.slices(model))
    answers = rows.held_out.scores[rows.held_out.main]
    evaluated = learning.evaluation(model, rows)
    yield (
        "evaluate",
        {"evaluation": evaluated, references.ARTIFACT: learning.reference(model, examples, bounds, answers)},
    )
    if "examine" not in manifest.causes:
        return  # an earlier release did not examine
    work.say("examine", "what it is like")
    given = Trained(
        model=model,
        knobs=manifest.knobs,
        examples=examples,
        bounds=bounds,
        trained=trained,
        evaluation=msgspec.json.decode(evaluated, type=Evaluation),
        metric=session.app.search.optimize,
    )
    yield "examine", examining.examine(given, refit=learning.REFIT)


def _changed(work: Work, manifest: Manifest) -> dict[str, list[str]]:
    """Step -> its causes that are not as they were signed."""
    found = {}
    for step in pipeline.STEPS:
        if step.name not in MADE or step.name not in manifest.causes:
            continue
        now, recorded = fingerprint.parts(step.causes(work, {})), manifest.causes[step.name]
        # The rows are read from the pinned batches, not made again from files: what makes rows today does not matter.
        # How often others were erased before that is no cause of what they are either.
        named = {name for name in now.keys() | recorded.keys() if not name.startswith("source ") and name != "erased"}
        if names := sorted(name for name in named if now.get(name) != recorded.get(name)):
            found[step.name] = names
    return found


def _explain(changed: list[str], manifest: Manifest) -> str:
    where = f"; it was trained at commit {manifest.commit}" if manifest.commit else ""
    return f"not the code or environment of the version: {', '.join(changed)} changed{where}"


def _differs(session: Session, manifest: Manifest, made: Mapping[str, bytes]) -> str:
    """What is not as it was signed: the bytes that were made now, or those that lie in the store; "" if all is."""
    other = [name for name, data in made.items() if manifest.artifacts.get(name) != ids.digest(data)]
    if other:
        return f"other bytes: {', '.join(other)}"
    lost = [name for name in made if _stored(session, manifest, name) is None]
    return f"made again to the byte, but changed or lost in the store: {', '.join(lost)}" if lost else ""


def _stored(session: Session, manifest: Manifest, name: str) -> bytes | None:
    """An artifact as it was signed; None where it never was, or was changed or lost since."""
    if name not in manifest.artifacts:
        return None
    try:
        return session.blobs.get(manifest.artifacts[name])
    except StateError:
        return None
