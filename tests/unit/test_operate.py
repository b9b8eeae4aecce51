"""What a person may do, with the loop in between: promote, override, roll back, pause, resume; and what each leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import flyball as fb
from flyball import average_precision, cli, days, hours
from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.errors import FlyballError, GateError, StateError
from flyball.app import App
from flyball.cli import opening
from flyball.cycle import answering as routes
from flyball.cycle import apply, operate, shadowing, status, steps, why
from flyball.release import moves, rollout
from flyball.release.policy import Release
from flyball.release.rollout import Aborted, Paused, Promoted, Resumed, RolledBack, Started
from flyball.serve.auth import Key, digest
from tests import loops
from tests.loops import STAGES, START, Process, World

RELEASE = Release(*STAGES, patience=days(1))


def declared(**changed: Any) -> App:
    return loops.declared(release=RELEASE, **{"gates": [], **changed})


def changed(**more: Any) -> App:
    """The same app, searched for longer: another version comes of it."""
    app = declared(**more)
    object.__setattr__(app, "search", fb.search(trials=2, optimize=average_precision, split=fb.by_time(days(12))))
    return app


STRICT = changed(gates=[fb.roc_auc >= 0.999])
"""What nothing passes."""


@pytest.fixture(scope="module")
def answering() -> World:
    """till-1 answers."""
    world = World(keys=lambda: KEYS)
    apply.apply(world.session(declared()), until=START)
    world.to(START + hours(1))
    return world


@pytest.fixture(scope="module")
def rejected(answering: World) -> World:
    """till-2 exists, and its gates said no."""
    world = copied(answering)
    applied = apply.apply(world.session(STRICT))
    assert (applied.models[0].version, applied.models[0].decision) == ("till-2", "rejected")
    return world


KEYS = (
    Key(name="ada", sha256=digest("a" * 43), scopes=frozenset({"operate"})),
    Key(name="bob", sha256=digest("b" * 43), scopes=frozenset({"predict", "label", "read"})),
)


def copied(world: World) -> World:
    other = world.copy()
    other.keys = world.keys
    return other


def told(world: World) -> list[Any]:
    return [said for _, said in rollout.history(loops.facts_of(world), "till", "till")]


# Gates, and past them


def test_what_its_gates_did_not_release_is_not_promoted(rejected: World) -> None:
    world = copied(rejected)
    session, head = world.session(STRICT), world.log.end().head
    for at_once in (False, True):
        with pytest.raises(GateError, match="gates-not-passed") as refused:
            operate.promote(session, "till-2", by="ada", reason="please", at_once=at_once)
        assert refused.value.exit_code == 3 and "roc_auc >= 0.999: fail" in refused.value.why
    assert world.log.end().head == head


def test_an_override_is_recorded_and_goes_through_the_stages(rejected: World) -> None:
    world = copied(rejected)
    process = Process(world, STRICT)
    done = operate.promote(process.session, "till-2", by="ada", reason="a feast day", override=True)
    assert (done.champion, done.candidate, done.epoch) == ("till-1", "till-2", 2)
    (said,) = [s for s in told(world) if isinstance(s, Started)]
    assert (said.by, said.reason, said.overridden) == ("ada", "a feast day", True)
    assert "gates overridden" in done.did[0] and "(ada)" in done.did[0]
    shown = world.routes.read()
    assert shown is not None and shown.models["till"].candidate is not None
    for _ in range(9):
        world.to(world.clock.now() + hours(6))
        process.look()
    assert loops.state(world).champion == "till-2"


@pytest.mark.parametrize("at_once", [True, False])
def test_whom_a_person_made_champion_is_not_displaced_by_what_the_app_declares(rejected: World, at_once: bool) -> None:
    """The app file still yields till-1: were that sent again, a person's decision would last for a day."""
    world = copied(rejected)
    operate.promote(world.session(declared()), "till-2", by="ada", reason="better", override=True, at_once=at_once)
    process = Process(world, declared())
    for _ in range(12):
        world.to(world.clock.now() + hours(6))
        process.look()
    state = loops.state(world)
    assert (state.champion, state.candidate, state.previous) == ("till-2", "", "till-1")
    assert "gave way to till-2" in state.held["till-1"] and "(ada)" in state.held["till-1"]


def test_at_once_is_past_all_stages_and_gives_up_whoever_is_on_the_way(answering: World) -> None:
    world = copied(answering)
    Process(world, changed()).look()
    assert loops.state(world).candidate == "till-2"
    done = operate.promote(world.session(changed()), "till-2", by="ada", reason="now", at_once=True)
    assert (done.champion, done.candidate) == ("till-2", "")
    said = told(world)[-1]
    assert isinstance(said, Promoted) and (said.by, said.previous, said.overridden) == ("ada", "till-1", False)
    with pytest.raises(StateError, match="already-answers"):
        operate.promote(world.session(changed()), "till-2", by="ada", reason="again", at_once=True)
    with pytest.raises(StateError, match="no-such-version"):
        operate.promote(world.session(changed()), "till-9", by="ada", reason="a slip")


