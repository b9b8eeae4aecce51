"""What every rollout is guarded by, and how a candidate answers otherwise than the champion, on made-up traffic."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from flyball import Release, champion, days, error_rate, metrics, seconds
from flyball._kernel.conditions import Measurement, Outcome, judge
from flyball.data import profile
from flyball.learn.reference import PREDICTION, Column, Reference, Says
from flyball.learn.task import BINARY, REGRESSION, Task
from flyball.release.rollout import Step
from flyball.serve.journal import Entry
from flyball.watch import always, beside, quality
from flyball.watch.live import Live
from tests.unit.test_watch_quality import DAY, NOW, entry, posted

CLASSES = Task(kind="multiclass", classes=("a", "b", "c"))


def both(n: int, mine: Any, theirs: Any, task: Task = REGRESSION) -> Live:
    """Questions that the champion a-1 answered, and a-2 beside it; `mine` and `theirs` say what differs by number."""
    live = Live(days(60))
    live.task = task
    if task.width > 1:
        live.references = {"a-1": says(task), "a-2": says(task)}
    said: list[Entry] = []
    for k in range(n):
        asked = DAY + seconds(k)
        said += [entry(f"k{k}", asked, "a-1", **theirs(k)), entry(f"k{k}", asked, "a-2", role="shadow", **mine(k))]
    live.answered(said)
    return live


def numbers(values: np.ndarray) -> Any:
    return lambda k: {"output": float(values[k])}


def found(live: Live, metric: Any) -> Measurement:
    measured, reason = quality.measure(live, metric <= 0.1, "a-2", champion="a-1", start=DAY, now=NOW)
    assert measured is not None, reason
    return measured


def test_a_shift_of_numbers_is_the_kolmogorov_smirnov_distance() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(0.4, 1, 800), rng.normal(0, 1, 800)
    measured = found(both(800, numbers(mine), numbers(theirs)), metrics.prediction_shift)
    assert measured.estimate == pytest.approx(stats.ks_2samp(mine, theirs).statistic)
    truth = 2 * stats.norm.cdf(0.2) - 1
    assert measured.low < truth < measured.high and measured.n == 800


def test_a_key_that_one_request_names_often_is_not_squared() -> None:
    live = Live(days(60))
    live.task = REGRESSION
    for version, role in (("a-1", "champion"), ("a-2", "shadow")):
        live.answered([entry("same", DAY, version, role=role, output=1.0) for _ in range(300)])
    assert found(live, metrics.disagreement).n == 300


def test_where_all_answer_alike_the_interval_of_a_shift_is_hardly_ever_wrong() -> None:
    rng, n = np.random.default_rng(1), 300
    missed = sum(beside._spread(rng.normal(0, 1, n), rng.normal(0, 1, n)).low > 0 for _ in range(300))
    assert missed <= stats.binom(300, 0.05).ppf(0.999)
    assert beside._spread(np.zeros(n), np.ones(n)).low > 0.7, "and a shift of everything is sure"


def test_answers_that_are_exchanged_are_no_shift_but_a_disagreement() -> None:
    values = np.tile([0.1, 0.9], 200)
    live = both(400, numbers(values[::-1]), numbers(values), BINARY)
    assert found(live, metrics.prediction_shift).estimate == 0
    assert found(live, metrics.disagreement).estimate == 1
    assert judge(metrics.disagreement <= 0.1, found(live, metrics.disagreement)).outcome is Outcome.FAIL


def test_a_disagreement_is_of_what_was_decided_and_of_numbers_their_distance() -> None:
    decided = both(
        200, lambda k: {"decision": k < 20, "output": 0.4}, lambda k: {"decision": False, "output": 0.4}, BINARY
    )
    measured = found(decided, metrics.disagreement)
    assert (measured.estimate, measured.n) == (0.1, 200)
    low, high = stats.binomtest(20, 200).proportion_ci(method="wilson")
    assert (measured.low, measured.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    apart = found(both(200, lambda k: {"output": 10.0 + k % 3}, lambda k: {"output": 11.0}), metrics.disagreement)
    assert apart.estimate == pytest.approx(np.mean([abs(k % 3 - 1) for k in range(200)]))


def test_classes_shift_by_their_shares() -> None:
    def decides(share: float) -> Any:
        def of(k: int) -> dict[str, Any]:
            return {"decision": "a" if k < share * 1000 else "b", "output": 0.8, "outputs": (0.8, 0.1, 0.1)}

        return of

    measured = found(both(1000, decides(0.7), decides(0.4), CLASSES), metrics.prediction_shift)
    assert measured.estimate == pytest.approx(0.3)
    assert measured.low > 0.15
    assert found(both(1000, decides(0.7), decides(0.4), CLASSES), metrics.disagreement).estimate == pytest.approx(0.3)


def test_few_questions_say_nothing_and_one_that_only_one_answered_does_not_count() -> None:
    live = both(49, lambda k: {}, lambda k: {}, BINARY)
    live.answered([entry(f"more{k}", DAY, "a-2") for k in range(100)])
    measured, reason = quality.measure(live, metrics.disagreement <= 0.1, "a-2", champion="a-1", start=DAY, now=NOW)
    assert measured is None and "49 questions" in reason


@pytest.mark.parametrize("task", [BINARY, CLASSES, REGRESSION], ids=lambda t: t.kind)
def test_answers_that_cannot_be_right_are_counted(task: Task) -> None:
    wrong: dict[str, list[dict[str, Any]]] = {
        "binary": [{"output": 1.5}, {"output": -0.1}],
        "multiclass": [
            {"output": 0.5, "outputs": (0.5, 0.2, 0.2)},
            {"output": 1.2, "outputs": (1.2, -0.1, -0.1)},
            {"output": 0.5, "outputs": (0.5, 0.5)},
        ],
        "regression": [{"output": -1.0}, {"output": 1001.0}],
    }
    right: dict[str, Any] = {"output": 0.8, "outputs": (0.8, 0.1, 0.1)} if task.classes else {"output": 0.8}
    live, answers = Live(days(60)), wrong[task.kind]
    live.bounds, live.task = (0.0, 1000.0) if task is REGRESSION else (0.0, 1.0), task
    answers += [
        {"failed": "answer-not-finite", "output": np.nan},
        {"failed": "answer-of-another-task", "output": np.nan},
    ]
    live.refer("a-2", says(task))
    live.answered([entry(f"w{k}", DAY, "a-2", **each) for k, each in enumerate(answers)])
    live.answered([entry("down", DAY, "a-2", failed="store-away", output=np.nan)])
    live.answered([entry(f"r{k}", DAY, "a-2", **right) for k in range(100)])
    measured = found(live, metrics.invalid_rate)
    assert (round(measured.estimate * measured.n), measured.n) == (len(answers), len(answers) + 101)


def says(task: Task) -> Reference:
    """A reference of which only what answers are made of is looked at."""
    edges = profile.edges(pl.Series([0.1, 0.9]), "number")
    predictions = Column(name=PREDICTION, feature=PREDICTION, meaning="", edges=edges, days=(), profiles=())
    return Reference(features=(), predictions=predictions, says=Says(task=task))


def sound(live: Live, version: str = "a-2", declared: Any = (), start: Any = DAY, now: Any = NOW) -> dict[str, Outcome]:
    other = "a-1" if version == "a-2" else "a-2"
    verdicts = always.sound(live, version, other, start, now, declared)
    return {v.condition.split()[0]: v.outcome for v in verdicts}


def test_who_was_sound_for_a_day_and_turns_bad_is_found_within_the_hour() -> None:
    live = Live(days(60))
    day = [entry(f"k{k}", DAY + timedelta(minutes=k), "a-2") for k in range(1440)]
    turned = [entry(f"t{k}", DAY + days(1) + timedelta(minutes=k), "a-2", failed="boom") for k in range(20)]
    live.answered(day + turned)
    assert sound(live, now=DAY + days(1) + timedelta(minutes=20))["error_rate"] is Outcome.FAIL
    assert always._limited("error_rate", 20, 1460).outcome is Outcome.PASS, "by all of it, it would not have been"


def test_only_a_looser_guard_takes_the_place_of_the_default() -> None:
    release = Release(abort_unless=[error_rate <= 0.5, metrics.invalid_rate <= 0.001])
    assert always.looser(release) == {"error_rate"}


def test_a_release_that_declares_no_guard_is_guarded_all_the_same() -> None:
    failing = both(60, lambda k: {"failed": "boom" if k % 10 == 0 else ""}, lambda k: {}, BINARY)
    assert sound(failing) == {"error_rate": Outcome.FAIL, "invalid_rate": Outcome.PASS}
    assert sound(failing, declared={"error_rate"}) == {"invalid_rate": Outcome.PASS}
    impossible = both(60, lambda k: {"output": 7.0 if k % 10 == 0 else 0.5}, lambda k: {}, BINARY)
    impossible.bounds = (0.0, 1.0)
    assert sound(impossible) == {"error_rate": Outcome.PASS, "invalid_rate": Outcome.FAIL}
    assert sound(both(60, lambda k: {}, lambda k: {}, BINARY)) == dict.fromkeys(
        ("error_rate", "invalid_rate"), Outcome.PASS
    )


def test_it_never_holds_up_and_does_not_fail_by_a_few_or_by_what_all_fail_at() -> None:
    few = both(always.FEW - 1, lambda k: {"failed": "boom"}, lambda k: {}, BINARY)
    assert set(sound(few).values()) == {Outcome.PASS}
    away = both(200, lambda k: {"failed": "store-away"}, lambda k: {"failed": "store-away"}, BINARY)
    assert set(sound(away).values()) == {Outcome.PASS}
    assert set(sound(away, "a-1").values()) == {Outcome.PASS}, "nor does a champion on probation"
    linear = both(200, lambda k: {"output": -1.0}, lambda k: {"output": -1.0})
    linear.bounds = (0.0, np.inf)
    assert set(sound(linear).values()) == {Outcome.PASS}, "the champion does as much"


def test_a_stage_has_seen_enough_when_it_gave_so_many_answers_and_so_many_are_settled() -> None:
    live = both(30, lambda k: {}, lambda k: {}, BINARY)
    live.answered([entry(f"c{k}", DAY + seconds(k), "a-2", role="canary") for k in range(40)])
    live.settled([posted(f"c{k}", 1.0, NOW - timedelta(minutes=1)) for k in range(10)])

    def said(**needs: int) -> list[Outcome]:
        step = Step(name="canary", share=0.5, seconds=1, **needs)
        return [v.outcome for v in always.enough(live, "a-2", step, DAY, NOW)]

    assert said() == []
    assert said(at_least=40, outcomes=10) == [Outcome.PASS, Outcome.PASS]
    assert said(at_least=41, outcomes=11) == [Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE]
    shadow = Step(name="shadow", share=0.0, seconds=1, at_least=31)
    (verdict,) = always.enough(live, "a-2", shadow, DAY, NOW)
    assert verdict.outcome is Outcome.INCONCLUSIVE and verdict.reason == "30 so far"
    (later,) = always.enough(live, "a-2", Step(name="canary", share=0.5, seconds=1, at_least=1), NOW, NOW)
    assert later.outcome is Outcome.INCONCLUSIVE, "what it gave before the stage does not count"


def test_guards_beside_the_champion_need_one() -> None:
    live = both(100, lambda k: {}, lambda k: {}, BINARY)
    for metric in (metrics.disagreement, metrics.prediction_shift):
        assert quality.measure(live, metric <= 0.1, "a-2", start=DAY, now=NOW)[0] is None
    assert metrics.invalid_rate.on(champion).metric == metrics.invalid_rate
