"""Planning: what would run, and which cause changed; on facts in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from flyball._kernel.facts import Fact
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.cycle import steps
from flyball.cycle.steps import DONE, LAST, PINS, Done, Pinned, Planned, Ran, Step

ABOUT = ("flights", "lateness")
World = dict[str, object]


def step(name: str, *needs: str) -> Step[World]:
    def causes(world: World, _: Mapping[str, Done]) -> Mapping[str, object]:
        return {key.partition(".")[2]: value for key, value in world.items() if key.startswith(f"{name}.")}

    def run(_: World, __: Mapping[str, Done]) -> Ran:
        raise AssertionError("a plan runs nothing")

    return Step(name, needs, causes, run)


# examples -> train -> gates; report stands beside, needing examples alone.
WAY = (step("examples"), step("train", "examples"), step("report", "examples"), step("gates", "train"))
WORLD: World = {"examples.data": 1, "examples.feature a": "x", "train.knobs": 31, "gates.gate auc": 0.65}


@pytest.fixture
def log() -> MemoryFacts:
    return MemoryFacts(VirtualClock(), MemorySigner(), (DONE, LAST, PINS))


def everything(_: str) -> bool:
    """A store that has lost nothing."""
    return True


def plan(log: MemoryFacts, **changed: object) -> dict[str, Planned]:
    names = {k.replace("__", ".").replace("_", " "): v for k, v in changed.items()}
    return {p.step: p for p in steps.walk(WAY, WORLD | names, log, ABOUT, everything)}


def carry_out(log: MemoryFacts, planned: Mapping[str, Planned], *names: str) -> None:
    for name in names or tuple(planned):
        each = planned[name]
        said = Done(step=name, key=each.key, causes=dict(each.causes), outputs={"out": f"of {name}"})
        log.append([Fact(*ABOUT, said)])


def why(planned: Mapping[str, Planned]) -> dict[str, tuple[str, ...]]:
    return {name: p.why for name, p in planned.items() if p.done is None}


def test_at_first_everything_runs_for_the_first_time(log: MemoryFacts) -> None:
    assert why(plan(log)) == dict.fromkeys(("examples", "train", "report", "gates"), ("first time",))


def test_a_plan_follows_the_order_of_the_way(log: MemoryFacts) -> None:
    assert list(plan(log)) == [s.name for s in WAY]


def test_what_is_done_is_not_run_again(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    again = plan(log)
    assert why(again) == {}
    assert all(p.done is not None and p.done.outputs == {"out": f"of {p.step}"} for p in again.values())
    assert all(p.why == () for p in again.values())


def test_a_plan_is_the_same_every_time(log: MemoryFacts) -> None:
    assert plan(log) == plan(log)


def test_a_killed_apply_goes_on_after_its_last_finished_step(log: MemoryFacts) -> None:
    carry_out(log, plan(log), "examples", "train")
    assert why(plan(log)) == {"report": ("first time",), "gates": ("first time",)}


def test_a_changed_cause_re_runs_its_step_and_what_follows_from_it(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    assert why(plan(log, train__knobs=63)) == {"train": ("knobs changed",), "gates": ("follows from train",)}
    assert why(plan(log, gates__gate_auc=0.7)) == {"gates": ("gate auc changed",)}


def test_a_change_at_the_start_re_runs_all_and_says_whom_it_follows_from(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    assert why(plan(log, examples__data=2)) == {
        "examples": ("data changed",),
        "train": ("follows from examples",),
        "report": ("follows from examples",),
        "gates": ("follows from train",),
    }


def test_causes_that_come_and_go_are_named(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    assert why(plan(log, examples__feature_b="y"))["examples"] == ("feature b is new",)
    world = {k: v for k, v in WORLD.items() if k != "examples.feature a"}
    found = steps.walk(WAY, world, log, ABOUT, everything)
    assert found[0].why == ("feature a is gone",)


def test_all_causes_of_one_step_are_named(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    found = why(plan(log, examples__data=2, train__knobs=63))
    assert found["train"] == ("knobs changed", "follows from examples")


def test_going_back_to_an_earlier_state_runs_nothing(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    carry_out(log, plan(log, train__knobs=63), "train", "gates")
    assert why(plan(log)) == {}
    assert why(plan(log, train__knobs=63)) == {}


def test_reasons_are_told_against_the_last_run(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    carry_out(log, plan(log, train__knobs=63), "train", "gates")
    assert why(plan(log, train__knobs=63, examples__data=2))["train"] == ("follows from examples",)
    assert why(plan(log, train__knobs=99))["train"] == ("knobs changed",)


def test_a_step_whose_earlier_steps_went_back_says_so(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    other = plan(log, examples__data=2)
    carry_out(log, other, "examples")
    assert why(plan(log, examples__data=2))["train"] == ("its inputs changed",)


def test_models_and_apps_do_not_share_what_is_done(log: MemoryFacts) -> None:
    carry_out(log, plan(log))
    for about in (("flights", "price"), ("trains", "lateness")):
        assert all(p.done is None for p in steps.walk(WAY, WORLD, log, about, everything))


def test_steps_with_the_same_causes_have_keys_of_their_own(log: MemoryFacts) -> None:
    one, other = steps.walk((step("a"), step("b")), {}, log, ABOUT, everything)
    assert one.key != other.key


def test_the_pin_is_what_was_pinned_last(log: MemoryFacts) -> None:
    clock = VirtualClock()
    assert steps.pin(log, *ABOUT) is None
    for batch in (1, 2):
        log.append([Fact(*ABOUT, Pinned(batches={"Flight": batch}, cutoff=clock.now(), reason="first apply"))])
    found = steps.pin(log, *ABOUT)
    assert found is not None
    assert found.batches == {"Flight": 2}
    assert steps.pin(log, "flights", "price") is None


def test_a_step_whose_artifacts_are_lost_runs_again_if_it_makes_the_same_ones(log: MemoryFacts) -> None:
    way = tuple(dataclasses.replace(each, repeats=each.name == "train") for each in WAY)
    carry_out(log, plan(log))
    found = {p.step: p for p in steps.walk(way, WORLD, log, ABOUT, lambda digest: digest != "of train")}
    assert why(found) == {"train": ("out is no longer stored",)}
    found = {p.step: p for p in steps.walk(way, WORLD, log, ABOUT, lambda digest: digest != "of gates")}
    assert why(found) == {}, "what would come out otherwise is not repeated"


def test_causes_see_which_earlier_steps_are_done(log: MemoryFacts) -> None:
    """So a decision can depend on what an earlier step has left behind; not before that step is done."""
    seen: list[set[str]] = []

    def looking(_: World, done: Mapping[str, Done]) -> Mapping[str, object]:
        seen.append(set(done))
        return {}

    way = (*WAY[:2], Step("last", ("train",), looking, WAY[0].run))
    steps.walk(way, WORLD, log, ABOUT, everything)
    carry_out(log, plan(log), "examples")
    steps.walk(way, WORLD, log, ABOUT, everything)
    assert seen == [set(), {"examples"}]
