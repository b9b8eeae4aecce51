"""What is expected of a table: each measurement against a plain computation, and declarations that can never be judged."""

from __future__ import annotations

import inspect
import math
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

import flyball as fb
from flyball import days
from flyball._kernel.conditions import Condition, Measurement, Metric, Outcome
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract, dataset, interval
from flyball.data.expectations import expect, measuring, proposing, sampling
from flyball.data.expectations.expect import column, table
from flyball.data.expectations.measuring import Standing

START = datetime(2024, 1, 1, 12, tzinfo=UTC)
NOW = START + timedelta(days=60)
HERE = Place("app.py", 1)


class Plane(fb.Contract):
    tailnum = dy.String(primary_key=True)
    built = fb.event_time(dy.Datetime(time_zone="UTC"))


class Flight(fb.Contract):
    flight = dy.Int64(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"))
    origin = dy.Enum(["EWR", "JFK", "LGA"], nullable=True)
    tailnum = dy.String(nullable=True)
    distance = dy.Float64(nullable=True)
    pilot = fb.personal(dy.Int64(nullable=True))
    delay = dy.Float64(nullable=True)
    weather = dy.Bool(nullable=True)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))


class Keys(fb.Contract):
    at = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))


def flights(n: int = 2_000, seed: int = 1) -> pl.DataFrame:
    chance = random.Random(seed)
    rows = []
    for k in range(n):
        delay = chance.gauss(0, 20)
        when = START + timedelta(days=40) * k / n
        rows.append(
            {
                "flight": k,
                "scheduled": when,
                "origin": chance.choice(["EWR", "EWR", "JFK", None]),
                "tailnum": f"N{chance.randrange(50)}",
                "distance": chance.choice(
                    [math.nan, None, 10_000.0, *(chance.lognormvariate(6, 0.5) for _ in range(40))]
                ),
                "pilot": chance.randrange(9),
                "delay": delay,
                "weather": chance.random() < (0.6 if delay > 15 else 0.2),
                "settled": when + timedelta(hours=6),
                "late": delay > 15 if k % 10 else None,
                "_batch": 1 + (k >= n // 2),
                "_known": when,
                "_outcome_known": when + timedelta(hours=6),
            }
        )
    return pl.DataFrame(rows, schema=dataset.schema(contract.spec(Flight)))


FLIGHTS = flights()
PLANES = pl.LazyFrame({"tailnum": [f"N{k}" for k in range(40)]})


def standing(frame: pl.DataFrame = FLIGHTS, **more: Any) -> Standing:
    given: dict[str, Any] = {
        "of": Flight,
        "rows": frame.lazy(),
        "size": frame.height,
        "now": NOW,
        "others": {Plane: PLANES},
    }
    return Standing(**{**given, **more})


def found(metric: Metric, frame: pl.DataFrame = FLIGHTS, *, worst: str = ">=", **more: Any) -> Measurement:
    condition = Condition(metric, worst, 0.0)  # type: ignore[arg-type]
    (verdict,) = measuring.judge([condition], standing(frame, **more))
    assert verdict.measurement is not None, verdict.reason
    return verdict.measurement


def present(name: str) -> list[Any]:
    return [v for v in FLIGHTS[name].to_list() if v is not None and v == v]


def told(measured: Measurement) -> tuple[float, float, float, int]:
    return measured.estimate, measured.low, measured.high, measured.n


def near(*values: float) -> Any:
    return pytest.approx(values, rel=1e-9, abs=1e-12)


def wilson(hits: int, n: int) -> tuple[float, float]:
    ends = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return ends.low, ends.high


# Counts, shares and means


def test_completeness_is_the_share_of_the_rows_with_a_finite_value() -> None:
    hits, n = len(present("distance")), FLIGHTS.height
    assert hits < FLIGHTS["distance"].drop_nulls().len(), "there are NaN"
    assert told(found(column(Flight.distance).completeness)) == pytest.approx((hits / n, *wilson(hits, n), n), rel=1e-5)


def test_the_share_of_a_value_is_one_of_the_values_that_are_there() -> None:
    there = present("origin")
    hits, n = there.count("EWR"), len(there)
    assert told(found(column(Flight.origin).share("EWR"))) == pytest.approx((hits / n, *wilson(hits, n), n), rel=1e-5)
    late = present("late")
    assert found(column(Flight.late).share(True)).estimate == sum(late) / len(late)
    assert found(column(Flight.flight).share(7)).estimate == 1 / FLIGHTS.height


def test_a_mean_and_its_interval() -> None:
    values = np.array(present("distance"))
    reach = 1.959964 * values.std(ddof=1) / math.sqrt(len(values))
    expected = (values.mean(), values.mean() - reach, values.mean() + reach, len(values))
    assert told(found(column(Flight.distance).mean)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "plain"),
    [
        (column(Flight.distance).minimum, lambda: min(present("distance"))),
        (column(Flight.distance).maximum, lambda: max(present("distance"))),
        (column(Flight.tailnum).distinct, lambda: len(set(present("tailnum")))),
        (column(Flight.distance).distinct, lambda: len(set(present("distance")))),
        (table(Flight).rows, lambda: FLIGHTS.height),
        (table(Flight).freshness, lambda: (NOW - max(FLIGHTS["_known"])).total_seconds()),
    ],
)
def test_what_is_counted_is_exact(metric: Metric, plain: Callable[[], float]) -> None:
    measured = found(metric)
    assert measured.estimate == measured.low == measured.high == plain()