def test_a_second_person_does_not_displace_the_candidate_of_the_first_by_chance(rejected: World) -> None:
    world = copied(rejected)
    session = world.session(STRICT)
    operate.promote(session, "till-2", by="ada", reason="a try", override=True)
    with pytest.raises(StateError, match="rollout-in-progress"):
        operate.promote(session, "till-2", by="bob", reason="the same", override=True)
    assert [type(s) for s in told(world)] == [Promoted, Started]


# Back


def test_a_candidate_is_taken_back_and_not_released_again_by_itself(answering: World) -> None:
    world = copied(answering)
    process = Process(world, changed())
    process.look()
    done = operate.roll_back(process.session, "till", by="ada", reason="a complaint")
    assert (done.champion, done.candidate) == ("till-1", "") and isinstance(told(world)[-1], Aborted)
    applied = apply.apply(process.session)
    assert applied.models[0].version == "till-2" and applied.models[0].decision == "release"
    said = [said for _, said in loops.told(world, "cycle.done") if said["step"] == "release"]
    assert said[-1]["outputs"]["waits"] == "version-held"
    for _ in range(4):
        world.to(world.clock.now() + days(1))
        process.look()
    assert (loops.state(world).champion, loops.state(world).candidate) == ("till-1", "")
    assert not apply.apply(process.session).ran, "and that it waits is said once"
    operate.promote(process.session, "till-2", by="ada", reason="mended")
    assert loops.state(world).candidate == "till-2" and "till-2" not in loops.state(world).held


def test_a_champion_is_taken_back_to_who_answered_before(answering: World) -> None:
    world = copied(answering)
    process = Process(world, changed())
    process.look()
    operate.promote(process.session, "till-2", by="ada", reason="now", at_once=True)
    world.to(world.clock.now() + hours(1))
    done = operate.roll_back(process.session, "till", by="ada", reason="a complaint")
    said = told(world)[-1]
    assert isinstance(said, RolledBack) and (said.version, said.to, said.by) == ("till-2", "till-1", "ada")
    assert done.champion == "till-1" and list(loops.state(world).held) == ["till-2"]
    shown = world.routes.read()
    assert shown is not None and (shown.models["till"].champion, shown.models["till"].previous) == ("till-1", "")
    for _ in range(4):
        world.to(world.clock.now() + days(1))
        process.look()
    assert loops.state(world).champion == "till-1"
    with pytest.raises(StateError, match="nothing-to-roll-back"):
        operate.roll_back(process.session, "till", by="ada", reason="again")


# A pause


def test_a_pause_holds_up_releases_and_an_apply_in_between_says_so(answering: World) -> None:
    world = copied(answering)
    session = world.session(changed())
    assert operate.pause(session, "till", by="ada", reason="audit").did == ["paused: audit (ada)"]
    assert operate.pause(session, "till", by="bob", reason="too").did == [], "it is paused already"
    applied = apply.apply(session)
    assert (applied.models[0].version, applied.models[0].champion) == ("till-2", "till-1")
    waits = [said["outputs"].get("waits") for _, said in loops.told(world, "cycle.done") if said["step"] == "release"]
    assert waits == [None, "release-paused"]
    process = Process(world, changed())
    for _ in range(3):
        world.to(world.clock.now() + days(1))
        assert process.look().hindered.startswith("till is paused")
    assert (loops.state(world).champion, loops.state(world).candidate) == ("till-1", "")
    assert operate.resume(session, "till", by="ada").did == ["resumed (ada)"]
    assert operate.resume(session, "till", by="ada").did == []
    process.look()
    assert loops.state(world).candidate == "till-2", "what waited goes on its way"
    assert [type(s) for s in told(world)] == [Promoted, Paused, Resumed, Started]


def test_a_pause_keeps_no_failing_candidate(answering: World) -> None:
    world = copied(answering)
    process = Process(world, changed())
    process.look()
    operate.pause(process.session, "till", by="ada", reason="audit")
    bad = Verdict(condition="error_rate <= 0.01", outcome=Outcome.FAIL, measurement=None, threshold=0.01)
    move = moves.decide(loops.state(world), world.clock.now(), [bad], days(1))
    assert isinstance(move.said, Aborted)
    operate.roll_back(process.session, "till", by="ada", reason="and a person may as well")
    assert loops.state(world).candidate == "" and loops.state(world).paused


# On the command line


def called(world: World, app: App, monkeypatch: pytest.MonkeyPatch, token: str, *arguments: str) -> int:
    """A verb with a key, on the places of a world instead of a home on disk."""
    monkeypatch.setattr(opening, "session", lambda *_: world.session(app))
    monkeypatch.setenv("FLYBALL_TOKEN", token)
    return cli.call([arguments[0], "till", *arguments[1:], "--json"])


