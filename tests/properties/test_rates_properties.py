"""A token bucket under any stream of requests, against what it promises: never more, never less, and a time that is true."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.serve import rates
from flyball.serve.rates import Bucket, Rate

PAUSES = st.lists(st.floats(0, 30, allow_subnormal=False) | st.just(0.0), min_size=1, max_size=120)
RATES = st.builds(Rate, per_second=st.floats(0.01, 1000), burst=st.integers(1, 50))


@settings(deadline=None, max_examples=80)
@given(RATES, PAUSES)
def test_over_no_span_more_than_its_rate_and_its_burst(rate: Rate, pauses: list[float]) -> None:
    """Every span that begins and ends with an admitted request, not the whole alone."""
    bucket, now, admitted = Bucket(rate, 0.0), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if bucket.take(now) == 0.0:
            admitted.append(now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            count, span = last - first + 1, admitted[last] - start
            assert count <= rate.burst + rate.per_second * span + 1e-6


@settings(deadline=None, max_examples=80)
@given(RATES, PAUSES)
def test_whoever_waits_as_long_as_it_is_told_is_let_in_and_a_moment_earlier_is_not(
    rate: Rate, pauses: list[float]
) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        assert 0.0 <= wait <= 1 / rate.per_second + 1e-9
        if wait > 1e-6:
            assert bucket.take(now + wait * 0.99) > 0.0, "not before"
            now += wait + 1e-6 / rate.per_second
            assert bucket.take(now) == 0.0, "and then"


@settings(deadline=None, max_examples=50)
@given(RATES, st.lists(st.floats(-30, 30), min_size=1, max_size=100))
def test_a_clock_that_goes_back_gives_nothing(rate: Rate, moves: list[float]) -> None:
    bucket, now, latest, admitted = Bucket(rate, 0.0), 0.0, 0.0, 0
    for move in moves:
        now += move
        latest = max(latest, now)
        admitted += bucket.take(now) == 0.0
    assert admitted <= rate.burst + rate.per_second * latest + 1e-6


@pytest.mark.parametrize(
    ("text", "per_second", "burst"),
    [
        ("100/s", 100.0, 100),
        ("100/s:500", 100.0, 500),
        ("30/min", 0.5, 1),
        ("30/min:10", 0.5, 10),
        ("1/h", 1 / 3600, 1),
        ("2.5/s", 2.5, 2),
    ],
)
def test_a_rate_as_it_is_written(text: str, per_second: float, burst: int) -> None:
    assert rates.parse(text) == Rate(per_second=per_second, burst=burst)


@pytest.mark.parametrize(
    "text", ["", "100", "100/d", "0/s", "0.0/h", "-1/s", "1e9/s", "5/s:0", "5/s:", "١/s", "1/s\n", "9" * 10 + "/s"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        rates.parse(text)


def test_a_clock_that_goes_back_takes_nothing_either() -> None:
    bucket = Bucket(Rate(per_second=1, burst=3), 100.0)
    assert [bucket.take(now) for now in (100.0, 40.0, 40.0)] == [0.0] * 3
    assert bucket.take(100.5) == 0.5