def test_the_worst_whole_day_counts_also_where_it_has_no_row() -> None:
    by_day = Counter(moment.date() for moment in FLIGHTS["scheduled"].to_list())
    whole = sorted(by_day)[1:-1]
    least = min(by_day[d] for d in whole)
    assert found(table(Flight).rows_per_day).estimate == least
    assert found(table(Flight).rows_per_day, worst="<=").estimate == max(by_day[d] for d in whole)
    assert found(table(Flight).volume).estimate == least / np.median([by_day[d] for d in whole])
    gap = FLIGHTS.filter(pl.col("scheduled").dt.date() != whole[5])
    measured = found(table(Flight).rows_per_day, gap)
    assert (measured.estimate, measured.n) == (0, len(whole))


def test_days_to_come_are_not_whole() -> None:
    now = START + timedelta(days=10)
    timetable = FLIGHTS.with_columns(_known=pl.lit(START))
    assert found(table(Flight).rows_per_day, timetable, now=now).n == 9


def test_duplicates_are_rows_that_equal_another_in_all_but_the_key() -> None:
    again = pl.concat([FLIGHTS, FLIGHTS.head(100).with_columns(pl.col("flight") + 10_000)])
    measured = found(table(Flight).duplicates, again)
    assert measured.estimate == pytest.approx(200 / again.height)
    assert measured.low <= measured.estimate <= measured.high
    assert found(table(Flight).duplicates).estimate == 0


def test_duplicates_of_a_drawn_part_estimate_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PAIRS", 800)
    again = pl.concat([FLIGHTS, FLIGHTS.head(500).with_columns(pl.col("flight") + 10_000)])
    measured = found(table(Flight).duplicates, again)
    assert measured.n < 900
    assert measured.low <= 1_000 / again.height <= measured.high


def test_a_relation_is_the_share_of_the_values_that_the_other_table_knows() -> None:
    there = present("tailnum")
    known = {f"N{k}" for k in range(40)}
    hits = sum(tail in known for tail in there)
    expected = (hits / len(there), *wilson(hits, len(there)), len(there))
    assert told(found(column(Flight.tailnum).matches(Plane.tailnum))) == pytest.approx(expected, rel=1e-5)
    assert expect.tables_of(column(Flight.tailnum).matches(Plane.tailnum) >= 0.5) == (Flight, Plane)


