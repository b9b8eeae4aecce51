"""Drift: distances are those of the textbook, noise is no drift, limits keep their budget, and faults are found."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon

from flyball._kernel import facts
from flyball._kernel.clock import EPOCH, micros
from flyball._kernel.conditions import Metric, Outcome, judge
from flyball._kernel.durations import days, hours
from flyball._kernel.errors import StateError
from flyball.data import profile
from flyball.learn import reference as references
from flyball.learn.reference import PREDICTION, Column, Reference
from flyball.serve.journal import Entry
from flyball.watch import drift
from flyball.watch.live import Live
from flyball.watch.monitor import at_most

PSI = Metric("psi", "lower", over=days(7), subject=("size", "place", "season"))
JS = Metric("js", "lower", over=days(7), subject=PSI.subject)
START = 15_000
"""The first day of the reference; it has HISTORY days."""
HISTORY = 120
WEEK = days(7)
NOW = EPOCH + days(START + HISTORY + 7)


def day_of(rng: np.random.Generator, day: int, n: int = 150) -> dict[str, list[Any]]:
    """A day's questions: two features that stay as they are, and one that goes with the season."""
    return {
        "size": rng.lognormal(3, 1, n).tolist(),
        "place": rng.choice(["x", "y", "z"], n, p=[0.6, 0.3, 0.1]).tolist(),
        "season": rng.normal(4 * np.sin(2 * np.pi * day / 90), 1, n).tolist(),
    }


def reference(history: int = HISTORY, n: int = 150) -> Reference:
    rng = np.random.default_rng(0)
    found = [day_of(rng, d, n) for d in range(history)]
    groups = np.repeat(np.arange(history), n)

    def column(name: str, kind: profile.Kind) -> Column:
        values = pl.Series([v for day in found for v in day[name]])
        by = profile.edges(values, kind)
        parts = profile.profiles(values, groups, history, by)
        return Column(
            name=name,
            feature=name,
            meaning="m",
            edges=by,
            days=tuple(range(START, START + history)),
            profiles=tuple(parts),
        )

    answers = pl.Series(np.random.default_rng(1).random(2000))
    by = profile.edges(answers, "number")
    predictions = Column(
        name=PREDICTION,
        feature=PREDICTION,
        meaning="",
        edges=by,
        days=(START,),
        profiles=(profile.profile(answers, by),),
    )
    return Reference(
        features=(column("size", "number"), column("place", "category"), column("season", "number")),
        predictions=predictions,
    )


REFERENCE = reference()


