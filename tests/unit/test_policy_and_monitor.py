"""How a release is declared, and what is watched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dataframely as dy
import pytest

import flyball as fb
from flyball import days, hours, metrics, roc_auc
from flyball.release.policy import ANYBODY, Stage, ab
from flyball.watch.monitor import Breach, Every


def test_stages_are_shares_of_the_traffic() -> None:
    assert fb.shadow(hours(24)) == Stage("shadow", 0.0, hours(24))
    assert fb.canary(0.05, hours(6)) == Stage("canary", 0.05, hours(6))
    assert fb.canary(1, hours(6)).share == 1


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_canary_is_a_share_above_nothing_up_to_all(share: float) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        fb.canary(share, hours(6))
    assert caught.value.code == "share-out-of-range"
    assert caught.value.where is not None
    assert caught.value.where.file == __file__


def test_a_stage_may_need_answers_outcomes_and_a_word_besides() -> None:
    stage = fb.canary(0.05, hours(6), at_least=1000, outcomes=200, approval=True)
    assert (stage.at_least, stage.outcomes, stage.approval) == (1000, 200, ANYBODY)
    assert fb.shadow(hours(1), approval="risk").approval == "risk"
    assert fb.shadow(hours(1), approval=False) == fb.shadow(hours(1))
    with pytest.raises(fb.DeclarationError, match="sample-negative"):
        fb.canary(0.05, hours(6), outcomes=-1)


def test_a_test_is_decided_by_the_difference_to_the_champion() -> None:
    cost, accuracy = metrics.cost, fb.accuracy
    assert (test := ab(0.5, cost, ends=days(14)).test) is not None
    assert test.decides == (cost <= cost.on(fb.champion))
    assert (test.error_rate, test.ends, test.undecided) == (0.05, days(14), "keep")
    margin = accuracy >= accuracy.on(fb.champion) - 0.01
    assert (
        test := ab(0.5, margin, days(7), ends=days(14), error_rate=0.01).test
    ) is not None and test.decides == margin


@pytest.mark.parametrize(
    ("share", "more", "code"),
    [
        (0.0, {}, "test-out-of-range"),
        (1.0, {}, "test-out-of-range"),
        (0.5, {"error_rate": 0.5}, "test-out-of-range"),
        (0.5, {"ends": timedelta(0)}, "test-out-of-range"),
        (0.5, {"lasts": days(15)}, "test-out-of-range"),
        (0.5, {"decides": fb.accuracy >= 0.9}, "test-not-relative"),
    ],
)
def test_a_test_that_cannot_be_is_refused(share: float, more: dict[str, Any], code: str) -> None:
    with pytest.raises(fb.DeclarationError, match=code) as caught:
        ab(**({"share": share, "decides": metrics.cost, "ends": days(14)} | more))
    assert caught.value.where is not None and caught.value.where.file == __file__


def test_a_release_keeps_what_it_was_given() -> None:
    stages = (fb.shadow(hours(24)), fb.canary(0.05, hours(6)), fb.canary(0.5, hours(6)))
    release = fb.Release(*stages, abort_unless=[fb.error_rate <= 0.01], patience=days(2))
    assert release.stages == stages
    assert release.abort_unless == (fb.error_rate <= 0.01,)
    assert release.patience == days(2)


def test_a_release_without_stages_waits_three_days_for_certainty() -> None:
    release = fb.Release()
    assert (release.stages, release.abort_unless, release.patience) == ((), (), timedelta(days=3))
    assert release == fb.Release()


@pytest.mark.parametrize(
    "stages",
    [
        (fb.canary(0.5, hours(1)), fb.canary(0.05, hours(1))),
        (fb.canary(0.05, hours(1)), fb.shadow(hours(1))),
    ],
)
def test_a_release_only_ever_gives_more_traffic(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        fb.Release(*stages)
    assert caught.value.code == "stages-out-of-order"
    assert "rollback" in caught.value.why


def test_a_release_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        fb.Release().patience = days(1)  # type: ignore[misc]


class Visit(fb.Contract):
    """A question."""

    key = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    page = dy.String()
    depth = dy.Int32()


FEATURES = fb.features(Visit.page, deep=Visit.depth.col > 3)


def test_a_drift_metric_names_the_features_that_it_watches() -> None:
    metric = fb.psi(FEATURES, over=days(7))
    assert (metric.name, metric.better, metric.over, metric.subject) == ("psi", "lower", days(7), ("page", "deep"))


def test_a_monitor_watches_a_metric_or_a_condition() -> None:
    drift = fb.Monitor("drift", fb.psi(FEATURES, over=days(7)))
    quality = fb.Monitor("quality", roc_auc.live(over=days(30)) >= 0.62)
    assert drift.watches == fb.psi(FEATURES, over=days(7))
    assert quality.watches == (roc_auc.live(over=days(30)) >= 0.62)
    assert drift != quality


def test_triggers_add_up() -> None:
    drift, quality = fb.Monitor("drift", fb.psi(FEATURES, over=days(7))), fb.Monitor("q", roc_auc >= 0.6)
    retrain = fb.breach(drift, quality) | fb.every(days(7)) | fb.every(days(30))
    assert retrain.triggers == (Breach(("drift", "q")), Every(days(7)), Every(days(30)))


@pytest.mark.parametrize("span", [timedelta(0), -days(1)])
def test_a_training_without_end_is_refused(span: timedelta) -> None:
    for declare in (fb.every, fb.new_rows(10).resting):
        with pytest.raises(fb.DeclarationError, match="span-not-positive") as caught:
            declare(span)
        assert caught.value.where is not None
        assert caught.value.where.file == __file__
    assert fb.every(days(1)).resting(hours(1)).rest == hours(1)


def test_a_budget_is_a_count_in_a_span() -> None:
    budget = fb.at_most(1, per=days(30))
    assert (budget.count, budget.per) == (1, days(30))