def test_a_gate_that_says_no_is_exit_code_3(
    rejected: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world = copied(rejected)
    assert called(world, STRICT, monkeypatch, "a" * 43, "promote", "till-2") == 3
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["code"] == "gates-not-passed" and "--override-gates" in error["next"]
    arguments = ("promote", "till-2", "--override-gates", "--at-once", "--reason", "a feast day")
    assert called(world, STRICT, monkeypatch, "a" * 43, *arguments) == 0
    assert json.loads(capfd.readouterr().out)["champion"] == "till-2"
    said = told(world)[-1]
    assert isinstance(said, Promoted) and (said.by, said.overridden) == ("ada", True)
    assert called(world, STRICT, monkeypatch, "a" * 43, "rollback", "--reason", "no") == 0
    assert loops.state(world).champion == "till-1"


@pytest.mark.parametrize(("token", "code"), [("b" * 43, "scope-missing"), ("c" * 43, "key-unknown")])
@pytest.mark.parametrize(
    "verb", [("promote", "till-2", "--override-gates"), ("rollback",), ("pause",), ("shadow", "till-2")]
)
def test_without_the_scope_nothing_is_recorded(
    rejected: World,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    verb: Any,
    token: str,
    code: str,
) -> None:
    world = copied(rejected)
    head = world.log.end().head
    assert called(world, STRICT, monkeypatch, token, *verb) == 1
    said = capfd.readouterr()
    assert json.loads(said.out)["error"]["code"] == code and token not in said.out + said.err
    assert world.log.end().head == head


def test_the_steps_of_a_version_that_waits_are_done(rejected: World) -> None:
    """What its gates decided stands, so an apply has nothing to do."""
    world = copied(rejected)
    session = world.session(STRICT)
    assert not apply.apply(session).ran
    pin = steps.pin(session.facts, "till", "till")
    assert pin is not None and pin.cutoff == START
    with pytest.raises(FlyballError):
        operate.roll_back(session, "till", by="ada", reason="there is nobody before till-1")


# Shadows that a person sets


def test_a_shadow_needs_no_gate_and_answers_nobody(
    rejected: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world = copied(rejected)
    assert called(world, STRICT, monkeypatch, "a" * 43, "shadow", "till-2", "--share", "1", "--reason", "curious") == 0
    said = json.loads(capfd.readouterr().out)
    assert said["did"] == ["till-2 computes beside the champion: curious (ada)"]
    assert (said["champion"], said["candidate"], said["epoch"]) == ("till-1", "", 1)
    session = world.session(STRICT)
    (shown,) = status.status(session).models[0].shadows
    assert (shown.version, shown.share, shown.by, shown.reason) == ("till-2", 1.0, "ada", "curious")
    (beside,) = routes.routed(session)["till"].shadows
    assert (beside.plan.version, beside.share) == ("till-2", 1.0)
    assert called(world, STRICT, monkeypatch, "a" * 43, "shadow", "till-2", "--stop") == 0
    assert routes.routed(world.session(STRICT))["till"].shadows == ()
    assert called(world, STRICT, monkeypatch, "a" * 43, "shadow", "till-1") == 1, "the champion is asked as it is"
    assert called(world, STRICT, monkeypatch, "a" * 43, "shadow", "till-2", "--share", "0") == 2


def test_what_a_shadow_computed_and_an_override_is_explained(rejected: World) -> None:
    world = copied(rejected)
    session = world.session(STRICT)
    shadowing.begin(session, "till-2", share=1.0, by="ada", reason="curious")
    process = Process(world, STRICT)
    process.look()
    way, row = process.router.ways["till"], loops.QUESTIONS.row(0, named=True)
    rows, _ = way.routed.champion.decode(loops.asking(row))
    (given,) = process.router.ask(way, rows, row["placed"], 0.0)
    (asked,) = process.router.override(way, "till-2", rows, row["placed"], 0.0)
    computed = process.router.shadow(given.besides[0])
    assert given.answer is not None and asked.answer is not None and computed is not None
    recorder = world.journal.open("till")
    recorder.record([given.answer, computed, asked.answer])
    recorder.close()
    told = [why.why(session, each.id).because for each in (given.answer, computed, asked.answer)]
    assert told[1] == f"till-2 was set to compute beside; {told[0]}"
    assert told[2] == f"an operator asked till-2 by its name; {told[0]}"


def test_a_shadow_whose_features_changed_is_said_and_left_out(rejected: World) -> None:
    """Features are code: who runs other code cannot compute it, and nobody else is concerned."""
    world, problems = copied(rejected), list[str]()
    app = changed(gates=STRICT.gates)
    lately = fb.window(loops.Order, loops.RETURNS, by=loops.Order.category, over=days(1))
    features = fb.features(loops.Order.category, loops.Order.price, lately=lately)
    object.__setattr__(app, "models", (replace(app.models[0], features=features),))
    done = shadowing.begin(world.session(app), "till-2", share=1.0, by="ada", reason="curious")
    assert len(done.did) == 2 and "feature lately changed since: servers leave it out" in done.did[1]
    champion = replace(routes.routed(world.session(STRICT))["till"], shadows=(), fallbacks=())
    found = routes.routed(world.session(app), {"till": champion}, problems.append)["till"]
    assert (found.champion.version, found.shadows) == ("till-1", ())
    assert any("goes without the shadow till-2" in each and "features-changed" in each for each in problems)
    assert routes.routed(world.session(STRICT))["till"].shadows != (), "whoever runs the code of that time computes it"