def live(span: timedelta = WEEK, n: int = 150, now: datetime = NOW, **changed: Any) -> Live:
    """A week of questions like the reference's, but for the features that are changed: name -> function of the values."""
    rng = np.random.default_rng(2)
    made = Live(days(40))
    made.refer("a-1", REFERENCE)
    entries = []
    for d in range(-(-span // days(1))):
        values = day_of(rng, HISTORY + d, n)
        for k in range(n):
            features = {name: changed.get(name, lambda v: v)(column[k]) for name, column in values.items()}
            asked = now - span + days(d) + k * days(1) / n
            if asked < now:
                entries.append(entry(asked, features, output=float(rng.random())))
    made.answered(entries)
    return made


def entry(asked: datetime, features: dict[str, Any], output: float) -> Entry:
    return Entry(
        id=str(micros(asked)),
        asked=micros(asked),
        model="a",
        version="a-1",
        epoch=1,
        role="champion",
        within_tolerance=True,
        key=str(micros(asked)),
        inputs={},
        features=features,
        output=output,
        latency_us=1,
        via="test",
        app="app",
        process="p",
        segment="s",
        seq=1,
    )


def test_the_distances_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(1, 9, 12) * 100_000, rng.integers(1, 9, 12) * 100_000
    p, q = a / a.sum(), b / b.sum()
    psi, js, own, theirs = drift.distances(a, b)
    assert float(psi) == pytest.approx(float(((p - q) * np.log(p / q)).sum()), rel=1e-3)
    assert float(js) ** 0.5 == pytest.approx(float(jensenshannon(p, q)), rel=1e-3)
    assert float(own) == pytest.approx(11 / a.sum(), rel=1e-3)
    assert float(theirs) == pytest.approx(11 / b.sum(), rel=1e-3)


def test_what_nobody_has_seen_counts_for_nothing_and_what_one_has_seen_is_finite() -> None:
    a, b = np.array([500, 500, 0, 0]), np.array([900, 0, 100, 0])
    found = [float(x) for x in drift.distances(a, b)]
    assert np.isfinite(found).all()
    assert found == [float(x) for x in drift.distances(a[:3], b[:3])]
    assert found[0] > 1


@pytest.mark.parametrize("n", [200, 1000, 20_000])
def test_the_noise_of_a_sample_is_taken_off_whatever_its_size(n: int) -> None:
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(20, 3.0))
    psi, js, own, theirs = drift.distances(
        rng.multinomial(n, shares, size=400), rng.multinomial(50_000, shares, size=400)
    )
    noise = own + theirs
    assert abs(float(np.mean(psi - noise))) < 0.15 * float(noise.mean())
    assert abs(float(np.mean(js - noise / 8))) < 0.15 * float(noise.mean()) / 8


def test_a_week_like_the_others_passes_and_the_limits_say_by_how_much() -> None:
    found = drift.calibrate(REFERENCE, PSI, at_most(1, per=days(30)))
    assert set(found.limits) == set(PSI.subject)
    assert found.windows == HISTORY - 7 + 1
    assert found.episodes <= found.allowed == 3
    assert found.limits["season"] > 20 * found.limits["size"]
    measurement, reason = drift.measure(live(), "a-1", PSI, NOW, found.limits)
    assert found.threshold == 1.0
    assert measurement is not None
    assert measurement.n == 1050
    assert measurement.low <= measurement.estimate <= measurement.high
    assert judge(PSI <= 1.0, measurement, reason=reason).outcome is not Outcome.FAIL


FAULTS: dict[str, dict[str, Any]] = {
    "another unit": {"size": lambda v: v * 1.6},
    "a column that is missing": {"size": lambda _: None},
    "a third of a column is missing": {"size": lambda v: None if v > 25 else v},
    "two categories swapped": {"place": lambda v: {"x": "y", "y": "x"}.get(v, v)},
    "a new category": {"place": lambda v: "w" if v == "y" else v},
}


@pytest.mark.parametrize("metric", [PSI, JS], ids=lambda m: m.name)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_and_named_although_the_season_is_louder(fault: str, metric: Metric) -> None:
    limits = drift.calibrate(REFERENCE, metric, at_most(1, per=days(30))).limits
    measurement, reason = drift.measure(live(**FAULTS[fault]), "a-1", metric, NOW, limits)
    assert judge(metric <= 1.0, measurement, reason=reason).outcome is Outcome.FAIL
    assert f"most of all {next(iter(FAULTS[fault]))}" in reason


def test_a_threshold_of_ones_own_is_held_against_the_plain_distance() -> None:
    measurement, reason = drift.measure(live(size=lambda v: v * 3), "a-1", PSI, NOW)
    assert measurement is not None
    plain = Metric("psi", "lower", over=days(7), subject=("size",))
    alone, _ = drift.measure(live(size=lambda v: v * 3), "a-1", plain, NOW)
    assert alone is not None
    assert 0.5 < alone.estimate <= measurement.estimate
    assert "season" in reason or "size" in reason


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (live(n=20), "140 questions in 7d"),
        (live(span=days(3)), "of 7d"),
        (Live(days(7)), "no reference"),
    ],
    ids=["few", "half a week", "none"],
)
def test_what_cannot_be_told_is_blind(made: Live, why: str) -> None:
    found, reason = drift.measure(made, "a-1", PSI, NOW)
    assert found is None
    assert why in reason


def test_an_interval_covers_what_the_next_weeks_say() -> None:
    """Hours of one clock are drawn among themselves: without that, a shift of the day's course would widen everything."""
    made = live(size=lambda v: v * 1.6)
    found, _ = drift.measure(made, "a-1", Metric("psi", "lower", over=days(7), subject=("size",)), NOW)
    assert found is not None
    rng, size = np.random.default_rng(9), REFERENCE.column("size")
    assert size is not None
    again = []
    for _ in range(200):
        counts = np.array(profile.profile(pl.Series(rng.lognormal(3, 1, 1050) * 1.6), size.edges).counts)
        psi, _js, own, theirs = drift.distances(counts, np.array(size.whole.counts))
        again.append(float(psi - own - theirs))
    width = np.quantile(again, 0.975) - np.quantile(again, 0.025)
    assert 0.6 * width < found.high - found.low < 1.6 * width


