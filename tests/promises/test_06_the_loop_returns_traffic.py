"""Promise 6 beyond one process: what no breaker can see, a guard of the loop ends, within the time that `flyball plan` says.

A real server under load, with a real journal, and the real loop, each as in production; only the model is made up, and the
facts lie in memory. A candidate that answers half of the entities begins to say what is no probability: no attempt fails, and
callers get it. Measured is the time from the first such answer to the last one that left, and compared with what was published.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, days, hours, metrics, seconds
from flyball._kernel.facts import Fact
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.cli import up
from flyball.cycle.reconcile import Here
from flyball.cycle.session import Session
from flyball.release import moves, rollout, route
from flyball.release.rollout import Aborted, Paused, Promoted, Rollout
from flyball.release.version import Registered
from flyball.runtime import looping, serving
from flyball.serve.journal import Settings
from flyball.serve.router import Routed
from flyball.watch import times
from tests.live import FEATURES, Factor, Order, live, plan
from tests.loops import World, plain
from tests.promises.test_06_breach_returns_traffic import Callers

LOOKS = 0.5
"""Seconds between two looks of the loop, here."""
GUARD = metrics.invalid_rate.live(over=seconds(2)) <= 0.02
RELEASE = fb.Release(fb.canary(0.5, hours(1)), abort_unless=[GUARD])


@fb.model(FEATURES, predicts=Order.returned, asked=fb.before(Order.placed, hours(2), tolerance=hours(1)))
def orders(knobs: fb.Params) -> LGBMClassifier:
    """Never trained here."""
    return LGBMClassifier()


APP = fb.App(
    "shop",
    sources=[fb.files("orders-*.csv", prepare=plain, yields=Order)],
    model=orders,
    search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(10))),
    release=RELEASE,
)


class Turning(Factor):
    """A model that is sound until it turns: from then on it says 7, which is no probability."""

    name: Literal["lightgbm"] = "lightgbm"

    def __init__(self, factor: float) -> None:
        super().__init__(factor)
        self.bad, self.first = False, 0.0

    def row(self, values: np.ndarray) -> float:
        return 7.0 if self._turned() else super().row(values)

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        return np.full(len(matrix), 7.0) if self._turned() else super().batch(matrix)

    def _turned(self) -> bool:
        if self.bad:
            self.first = self.first or time.monotonic()
        return self.bad


class Idle(Here):
    """A worker to whom nothing is given, since the app is paused."""

    def stop(self) -> None:
        """There is nothing to end."""


def session_of(folder: Path) -> Session:
    """orders-1 answers, and orders-2 is in its canary; nothing is trained meanwhile."""
    world, clock = World(), SystemClock()
    world.clock = clock  # type: ignore[assignment]
    made = replace(
        world.session(APP), home=folder, journals=lambda _: SqliteJournal(folder / "journal", clock, Settings())
    )
    made.facts.append(
        [
            Fact("shop", "orders", said)
            for said in (
                *(Registered(version=f"orders-{n}", manifest=str(n) * 64) for n in (1, 2)),
                Promoted(version="orders-1", previous="", epoch=1, reason="the first"),
                *moves.start(Rollout(champion="orders-1", epoch=1), "orders-2", RELEASE, reason="passed its gates"),
                Paused(reason="a test", by="ada"),
            )
        ]
    )
    route.sync(made.facts, made.routes, "shop", ("orders",))
    return made


def test_a_candidate_whose_answers_cannot_be_right_is_gone_within_the_published_time(tmp_path: Path) -> None:
    session, model, stop = session_of(tmp_path), Turning(0.05), threading.Event()
    candidate = replace(plan("orders-2"), predictor=model)
    routed = Routed(2, plan("orders-1", 0.1), candidate, 0.5)
    with live(tmp_path, {"orders": routed}) as shop:

        def follow() -> None:
            following.append(asyncio.ensure_future(serving.follow(session, shop.server, session.routes.read(), print)))

        following: list[asyncio.Future[None]] = []
        shop.on_loop(follow)
        loop = threading.Thread(
            target=looping.loop, args=(session, Idle(session), (), LOOKS, stop, lambda event: None), daemon=True
        )
        loop.start()
        callers, began = Callers(shop.port), time.monotonic()
        try:
            callers.until(lambda: time.monotonic() > began + 2 and len(callers.told) > 400)
            assert rollout.now(session.facts, "shop", "orders").candidate == "orders-2", "a sound candidate stays"
            rate = len(callers.told) / (time.monotonic() - began)
            model.bad = True
            callers.until(lambda: not rollout.now(session.facts, "shop", "orders").candidate)
            callers.until(lambda: shop.server.routed["orders"].candidate is None)
            after = len(callers.told)
            callers.until(lambda: len(callers.told) > after + 100)
        finally:
            callers.finish()
            stop.set()
            loop.join(20)
            shop.on_loop(lambda: following[0].cancel())
    assert callers.failures == [] and not loop.is_alive()
    bad = [at for at, said in callers.told if said["output"] > 1]
    assert bad and {said["version"] for at, said in callers.told if said["output"] > 1} == {"orders-2"}
    (ending,) = [
        each for each in times.worst_case(RELEASE, times.Pace(asked=rate, looks=LOOKS)) if each.by == str(GUARD)
    ]
    took = max(bad) - model.first
    print(f"measured {took:.2f} s; published {ending}")
    assert took <= ending.seconds
    (said,) = [each for _, each in rollout.history(session.facts, "shop", "orders") if isinstance(each, Aborted)]
    assert said.reason.startswith("failed in canary: invalid_rate") and said.holds


def test_what_is_published_is_what_the_parts_do() -> None:
    """The parts of the time to act, as they run by default."""
    pace = times.Pace()
    assert pace.follows == serving.FOLLOWS_EVERY
    assert pace.looks == inspect.signature(up.run).parameters["every"].default
