"""What is written of a monitor: changes, and a point of its curve once a day; and that a fact tells the one from the other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flyball._kernel.facts import Fact
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.clock import Wound
from flyball.watch import alert, observed
from flyball.watch.observed import Observed, State


def lived(states: list[State], every: timedelta) -> MemoryFacts:
    """The facts of a monitor that was found to be these, one after the other."""
    clock = Wound()
    log = MemoryFacts(clock, MemorySigner(), [observed.OBSERVED])
    for state in states:
        last = observed.rows(log, "shop", "orders").get("drift")
        said = observed.worth_writing(last, Observed(monitor="drift", state=state), clock.now())
        if said is not None:
            log.append([Fact("shop", "orders", said)])
        clock.sleep(every.total_seconds())
    return log


@pytest.mark.parametrize(
    ("states", "alerts"),
    [
        (["breach"] * 72, ["is in breach"]),
        (["ok"] * 30 + ["breach"] * 30, ["is in breach"]),
        (["blind"] * 60, []),
        (["ok"] * 30 + ["blind"] * 30, ["is blind"]),
        (["breach", "ok"] * 2, ["is in breach", "is in breach"]),
    ],
    ids=["a breach that lasts", "one that comes", "blind from the start", "blind later", "two breaches"],
)
def test_a_state_is_alerted_when_it_comes_and_not_each_day_that_it_lasts(
    states: list[State], alerts: list[str]
) -> None:
    heard = [found.title for fact in lived(states, timedelta(hours=1)).read() if (found := alert.of(fact)) is not None]
    assert heard == [f"orders: drift {each}" for each in alerts]


def test_a_state_that_lasts_is_a_point_of_a_curve_each_day() -> None:
    states: list[State] = [*["ok"] * 49, "breach"]  # type: ignore[list-item]
    log = lived(states, timedelta(hours=1))
    assert len(list(log.read())) == 4
    row = observed.rows(log, "shop", "orders")["drift"]
    assert (row.last.state, row.last.before) == ("breach", "ok")