def test_relations_of_numbers_know_no_nan_and_no_bounds_of_a_type() -> None:
    class Wide(fb.Contract):
        key = dy.UInt64(primary_key=True)
        weight = dy.Float64(allow_nan=True)
        when = fb.event_time(dy.Datetime(time_zone="UTC"))

    class Narrow(fb.Contract):
        key = dy.Int64(primary_key=True)
        weight = dy.Float64(allow_nan=True)
        when = fb.event_time(dy.Datetime(time_zone="UTC"))

    keys, weights, times = [2**64 - 1, 1], [math.nan, 1.0], [START, START]
    rows = pl.LazyFrame(
        {"key": keys, "weight": weights, "when": times, "_known": times}, schema_overrides={"key": pl.UInt64}
    )
    there = pl.LazyFrame({"key": [1], "weight": [math.nan]})
    asked = [column(Wide.key).matches(Narrow.key) >= 0.1, column(Wide.weight).matches(Narrow.weight) >= 0.1]
    verdicts = measuring.judge(asked, Standing(of=Wide, rows=rows, size=2, now=NOW, others={Narrow: there}))
    assert [v.measurement and (v.measurement.estimate, v.measurement.n) for v in verdicts] == [(0.5, 2), (0.0, 1)]


def test_what_is_too_great_to_be_written_down_is_not_told() -> None:
    huge = FLIGHTS.with_columns(distance=pl.lit(1.7e308))
    (verdict,) = measuring.judge([column(Flight.distance).mean >= 0], standing(huge))
    assert (verdict.outcome, verdict.measurement) == (Outcome.INCONCLUSIVE, None)
    assert "too great" in verdict.reason


# On a sample


def test_a_quantile_lies_between_the_order_statistics_of_the_binomial() -> None:
    values = np.sort(present("distance"))
    for level in (0.1, 0.5, 0.9):
        measured = found(column(Flight.distance).quantile(level))
        assert measured.estimate == np.quantile(values, level, method="inverted_cdf")
        ranks = interval.ranks(len(values), level)
        assert ranks is not None
        chance = stats.binom.cdf(ranks[1] - 1, len(values), level) - stats.binom.cdf(ranks[0] - 1, len(values), level)
        assert 0.95 <= chance < 0.965
        assert (measured.low, measured.high) == (values[ranks[0] - 1], values[ranks[1] - 1])
    assert interval.ranks(10, 0.01) is None


def test_outliers_by_the_median_absolute_deviation() -> None:
    values = np.array(present("distance"))
    score = 0.6745 * np.abs(values - np.median(values)) / np.median(np.abs(values - np.median(values)))
    measured = found(column(Flight.distance).outliers)
    assert measured.estimate == np.mean(score > 3.5)
    assert measured.estimate > 0.02
    assert sampling.outliers(np.zeros(50))[0].estimate == 0  # type: ignore[union-attr]
    assert sampling.outliers(np.r_[np.zeros(50), 9.0])[0].estimate == pytest.approx(1 / 51)  # type: ignore[union-attr]


def test_drift_is_told_of_what_came_since_against_what_was_believed() -> None:
    before = (FLIGHTS.filter(pl.col("_batch") == 1).lazy(), 1)
    calm = found(column(Flight.distance).drift, before=before)
    assert calm.estimate < 0.05
    assert calm.low <= calm.estimate <= calm.high
    moved = FLIGHTS.with_columns(
        pl.when(pl.col("_batch") == 2).then(pl.col("distance") * 1.6).otherwise("distance").alias("distance")
    )
    assert found(column(Flight.distance).drift, moved, before=before).low > 0.2
    other = FLIGHTS.with_columns(
        pl.when(pl.col("_batch") == 2).then(pl.lit("JFK")).otherwise("origin").cast(Flight.origin.dtype).alias("origin")
    )
    assert found(column(Flight.origin).drift, other, before=before).low > 0.2


