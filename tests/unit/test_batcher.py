"""The batcher: turns that are shared, and what one request in them must not do to the others."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from flyball._kernel.clock import Clock
from flyball._kernel.errors import RetryableError, StateError
from flyball.adapters.embedded.clock import SystemClock
from flyball.checks.clock import Wound
from flyball.serve import plan as plans
from flyball.serve.aside import Aside
from flyball.serve.batcher import HOLDS, PIECE, TRIES_EVERY, Batcher, Pending
from flyball.serve.breaker import Breaker
from flyball.serve.dialects import native
from flyball.serve.guard import Limits
from flyball.serve.journal import Answer, Done, Standing
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Router, Way
from flyball.serve.shadows import Shadows
from flyball.serve.tally import Tally
from tests.live import ROW, Factor, alone, plan

CLOCK = SystemClock()


class Pen:
    """A recorder that says when it is asked to that an answer is on disk."""

    process = "here"

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once
        self.waiting: list[Done] = []
        self.recorded: list[int] = []

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        """See `Recorder`."""
        self.recorded.append(len(answers))
        if done is not None:
            self.waiting.append(done)
        if self.at_once:
            self.commit()
        return 1

    def commit(self) -> None:
        """All of it is on disk."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each(None)

    def standing(self) -> Standing:
        """See `Recorder`."""
        return Standing()

    def close(self) -> None:
        """See `Recorder`."""


class Counter:
    """Requests that are asked at once, and the replies in the order in which they left."""

    def __init__(self, plan: Plan, pen: Pen, limits: Limits, clock: Clock = CLOCK) -> None:
        router = Router(clock)
        self.tally, self.clock = Tally(), clock
        self.shadows = Shadows(router, pen, self.tally, 10, clock)
        self.batcher = Batcher(router, pen, self.shadows, limits, clock, lambda _, e: Reply(599, str(e).encode()))
        self.way = Way(alone(plan), Breaker())
        self.replies: list[tuple[str, Reply]] = []

    def ask(self, name: str, value: Any) -> None:
        """One request."""
        request = Request("POST", "/predict", "", {}, json.dumps(value).encode())

        def answer(reply: Reply) -> None:
            self.replies.append((name, reply))

        self.batcher.add(Pending(self.way, native, request, answer, self.clock.monotonic()))


def asked(
    requests: Sequence[tuple[str, Any]],
    plan: Plan,
    *,
    limits: Limits | None = None,
    then: Callable[[Pen], None] | None = None,
) -> tuple[Counter, Pen]:
    """All of them at once, until each has its reply."""

    async def run() -> tuple[Counter, Pen]:
        pen = Pen(at_once=then is None)
        counter = Counter(plan, pen, limits or Limits())
        for name, value in requests:
            counter.ask(name, value)
        async with asyncio.timeout(10):
            while len(counter.replies) < len(requests):
                await asyncio.sleep(0)
        if then is not None:
            then(pen)
        return counter, pen

    return asyncio.run(run())


def test_a_long_list_does_not_hold_up_who_asks_one() -> None:
    counter, pen = asked([("long", [ROW] * 1000), ("short", ROW), ("empty", [])], plan())
    assert [name for name, _ in counter.replies] == ["short", "empty", "long"]
    assert len(json.loads(counter.replies[-1][1].body)) == 1000 and sum(pen.recorded) == 1001


def test_lists_that_end_together_are_recorded_apart() -> None:
    """The journal takes some two thousand at once; a turn never hands it more than a list and what ends beside it."""
    counter, pen = asked([(str(n), [ROW] * (PIECE + 1)) for n in range(40)], plan())
    assert {reply.status for _, reply in counter.replies} == {200}
    assert max(pen.recorded) < 2 * PIECE + 2 and sum(pen.recorded) == 40 * (PIECE + 1)


def test_a_question_that_cannot_be_asked_takes_no_other_down() -> None:
    def seal(row: dict[str, Any]) -> dict[str, Any]:
        if row["price"] == 9.0:
            raise StateError("key-is-gone", "This one is sealed for good.")
        return row

    requests = [("one", ROW), ("sealed", ROW | {"price": 9.0}), ("two", ROW)]
    counter, pen = asked(requests, replace(plan(), seal=seal))
    assert {name: reply.status for name, reply in counter.replies} == {"one": 200, "sealed": 599, "two": 200}
    assert sum(pen.recorded) == 2 and counter.shadows.asking == 0


class Full(Pen):
    """A recorder without room for so many tries, each of which takes a while, as packing many answers does."""

    def __init__(self, clock: Wound, tries: int, takes: float = 0.0) -> None:
        super().__init__(at_once=True)
        self.clock, self.tries, self.takes = clock, tries, takes

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        """See `Recorder`."""
        self.clock.sleep(self.takes)
        self.tries -= 1
        if self.tries >= 0:
            raise RetryableError("journal-full", "Every reserved number is in flight.")
        return super().record(answers, done)


