"""How a search chooses: what is tried, in which order, what is chosen, and what of it follows from the declaration alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import days
from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball.learn.fit import rungs
from flyball.learn.knobs import Knob
from flyball.learn.search import Search
from flyball.learn.trying import explore, trials
from flyball.learn.trying.explore import Course, Progress
from flyball.learn.trying.trials import Ended

SPLIT = fb.by_time(days(30))


class Knobs(fb.Params):
    leaves: int = fb.between(2, 64, start=31, log=True)
    rate: float = fb.between(0.0, 1.0, start=0.5)


class Kinds(fb.Params):
    algorithm: str = fb.one_of("boosted", "linear", start="linear")
    depth: int = fb.between(1, 3, start=2)


UP = fb.search(trials=12, optimize=fb.roc_auc, split=SPLIT)
DOWN = fb.search(trials=12, optimize=fb.log_loss, split=SPLIT)


def hill(knobs: Mapping[str, Knob]) -> list[float]:
    return [-((float(knobs["rate"]) - 0.2) ** 2) - float(knobs["leaves"]) / 1000]


def slowly(knobs: Mapping[str, Knob]) -> Iterator[float]:
    """Three stages; the early ones point the same way."""
    (top,) = hill(knobs)
    yield from (top / 3, top / 2, top)


def searched(**declared: object) -> Search:
    return fb.search(**{"trials": 16, "optimize": fb.roc_auc, "split": SPLIT, **declared})  # type: ignore[arg-type]


def test_the_first_trial_is_the_starting_point() -> None:
    found = explore.run(UP, Knobs, hill)
    assert (found.trials[0].knobs, found.trials[0].origin) == ({"leaves": 31, "rate": 0.5}, "start")
    assert [t.number for t in found.trials] == list(range(12))
    assert found.stopped == "trials"


def test_the_best_trial_is_chosen_in_the_metric_s_direction() -> None:
    up, down = explore.run(UP, Knobs, hill), explore.run(DOWN, Knobs, hill)
    assert up.score == max(t.score or 0.0 for t in up.trials)
    assert down.score == min(t.score or 0.0 for t in down.trials)
    assert up.knobs in [t.knobs for t in up.trials if t.score == up.score]


def test_of_equals_the_first_is_chosen() -> None:
    found = explore.run(UP, Knobs, lambda _: [0.5])
    assert found.knobs == found.trials[0].knobs


def test_knobs_stay_in_their_ranges_and_types() -> None:
    for trial in explore.run(UP, Knobs, hill).trials:
        assert type(trial.knobs["leaves"]) is int
        assert 2 <= float(trial.knobs["leaves"]) <= 64
        assert 0.0 <= float(trial.knobs["rate"]) <= 1.0


def test_without_a_knob_one_trial_says_all() -> None:
    found = explore.run(UP, fb.Params, lambda _: [0.7])
    assert (len(found.trials), found.knobs, found.score) == (1, {}, 0.7)


def test_one_trial_is_the_starting_point_alone() -> None:
    found = explore.run(searched(trials=1), Knobs, hill, Course(warm={"leaves": 3, "rate": 0.1}))
    assert (len(found.trials), found.knobs) == (1, {"leaves": 31, "rate": 0.5})


def test_a_finite_choice_is_fitted_once_each_and_ends_when_nothing_is_left() -> None:
    asked: list[tuple[Knob, Knob]] = []

    def score(knobs: Mapping[str, Knob]) -> list[float]:
        asked.append((knobs["algorithm"], knobs["depth"]))
        return [float(knobs["depth"]) + (knobs["algorithm"] == "boosted")]

    found = explore.run(searched(trials=200), Kinds, score)
    assert found.trials[0].knobs == {"algorithm": "linear", "depth": 2}
    assert (found.knobs, found.stopped) == ({"algorithm": "boosted", "depth": 3}, "exhausted")
    assert sorted(asked) == sorted({(a, d) for a in ("boosted", "linear") for d in (1, 2, 3)})
    assert len({t.score for t in found.trials}) == 4


@pytest.mark.parametrize(("workers", "prune"), [(1, False), (1, True), (4, False), (4, True)])
def test_the_same_search_tries_the_same_whatever_its_threads_do(*, workers: int, prune: bool) -> None:
    settings = searched(workers=workers, prune=prune, trials=24)
    first = explore.run(settings, Knobs, slowly, stages=3)
    gate = threading.Lock()

    def unevenly(knobs: Mapping[str, Knob]) -> Iterator[float]:
        for value in slowly(knobs):
            with gate:
                sum(range(int(1e5 * float(knobs["rate"]))))
            yield value

    assert explore.run(settings, Knobs, unevenly, stages=3) == first


@pytest.mark.parametrize(("workers", "prune"), [(1, False), (3, True)])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(*, workers: int, prune: bool) -> None:
    settings, kept = searched(workers=workers, prune=prune, trials=24), list[Ended]()
    whole = explore.run(settings, Knobs, slowly, Course(keep=kept.extend), stages=3)
    written = facts.encode(whole)
    for cut in (workers, 4 * workers, 24):
        # As facts hold them: a whole number comes back as a number with a point.
        past = [Ended(msgspec.json.decode(facts.encode(e.trial), type=trials.Trial), e.seconds) for e in kept[:cut]]
        ran: list[Ended] = []
        again = explore.run(settings, Knobs, slowly, Course(past=past, keep=ran.extend), stages=3)
        assert facts.encode(again) == written
        assert [e.trial.number for e in ran] == list(range(cut, 24))


def test_what_lags_behind_is_given_up_and_never_chosen() -> None:
    settings, asked = searched(trials=30, prune=True), []

    def score(knobs: Mapping[str, Knob]) -> Iterator[float]:
        for value in slowly(knobs):
            asked.append(value)
            yield value

    found = explore.run(settings, Knobs, score, stages=3)
    states = [t.state for t in found.trials]
    assert 5 <= states.count("pruned") <= 25
    assert set(states) == {"complete", "pruned"} and "pruned" not in states[:5]
    assert len(asked) == sum(len(t.stages) for t in found.trials) < 90
    best = max((t for t in found.trials if t.state == "complete"), key=lambda t: t.score or -9.0)
    assert (found.knobs, found.score) == (best.knobs, best.score)


def test_what_the_last_search_chose_is_tried_second_where_it_is_still_declared() -> None:
    tried = explore.run(UP, Knobs, hill, Course(warm={"leaves": 7.0, "rate": 0.21}))
    assert (tried.trials[1].knobs, tried.trials[1].origin) == ({"leaves": 7, "rate": 0.21}, "warm")
    assert [t.origin for t in tried.trials].count("warm") == 1
    others: Sequence[Mapping[str, Knob]] = (
        {"leaves": 31.0, "rate": 0.5},
        {"leaves": 99.0, "rate": 0.2},
        {"leaves": 7.5, "rate": 0.2},
        {"leaves": 7.0},
        {"leaves": "7", "rate": 0.2},
    )
    plain = explore.run(UP, Knobs, hill)
    assert all(explore.run(UP, Knobs, hill, Course(warm=each)) == plain for each in others)
    assert (
        explore.run(UP, Kinds, lambda _: [1.0], Course(warm={"algorithm": "forest", "depth": 1})).trials[1].origin
        != "warm"
    )


def test_a_trial_that_fails_is_one_failure_of_many() -> None:
    def score(knobs: Mapping[str, Knob]) -> Iterator[float]:
        if float(knobs["rate"]) > 0.4:
            raise ValueError("rate must be small")
        yield from hill(knobs)

    found = explore.run(UP, Knobs, score)
    failed = [t for t in found.trials if t.state == "failed"]
    assert found.trials[0] in failed and len(failed) < 12
    assert {(t.code, t.score) for t in failed} == {("trial-failed", None)}
    assert float(found.knobs["rate"]) <= 0.4


def test_where_all_fail_the_first_is_told_and_the_rest_is_not_waited_for() -> None:
    asked: list[float] = []

    def score(knobs: Mapping[str, Knob]) -> Iterator[float]:
        asked.append(float(knobs["rate"]))
        raise ValueError("never any")
        yield 0.0

    with pytest.raises(DeclarationError, match="could not be fitted or asked: ValueError") as caught:
        explore.run(UP, Knobs, score)
    assert caught.value.code == "trial-failed" and "rate=0.5" in caught.value.why
    assert len(asked) == explore.GIVE_UP


def test_a_score_that_nobody_can_tell_is_never_the_best() -> None:
    def score(knobs: Mapping[str, Knob]) -> list[float]:
        return [float("nan")] if float(knobs["rate"]) > 0.3 else hill(knobs)

    found = explore.run(UP, Knobs, score)
    assert float(found.knobs["rate"]) <= 0.3
    assert b"NaN" not in facts.encode(found)
    with pytest.raises(DataError, match="could be scored by roc_auc") as caught:
        explore.run(UP, Knobs, lambda _: [float("nan")])
    assert caught.value.code == "no-trial-has-a-score"


def test_what_is_wrong_with_the_world_ends_the_search() -> None:
    def score(_: Mapping[str, Knob]) -> Iterator[float]:
        raise AdapterError("disk-gone", "The disk is gone")
        yield 0.0

    with pytest.raises(AdapterError):
        explore.run(UP, Knobs, score)

    def greedy(_: Mapping[str, Knob]) -> Iterator[float]:
        raise MemoryError
        yield 0.0

    with pytest.raises(MemoryError):
        explore.run(UP, Knobs, greedy)


def test_no_trial_begins_that_would_not_end_in_time() -> None:
    now = [0.0]

    def score(knobs: Mapping[str, Knob]) -> list[float]:
        now[0] += 10
        return hill(knobs)

    told: list[Progress] = []
    settings = searched(trials=100, within=timedelta(seconds=45))
    found = explore.run(settings, Knobs, score, Course(timer=lambda: now[0], tell=told.append))
    assert (len(found.trials), found.stopped, now[0]) == (4, "time", 40.0)
    assert [p.left for p in told] == [35.0, 25.0, 15.0, 5.0]
    assert str(told[0]).startswith("trial 1 of 100: roc_auc -0.1210, best -0.1210, 35 s left")
    assert [p.best for p in told] == list(np.maximum.accumulate([t.score for t in found.trials]))
    # A search that was killed after three of them has the time for one more.
    past = [Ended(t, 10.0) for t in found.trials[:3]]
    again = explore.run(settings, Knobs, score, Course(past=past, timer=lambda: now[0]))
    assert again == found
    # And one trial there is, however little time.
    assert (
        len(explore.run(searched(within=timedelta(seconds=1)), Knobs, score, Course(timer=lambda: now[0])).trials) == 1
    )


def test_rounds_are_written_down_as_they_end() -> None:
    rounds: list[list[int]] = []
    explore.run(
        searched(workers=3, trials=7), Knobs, hill, Course(keep=lambda e: rounds.append([x.trial.number for x in e]))
    )
    assert rounds == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ({"trials": 0}, "no-trials"),
        ({"within": timedelta(0)}, "no-budget"),
        ({"workers": 0}, "no-workers"),
        ({"workers": 65}, "no-workers"),
    ],
)
def test_a_search_that_cannot_be_is_refused_where_it_is_declared(declared: dict[str, object], code: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        searched(**declared)
    assert (caught.value.code, caught.value.where.file if caught.value.where else "") == (code, __file__)


def test_what_is_left_at_its_default_is_no_cause() -> None:
    assert searched().cause == (16, "roc_auc", SPLIT)
    different = [searched(within=fb.minutes(5)), searched(workers=2), searched(prune=True), searched()]
    assert len({str(each.cause) for each in different}) == 4


def test_rungs_hold_the_newest_rows_and_every_class() -> None:
    asked = pl.Series("asked", np.arange(18_000)[::-1].copy()).cast(pl.Datetime("us", "UTC"))
    labels = np.arange(18_000) % 2 == 0
    found = rungs.rungs(asked, labels)
    assert [int(m.sum()) for m in found] == [2_000, 6_000]
    assert found[0][:2_000].all() and found[1][:6_000].all()
    late = labels & (np.arange(18_000) > 3_000)
    assert [int(m.sum()) for m in rungs.rungs(asked, late)] == [6_000]
    assert [int(m.sum()) for m in rungs.rungs(asked[:3_300], labels[:3_300])] == [1_100]
    assert [int(m.sum()) for m in rungs.rungs(asked[:300], labels[:300])] == []
    assert [int(m.sum()) for m in rungs.rungs(asked, np.zeros(18_000))] == [2_000, 6_000]