def test_nothing_is_told_where_nothing_can_be() -> None:
    drift = column(Flight.distance).drift <= 0.1
    (verdict,) = measuring.judge([drift], standing())
    assert (verdict.outcome, verdict.measurement) == (Outcome.INCONCLUSIVE, None)
    (verdict,) = measuring.judge([drift], standing(before=(FLIGHTS.head(10).lazy(), 1)))
    assert verdict.measurement is None
    empty = FLIGHTS.clear()
    expects = [table(Flight).rows_per_day >= 1, column(Flight.distance).mean >= 1, column(Flight.origin).drift <= 1]
    assert {v.outcome for v in measuring.judge(expects, standing(empty))} == {Outcome.INCONCLUSIVE}
    (verdict,) = measuring.judge([table(Flight).rows >= 1], standing(empty))
    assert verdict.outcome is Outcome.FAIL


def test_leakage_is_high_where_a_column_says_the_outcome_and_not_where_it_has_many_values() -> None:
    assert found(column(Flight.delay).leakage).low > 0.98, "late is delay > 15"
    weather = found(column(Flight.weather).leakage)
    known = FLIGHTS.drop_nulls("late")
    assert weather.estimate == pytest.approx(roc_auc_score(known["late"], known["weather"]), abs=0.01)
    assert weather.n == known.height
    for of in (Flight.tailnum, Flight.flight, Flight.origin):
        measured = found(column(of).leakage)
        assert measured.low <= 0.5 <= measured.high + 0.02
    rows = measuring.sample(FLIGHTS.lazy(), contract.spec(Flight), FLIGHTS.height, FLIGHTS.columns[:10])
    assert [name for name, _ in sampling.leaks(rows, contract.spec(Flight))] == ["delay"]


def test_a_sample_is_the_same_in_any_order_and_its_interval_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SAMPLE", 500)
    metric = column(Flight.distance).quantile(0.5)
    measured = found(metric)
    assert measured == found(metric, FLIGHTS.sample(fraction=1, shuffle=True, seed=3))
    assert 300 < measured.n < 700
    assert measured.low <= np.median(present("distance")) <= measured.high


def test_intervals_of_an_area_cover_and_are_open_at_the_end() -> None:
    low, high = interval.of_auc(1.0, 30, 300)
    assert (low, high) == (pytest.approx(0.9), 1.0)
    rng, inside = np.random.default_rng(2), 0
    true = stats.norm.cdf(1 / math.sqrt(2))
    for _ in range(200):
        rest, hits = rng.normal(size=200), rng.normal(1, size=60)
        area = roc_auc_score(np.r_[np.zeros(200), np.ones(60)], np.r_[rest, hits])
        low, high = interval.of_auc(area, 60, 200)
        inside += low <= true <= high
    assert inside >= 182  # 95 % of 200, less three deviations


# Declarations


