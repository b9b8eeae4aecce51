"""The way of one model from pinned data to a decision, as a list of steps that reads from top to bottom.

    examples -> search -> train -> evaluate -> register -> gates -> release

Each step says its causes by name, so that `plan` can say which of them changed. A monitor is no cause of any step; a gate is a
cause of `gates` alone; one feature is one cause of `examples`. Who answers is a cause of `release`, and of `gates` where one of
them compares with the champion: so an app that goes back to what it declared before also goes back to that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from flyball._kernel import conditions, facts
from flyball._kernel.conditions import Verdict
from flyball._kernel.errors import Bug, StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, causes, erasures, snapshot, steps, tested
from flyball.cycle.session import Event, Session, Tell
from flyball.cycle.steps import Done, Pinned, Planned, Ran, Step
from flyball.learn import evaluate as evaluating
from flyball.learn import examples as building
from flyball.learn import fitting, gates, report, split
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.evaluate import Evaluation
from flyball.learn.examples import Examples
from flyball.learn.explore import Found
from flyball.learn.model import Model
from flyball.learn.split import Bounds
from flyball.release import moves, rollout, version
from flyball.release.rollout import Rollout
from flyball.release.version import Judged, Manifest, Registered, Snapshot


@dataclass(frozen=True)
class Work:
    """What the steps of one model read: the session, the model, and the pinned data (None before the first pin)."""

    session: Session
    model: Model
    pin: Pinned | None
    tell: Tell

    @property
    def about(self) -> tuple[str, str]:
        """(app, model): how facts and projections are keyed."""
        return self.session.app.name, self.model.name

    @property
    def pinned(self) -> Pinned:
        """The pin, which every running step has."""
        if self.pin is None:
            raise Bug("step-before-pin", "A step ran before its data was pinned", next="Report it, with the command.")
        return self.pin

    def bounds(self, examples: Examples) -> Bounds:
        """The spans before the cutoff."""
        return split.bounds_of(examples, self.pinned.cutoff, self.session.app.search.split)

    def say(self, step: str, detail: str) -> None:
        """Tell whoever waits how a step comes along."""
        self.tell(Event(step=step, state="run", detail=detail))


def _examples_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    model = work.model
    data = (work.pin.batches, work.pin.cutoff) if work.pin is not None else None
    erased = {"erased": work.pin.erased} if work.pin is not None and work.pin.erased else {}
    return {
        "data": data,
        **erased,
        **causes.of_sources(work.session.app.sources, snapshot.tables_of(model)),
        **causes.of_features(model),
        "question": causes.of_question(model),
        **causes.environment("polars", "flyball"),
    }


def _examples(work: Work, _: Mapping[str, Done]) -> Ran:
    tables = snapshot.read(work.session, work.model, work.pinned.batches)
    built = building.build(work.model, tables, work.pinned.cutoff)
    counts = built.counts
    return Ran(
        {"examples": work.session.blobs.put(building.to_bytes(built))},
        said=f"{counts.learned:,} settled, {counts.void:,} void, {counts.unsettled:,} not settled yet",
    )


def _search_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    settings = work.session.app.search
    return {
        "search": (settings.trials, settings.optimize.name, settings.split),
        "knobs": work.model.knobs,
        "estimator": work.model.build,
        **causes.environment("numpy", "scipy", "scikit-learn", "lightgbm", "optuna"),
    }


def _search(work: Work, done: Mapping[str, Done]) -> Ran:
    settings = work.session.app.search

    def tell(number: int, score: float) -> None:
        work.say("search", f"trial {number + 1} of {settings.trials}: {settings.optimize} {score:.4f}")

    examples = tested.load_examples(work.session, done)
    found = fitting.explore(work.model, settings, examples, work.bounds(examples), tell)
    knobs = ", ".join(f"{name} = {value:g}" for name, value in found.knobs.items())
    said = f"{len(found.trials)} trials, best {settings.optimize} {found.score:.4f} with {knobs or 'no knobs'}"
    return Ran({"found": work.session.blobs.put(facts.encode(found))}, said=said)


def _train_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    return {
        "estimator": work.model.build,
        "split": work.session.app.search.split,
        **causes.environment("numpy", "scipy", "scikit-learn", "lightgbm", "onnx", "onnxmltools", "skl2onnx", "skops"),
    }


def _train(work: Work, done: Mapping[str, Done]) -> Ran:
    found = msgspec.json.decode(work.session.blobs.get(done["search"].outputs["found"]), type=Found)
    examples = tested.load_examples(work.session, done)
    trained = fitting.train_all(work.model, found.knobs, examples, work.bounds(examples))
    outputs = {name: work.session.blobs.put(data) for name, data in trained.items()}
    return Ran(outputs, said=f"{work.model.name}, {', '.join(fitting.RIVALS)} as {len(outputs)} artifacts")


def _evaluate_causes(work: Work, _: Mapping[str, Done]) -> Mapping[str, object]:
    metrics = [m.name for m in gates.measurable(classifies=models.classifies(work.model))]
    return {"metrics": metrics, "slices": tested.slices(work.model)}


def _evaluate(work: Work, done: Mapping[str, Done]) -> Ran:
    found = tested.tested(work.session, work.model, done, work.pinned.cutoff, tested.slices(work.model))
    data = evaluation(found)
    measured = msgspec.json.decode(data, type=Evaluation)
    names = [m.name for m in gates.measurable(classifies=measured.classifies) if m.name in measured.measurements]
    shown = ", ".join(f"{name} {measured.measurements[name].estimate:.3f}" for name in names[:2])
    answers = found.held_out.scores[found.held_out.main]
    profiled = reference(work.model, tested.load_examples(work.session, done), found.bounds, answers)
    return Ran(
        {"evaluation": work.session.blobs.put(data), references.ARTIFACT: work.session.blobs.put(profiled)},
        said=f"{measured.n:,} held-out questions, {shown}",
    )


def evaluation(found: tested.Tested) -> bytes:
    """The evaluation on held-out rows, as it is stored."""
    held_out = found.held_out
    return facts.encode(evaluating.evaluate(held_out, gates.measurable(classifies=held_out.classifies)))


def reference(model: Model, examples: Examples, bounds: Bounds, answers: np.ndarray) -> bytes:
    """What monitors compare the version's traffic with, as it is stored."""
    held_out = split.cut(examples, bounds).test
    return facts.encode(references.reference(model, examples, held_out, answers))