def test_the_same_is_measured_twice() -> None:
    made = live()
    assert drift.measure(made, "a-1", PSI, NOW) == drift.measure(made, "a-1", PSI, NOW)
    assert drift.calibrate(REFERENCE, PSI, at_most(1, per=days(30))) == drift.calibrate(
        REFERENCE, PSI, at_most(1, per=days(30))
    )


@pytest.mark.parametrize(
    ("above", "expected"),
    [("", 0), ("0000", 0), ("0110", 1), ("1011", 2), ("1111111", 1), ("11111111", 2), ("0111111111111111", 3)],
)
def test_episodes_are_runs_and_a_long_one_is_several(above: str, expected: int) -> None:
    assert drift.episodes(np.array([c == "1" for c in above], dtype=np.bool_), 7) == expected


def test_a_smaller_budget_never_lowers_a_limit_and_more_monitors_share_it() -> None:
    budgets = [drift.calibrate(REFERENCE, PSI, at_most(c, per=days(30))) for c in (0, 1, 5, 50)]
    for strict, loose in pairwise(budgets):
        assert all(strict.limits[n] >= loose.limits[n] for n in strict.limits)
    assert budgets[0].episodes == 0
    assert budgets[3].limits["season"] < budgets[0].limits["season"]
    shared = drift.calibrate(REFERENCE, PSI, at_most(10, per=days(30)), 10)
    assert shared.allowed == drift.calibrate(REFERENCE, PSI, at_most(1, per=days(30))).allowed


def test_noise_sets_the_least_limit_where_questions_are_few_and_what_matters_where_they_are_many() -> None:
    endless, rng = at_most(1000, per=days(1)), np.random.default_rng(3)
    for n, least in ((40, None), (600, drift.MATTERS)):
        known = reference(n=n)
        limit, size = drift.calibrate(known, PSI, endless).limits["size"], known.column("size")
        assert size is not None
        whole = np.array(size.whole.counts)
        psi, _, own, theirs = drift.distances(rng.multinomial(7 * n, whole / whole.sum(), size=2000), whole)
        assert float(np.mean(psi - own - theirs <= limit)) > 0.97
        assert (limit == drift.MATTERS) == (least is not None)
        assert limit < 0.1


def test_the_budget_is_kept_in_weeks_that_the_reference_has_not_seen() -> None:
    """The season comes back, so what follows is new and yet like what was; a year of it, each week against the same limits."""
    limits = drift.calibrate(REFERENCE, PSI, at_most(1, per=days(30))).limits
    rng, beyond = np.random.default_rng(11), []
    counts: dict[str, list[np.ndarray]] = {name: [] for name in limits}
    for d in range(HISTORY, HISTORY + 360):
        values = day_of(rng, d)
        for column in REFERENCE.features:
            counts[column.name].append(np.array(profile.profile(pl.Series(values[column.name]), column.edges).counts))
    for column in REFERENCE.features:
        summed = np.cumsum(np.array(counts[column.name]), axis=0)
        psi, _, own, theirs = drift.distances(summed[7:] - summed[:-7], np.array(column.whole.counts))
        beyond.append(psi - own - theirs > limits[column.name])
    assert drift.episodes(np.array(beyond).any(axis=0), 7) <= 360 / 30


@pytest.mark.parametrize("history", [0, 5, 15])
def test_short_history_calibrates_nothing_and_says_so(history: int) -> None:
    found = drift.calibrate(reference(max(1, history)), PSI, at_most(1, per=days(30)))
    assert found.threshold is None
    assert "too few" in found.reason
    brief = drift.calibrate(reference(25), PSI, at_most(1, per=days(30)))
    assert brief.threshold == 1.0
    assert "shorter than 30d" in brief.reason
    hourly = Metric("psi", "lower", over=hours(6), subject=("size",))
    assert drift.calibrate(REFERENCE, hourly, at_most(1, per=days(30))).threshold is None


def test_a_reference_is_stored_as_it_is_and_nothing_else_is_read() -> None:
    data = facts.encode(REFERENCE)
    assert references.from_bytes(data) == REFERENCE
    assert facts.encode(references.from_bytes(data)) == data
    for broken in (b"{}", data[:-1], b"\xff", data.replace(b'"days":[15000,15001,', b'"days":[15001,15000,', 1)):
        with pytest.raises(StateError) as caught:
            references.from_bytes(broken)
        assert caught.value.code == "reference-unreadable"
