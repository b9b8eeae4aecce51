"""Rules of a release that were broken once: each test is a story in which the loop used to do the wrong thing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import flyball as fb
from flyball import average_precision, days, hours, roc_auc
from flyball._kernel import facts, ids
from flyball._kernel.clock import micros
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball._kernel.facts import Fact, Said
from flyball.app import App
from flyball.cycle import apply, operate
from flyball.release import moves, rollout, version
from flyball.release.policy import Release
from flyball.release.rollout import Aborted, Paused, Promoted, Resumed, RolledBack, Rollout, Started, Step
from flyball.serve.journal import Entry
from flyball.watch import quality
from flyball.watch.live import Live
from tests import loops
from tests.loops import STAGES, START, Process, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHADOW = (Step(name="shadow", share=0.0, seconds=86400),)


def verdict(outcome: Outcome) -> Verdict:
    found = Measurement(estimate=0.05, low=0.04, high=0.06, n=100)
    return Verdict(condition="p99_latency <= 0.02s", outcome=outcome, measurement=found, threshold=0.02)


def lived(*said: tuple[float, Said]) -> Rollout:
    """The state after facts at so many hours from `NOW`."""
    state = Rollout()
    for at, each in said:
        state = rollout.after(state, each, NOW + timedelta(hours=at))
    return state


def test_a_world_in_which_all_fail_does_not_walk_back_to_the_first_version() -> None:
    promotions = [(n, Promoted(version=f"m-{n}", previous="", epoch=n, reason="passed")) for n in range(1, 6)]
    state, moment = lived(*promotions), NOW + timedelta(hours=6)
    move = moves.decide(state, moment, [verdict(Outcome.FAIL)], days(3))
    assert isinstance(move.said, RolledBack) and (move.said.version, move.said.to) == ("m-5", "m-4")
    after = rollout.after(state, move.said, moment)
    assert moves.decide(after, moment + hours(1), [verdict(Outcome.FAIL)], days(3)).said is None


def test_a_pause_is_no_part_of_a_stage_or_of_patience() -> None:
    state = lived(
        (0, Promoted(version="m-1", previous="", epoch=1, reason="passed")),
        (0, Started(version="m-2", stages=SHADOW, epoch=2, reason="passed")),
        (20, Paused(reason="the outcomes job is broken", by="ada")),
        (120, Resumed(by="ada")),
    )
    unsure = [verdict(Outcome.INCONCLUSIVE)]
    assert moves.decide(state, NOW + hours(121), unsure, days(3)).said is None
    assert isinstance(moves.decide(state, NOW + hours(124 + 72), unsure, days(3)).said, Aborted)


def test_whom_a_person_displaces_does_not_come_back_by_itself() -> None:
    state = lived(
        (0, Promoted(version="m-1", previous="", epoch=1, reason="passed")),
        (1, Promoted(version="m-2", previous="m-1", epoch=2, reason="passed")),
        (2, Promoted(version="m-1", previous="m-2", epoch=3, reason="I want it", by="ada")),
    )
    with pytest.raises(fb.StateError, match="version-held"):
        moves.start(state, "m-2", Release(), reason="passed its gates")
    assert moves.start(state, "m-2", Release(), reason="again", by="ada")


def declared(**changed: object) -> App:
    return loops.declared(release=Release(*STAGES, patience=days(1)), **{"gates": [], **changed})  # type: ignore[arg-type]


def variant(**changed: object) -> App:
    """Another declaration of the same app: its search tries more, so that another version comes of it."""
    app = declared(**changed)
    more = fb.search(trials=2, optimize=average_precision, split=fb.by_time(days(12)))
    object.__setattr__(app, "search", more)
    return app


def on_its_way() -> World:
    """till-1 answers, and the loop has sent till-2 into its shadow."""
    world = World()
    first = Process(world, declared())
    apply.apply(first.session, until=START)
    world.to(START + hours(1))
    Process(world, variant()).look()
    assert (loops.state(world).champion, loops.state(world).candidate) == ("till-1", "till-2")
    return world


def look_on(world: World, app: App, until: timedelta) -> Process:
    process = Process(world, app)
    while world.clock.now() < START + until:
        world.to(world.clock.now() + hours(6))
        process.look()
    return process


def test_an_app_that_goes_back_withdraws_the_candidate_of_what_it_said_meanwhile() -> None:
    world = on_its_way()
    process = look_on(world, declared(), days(4))
    assert (loops.state(world).champion, loops.state(world).candidate) == ("till-1", "")
    assert [
        s.version for _, s in rollout.history(process.session.facts, "till", "till") if isinstance(s, Promoted)
    ] == ["till-1"]


def test_a_candidate_that_its_gates_reject_anew_is_withdrawn() -> None:
    world = on_its_way()
    process = look_on(world, variant(gates=[roc_auc >= 0.999]), days(4))
    rows = {row.version: row.decision for row in version.versions(process.session.facts, "till", "till")}
    assert rows["till-2"] == "rejected"
    assert (loops.state(world).champion, loops.state(world).candidate) == ("till-1", "")


def test_a_candidate_that_gave_way_to_a_persons_is_sent_again_when_that_falls() -> None:
    world = on_its_way()
    process = Process(world, variant())
    row = version.find(process.session.facts, "till", "till-1")
    process.session.facts.append([Fact("till", "till", version.Registered(version="till-9", manifest=row.manifest))])
    policy = process.session.app.release
    rollout.record(
        process.session.facts, "till", "till", lambda now: moves.start(now, "till-9", policy, reason="mine", by="ada")
    )
    assert loops.state(world).candidate == "till-9"
    operate.roll_back(process.session, "till", by="ada", reason="no good")
    look_on(world, variant(), days(4))
    assert loops.state(world).champion == "till-2" and set(loops.state(world).held) == {"till-9"}


def test_what_guards_said_of_one_version_is_not_held_against_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = on_its_way()
    process = Process(world, variant())

    def slowly(model: object, judged: Rollout) -> list[Verdict]:
        assert judged.candidate == "till-2"
        facts, at_once = process.session.facts, loops.state(world)
        said = moves.promote(at_once, "till-2", reason="I know better", by="ada")
        facts.append([Fact("till", "till", each) for each in said])
        return [verdict(Outcome.FAIL)]

    monkeypatch.setattr(process.watch, "guards", slowly)
    process.look()
    assert loops.state(world).champion == "till-2", "nobody judged it as champion yet"


def attempt(number: int, version_: str, role: str) -> Entry:
    asked = NOW + timedelta(minutes=number)
    return Entry(
        app="a",
        process="p",
        seq=number,
        segment="s",
        id=ids.uuid7(asked),
        asked=micros(asked),
        model="m",
        version=version_,
        epoch=1,
        role=role,
        within_tolerance=True,
        key=str(number),
        inputs={},
        features={},
        output=0.5,
        latency_us=500,
        via="x",
    )


def test_a_candidate_that_stopped_computing_fails_however_well_it_began() -> None:
    live = Live(days(36), model="m")
    live.answered([attempt(n, "m-1", "champion") for n in range(600)])
    live.answered([attempt(n, "m-2", "shadow") for n in range(300)])
    assert quality.coverage(live, "m-2", NOW, NOW + timedelta(minutes=300)).outcome is Outcome.PASS
    stopped = quality.coverage(live, "m-2", NOW + timedelta(minutes=300), NOW + timedelta(minutes=600))
    assert stopped.outcome is Outcome.FAIL and stopped.measurement is not None and stopped.measurement.estimate == 0
    few = quality.coverage(live, "m-2", NOW + timedelta(minutes=585), NOW + timedelta(minutes=600))
    assert few.outcome is Outcome.PASS, "a dozen questions prove nothing"


def test_what_is_remembered_is_the_same_however_often_it_was_stored() -> None:
    """A state that is read back between two facts forgets the same fallen versions as one that is folded in one go."""
    at_once, stored = Rollout(), Rollout()
    for n in range(1, 60):
        for said in (
            Started(version=f"m-{n}", stages=SHADOW, epoch=2 * n - 1, reason="x"),
            Aborted(version=f"m-{n}", epoch=2 * n, reason="x", holds=n % 2 == 0),
        ):
            at_once = rollout.after(at_once, said, NOW)
            stored = msgspec.json.decode(facts.encode(rollout.after(stored, said, NOW)), type=Rollout)
    assert at_once == stored
    assert len(stored.held) == len(stored.given_up) == rollout.REMEMBERED
    assert "m-58" in stored.held and "m-59" in stored.given_up
