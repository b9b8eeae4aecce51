"""Guards and monitors of quality: what they measure, when they cannot, and which of them are refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import dataframely as dy
import numpy as np
import pytest
from scipy import stats

import flyball as fb
from flyball import average_precision, champion, days, error_rate, hours, mean_absolute_error, ms, p99_latency, roc_auc
from flyball._kernel.clock import from_micros, micros
from flyball._kernel.conditions import Condition, Measurement, Outcome, judge
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted
from flyball.watch import quality
from flyball.watch.live import Live
from flyball.watch.monitor import Monitor, js, psi

DAY = from_micros(15_000 * 86_400_000_000)
NOW = DAY + days(20)


def entry(key: str, asked: datetime, version: str, **more: Any) -> Entry:
    said: dict[str, Any] = {"role": "champion", "output": 0.5, "latency_us": 1000, "features": {}, "failed": ""}
    return Entry(
        **(said | more),
        id=f"{version}/{key}",
        asked=micros(asked),
        version=version,
        model="a",
        epoch=1,
        within_tolerance=True,
        key=key,
        inputs={},
        via="test",
        app="app",
        process="p",
        segment="s",
        seq=1,
    )


def posted(key: str, value: float, settled: datetime) -> Posted:
    return Posted(seq=1, received=settled, by="x", model="a", prediction="", key=key, value=value, settled=settled)


def traffic(
    n: int, span: timedelta, shift: float = 0.0, seed: int = 0
) -> tuple[Live, np.ndarray, np.ndarray, np.ndarray]:
    """Questions that both versions answered, the candidate's scores the worse the greater the shift."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 4, n)
    y = rng.random(n) < p
    worse = np.clip(p + rng.normal(0, shift, n), 0, 1) if shift else p
    live = Live(days(60))
    for k in range(n):
        asked = NOW - span + k * span / n
        live.answered(
            [entry(f"k{k}", asked, "a-1", output=p[k]), entry(f"k{k}", asked, "a-2", role="shadow", output=worse[k])]
        )
    live.settled([posted(f"k{k}", float(y[k]), NOW - timedelta(seconds=1)) for k in range(n)])
    return live, y, p, worse


def measured(live: Live, condition: Condition, version: str = "a-1", **more: Any) -> Measurement:
    found, reason = quality.measure(live, condition, version, **({"now": NOW} | more))
    assert found is not None, reason
    return found


def test_the_error_rate_is_that_of_all_attempts_with_wilsons_interval() -> None:
    live = Live(days(30))
    live.answered([entry(f"k{k}", DAY, "a-2", role="shadow", failed="boom" if k < 3 else "") for k in range(200)])
    live.answered([entry(f"k{k}", DAY, "a-2", role="default", failed="boom") for k in range(50)])
    found = measured(live, error_rate <= 0.01, "a-2")
    expected = stats.binomtest(3, 200).proportion_ci(method="wilson")
    assert (found.estimate, found.n) == (3 / 200, 200)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-6), pytest.approx(expected.high, abs=1e-6))
    assert measured(live, error_rate <= 0.01, "a-2", start=DAY, now=DAY + days(1)).n == 200
    assert quality.measure(live, error_rate <= 0.01, "a-2", start=DAY + hours(1), now=NOW)[0] is None


def test_no_failure_among_few_is_no_proof() -> None:
    live = Live(days(30))
    live.answered([entry(f"k{k}", DAY, "a-1") for k in range(50)])
    found, reason = quality.measure(live, error_rate <= 0.01, "a-1", now=NOW)
    assert found is not None
    assert found.low == 0.0
    assert judge(error_rate <= 0.01, found, reason=reason).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("n", [1, 10, 100, 366, 368, 500, 5000, 20_000, 20_001])
def test_the_ranks_hold_the_99th_percentile(n: int) -> None:
    low, high = quality.ranks(n)
    below = stats.binom(n, 0.99)
    if low:
        assert below.sf(low - 1) >= 0.975 - (0.002 if n > quality.EXACT else 1e-9)
        if n <= quality.EXACT:
            assert below.sf(low) < 0.975
    if high is not None:
        assert below.cdf(high - 1) >= 0.975 - (0.002 if n > quality.EXACT else 1e-9)
        if n <= quality.EXACT:
            assert below.cdf(high - 2) < 0.975
    assert (high is None) == (0.99**n > 0.025)
    assert n > quality.EXACT or low == below.isf(0.975) - (below.sf(below.isf(0.975) - 1) < 0.975)


