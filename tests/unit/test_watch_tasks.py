"""Live quality and drift where an answer is several numbers, or where something is decided by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import champion, days, hours
from flyball._kernel import metrics as named
from flyball._kernel.clock import EPOCH, from_micros, micros
from flyball._kernel.conditions import Condition
from flyball._kernel.facts import encode
from flyball.learn import reference as references
from flyball.learn.examples import Counts, Examples
from flyball.learn.reference import Reference, Says
from flyball.learn.task import BINARY, Task
from flyball.serve import outcomes
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted
from flyball.watch import quality
from flyball.watch.live import Live

NOW = from_micros(15_020 * 86_400_000_000)
CLASSES = Task(kind="multiclass", classes=("low", "mid", "high"))
QUANTILES = Task(kind="quantile", quantiles=(0.1, 0.5, 0.9))
N = 240


class Visit(fb.Contract):
    """A visit."""

    visit = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    depth = dy.Int32(min=0)
    known = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    level = fb.outcome(dy.Enum(["low", "mid", "high"], nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))
    paid = fb.outcome(dy.Float64(nullable=True))


def reference(predicts: Any, scores: np.ndarray, **more: Any) -> Reference:
    @fb.model(fb.features(Visit.depth), predicts=predicts, asked=fb.before(Visit.came, hours(1)), **more)
    def predicted() -> object:
        """What comes of it."""

    asked = pl.Series(
        "_asked", [NOW - days(9) + k * hours(1) for k in range(len(scores))], dtype=pl.Datetime("us", "UTC")
    )
    frame = pl.DataFrame({"_asked": asked, "_label": [True] * len(scores), "depth": list(range(len(scores)))})
    given = Examples(frame, ("depth",), Counts(learned=len(scores), void=0, unsettled=0, unaskable=0))
    return references.reference(predicted, given, np.ones(len(scores), dtype=np.bool_), scores)


def entry(k: int, version: str, role: str, **said: Any) -> Entry:
    asked = micros(NOW - days(11) + k * timedelta(hours=1))
    usual = {
        "latency_us": 900,
        "features": {},
        "inputs": {},
        "via": "test",
        "app": "app",
        "process": "p",
        "segment": "s",
    }
    whose = {"id": f"{version}/{k}", "key": f"k{k}", "asked": asked, "version": version, "role": role, "model": "a"}
    return Entry(**{**usual, **whose, **said}, epoch=1, within_tolerance=True, seq=1)


def traffic(task: Task, answers: dict[str, np.ndarray], came: list[Any], decided: np.ndarray | None = None) -> Live:
    live = Live(days(60))
    for version, role in zip(answers, ("champion", "shadow"), strict=False):
        for k, one in enumerate(answers[version]):
            said: dict[str, Any] = {"output": float(task.headline(one[None])[0])}
            if task.width > 1:
                said["outputs"] = tuple(one.tolist())
            if task.classes:
                said["decision"] = task.classes[int(one.argmax())]
            if decided is not None:
                said["decision"] = bool(decided[k])
            live.answered([entry(k, version, role, **said)])
    live.settled(
        Posted(seq=k, received=NOW, by="x", model="a", prediction="", key=f"k{k}", value=v, settled=NOW - hours(1))
        for k, v in enumerate(came)
    )
    return live


def estimate(live: Live, condition: Condition, version: str = "a-1", **more: Any) -> float:
    found, reason = quality.measure(live, condition, version, now=NOW, **more)
    assert found is not None, reason
    assert found.n == N and found.low <= found.estimate <= found.high
    return found.estimate


def classes() -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    rng = np.random.default_rng(3)
    shares = rng.dirichlet([1, 1, 1], N)
    places = np.array([rng.choice(3, p=p) for p in shares])
    return shares, places, [outcomes.of_class(CLASSES.classes[n]) for n in places]


def test_classes_are_measured_on_the_outcomes_that_were_posted() -> None:
    shares, places, came = classes()
    live = traffic(CLASSES, {"a-1": shares, "a-2": shares[:, [1, 2, 0]]}, came)
    accuracy = named.accuracy.live(over=days(30)) >= 0.5
    assert quality.measure(live, named.macro_f1.live(over=days(30)) >= 0.1, "a-1", now=NOW)[0] is None, "of what?"
    for version in ("a-1", "a-2"):
        live.refer(version, reference(Visit.level, shares))
    right = shares.argmax(axis=1) == places
    assert estimate(live, accuracy) == pytest.approx(right.mean())
    loss = -np.log(shares[np.arange(N), places]).mean()
    assert estimate(live, named.log_loss.live(over=days(30)) <= 2) == pytest.approx(loss)
    other = shares[:, [1, 2, 0]].argmax(axis=1) == places
    metric = named.accuracy.live(over=days(30))
    gained = estimate(live, metric >= metric.on(champion) - 0.1, "a-2", champion="a-1")
    assert gained == pytest.approx(other.mean() - right.mean())
    frame = live.frame("a-1", EPOCH, NOW, NOW)
    assert frame["label"].to_list() == [CLASSES.classes[n] for n in places] and not frame["void"].any()
    assert estimate(live, accuracy, "a-2") == pytest.approx(other.mean())


def test_a_class_that_the_outcome_has_no_more_is_not_counted() -> None:
    shares, _, came = classes()
    live = traffic(CLASSES, {"a-1": np.r_[shares, shares[:1]]}, [*came, outcomes.of_class("gone")])
    live.refer("a-1", reference(Visit.level, shares))
    estimate(live, named.accuracy.live(over=days(30)) >= 0.5)


def test_quantiles_are_measured() -> None:
    rng = np.random.default_rng(4)
    middle = rng.normal(0, 1, N)
    bands, came = middle[:, None] + np.array([-1.0, 0.0, 1.0]), middle + rng.normal(0, 1, N)
    live = traffic(QUANTILES, {"a-1": bands}, came.tolist())
    live.refer("a-1", reference(Visit.paid, bands, quantiles=QUANTILES.quantiles))
    inside = (np.abs(came - middle) <= 1).mean()
    assert estimate(live, named.coverage.live(over=days(30)) >= 0.5) == pytest.approx(inside)
    assert estimate(live, named.width.live(over=days(30)) <= 3) == pytest.approx(2.0)


@pytest.mark.parametrize("recorded", [True, False])
def test_what_was_decided_is_measured_as_it_was_decided(*, recorded: bool) -> None:
    rng = np.random.default_rng(5)
    p = rng.random(N)
    y = rng.random(N) < p
    decided = p >= 0.3
    live = traffic(BINARY, {"a-1": p}, [float(v) for v in y], decided if recorded else None)
    then = decided if recorded else p > 0.5
    assert estimate(live, named.recall.live(over=days(30)) >= 0.5) == pytest.approx(then[y].mean())
    live.refer("a-1", reference(Visit.bought, p, decide=fb.costs(false_positive=1, false_negative=5)))
    cost = (then & ~y).mean() + 5 * (~then & y).mean()
    assert estimate(live, named.cost.live(over=days(30)) <= 1) == pytest.approx(cost)


def test_a_reference_says_what_it_must_and_no_more() -> None:
    shares, *_ = classes()
    of_classes = reference(Visit.level, shares)
    assert of_classes.says == Says(task=CLASSES)
    assert references.from_bytes(encode(of_classes)) == of_classes
    counted = dict(zip(of_classes.predictions.edges.labels, of_classes.predictions.whole.counts, strict=True))
    likeliest = shares.argmax(axis=1)
    assert {n: counted[n] for n in CLASSES.classes} == {
        n: int((likeliest == k).sum()) for k, n in enumerate(CLASSES.classes)
    }
    assert b"says" not in encode(reference(Visit.bought, shares[:, 0])), "as an earlier release wrote it, to the byte"
    live = traffic(CLASSES, {"a-1": shares}, [])
    live.refer("a-1", of_classes)
    _, seen = live.hourly("a-1", of_classes.predictions, NOW - days(11), NOW)
    assert tuple(seen.sum(axis=0)) == of_classes.predictions.whole.counts
