"""Reconcile among others: a second controller, at the worst moments; passes that have nothing to do; work that fails.

The lease keeps two controllers apart, but one that was stopped for longer than its lease wakes up as a second one. So each
attack is made without it: whatever one of them is about to write, the other one has a whole pass just before.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

import flyball as fb
from flyball import days, hours
from flyball._kernel.errors import RetryableError
from flyball._kernel.facts import Fact
from flyball.cycle import apply, reconcile, retrain, steps
from flyball.cycle.reconcile import LEASE, Ended
from flyball.cycle.session import held
from flyball.release.policy import Release
from flyball.release.rollout import Aborted
from tests import loops
from tests.loops import RELEASES, STAGES, START, TRAININGS, Event, Fuse, Process, World

APP = loops.declared(release=Release(*STAGES, patience=days(1)), retrain=fb.every(days(4)).resting(days(2)), gates=[])
WRITTEN = (*RELEASES, *TRAININGS, "watch.observed", "cycle.failed", "cycle.pinned", "cycle.done", "data.ingested")


def said(world: World) -> list[Any]:
    """What was said, in an order that two controllers may not change: that within each kind."""
    return sorted(((said["kind"], said) for _, said in loops.told(world, *WRITTEN)), key=lambda each: each[0])


@pytest.fixture(scope="module")
def answering() -> World:
    """till-1 answers, and nobody looked yet."""
    world = World()
    apply.apply(world.session(APP), until=START)
    return world


@pytest.fixture(scope="module")
def challenged(answering: World) -> World:
    """till-2 is in its shadow, since day 4."""
    world = answering.copy()
    world.to(START + days(4))
    Process(world, APP).look()
    assert loops.state(world).candidate == "till-2"
    return world


class Meanwhile(Fuse):
    """Before this process's write number `at` to the facts, somebody else acts."""

    def __init__(self, at: int, other: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._other, self.acted = at, other, False

    def write(self, name: str, do: Callable[[], Any]) -> Any:
        if name == "facts.append" and not self.acted and self.written.count("facts.append") == self._at:
            self.acted = True
            self._other()
        return super().write(name, do)


def together(world: World, at: int) -> tuple[World, bool]:
    """A controller looks; just before its write number `at`, a second one has a pass, and the rest of it later."""
    other = Process(world, APP, holder="two")

    def passes() -> None:
        reconcile.reconcile(other.session, other.watch, other.worker)

    fuse = Meanwhile(at, passes)
    Process(world, APP, fuse=fuse).look()
    other.look()
    return world, fuse.acted


@pytest.mark.parametrize("moment", ["a monitor changed", "a training is due", "a stage is over"])
def test_two_controllers_write_what_one_would(answering: World, challenged: World, moment: str) -> None:
    before, later = {
        "a monitor changed": (answering, days(1)),
        "a training is due": (answering, days(4)),
        "a stage is over": (challenged, days(4) + hours(12)),
    }[moment]
    alone = before.copy()
    alone.to(START + later)
    fuse = Fuse()
    Process(alone, APP, fuse=fuse).look()
    writes = fuse.written.count("facts.append")
    assert writes >= 1
    for at in range(writes) if writes < 6 else (0, 1, 2, 5, writes - 1):
        world = before.copy()
        world.to(START + later)
        world, acted = together(world, at)
        assert acted
        assert said(world) == said(alone), f"{moment}: before write {at} of {writes}"
        assert loops.content(world)["released"] == loops.content(alone)["released"]


def test_two_controllers_in_two_threads_without_a_lease(answering: World) -> None:
    """They start each pass at the same moment of a clock that only the test moves."""
    one, lived = answering.copy(), answering.copy()
    alone, moments = Process(one, APP), [START + hours(6) * n for n in range(1, 30)]
    for moment in moments:
        one.to(moment)
        alone.look()
    start, failed = threading.Barrier(3, timeout=120), list[BaseException]()

    def control(holder: str) -> None:
        process = Process(lived, APP, holder=holder)
        try:
            for _ in moments:
                start.wait()
                for _ in range(2_000):
                    looked = reconcile.reconcile(process.session, process.watch, process.worker)
                    if not looked.did and not looked.working:
                        break
                    threading.Event().wait(0.002)  # the other one may be at the very step
                else:
                    raise AssertionError(f"it never comes to rest: {looked}")
                start.wait()
        except BaseException as problem:
            failed.append(problem)
            start.abort()
            raise

    threads = [threading.Thread(target=control, args=(holder,)) for holder in ("one", "two")]
    for thread in threads:
        thread.start()
    for moment in moments:
        lived.to(moment)
        try:
            start.wait()
            start.wait()
        except threading.BrokenBarrierError:
            break
    for thread in threads:
        thread.join()
    assert not failed
    assert loops.content(lived)["released"] == loops.content(one)["released"]
    assert list(loops.told(lived, *TRAININGS)) == list(loops.told(one, *TRAININGS))
    assert not [each for each, n in Counter(map(repr, said(lived))).items() if n > 1 and "observed" not in each]
    epochs = [s["epoch"] for _, s in loops.told(lived, *RELEASES)]
    assert epochs == sorted(set(epochs)) and len(epochs) >= 4


def test_who_has_not_the_lease_waits(answering: World) -> None:
    world = answering.copy()
    one, two = world.session(APP), world.session(APP, holder="two")
    with held(one, LEASE), pytest.raises(RetryableError, match="somebody-else-is-at-it"), held(two, LEASE):
        raise AssertionError("both act")
    with held(two, LEASE):
        pass


def test_a_training_that_meets_another_apply_is_begun_again_and_not_said_to_have_failed(answering: World) -> None:
    world = answering.copy()
    world.to(START + days(4))
    process = Process(world, APP)
    with held(world.session(APP, holder="a person"), apply.LEASE):
        for _ in range(3):
            reconcile.reconcile(process.session, process.watch, process.worker)
        assert [s["kind"] for _, s in loops.told(world, *TRAININGS)] == ["cycle.retraining"]
    process.look()
    assert [s.get("failed") for _, s in loops.told(world, *TRAININGS)] == [None, ""]
    assert loops.state(world).candidate == "till-2"


class Failing:
    """A worker whose child dies, whatever it is given."""

    def __init__(self) -> None:
        self.begun: list[tuple[datetime | None, str]] = []
        self._ended: Ended | None = None

    def busy(self) -> str:
        return "dying" if self._ended else ""

    def rests(self) -> str:
        return ""

    def begin(self, until: datetime | None, model: str) -> None:
        self.begun.append((until, model))
        self._ended = Ended(until=until, failed="out-of-memory")

    def ended(self) -> Ended | None:
        ended, self._ended = self._ended, None
        return ended


def test_a_training_that_fails_leaves_the_champion_and_is_written_down_once(answering: World) -> None:
    world = answering.copy()
    process, worker = Process(world, APP), Failing()
    route = world.routes.read()
    world.to(START + days(4))
    for _ in range(4):
        looked = reconcile.reconcile(process.session, process.watch, worker)
    assert worker.begun == [(START + days(4), "till")]
    (row,) = [row for row in [retrain.last(process.session, process.session.app.model("till"))] if row]
    assert (row.failed, row.decision, row.ended) == ("out-of-memory", "", START + days(4))
    assert "rests until 2013-07-07" in looked.models[0].training and looked.models[0].next == START + days(6)
    assert world.routes.read() == route and loops.state(world).champion == "till-1"
    pin = steps.pin(process.session.facts, "till", "till")
    assert pin is not None and pin.cutoff == START
    world.to(START + days(6))
    process.look()
    assert loops.state(world).candidate == "till-2", "the next worker does what the last could not"


def test_a_pass_with_nothing_to_do_writes_nothing(challenged: World) -> None:
    world = challenged.copy()
    process = Process(world, APP)
    process.look()
    head, wrote = process.session.facts.head(), len(process.fuse.written)
    for _ in range(3):
        looked = reconcile.reconcile(process.session, process.watch, process.worker)
        assert looked.did == [] and "till-2: shadow for 12h, until" in looked.models[0].release
        assert looked.models[0].next == START + days(4) + hours(12)
    assert process.session.facts.head() == head
    assert set(process.fuse.written[wrote:]) <= {"lease.acquire", "lease.release"}


def test_a_crash_between_the_decision_and_the_route_is_mended_by_the_next_pass(challenged: World) -> None:
    world = challenged.copy()
    process = Process(world, APP)
    shown = world.routes.read()
    process.session.facts.append([Fact("till", "till", Aborted(version="till-2", epoch=3, reason="slow", by="ada"))])
    assert world.routes.read() == shown and shown is not None and shown.models["till"].candidate is not None
    reconcile.reconcile(process.session, process.watch, process.worker)
    found = world.routes.read()
    assert found is not None and (found.models["till"].epoch, found.models["till"].candidate) == (3, None)


def test_a_file_that_cannot_be_ingested_stops_neither_a_rollout_nor_the_loop(challenged: World) -> None:
    """And it is not tried again at each look."""
    world = challenged.copy()
    world.frames["orders-2.csv"] = loops.BELATED.drop("category")
    process = Process(world, APP)
    applies = Counter[datetime]()
    for n in range(1, 9):
        Event(START + days(4) + timedelta(minutes=240 * n), "look").happen(process)
        applies[world.clock.now()] = len(list(loops.told(world, "cycle.failed", "data.ingested")))
    assert loops.state(world).champion == "till-2"
    assert max(applies.values()) <= 10
