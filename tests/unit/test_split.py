"""How time is split for a search, and how the search chooses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import days
from flyball._kernel.errors import DataError
from flyball.learn import explore, split
from flyball.learn.split import NAMES, Bounds, Spans

END = datetime(2013, 7, 1, tzinfo=UTC)
BOUNDS = Bounds.before(END, fb.by_time(days(30)))


def rows(*pairs: tuple[datetime, datetime]) -> tuple[pl.Series, pl.Series]:
    moment = pl.Datetime("us", "UTC")
    asked, settled = zip(*pairs, strict=True)
    return pl.Series("asked", asked, dtype=moment), pl.Series("settled", settled, dtype=moment)


def daily(n: int = 120, settles: timedelta = timedelta(hours=5)) -> tuple[pl.Series, pl.Series]:
    asked = [END - days(n) + days(k) for k in range(n + 10)]
    return rows(*((a, a + settles) for a in asked))


def test_bounds_are_two_spans_back_from_the_cutoff() -> None:
    assert BOUNDS.validation == datetime(2013, 5, 2, tzinfo=UTC)
    assert BOUNDS.test == datetime(2013, 6, 1, tzinfo=UTC)
    assert BOUNDS.end == END


def test_every_day_falls_where_it_belongs() -> None:
    found = split.spans(*daily(), BOUNDS)
    assert [int(mask.sum()) for mask in (found.explore, found.validation, found.fit, found.test)] == [60, 30, 90, 30]
    assert not (found.explore & found.validation).any()
    assert not (found.fit & found.test).any()
    assert np.array_equal(found.fit, found.explore | found.validation)


def test_questions_after_the_cutoff_are_in_no_span() -> None:
    asked, settled = daily()
    found = split.spans(asked, settled, BOUNDS)
    after = (asked >= END).to_numpy()
    assert after.sum() == 10
    assert not (after & (found.explore | found.validation | found.fit | found.test)).any()


def test_a_row_that_settles_after_the_next_span_began_trains_nothing() -> None:
    slow = timedelta(days=3)
    asked, settled = daily(settles=slow)
    found = split.spans(asked, settled, BOUNDS)
    for name, limit in (("explore", BOUNDS.validation), ("fit", BOUNDS.test), ("validation", BOUNDS.test)):
        assert (settled.filter(pl.Series(getattr(found, name))) < limit).all(), name
    assert int(found.fit.sum()) == 90 - 3


def edge(asked: datetime, settled: datetime) -> Spans:
    """The spans of one row among enough others; only its own membership is returned."""
    others, ends = daily()
    mine = rows((asked, settled))
    found = split.spans(pl.concat([mine[0], others]), pl.concat([mine[1], ends]), BOUNDS)
    return Spans(found.explore[:1], found.validation[:1], found.fit[:1], found.test[:1])


TICK = timedelta(microseconds=1)


def test_an_outcome_known_exactly_when_a_span_begins_does_not_train_for_it() -> None:
    at = edge(BOUNDS.validation - days(1), BOUNDS.validation)
    just_before = edge(BOUNDS.validation - days(1), BOUNDS.validation - TICK)
    assert not at.explore[0]
    assert just_before.explore[0]
    assert not edge(BOUNDS.test - days(1), BOUNDS.test).fit[0]
    assert edge(BOUNDS.test - days(1), BOUNDS.test - TICK).fit[0]


def test_a_question_asked_exactly_at_a_bound_belongs_to_the_span_that_begins() -> None:
    assert edge(BOUNDS.validation, BOUNDS.validation + TICK).validation[0]
    assert not edge(BOUNDS.validation - TICK, BOUNDS.validation + TICK).validation[0]
    assert edge(BOUNDS.test, BOUNDS.test + TICK).test[0]
    assert not edge(BOUNDS.test - TICK, BOUNDS.test + TICK).test[0]
    assert edge(END - TICK, END + days(1)).test[0]
    assert not edge(END, END + days(1)).test[0]


@pytest.mark.parametrize(
    ("keep", "span"),
    [
        (lambda asked: asked >= BOUNDS.validation, "explore"),
        (lambda asked: (asked < BOUNDS.validation) | (asked >= BOUNDS.test), "validation"),
        (lambda asked: asked < BOUNDS.test, "test"),
    ],
)
def test_an_empty_span_is_told_by_name(keep: object, span: str) -> None:
    asked, settled = daily()
    mask = keep(asked)  # type: ignore[operator]
    with pytest.raises(fb.DataError, match=f"the {NAMES[span]} span") as caught:
        split.spans(asked.filter(mask), settled.filter(mask), BOUNDS)
    assert caught.value.code == "too-little-history"


class Knobs(fb.Params):
    leaves: int = fb.between(2, 64, start=31, log=True)
    rate: float = fb.between(0.0, 1.0, start=0.5)


UP = fb.search(trials=12, optimize=fb.roc_auc, split=fb.by_time(days(30)))
DOWN = fb.search(trials=12, optimize=fb.log_loss, split=fb.by_time(days(30)))


def hill(knobs: Mapping[str, float]) -> float:
    return -((knobs["rate"] - 0.2) ** 2) - knobs["leaves"] / 1000


def test_the_first_trial_is_the_starting_point() -> None:
    found = explore.run(UP, Knobs, hill)
    assert found.trials[0].knobs == {"leaves": 31, "rate": 0.5}
    assert [t.number for t in found.trials] == list(range(12))


def test_the_best_trial_is_chosen_in_the_metric_s_direction() -> None:
    up, down = explore.run(UP, Knobs, hill), explore.run(DOWN, Knobs, hill)
    assert up.score == max(t.score for t in up.trials)
    assert down.score == min(t.score for t in down.trials)
    assert up.knobs in [t.knobs for t in up.trials if t.score == up.score]


def test_the_search_never_does_worse_than_the_start() -> None:
    found = explore.run(UP, Knobs, hill)
    assert found.score >= found.trials[0].score


def test_of_equals_the_first_is_chosen() -> None:
    found = explore.run(UP, Knobs, lambda _: 0.5)
    assert found.knobs == found.trials[0].knobs


def test_the_same_search_finds_the_same() -> None:
    assert explore.run(UP, Knobs, hill) == explore.run(UP, Knobs, hill)


def test_knobs_stay_in_their_ranges_and_types() -> None:
    for trial in explore.run(UP, Knobs, hill).trials:
        assert type(trial.knobs["leaves"]) is int
        assert 2 <= trial.knobs["leaves"] <= 64
        assert 0.0 <= trial.knobs["rate"] <= 1.0


def test_without_a_knob_one_trial_says_all() -> None:
    found = explore.run(UP, fb.Params, lambda _: 0.7)
    assert (len(found.trials), found.knobs, found.score) == (1, {}, 0.7)


def test_one_trial_is_the_starting_point_alone() -> None:
    once = fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(days(30)))
    found = explore.run(once, Knobs, hill)
    assert (len(found.trials), found.knobs) == (1, {"leaves": 31, "rate": 0.5})


def test_where_nothing_is_settled_the_cause_is_told() -> None:
    times = pl.Series([], dtype=pl.Datetime("us", "UTC"))
    moment = datetime(2013, 6, 1, tzinfo=UTC)
    with pytest.raises(DataError, match="No question is settled yet") as refused:
        split.spans(times, times, split.Bounds(validation=moment, test=moment, end=moment))
    assert refused.value.code == "too-little-history" and "None" not in refused.value.why