def _register(work: Work, done: Mapping[str, Done]) -> Ran:
    session, trained = work.session, done["train"].outputs
    found = msgspec.json.decode(session.blobs.get(done["search"].outputs["found"]), type=Found)
    held_out = _tested(work, done)
    choice = fitting.choose(
        {n: session.blobs.get(d) for n, d in trained.items()}, held_out.matrix, session.clock.monotonic
    )
    manifest = Manifest(
        app=work.about[0],
        model=work.about[1],
        version=f"{work.model.name}-{len(version.versions(session.facts, *work.about)) + 1}",
        created=session.clock.now(),
        snapshot=Snapshot(batches=work.pinned.batches, cutoff=work.pinned.cutoff),
        tested_from=held_out.bounds.test,
        tested_until=held_out.bounds.end,
        knobs=found.knobs,
        steps={name: each.key for name, each in done.items()},
        causes={name: each.causes for name, each in done.items()},
        artifacts=trained | done["examples"].outputs | done["evaluate"].outputs,
        predictor=choice.kind,
        head=session.facts.head().anchor(),
        environment={name: str(value) for name, value in causes.environment(*LIBRARIES).items()},
        commit=session.commit(),
    )
    digest = version.write(manifest, session.blobs, session.signer)
    fact = Fact(*work.about, Registered(version=manifest.version, manifest=digest))
    outputs = {"version": manifest.version, "manifest": digest}
    return Ran(outputs, (fact,), choice.row_us, said=f"{manifest.version}, answers by {choice.kind}")


