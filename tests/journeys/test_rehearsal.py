"""A rehearsal on real data: July and August lived through twice with one seed, is one trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import flyball as fb
from examples.flights import app as flights
from flyball import average_precision, days, runtime
from flyball.cycle import rehearse
from flyball.cycle.rehearse import Rehearsed, Span

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SPAN = Span(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 9, 5, tzinfo=UTC), timedelta(hours=24), sample=0.04)

# As the example, but for a search of one trial and a training every two months, so that they pass in half a minute.
APP = fb.App(
    "flights",
    sources=flights.app.sources,
    model=flights.lateness,
    search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(30))),
    gates=flights.app.gates,
    release=flights.app.release,
    monitors=flights.app.monitors,
    false_alarms=flights.app.false_alarms,
    retrain=fb.every(days(60)),
)


def rehearsed(seed: int) -> Rehearsed:
    placement = runtime.Placement(root=ROOT / "examples" / "flights")
    session, clock = runtime.rehearsal(APP, placement, SPAN.start, seed)
    return rehearse.rehearse(session, clock, SPAN)


def test_two_months_twice_with_one_seed_are_one_trace() -> None:
    first, second = rehearsed(7), rehearsed(7)
    assert first.trace == second.trace and first.transactions == second.transactions
    assert first.decided == second.decided and first.answered == second.answered
    # It was a life, not an empty loop: questions, outcomes, a training that a trigger asked for, and its decision.
    assert first.asked > 1_700 and first.refused == 0
    assert sum(n for name, n in first.answered.items() if not name.endswith(" shadow")) == first.asked
    assert 0.95 * first.asked < first.outcomes["accepted"] <= first.asked
    assert first.trainings >= 1 and any("is trained anew" in each.what for each in first.decided)


def test_a_span_that_goes_backwards_is_refused() -> None:
    placement = runtime.Placement(root=ROOT / "examples" / "flights")
    session, clock = runtime.rehearsal(APP, placement, SPAN.start, 0)
    with pytest.raises(fb.DeclarationError, match="rehearsal-span"):
        rehearse.rehearse(session, clock, Span(SPAN.end, SPAN.start))
