"""The steps that decide, from a trained version to who answers: register, gates, release.

A gate is a cause of `gates` alone. Who answers is a cause of `release`, and of `gates` where one of them compares with the
champion: so an app that goes back to what it declared before also goes back to that version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec
import polars as pl

from flyball._kernel import conditions, facts
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement, Verdict
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, environment, learning, rival, tested, touched
from flyball.cycle.session import Session
from flyball.cycle.steps import Done, Ran
from flyball.cycle.tested import Tested
from flyball.cycle.work import Work
from flyball.learn import behaviour, gates, split
from flyball.learn.behaviour import Behaviour
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export.predictor import ARTIFACTS, Predictor
from flyball.learn.fit import fitting
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.task import Answers
from flyball.release import approval, moves, rollout, version
from flyball.release.rollout import Rollout
from flyball.release.version import Judged, Manifest, Registered, Snapshot

VERDICTS = "verdicts.json"
"""The artifact of `gates` that holds its verdicts."""

PAIRED = "paired.json"
"""The artifact of `gates` that compares the version with who answered then, on the same rows."""


def register(work: Work, done: Mapping[str, Done]) -> Ran:
    """Give the version a name and a signed manifest, with the predictor that was measured to be the fastest exact one."""
    session, trained = work.session, done["train"].outputs
    found = learning.chosen(session, done)
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
        artifacts=trained | done["examples"].outputs | done["evaluate"].outputs | done["examine"].outputs,
        predictor=choice.kind,
        head=session.facts.head().anchor(),
        environment=environment.recorded(session.app),
        commit=session.commit(),
    )
    digest = version.write(manifest, session.blobs, session.signer)
    measured = msgspec.json.decode(session.blobs.get(done["evaluate"].outputs["evaluation"]), type=Evaluation)
    estimates = {name: each.estimate for name, each in measured.measurements.items()}
    registered = Registered(
        version=manifest.version, manifest=digest, search=done["search"].key, knobs=found.knobs, metrics=estimates
    )
    fact = Fact(*work.about, registered)
    outputs = {"version": manifest.version, "manifest": digest}
    return Ran(outputs, (fact,), choice.row_us, said=f"{manifest.version}, answers by {choice.kind}")


def gate_causes(work: Work, done: Mapping[str, Done]) -> Mapping[str, object]:
    """The gates, and whom they compare with."""
    gates_ = work.session.app.gates
    compares = any(gate.whom == conditions.champion for gate in gates_)
    said: dict[str, object] = {f"gate {gate}": gate for gate in gates_}
    if compares:
        said["champion"] = rival.whom(work, done)[0]
    if any(gate.metric.name == approval.NAME for gate in gates_) and "register" in done:
        words = approval.said(work.session.facts, *work.about, done["register"].outputs["version"])
        said["approval"] = sorted((each.by, each.yes, each.reason) for each in words)
    return said


def judge(work: Work, done: Mapping[str, Done]) -> Ran:
    """Judge every gate on the held-out rows; what is to be read of it (`card`) is drawn when somebody asks."""
    session, app = work.session, work.session.app
    found = tested.tested(session, work.model, done, work.pinned.cutoff, gates.columns(app.gates))
    manifest = artifacts.load_manifest(session, done["register"].outputs["version"])
    answering = artifacts.load_predictor(session, manifest)
    champion = rival.answered(work, done)
    rows = found.held_out
    if isinstance(champion, rival.Answered):
        rows = replace(rows, decided={**rows.decided, conditions.champion.name: champion.decided})
    timed = any(gate.metric.name == named.model_latency.name for gate in app.gates)
    judged = gates.judge_all(
        app.gates,
        rows,
        champion=champion.scores if isinstance(champion, rival.Answered) else champion,
        latency=fitting.latency(answering, found.matrix, session.clock.monotonic) if timed else None,
        told=dict(_elsewhere(work, manifest, found, answering)),
    )
    look = touched.of(session, work.model, manifest.version, found.examples, found.bounds)
    said = Judged(version=manifest.version, decision=judged.decision, verdicts=list(judged.verdicts))
    outputs = {"decision": judged.decision, VERDICTS: session.blobs.put(msgspec.json.encode(said.verdicts))}
    if isinstance(champion, rival.Answered):
        outputs[PAIRED] = session.blobs.put(facts.encode(rival.compared(found.held_out, champion)))
        said = msgspec.structs.replace(said, rival=rival.whom(work, done)[0], compared=outputs[PAIRED])
    facts_ = (Fact(*work.about, said), Fact(*work.about, look))
    return Ran(outputs, facts_, judged.measured, said=judged.decision)


def _elsewhere(
    work: Work, manifest: Manifest, found: Tested, answering: Predictor
) -> Iterator[tuple[str, tuple[Measurement | None, str]]]:
    """What gates are told that no column of the held-out rows can show: what is expected, size, approval."""
    session = work.session
    for gate in session.app.gates:
        if gate.metric.name == approval.NAME:
            words = approval.said(session.facts, *work.about, manifest.version)
            yield str(gate), approval.told(gate, words, manifest.version)
        elif gate.metric.name == named.model_bytes.name:
            size = float(len(session.blobs.get(manifest.artifacts[ARTIFACTS[answering.name]])))
            yield str(gate), (Measurement(estimate=size, low=size, high=size, n=1), "bytes of what answers")
        elif isinstance(gate.metric, Behaviour):
            test = split.cut(found.examples, found.bounds).test
            encoder, rows = artifacts.load_encoder(session, manifest), found.examples.frame.filter(pl.Series(test))
            blocks = found.held_out.blocks

            def answer(frame: pl.DataFrame, encoder: Encoder = encoder) -> Answers:
                return encoder.answers(frame, answering.batch)

            yield str(gate), behaviour.measure(gate.metric, work.model.features, rows, answer, blocks)


def release_causes(work: Work, done: Mapping[str, Done]) -> Mapping[str, object]:
    """Who answers; and for a version that does not yet: what stands against it, and whose candidate must be waited for."""
    now = rollout.now(work.session.facts, *work.about)
    name = done["register"].outputs["version"] if "register" in done else ""
    ours = now.by in ("", rollout.LOOP)
    if name == now.champion:
        other = now.candidate if ours else ""
        return {"champion": rival.whom(work, done), "held": "", "paused": "", "on its way": other, "given up": 0}
    waits = "" if ours or now.candidate == name else now.candidate
    stands = {"held": now.held.get(name, ""), "paused": now.paused, "on its way": waits}
    return {"champion": rival.whom(work, done), **stands, "given up": now.given_up.get(name, 0)}


def release(work: Work, done: Mapping[str, Done]) -> Ran:
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
    why = "passed its gates" if work.session.app.gates else "no gates are declared"
    return moves.start(now, name, work.session.app.release, reason=why)


def _tested(work: Work, done: Mapping[str, Done]) -> Tested:
    return tested.tested(work.session, work.model, done, work.pinned.cutoff, ())


def nothing(_: Work, __: Mapping[str, Done]) -> Mapping[str, object]:
    """No causes beyond the steps that it needs."""
    return {}


def verdicts(session: Session, judged: Done) -> list[Verdict]:
    """What the gates said when that step ran; a version may have been judged by other gates since, and back."""
    return msgspec.json.decode(session.blobs.get(judged.outputs[VERDICTS]), type=list[Verdict])