def _gate_causes(work: Work, done: Mapping[str, Done]) -> Mapping[str, object]:
    gates_ = work.session.app.gates
    compares = any(gate.whom == conditions.champion for gate in gates_)
    return {f"gate {gate}": gate for gate in gates_} | ({"champion": _rival(work, done)[0]} if compares else {})


def _gates(work: Work, done: Mapping[str, Done]) -> Ran:
    session, app = work.session, work.session.app
    found = tested.tested(session, work.model, done, work.pinned.cutoff, gates.columns(app.gates))
    manifest = artifacts.load_manifest(session, done["register"].outputs["version"])
    judged = gates.judge_all(
        app.gates,
        found.held_out,
        champion=_champion(work, done),
        latency=fitting.latency(artifacts.load_predictor(session, manifest), found.matrix, session.clock.monotonic),
    )
    measured = msgspec.json.decode(session.blobs.get(done["evaluate"].outputs["evaluation"]), type=Evaluation)
    rendered = report.render(_subject(work, manifest, measured, judged))
    files = {"report.md": rendered.markdown.encode(), "report.html": rendered.html.encode(), **rendered.figures}
    said = Judged(version=manifest.version, decision=judged.decision, verdicts=list(judged.verdicts))
    files[VERDICTS] = msgspec.json.encode(said.verdicts)
    outputs = {"decision": judged.decision} | {name: session.blobs.put(data) for name, data in files.items()}
    return Ran(outputs, (Fact(*work.about, said),), judged.measured, said=judged.decision)


def _rival(work: Work, done: Mapping[str, Done]) -> tuple[str, int]:
    """Against whom the version is to answer ("" if against nobody), and in which term that one answers.

    For a version that answers already it is who answered before it: what was decided then does not change by having been done.
    """
    now = rollout.now(work.session.facts, *work.about)
    if "register" in done and done["register"].outputs["version"] == now.champion:
        return now.previous, now.term - 1
    return now.champion, now.term


def _champion(work: Work, done: Mapping[str, Done]) -> np.ndarray | str | None:
    """The scores of the rival on the version's held-out rows; None where there is no rival.

    Where it reads features that are declared no longer, the scores that it got on these rows in its own training count; were
    they not held out for it, it cannot be compared: the reason, which leaves every gate that compares with it inconclusive.
    """
    session = work.session
    name, _ = _rival(work, done)
    if not name:
        return None
    manifest = artifacts.load_manifest(session, name)
    examples = tested.load_examples(session, done)
    bounds = work.bounds(examples)
    test = split.cut(examples, bounds).test
    if changed := causes.changed_features(work.model, manifest.causes["examples"]):
        scores = tested.recalled(session, manifest, examples, test)
        why = f"{name} cannot be asked about these rows: {', '.join(changed)} changed since it was trained"
        return scores if scores is not None else why
    if manifest.tested_from > bounds.test:
        return f"{name} learned from some of these rows: they were not held out for it"
    encoder = artifacts.load_encoder(session, manifest)
    return artifacts.load_predictor(session, manifest).batch(encoder.encode(examples.inputs.filter(test)))


def _release_causes(work: Work, done: Mapping[str, Done]) -> Mapping[str, object]:
    """Who answers; and for a version that does not yet: what stands against it, and whose candidate must be waited for."""
    now = rollout.now(work.session.facts, *work.about)
    name = done["register"].outputs["version"] if "register" in done else ""
    ours = now.by in ("", rollout.LOOP)
    if name == now.champion:
        other = now.candidate if ours else ""
        return {"champion": _rival(work, done), "held": "", "paused": "", "on its way": other, "given up": 0}
    waits = "" if ours or now.candidate == name else now.candidate
    stands = {"held": now.held.get(name, ""), "paused": now.paused, "on its way": waits}
    return {"champion": _rival(work, done), **stands, "given up": now.given_up.get(name, 0)}


