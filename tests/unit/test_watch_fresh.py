"""Freshness and volume: silence is told when something should have come, and only then."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from flyball._kernel.clock import EPOCH, micros
from flyball._kernel.durations import days, hours, minutes
from flyball.watch import fresh

LONG = days(36)
NOW = EPOCH + days(15_000) + hours(15)


def asked(rate: float, until: timedelta = timedelta(), since: timedelta = LONG) -> np.ndarray:
    """So many questions an hour from 8 to 20 o'clock, up to `until` before now."""
    moments = np.arange(micros(NOW - since), micros(NOW - until), int(3.6e9 / rate))
    clock = moments // 3_600_000_000 % 24
    return moments[(clock >= 8) & (clock < 20)]


def test_a_source_is_fresh_stale_or_unknown() -> None:
    assert fresh.freshness(NOW - hours(23), days(1), NOW).state == "ok"
    assert fresh.freshness(NOW - days(1), days(1), NOW).state == "ok"
    stale = fresh.freshness(NOW - hours(25), days(1), NOW)
    assert (stale.state, stale.estimate) == ("breach", 25 * 3600)
    assert "25.0h" in stale.reason
    assert fresh.freshness(None, days(1), NOW).state == "blind"


@pytest.mark.parametrize("since", [days(36), days(5)], ids=["weeks", "days"])
def test_silence_is_a_breach_where_something_should_have_come(since: timedelta) -> None:
    begin = NOW - since
    assert fresh.volume(asked(60, since=since), hours(2), begin, NOW).state == "ok"
    silent = fresh.volume(asked(60, hours(2), since), hours(2), begin, NOW)
    assert (silent.state, silent.estimate) == ("breach", 0.0)
    assert fresh.volume(asked(60, minutes(70), since), hours(2), begin, NOW).estimate == pytest.approx(
        50 / 120, abs=0.02
    )


def test_silence_at_night_is_as_usual() -> None:
    night = NOW + hours(9)
    found = fresh.volume(asked(60), hours(2), NOW - days(36), night)
    assert found.state == "blind"
    assert "now or before" in found.reason


def test_few_questions_prove_nothing() -> None:
    assert fresh.volume(asked(0.5, hours(2)), hours(2), NOW - days(36), NOW).state == "blind"


def test_what_cannot_be_told_stays_as_it_was_found() -> None:
    """Ten questions a day were too few to tell half of the time: the state went to and fro, and a person heard of each turn."""
    states: list[fresh.State] = ["ok", "breach", "blind"]
    for state in states:
        assert fresh.volume(asked(0.5, hours(2)), hours(2), NOW - days(36), NOW, state).state == state
    silent = fresh.volume(asked(60, hours(2)), hours(2), NOW - days(36), NOW, "ok")
    assert silent.state == "breach", "what can be told is"
    assert fresh.volume(asked(60, since=hours(3)), hours(2), NOW - hours(3), NOW, "ok").state == "blind"


@pytest.mark.parametrize("a_day", [2, 10, 50])
def test_few_questions_a_day_make_few_states(a_day: int) -> None:
    """Two months without a change, looked at as often as the loop does; what is left are false alarms of the interval."""
    start, end = NOW - days(60), NOW
    moments = np.sort(np.random.default_rng(1).integers(micros(start - days(40)), micros(end), a_day * 100))
    state: fresh.State = "blind"
    changes, unsure, now = 0, 0, start
    while now < end:
        seen = moments[(moments >= micros(now - LONG)) & (moments < micros(now))]
        found = fresh.volume(seen, days(1), start - days(40), now, state).state
        unsure += fresh.volume(seen, days(1), start - days(40), now).state == "blind"
        changes += found != state
        state, now = found, now + hours(1)
    assert unsure > 10, "or nothing is tested here"
    assert changes <= 5


def test_without_a_past_there_is_nothing_to_compare_with() -> None:
    assert fresh.volume(asked(60, since=hours(3)), hours(2), NOW - hours(3), NOW).state == "blind"
    assert fresh.volume(np.zeros(0, dtype=np.int64), hours(2), None, NOW).state == "blind"


def test_a_flood_is_no_breach_and_weeks_are_compared_with_weeks() -> None:
    calm, busy = asked(30, until=days(1)), asked(300, since=days(1))
    assert fresh.volume(np.r_[calm, busy], hours(2), NOW - days(36), NOW).state == "ok"
    # Only this weekday is busy: the days before say nothing about it.
    weekly = np.sort(
        np.concatenate([np.arange(200) * 30_000_000 + micros(NOW - hours(2) - k * days(7)) for k in range(5)])
    )
    found = fresh.volume(weekly, hours(2), NOW - days(36), NOW)
    assert (found.state, found.estimate) == ("ok", pytest.approx(1.0))