def test_shadows_speak_for_a_latency_and_never_against_it() -> None:
    """They are computed one by one, where questions of callers may be computed together."""
    guard, live = p99_latency <= ms(20), Live(days(60))
    shadows = [entry(f"s{k}", DAY, "a-2", role="shadow", latency_us=90_000) for k in range(400)]
    live.answered(shadows)
    assert quality.measure(live, guard, "a-2", now=NOW) == (None, quality.ALONE)
    live.answered([entry(f"c{k}", DAY, "a-2", role="canary", latency_us=1000) for k in range(400)])
    assert judge(guard, measured(live, guard, "a-2")).outcome is Outcome.PASS
    live.answered([entry(f"d{k}", DAY, "a-2", role="canary", latency_us=90_000) for k in range(40)])
    assert judge(guard, measured(live, guard, "a-2")).outcome is Outcome.FAIL
    fast = Live(days(60))
    fast.answered([entry(f"s{k}", DAY, "a-2", role="shadow", latency_us=1000) for k in range(400)])
    assert judge(guard, measured(fast, guard, "a-2")).outcome is Outcome.PASS


def test_few_attempts_cannot_pass_a_latency_but_can_fail_it() -> None:
    live = Live(days(30))
    live.answered([entry(f"k{k}", DAY, "a-1", latency_us=1000) for k in range(200)])
    live.answered([entry(f"k{k}", DAY, "a-2", latency_us=90_000) for k in range(200)])
    found, reason = quality.measure(live, p99_latency <= ms(20), "a-1", now=NOW)
    assert found is None
    assert "200 attempts" in reason
    slow = measured(live, p99_latency <= ms(20), "a-2")
    assert slow.estimate == 0.09
    assert judge(p99_latency <= ms(20), slow).outcome is Outcome.FAIL
    live.answered([entry(f"l{k}", DAY, "a-1", latency_us=1000) for k in range(200)])
    assert judge(p99_latency <= ms(20), measured(live, p99_latency <= ms(20))).outcome is Outcome.PASS


def test_live_quality_is_that_of_the_settled_questions_of_the_window() -> None:
    live, y, p, _ = traffic(600, days(15))
    live.answered(
        [entry("open", NOW - days(1), "a-1"), entry("broken", NOW - days(1), "a-1", failed="x", output=np.nan)]
    )
    live.settled([posted("broken", 1.0, NOW - hours(2))])
    found = measured(live, roc_auc.live(over=days(30)) >= 0.6)
    assert found.estimate == pytest.approx(metrics.value("roc_auc", y, p))
    assert found.low < found.estimate < found.high
    assert found.n == 600
    window = measured(live, roc_auc.live(over=days(5)) >= 0.6)
    assert window.n == 200
    assert window.estimate == pytest.approx(metrics.value("roc_auc", y[400:], p[400:]))
    assert measured(live, roc_auc.live(over=days(30)) >= 0.6, start=NOW - days(3)).n == 120
    assert quality.measure(live, roc_auc.live(over=days(30)) >= 0.6, "a-1", now=NOW - hours(2))[0] is None


def test_few_or_one_sided_outcomes_are_said_not_guessed() -> None:
    live, *_ = traffic(40, days(15))
    found, reason = quality.measure(live, roc_auc.live(over=days(30)) >= 0.6, "a-1", now=NOW)
    assert found is None
    assert "fewer than 50" in reason
    live = Live(days(60))
    live.answered([entry(f"k{k}", NOW - hours(k), "a-1") for k in range(1, 200)])
    live.settled([posted(f"k{k}", 1.0, NOW - minute) for k in range(1, 200) for minute in [timedelta(minutes=1)]])
    found, reason = quality.measure(live, roc_auc.live(over=days(30)) >= 0.6, "a-1", now=NOW)
    assert found is None
    assert "outcome false" in reason


def test_a_relative_guard_is_paired_and_so_sees_what_alone_would_be_noise() -> None:
    live, y, p, worse = traffic(1500, days(2), shift=0.3)
    metric = average_precision.live(over=days(3))
    guard = metric >= metric.on(champion) - 0.01
    found = measured(live, guard, "a-2", champion="a-1", start=NOW - days(2))
    name = "average_precision"
    assert found.estimate == pytest.approx(metrics.value(name, y, worse) - metrics.value(name, y, p))
    assert judge(guard, found).outcome is Outcome.FAIL
    alone = measured(live, metric >= 0.1, "a-2")
    assert found.high - found.low < alone.high - alone.low
    same, *_ = traffic(1500, days(2))
    assert judge(guard, measured(same, guard, "a-2", champion="a-1")).outcome is Outcome.PASS
    assert quality.measure(live, guard, "a-2", now=NOW)[0] is None