def _release(work: Work, done: Mapping[str, Done]) -> Ran:
    """Send what its gates released on its way; what is held or rejected stays registered, and whoever answers keeps answering.

    A pause, a fall from an earlier rollout or a person's candidate stands in the way: that is said, and is no failure.
    """
    decision, name = done["gates"].outputs["decision"], done["register"].outputs["version"]
    head = work.session.facts.head()
    now = rollout.now(work.session.facts, *work.about)
    try:
        said = _said(work, name, decision, now)
    except StateError as problem:
        return Ran({"decision": decision, "waits": problem.code}, said=f"{problem.what} {problem.why}")
    if not said:
        return Ran({"decision": decision}, said=f"{now.champion or 'nobody'} answers")
    went = "; ".join(rollout.told(each) for each in said)
    facts_ = tuple(Fact(*work.about, each) for each in said)
    return Ran({"decision": decision}, facts_, said=went, expect=head.tx)


def _said(work: Work, name: str, decision: str, now: Rollout) -> list[Said]:
    """What follows from a decision of the gates.

    The loop's own candidate is withdrawn where what is declared no longer stands behind it: the app went back to the champion,
    or its gates, judged anew, do not release it.

    Raises:
        StateError: what `moves.start` raises.
    """
    ours = bool(now.candidate) and now.by == rollout.LOOP
    if ours and name == now.champion:
        return moves.withdraw(now, f"what is declared is {name}")
    if ours and name == now.candidate and decision != "release":
        return moves.withdraw(now, f"its gates, judged anew, say {decision}")
    if decision != "release" or name in (now.champion, now.candidate):
        return []
    return moves.start(now, name, work.session.app.release, reason="passed its gates")


def _tested(work: Work, done: Mapping[str, Done]) -> tested.Tested:
    return tested.tested(work.session, work.model, done, work.pinned.cutoff, ())


def _subject(work: Work, manifest: Manifest, measured: Evaluation, judged: gates.Judged) -> report.Subject:
    snap = manifest.snapshot
    return report.Subject(
        title=f"{manifest.version}: evaluation",
        app=manifest.app,
        model=manifest.model,
        version=manifest.version,
        evaluation=measured,
        verdicts=judged.verdicts,
        lineage={
            "learned from": ", ".join(f"{table} up to batch {batch}" for table, batch in snap.batches.items()),
            "known before": f"{snap.cutoff:%Y-%m-%d %H:%M} UTC",
            "tested on": f"questions asked {manifest.tested_from:%Y-%m-%d} to {manifest.tested_until:%Y-%m-%d}",
            "answers by": manifest.predictor,
        },
        features=[o.name for o in work.model.features.outputs(work.model.question)],
        params=manifest.knobs,
        measured=judged.measured,
    )


def _nothing(_: Work, __: Mapping[str, Done]) -> Mapping[str, object]:
    return {}


def verdicts(session: Session, judged: Done) -> list[Verdict]:
    """What the gates said when that step ran; a version may have been judged by other gates since, and back."""
    return msgspec.json.decode(session.blobs.get(judged.outputs[VERDICTS]), type=list[Verdict])


VERDICTS = "verdicts.json"
"""The artifact of `gates` that holds its verdicts."""

LIBRARIES = ("flyball", "polars", "numpy", "scikit-learn", "lightgbm", "onnx")

STEPS: tuple[Step[Work], ...] = (
    Step("examples", (), _examples_causes, _examples, repeats=True),
    Step("search", ("examples",), _search_causes, _search, repeats=True),
    Step("train", ("examples", "search"), _train_causes, _train, repeats=True),
    Step("evaluate", ("examples", "train"), _evaluate_causes, _evaluate, repeats=True),
    Step("register", ("examples", "search", "train", "evaluate"), _nothing, _register),
    Step("gates", ("examples", "train", "evaluate", "register"), _gate_causes, _gates),
    Step("release", ("register", "gates"), _release_causes, _release),
)


def walk(work: Work) -> list[Planned]:
    """The steps as they stand. Examples that an erasure took stay done: only a decision to retrain makes others."""
    session = work.session
    return steps.walk(
        STEPS,
        work,
        session.facts,
        work.about,
        lambda digest: session.blobs.has(digest) or erasures.holds_frame(session, digest),
    )
