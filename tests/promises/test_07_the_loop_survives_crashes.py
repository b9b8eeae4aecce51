"""Promise 7, for the loop: whatever crashes, at whatever write, the loop ends where it would have ended.

Two weeks of a small app (`tests.loops`: ingest, trainings, a rollout that succeeds, one that falls, one that a person pushes
and the loop takes back) are lived through in memory; every place that a process writes to may end it, before or after that
write. What follows is a new process on the same stores; whoever got no answer asks again, a person who sees it undone does it
again.

A crash after one write leaves what a crash before the next one leaves, so both are attacked as one, and the last write of a
moment on its own. Of artifacts in a row the first stands for all: nobody refers to them before the fact that follows.
Torn writes are the adapters' own: see the other promises on SQLite, Delta and files.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests import loops
from tests.loops import Crash, Event, Fuse, Process, World


@dataclass(frozen=True)
class Moment:
    """One event of the undisturbed life: the stores before it, what they say after it, and what was written."""

    event: Event
    before: World
    after: dict[str, Any]
    written: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.event.kind} at {self.event.at:%m-%d %H:%M}"


@dataclass(frozen=True)
class Life:
    moments: list[Moment]
    end: dict[str, Any]
    trace: list[Any]


@pytest.fixture(scope="module")
def life() -> Life:
    """Nobody crashes. Of the many moments at which only a monitor is written down, and of questions, some are kept."""
    world = World()
    process, moments, draw = Process(world), [], random.Random(11)
    for event in loops.story():
        opens = event.kind == "ask" and not process.records
        before = world.copy() if opens or event.kind not in ("ask", "post") or draw.random() < 0.008 else None
        start = len(process.fuse.written)
        event.happen(process)
        written = tuple(process.fuse.written[start:])
        matters = event.kind != "look" or "routes.publish" in written or "tables.append" in written
        if before is not None and written and (matters or "blobs.put" in written or draw.random() < 0.1):
            moments.append(Moment(event, before, loops.content(world), written))
    return Life(moments, loops.content(world), [said["kind"] for _, said in loops.told(world, *loops.RELEASES)])


def follow(world: World, event: Event, fuse: Fuse) -> bool:
    """Live through one event, or crash in it and have it done by another process; returns whether it crashed."""
    try:
        event.happen(Process(world, fuse=fuse))
    except Crash:
        event.happen(Process(world.after_a_crash()), again=True)
    return fuse.dead


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {part: (found[part], wanted[part]) for part in wanted if found[part] != wanted[part]}


def test_the_life_has_what_is_attacked(life: Life) -> None:
    kinds = [kind.removeprefix("release.") for kind in life.trace]
    assert kinds == [
        *("promoted", "paused", "resumed", "started", "advanced", "promoted"),
        *("started", "aborted", "promoted", "rolled_back"),
    ]
    assert [decision for _, decision, _ in life.end["versions"]] == ["release"] * 3 + ["held"] * 2
    assert len(life.end["ingested"]) == 3 and life.end["pin"][0] == {"Order": 2}
    assert {kind for moment in life.moments for kind in moment.written} >= {
        *("facts.append", "blobs.put", "tables.append", "online.commit", "routes.publish"),
        *("lease.acquire", "lease.release", "outcomes.post", "journal.open", "recorder.record"),
    }
    assert sum("blobs.put" in moment.written for moment in life.moments) == 5


def test_a_crash_at_any_write_ends_in_the_same_state(life: Life) -> None:
    attacked: Counter[str] = Counter()
    trainings = 0
    for moment in life.moments:
        whole = moment.before.copy()
        fuse = Fuse()
        assert not follow(whole, moment.event, fuse)
        assert not differing(loops.content(whole), moment.after), f"a new process alone, {moment}"
        names = fuse.written
        points = [n for n, name in enumerate(names) if (name, names[n - 1] if n else "") != ("blobs.put",) * 2]
        if "blobs.put" in names:
            trainings += 1
            points = points[1::2] if trainings == 2 else points[trainings::9]
        for at, after in [*((n, False) for n in points), (len(names) - 1, True)]:
            world = moment.before.copy()
            assert follow(world, moment.event, Fuse(at, after=after)), f"{moment}: write {at} of {len(names)}"
            problem = differing(loops.content(world), moment.after)
            assert not problem, f"{moment}: {'after' if after else 'before'} write {at}, {names[at]}: {problem}"
            attacked[names[at]] += 1
    assert set(attacked) >= {"facts.append", "tables.append", "online.commit", "routes.publish", "recorder.record"}
    assert attacked["facts.append"] > 25, attacked


def test_a_life_of_crashes_ends_in_the_same_state(life: Life) -> None:
    """One process after the other, each of which ends after some dozens of writes, also twice at one moment."""
    draw = random.Random(7)

    def fuse() -> Fuse:
        return Fuse(draw.randrange(0, 90), after=draw.random() < 0.5)

    world = World()
    process, crashes = Process(world, fuse=Fuse(20)), Counter[str]()
    for event in loops.story():
        for attempt in itertools.count():
            try:
                event.happen(process, again=attempt > 0)
            except Crash:
                crashes[event.kind] += 1
                process = Process(world.after_a_crash(), fuse=fuse())
            else:
                break
    assert sum(crashes.values()) > 30 and set(crashes) >= {"begin", "look", "ask", "post"}, crashes
    problem = differing(loops.content(world), life.end)
    assert not problem, problem
