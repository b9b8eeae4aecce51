"""What is published about a version that goes bad is what the guards do, counted on traffic."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import flyball as fb
from flyball import days, error_rate, hours, metrics, minutes, ms, p99_latency, roc_auc
from flyball._kernel.conditions import Condition, Outcome, judge
from flyball.data.interval import wilson
from flyball.learn.task import BINARY, REGRESSION, Task
from flyball.release.policy import Release, ab
from flyball.watch import always, quality, times
from flyball.watch.live import MOST, Live
from flyball.watch.times import Ending, Pace
from tests.unit.test_watch_beside import says
from tests.unit.test_watch_quality import DAY, entry

SLOWLY = Pace(asked=0.1)
"""A question every ten seconds."""
EVERY = timedelta(seconds=10)


def ending(release: Release, by: str, pace: Pace = SLOWLY) -> Ending:
    (found,) = [each for each in times.worst_case(release, pace) if each.by == by]
    return found


def sure(fails: Any, sound: timedelta, every: timedelta = EVERY, **bad: Any) -> int:
    """After how many bad attempts something fails, of a version that was sound for so long."""
    live, n = Live(days(60)), sound // every
    live.answered([entry(f"k{k}", DAY + k * every, "a-2") for k in range(n)])
    for k in range(n, n + 1000):
        live.answered([entry(f"k{k}", DAY + k * every, "a-2", **bad)])
        if fails(live, DAY + (k + 1) * every):
            return k - n + 1
    raise AssertionError("it never fails")


@pytest.mark.parametrize("asked", [0.1, 1.0], ids=["its beginning is the worst", "its past is"])
def test_faults_that_nobody_declared_a_guard_for(asked: float) -> None:
    def fails(live: Live, now: Any) -> bool:
        return next(always.sound(live, "a-2", "a-1", DAY, now)).outcome is Outcome.FAIL

    published = ending(Release(), "error_rate <= 0.02, always", Pace(asked=asked)).attempts
    counted = [sure(fails, sound, timedelta(seconds=1 / asked), failed="boom") for sound in (timedelta(0), hours(1.5))]
    assert max(counted) == published


@pytest.mark.parametrize(
    ("guard", "bad"),
    [
        (error_rate.live(over=minutes(30)) <= 0.01, {"failed": "boom"}),
        (metrics.invalid_rate.live(over=minutes(30)) <= 0.05, {"failed": "answer-not-finite"}),
        (p99_latency.live(over=minutes(30)) <= ms(20), {"latency_us": 90_000}),
    ],
    ids=str,
)
def test_a_guard_with_a_window(guard: Condition, bad: dict[str, Any]) -> None:
    def fails(live: Live, now: Any) -> bool:
        found, reason = quality.measure(live, guard, "a-2", start=DAY, now=now)
        return judge(guard, found, reason=reason).outcome is Outcome.FAIL

    published = ending(Release(abort_unless=[guard]), str(guard)).attempts
    # A latency's interval counts ranks exactly, and a share's is Wilson's: they differ by a few attempts.
    assert sure(fails, hours(2), **bad) == pytest.approx(published, abs=4 if guard.metric.unit else 0)


def test_one_without_a_window_remembers_the_whole_release() -> None:
    release = Release(fb.shadow(hours(1)), abort_unless=[error_rate <= 0.01], patience=timedelta(0))

    def fails(live: Live, now: Any) -> bool:
        found, reason = quality.measure(live, error_rate <= 0.01, "a-2", start=DAY, now=now)
        return judge(error_rate <= 0.01, found, reason=reason).outcome is Outcome.FAIL

    assert sure(fails, hours(1), failed="boom") == ending(release, "error_rate <= 0.01").attempts


def test_each_stage_may_be_held_for_the_patience_and_no_more_is_remembered_than_is_kept() -> None:
    stages = [fb.shadow(hours(1)), fb.canary(0.5, hours(1))]
    slow = Pace(asked=0.1)
    held = Release(*stages, abort_unless=[error_rate <= 0.01], patience=timedelta(hours=3))
    same = Release(fb.shadow(hours(8)), abort_unless=[error_rate <= 0.01], patience=timedelta(0))
    assert ending(held, "error_rate <= 0.01", slow).attempts == ending(same, "error_rate <= 0.01", slow).attempts
    longest = Release(*stages, abort_unless=[error_rate <= 0.01], patience=days(300))
    kept = ending(longest, "error_rate <= 0.01", Pace(asked=100)).attempts
    assert kept == times._first(lambda n: wilson(n, MOST)[0] > 0.01)


def test_to_act_takes_as_long_as_its_parts_and_outcomes_as_long_as_they_take() -> None:
    auc = roc_auc.live(over=days(2)) >= 0.6
    release = Release(fb.shadow(hours(1)), abort_unless=[auc])
    pace = Pace(asked=10, settles=hours(6), looks=2, judges=3, beside=7)
    late = ending(release, str(auc), pace)
    assert late.least and late.seconds == pytest.approx(6 * 3600 + 5 + 0.02 + 2 + 3 + 7 + 0.2)
    assert "no most: a little worse it may pass, and undecided it falls when a stage is over for 3d" in str(late)
    assert ending(release, "breaker of a process", pace) == Ending(by="breaker of a process", attempts=8, seconds=0.8)
    assert times.told(Release()) == []
    said = times.told(release, pace)
    assert said[0].endswith("at 10 questions a second:") and len(said) == 1 + len(times.worst_case(release, pace))
    assert "Not in these times" in times.told(release)[-1] and "Not in these" not in said[-1]


def test_an_ab_test_ends_with_its_end_where_the_champion_then_stays() -> None:
    keeps, goes = ab(0.5, metrics.cost, ends=days(3)), ab(0.5, metrics.cost, ends=days(3), undecided="release")
    found = ending(Release(keeps), "A/B: cost <= cost.on(champion)", Pace())
    assert not found.least and found.seconds == pytest.approx(3 * 86_400 + Pace().acts)
    assert str(found).endswith("lost, or undecided at its end; all traffic is back in 3.0 d")
    found = ending(Release(goes), "A/B: cost <= cost.on(champion)", Pace())
    assert found.least and found.why == "undecided after 3.0 d, it goes on"


CLASSES = Task(kind="multiclass", classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("guard", "task", "bad"),
    [
        (metrics.prediction_shift.live(over=minutes(50)) <= 0.1, REGRESSION, {"output": 9e9}),
        (metrics.prediction_shift.live(over=minutes(50)) <= 0.1, CLASSES, {"decision": "c"}),
        (metrics.disagreement.live(over=minutes(50)) <= 0.3, BINARY, {"decision": False}),
        (metrics.disagreement.live(over=minutes(50)) <= 0.3, CLASSES, {"decision": "c"}),
    ],
    ids=["shift of numbers", "shift of classes", "other decisions", "other classes"],
)
def test_a_version_that_answers_otherwise_at_every_question(guard: Condition, task: Task, bad: dict[str, Any]) -> None:
    """Of 300 questions that both answered alike, and then of as many as it takes."""
    outputs = (0.2, 0.3, 0.5) if task.classes else ()
    made, published = Live(days(60)), ending(Release(abort_unless=[guard]), str(guard), Pace(asked=0.1, task=task))
    made.task = task
    if task.classes:
        for version in ("a-1", "a-2"):
            made.references[version] = says(task)
    for k in range(300 + published.attempts):
        decision: Any = {"multiclass": "a", "binary": True, "regression": None}[task.kind]
        alike = {"output": k % 7 / 10, "outputs": outputs, "decision": decision}
        one = alike if k < 300 else alike | bad
        at = DAY + k * EVERY
        made.answered([entry(f"k{k}", at, "a-1", **alike), entry(f"k{k}", at, "a-2", role="shadow", **one)])

    def fails(n: int) -> bool:
        now = DAY + (300 + n) * EVERY
        found, reason = quality.measure(made, guard, "a-2", champion="a-1", start=DAY, now=now)
        return judge(guard, found, reason=reason).outcome is Outcome.FAIL

    assert not published.least
    assert [fails(published.attempts - 1), fails(published.attempts)] == [False, True]


def test_how_far_numbers_lie_apart_has_no_worst() -> None:
    far = metrics.disagreement.live(over=days(1)) <= 3.0
    found = ending(Release(abort_unless=[far]), str(far), Pace(task=REGRESSION))
    assert found.least and "as little as one likes" in found.why


def test_a_latency_is_judged_on_those_who_wait() -> None:
    guard = p99_latency.live(over=minutes(30)) <= ms(20)
    all_of_them, some = Release(abort_unless=[guard]), Release(fb.canary(0.05, hours(1)), abort_unless=[guard])
    assert ending(some, str(guard), Pace(asked=20)).seconds == ending(all_of_them, str(guard), Pace(asked=1)).seconds


def test_what_cannot_be_sure_is_not_promised() -> None:
    seldom = Pace(bad=0.01)
    said = [
        each.by for each in times.worst_case(Release(abort_unless=[error_rate.live(over=days(1)) <= 0.005]), seldom)
    ]
    assert "breaker of a process" not in said and "error_rate <= 0.02, always" not in said
    assert any("0.005" in by for by in said)
    release = Release(fb.shadow(hours(1)), abort_unless=[error_rate.live(over=days(1)) <= 0.5])
    assert any(line.startswith("error_rate.live(over=1d) <= 0.5: never sure") for line in times.told(release, seldom))