def test_only_questions_that_both_answered_are_paired() -> None:
    live, *_ = traffic(300, days(2))
    live.answered([entry(f"more{k}", NOW - hours(2), "a-2") for k in range(100)])
    live.settled([posted(f"more{k}", float(k % 2), NOW - timedelta(minutes=1)) for k in range(100)])
    metric = roc_auc.live(over=days(3))
    assert measured(live, metric >= metric.on(champion), "a-2", champion="a-1").n == 300
    assert measured(live, metric >= 0.5, "a-2").n == 400


def test_numbers_are_judged_as_numbers() -> None:
    live = Live(days(60))
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 2, 300)
    live.answered([entry(f"k{k}", NOW - hours(k + 1), "a-1", output=10.0) for k in range(300)])
    live.settled([posted(f"k{k}", 10.0 + errors[k], NOW - timedelta(minutes=1)) for k in range(300)])
    found = measured(live, mean_absolute_error.live(over=days(30)) <= 2)
    assert found.estimate == pytest.approx(np.abs(errors).mean())


class Visit(fb.Contract):
    """A question."""

    key = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    page = dy.String()
    known = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))


FEATURES = fb.features(Visit.page)


@fb.model(FEATURES, predicts=Visit.bought, asked=fb.before(Visit.came, hours(1), tolerance=hours(1)))
def buys() -> object:
    """Whether it is bought."""
    return None


MODEL: Model = buys
auc = roc_auc.live(over=days(3))


@pytest.mark.parametrize(
    "guard",
    [
        error_rate <= 0.01,
        error_rate.live(over=hours(1)) <= 0.01,
        p99_latency <= ms(20),
        auc >= 0.6,
        auc >= auc.on(champion) - 0.01,
    ],
    ids=str,
)
def test_guards_that_traffic_can_show(guard: Condition) -> None:
    quality.check_guards(fb.Release(abort_unless=[guard]), MODEL)


mean = mean_absolute_error.live(over=days(3))


@pytest.mark.parametrize(
    "guard",
    [
        fb.model_latency <= ms(2),
        roc_auc >= 0.6,
        roc_auc.gap(by="page") <= 0.1,
        auc.gap(by="page") <= 0.1,
        psi(FEATURES, over=days(1)) <= 0.2,
        mean <= 3,
        error_rate <= error_rate.on(champion) + 0.01,
        auc >= auc.on(fb.champion.__class__("somebody")),
    ],
    ids=str,
)
def test_guards_that_it_cannot_show_are_refused(guard: Condition) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        quality.check_guards(fb.Release(abort_unless=[guard]), MODEL)
    assert caught.value.code == "guard-not-measurable"
    assert caught.value.where is not None
    assert caught.value.where.file == __file__


@pytest.mark.parametrize("guard", [error_rate >= 0.01, auc <= 0.6], ids=str)
def test_upside_down_is_refused_everywhere(guard: Condition) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        quality.check_guards(fb.Release(abort_unless=[guard]), MODEL)
    assert caught.value.code == "condition-upside-down"
    if guard.metric.over:
        with pytest.raises(fb.DeclarationError) as caught:
            quality.check_monitors([Monitor("m", guard)], MODEL)
        assert caught.value.code == "condition-upside-down"


def test_monitors_that_traffic_can_show() -> None:
    watched = [psi(FEATURES, over=days(7)), js(FEATURES, over=days(7)), psi(FEATURES, over=days(7)) <= 0.2, auc >= 0.6]
    watched += [error_rate.live(over=days(1)) <= 0.01, p99_latency.live(over=days(1)) <= ms(20)]
    quality.check_monitors([Monitor(str(k), each) for k, each in enumerate(watched)], MODEL)


@pytest.mark.parametrize(
    ("watched", "code"),
    [
        (error_rate <= 0.01, "monitor-not-measurable"),
        (roc_auc >= 0.6, "monitor-not-measurable"),
        (fb.model_latency <= ms(2), "monitor-not-measurable"),
        (auc >= auc.on(champion), "monitor-not-measurable"),
        (mean <= 2, "monitor-not-measurable"),
        (psi(fb.features(elsewhere=Visit.page.col.str.len_chars()), over=days(1)), "monitor-not-measurable"),
        (auc, "monitor-without-threshold"),
        (error_rate.live(over=days(1)), "monitor-without-threshold"),
    ],
    ids=str,
)
def test_monitors_that_nothing_could_show_are_refused(watched: Any, code: str) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        quality.check_monitors([Monitor("m", watched)], MODEL)
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