def held(plan: Plan, pen: Full, delays: list[float]) -> list[Reply]:
    """The replies to two questions, while the delays of the loop pass on the clock of the pen."""

    async def run() -> list[Reply]:
        counter, loop = Counter(plan, pen, Limits(), pen.clock), asyncio.get_running_loop()

        def later(delay: float, do: Callable[[], None]) -> None:
            delays.append(delay)
            pen.clock.sleep(delay)
            loop.call_soon(do)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_later", later)
            for name in ("one", "two"):
                counter.ask(name, ROW)
            while len(counter.replies) < 2:
                await asyncio.sleep(0)
        assert counter.tally.waiting == counter.shadows.asking == 0
        return [reply for _, reply in counter.replies]

    return asyncio.run(run())


def test_a_slow_model_is_held_for_as_long_as_a_fast_one() -> None:
    clock, delays = Wound(), list[float]()

    class Slow(Factor):
        def row(self, values: np.ndarray) -> float:
            clock.sleep(2 * HOLDS)
            return super().row(values)

    replies = held(replace(plan(), predictor=Slow(0.5)), Full(clock, tries=20), delays)
    assert [reply.status for reply in replies] == [200, 200]
    assert delays == [TRIES_EVERY] * 20


@pytest.mark.parametrize("takes", [0.0, 0.004, 0.06])
def test_looking_for_room_leaves_the_processor_to_the_journal(takes: float) -> None:
    clock, delays = Wound(), list[float]()
    replies = held(plan(), Full(clock, tries=1 << 30, takes=takes), delays)
    assert [reply.status for reply in replies] == [599, 599]
    looks = len(delays)
    assert looks * takes < 0.2 * HOLDS and HOLDS * 0.9 < sum(delays) + looks * takes < HOLDS * 1.2
    assert looks > 1


@pytest.mark.parametrize("unlogged", [False, True])
def test_what_left_late_is_not_withheld(unlogged: bool) -> None:
    """Recorded = answered + withheld, also where an answer left before it was recorded, and was then."""
    limits = Limits(seconds=0.01, unlogged=unlogged)
    counter, pen = asked([("one", ROW)], plan(), limits=limits, then=Pen.commit)
    ((_, reply),) = counter.replies
    assert reply.status == (200 if unlogged else 599)
    answered = sum(each.questions for each in counter.tally.answered.values())
    assert (answered, counter.tally.late, counter.tally.withheld) == ((1, 1, 0) if unlogged else (0, 0, 1))
    assert sum(pen.recorded) == 1 and counter.tally.waiting == 0


def test_what_has_left_is_not_kept_until_the_next_look() -> None:
    async def run() -> None:
        pen = Pen(at_once=False)
        counter = Counter(plan(), pen, Limits())
        counter.ask("one", ROW)
        async with asyncio.timeout(10):
            while not pen.waiting:
                await asyncio.sleep(0)
        pen.commit()
        assert [name for name, _ in counter.replies] == ["one"]
        assert [each._finished for each in counter.batcher._leaving] == [()]

    asyncio.run(run())


class Row(dict[str, Any]):
    """A question whose end can be seen."""


def test_a_failed_question_is_forgotten_at_once() -> None:
    """Garbage is looked for so seldom that what an error held would add up to gigabytes."""

    class Broken:
        name, features = "lightgbm", 3

        def row(self, _: np.ndarray) -> float:
            raise StateError("broken", "It is broken.")

    broken = replace(plan(), predictor=Broken())  # type: ignore[arg-type]
    row = Row(ROW, placed=datetime.fromisoformat("2026-11-20T12:00:00+00:00"), customer=None, note=None)
    seen = weakref.ref(row)
    gc.disable()
    try:
        question = plans.question(broken, row, CLOCK.now(), 0.0)
        assert plans.attempt(broken, question, 1, "champion", CLOCK).error is not None
        del row, question
        assert seen() is None
    finally:
        gc.enable()


def test_what_is_posted_and_refused_is_forgotten_at_once() -> None:
    class Body(bytearray):
        pass

    async def run() -> weakref.ref[Body]:
        body = Body(b"x")

        def take(body: Body = body) -> None:
            raise StateError("broken", "It is broken.")

        seen, aside = weakref.ref(body), Aside()
        del body
        with pytest.raises(StateError):
            await aside.run(take)
        del take
        aside.close()
        return seen

    gc.disable()
    try:
        assert asyncio.run(run())() is None
    finally:
        gc.enable()
