"""Metrics, conditions, and the one verdict rule."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

import flyball as fb
from flyball import average_precision, champion, days, hours, model_latency, ms, roc_auc
from flyball._kernel import conditions, facts
from flyball._kernel.conditions import Condition, Measurement, Metric, Outcome, Verdict, judge

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def found(low: float, high: float, n: int = 100) -> Measurement:
    return Measurement(estimate=(low + high) / 2, low=low, high=high, n=n)


def test_a_comparison_is_a_value() -> None:
    assert (roc_auc >= 0.65) == Condition(roc_auc, ">=", 0.65)
    assert (roc_auc >= 0.65) != (roc_auc >= 0.66)
    assert (roc_auc >= 0.65) != (roc_auc <= 0.65)
    assert len({roc_auc >= 0.65, roc_auc >= 0.65, average_precision >= 0.65}) == 2


def test_the_number_may_stand_on_either_side() -> None:
    assert (0.65 <= roc_auc) == (roc_auc >= 0.65)  # noqa: SIM300 - the other way round is the point
    assert (0.01 >= fb.error_rate) == (fb.error_rate <= 0.01)  # noqa: SIM300


def test_a_condition_remembers_its_line() -> None:
    condition = roc_auc >= 0.65
    assert condition.place is not None
    assert condition.place.file == __file__


@pytest.mark.parametrize(
    ("condition", "spelling"),
    [
        (roc_auc >= 0.65, "roc_auc >= 0.65"),
        (fb.error_rate <= 1, "error_rate <= 1"),
        (roc_auc.gap(by="origin") <= 0.08, "roc_auc.gap(by=origin) <= 0.08"),
        (roc_auc.live(over=days(30)) >= 0.62, "roc_auc.live(over=30d) >= 0.62"),
        (model_latency <= ms(2), "model_latency <= 0.002s"),
        (
            average_precision >= average_precision.on(champion) - 0.01,
            "average_precision >= average_precision.on(champion) - 0.01",
        ),
        (average_precision >= average_precision.on(champion), "average_precision >= average_precision.on(champion)"),
        (fb.brier <= fb.brier.on(champion) + 0.002, "brier <= brier.on(champion) + 0.002"),
    ],
)
def test_a_condition_prints_as_it_was_written(condition: Condition, spelling: str) -> None:
    assert str(condition) == spelling


def test_offsets_add_up() -> None:
    threshold = roc_auc.on(champion) - 0.01 + 0.03
    assert (roc_auc >= threshold).threshold == pytest.approx(0.02)


@pytest.mark.parametrize(
    "value",
    [roc_auc, roc_auc >= 0.65, roc_auc.on(champion), roc_auc.on(champion) - 0.01],
    ids=["metric", "condition", "relative", "offset"],
)
def test_nothing_has_a_truth_value_before_it_is_measured(value: object) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        bool(value)
    assert caught.value.code == "condition-as-bool"
    assert caught.value.where is not None
    assert caught.value.where.file == __file__


def test_a_chained_comparison_cannot_lose_a_half() -> None:
    with pytest.raises(fb.DeclarationError, match="condition-as-bool"):
        0.6 <= roc_auc <= 0.9  # noqa: B015


def test_an_and_cannot_lose_a_half() -> None:
    with pytest.raises(fb.DeclarationError, match="condition-as-bool"):
        (roc_auc >= 0.6) and (roc_auc <= 0.9)  # noqa: B018


@pytest.mark.parametrize("threshold", ["0.65", None, True, float("nan"), float("inf"), -float("inf"), [0.65], days(1)])
def test_a_threshold_of_another_kind_is_refused(threshold: object) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        roc_auc >= threshold  # type: ignore[operator]  # noqa: B015
    assert caught.value.code == "threshold-of-wrong-kind"


def test_a_duration_metric_takes_durations_and_holds_seconds() -> None:
    assert (model_latency <= ms(2)).threshold == 0.002
    assert (fb.p99_latency <= timedelta(seconds=1)).threshold == 1.0


def test_a_metric_is_compared_with_itself_only() -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        roc_auc >= average_precision.on(champion)  # noqa: B015
    assert caught.value.code == "threshold-of-other-metric"


def test_a_gap_is_better_when_it_is_small_whatever_the_metric() -> None:
    gap = roc_auc.gap(by="origin")
    assert (gap.better, gap.by, gap.name) == ("lower", "origin", "roc_auc.gap")
    assert roc_auc.by is None, "the metric itself is unchanged"


def test_a_live_metric_keeps_its_direction_and_names_its_window() -> None:
    live = roc_auc.live(over=hours(6))
    assert (live.better, live.over, live.name) == ("higher", hours(6), "roc_auc.live")


AT_LEAST, AT_MOST = roc_auc >= 0.5, fb.error_rate <= 0.5


@pytest.mark.parametrize(
    ("condition", "low", "high", "outcome"),
    [
        (AT_LEAST, 0.6, 0.7, PASS),
        (AT_LEAST, 0.5, 0.7, PASS),  # lies at the threshold
        (AT_LEAST, 0.5, 0.5, PASS),
        (AT_LEAST, 0.3, 0.4, FAIL),
        (AT_LEAST, 0.3, 0.5, INCONCLUSIVE),  # touches it from below
        (AT_LEAST, 0.4, 0.6, INCONCLUSIVE),
        (AT_MOST, 0.3, 0.4, PASS),
        (AT_MOST, 0.3, 0.5, PASS),
        (AT_MOST, 0.6, 0.7, FAIL),
        (AT_MOST, 0.5, 0.7, INCONCLUSIVE),
        (AT_MOST, 0.4, 0.6, INCONCLUSIVE),
        (AT_LEAST, -float("inf"), float("inf"), INCONCLUSIVE),
        (AT_LEAST, 0.6, float("inf"), PASS),
    ],
)
def test_the_verdict_rule(condition: Condition, low: float, high: float, outcome: Outcome) -> None:
    verdict = judge(condition, found(low, high))
    assert verdict.outcome == outcome


def test_the_estimate_alone_decides_nothing() -> None:
    good_guess = Measurement(estimate=0.99, low=0.1, high=1.0, n=20)
    assert judge(AT_LEAST, good_guess).outcome == INCONCLUSIVE


@pytest.mark.parametrize(
    "measurement",
    [
        None,
        found(0.9, 0.95, n=0),
        Measurement(estimate=float("nan"), low=0.9, high=0.95, n=10),
        Measurement(estimate=0.9, low=float("nan"), high=0.95, n=10),
        Measurement(estimate=0.9, low=0.9, high=float("nan"), n=10),
    ],
)
def test_what_was_not_measured_is_inconclusive_never_passed(measurement: Measurement | None) -> None:
    assert judge(AT_LEAST, measurement, reason="too few").outcome == INCONCLUSIVE
    assert judge(AT_MOST, measurement).outcome == INCONCLUSIVE


def test_a_verdict_carries_estimate_interval_sample_size_and_reason() -> None:
    measurement = found(0.6, 0.7, n=42)
    verdict = judge(AT_LEAST, measurement, reason="left out: LGA")
    assert verdict == Verdict(
        condition="roc_auc >= 0.5", outcome=PASS, measurement=measurement, threshold=0.5, reason="left out: LGA"
    )


def test_a_relative_condition_judges_the_paired_difference() -> None:
    condition = roc_auc >= roc_auc.on(champion) - 0.01
    assert judge(condition, found(-0.005, 0.02)).outcome == PASS
    assert judge(condition, found(-0.05, -0.02)).outcome == FAIL
    assert judge(condition, found(-0.02, 0.02)).outcome == INCONCLUSIVE


def test_a_verdict_comes_back_from_the_record_as_it_was() -> None:
    verdict = judge(AT_LEAST, found(0.6, 0.7))
    assert msgspec.json.decode(facts.encode(verdict), type=Verdict) == verdict


def test_every_public_metric_says_which_direction_is_good() -> None:
    metrics = {name: m for name, m in vars(conditions).items() if isinstance(m, Metric)}
    assert set(metrics) < set(fb.__all__)
    assert all(m.name == name for name, m in metrics.items())
    directions = {name: m.better for name, m in metrics.items()}
    assert directions == {
        "accuracy": "higher",
        "average_precision": "higher",
        "brier": "lower",
        "calibration_error": "lower",
        "error_rate": "lower",
        "log_loss": "lower",
        "mean_absolute_error": "lower",
        "model_latency": "lower",
        "p99_latency": "lower",
        "r2": "higher",
        "roc_auc": "higher",
        "root_mean_squared_error": "lower",
    }