def test_an_expectation_prints_as_it_is_written() -> None:
    origin = column(Flight.origin)
    assert str(origin.share("EWR") >= 0.1) == "Flight.origin.share('EWR') >= 0.1"
    assert str(column(Flight.distance).quantile(0.5) <= 900) == "Flight.distance.quantile(0.5) <= 900"
    assert str(table(Flight).freshness <= days(1)) == "Flight.freshness <= 86400s"
    assert str(column(Flight.tailnum).matches(Plane.tailnum) >= 0.95) == "Flight.tailnum.matches(Plane.tailnum) >= 0.95"
    assert origin.share("EWR") == column(Flight.origin).share("EWR") != origin.share("JFK")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: column(Flight.origin).mean,
        lambda: column(Flight.weather).mean,
        lambda: column(Flight.tailnum).outliers,
        lambda: column(Flight.scheduled).drift,
        lambda: column(Flight.distance).quantile(1),
        lambda: column(Flight.origin).share("BOS"),
        lambda: column(Flight.flight).share(True),
        lambda: column(Flight.distance).share(1.5),  # type: ignore[arg-type]
        lambda: column(Flight.pilot).share(3),
        lambda: column(Flight.pilot).maximum,
        lambda: column(Flight.late).leakage,
        lambda: column(Plane.tailnum).leakage,
        lambda: column(Flight.distance).matches(Plane.tailnum),
        lambda: table("Flight"),  # type: ignore[arg-type]
        lambda: table(Keys).duplicates,
        lambda: table(Flight).rows.live(over=days(1)),
        lambda: table(Flight).rows.gap(by=Flight.origin),
        lambda: table(Flight).rows.on(fb.champion),
    ],
)
def test_what_cannot_be_measured_is_refused_where_it_stands(declare: Callable[[], object]) -> None:
    with pytest.raises(DeclarationError, match=r"\[expectation-not-measurable\]") as refused:
        declare()
    assert refused.value.where is not None
    assert refused.value.where.file == __file__


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("expectation-not-measurable", lambda: column(Flight.origin).completeness),
        ("expectation-not-measurable", lambda: fb.roc_auc >= 0.5),
        ("expectation-out-of-range", lambda: column(Flight.origin).completeness >= 98),
        ("condition-upside-down", lambda: column(Flight.origin).completeness <= 0.98),
        ("condition-upside-down", lambda: table(Flight).freshness >= days(1)),
        ("table-without-source", lambda: table(Keys).rows >= 1),
        ("table-without-source", lambda: column(Flight.tailnum).matches(Plane.tailnum) >= 0.5),
    ],
)
def test_what_could_never_be_judged_is_refused_by_its_line(code: str, expected: Callable[[], Any]) -> None:
    with pytest.raises(DeclarationError) as refused:
        expect.check([expected()], [Flight], HERE)
    assert refused.value.code == code
    if isinstance(expected(), Condition):
        assert str(refused.value.where).startswith(__file__)


def test_a_threshold_of_the_wrong_kind_is_refused() -> None:
    for declare in (lambda: table(Flight).freshness <= 3, lambda: table(Flight).rows >= days(1)):
        with pytest.raises(DeclarationError, match="threshold-of-wrong-kind"):
            declare()


def test_every_metric_is_judged_or_refused() -> None:
    expects = [
        metric >= 0.0
        for namespace in (column(Flight.distance), table(Flight))
        for name, member in inspect.getmembers(type(namespace))
        if isinstance(member, property) and not name.startswith("_")
        for metric in [getattr(namespace, name)]
        if not metric.unit
    ]
    assert len(expects) == 12
    assert len(measuring.judge(expects, standing())) == len(expects)


# Proposals


def test_what_is_proposed_names_the_attribute_and_the_contract_whatever_they_are_stored_as() -> None:
    class Parcel(fb.Contract, version=2):
        key = dy.String(primary_key=True)
        weight = dy.Float64(nullable=True, alias="weight in kg")
        when = fb.event_time(dy.Datetime(time_zone="UTC"))

    rows = pl.LazyFrame(
        {
            "key": [str(n) for n in range(300)],
            "weight in kg": [float(n) for n in range(300)],
            "when": [START + timedelta(hours=n) for n in range(300)],
            "_known": [START] * 300,
        }
    )
    code = [p.code for p in proposing.propose(Standing(of=Parcel, rows=rows, size=300, now=NOW))]
    assert any(line.startswith("fb.column(Parcel.weight).completeness") for line in code)
    assert all(str(eval(line, {"fb": expect, "Parcel": Parcel})) for line in code)  # noqa: S307 - our own code


def test_what_is_proposed_is_code_that_holds_of_the_data() -> None:
    proposed = proposing.propose(standing())
    expects = [eval(p.code, {"fb": expect, "Flight": Flight}) for p in proposed]  # noqa: S307 - our own code
    verdicts = measuring.judge(expects, standing())
    unsure = [v for v in verdicts if v.outcome is not Outcome.PASS]
    assert all(".drift" in v.condition for v in unsure), unsure
    text = "\n".join(p.code for p in proposed)
    for part in ("rows_per_day >=", "origin).completeness >=", "origin).share('EWR') >=", "distance).quantile(0.5) <="):
        assert part in text
    assert "column(Flight.late).share(True) >=" in text
    assert "pilot).share" not in text
    expect.check(expects, [Flight], HERE)
