"""Every look at held-out rows is counted, and what the best of many owes to luck is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from flyball import days, hours
from flyball._kernel.conditions import Measurement
from flyball._kernel.facts import Fact
from flyball.adapters.memory.clock import VirtualClock
from flyball.cycle import touched
from flyball.cycle.session import Session
from flyball.cycle.touched import Count, Touched
from flyball.learn import split
from flyball.learn.split import Bounds
from tests import story
from tests.unit import test_split as splits

EARLY = Bounds.between(splits.END, splits.END + hours(50), split.by_time(days(1)))
SHIFTED = Bounds.between(splits.END + hours(20), splits.END + hours(70), split.by_time(days(1)))
LATER = Bounds.between(splits.END + hours(50), splits.END + hours(90), split.by_time(days(1)))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return story.opened(tmp_path, VirtualClock(story.START))


def look(session: Session, by: str, bounds: Bounds) -> Count:
    said = seen(session, by, bounds)
    before = touched.counted(session, "buying", said)
    session.facts.append([Fact("flights", "buying", said)])
    return before


def seen(session: Session, by: str, bounds: Bounds) -> Touched:
    rows = splits.examples(
        *[(splits.END + hours(k), splits.END + hours(k) + timedelta(minutes=5)) for k in range(-60, 120)],
        visit=[f"person {k}" for k in range(180)],
    )
    return touched.of(session, splits.buying, by, rows, bounds)


def test_versions_judgings_and_evaluations_are_counted(session: Session) -> None:
    nothing = Count(same=0, overlapping=0, evaluations=0, again=0)
    assert look(session, "buying-1", EARLY) == nothing
    assert look(session, "buying-2", EARLY) == Count(same=1, overlapping=0, evaluations=0, again=0)
    assert look(session, "buying-2", EARLY) == Count(same=1, overlapping=0, evaluations=0, again=1)
    assert look(session, touched.EVALUATE, SHIFTED) == Count(same=0, overlapping=2, evaluations=0, again=0)
    assert look(session, touched.EVALUATE, SHIFTED) == Count(same=0, overlapping=2, evaluations=1, again=0)
    assert look(session, "buying-3", SHIFTED) == Count(same=0, overlapping=2, evaluations=2, again=0)
    assert look(session, "buying-4", LATER) == Count(same=0, overlapping=1, evaluations=2, again=0)
    other = touched.counted(session, "another model", seen(session, "buying-5", EARLY))
    assert other == nothing


def test_a_look_names_nobody(session: Session) -> None:
    said = seen(session, "buying-1", EARLY)
    assert (said.n, len(said.rows)) == (50, 64)
    assert said == seen(session, "buying-1", EARLY)
    assert said.rows != seen(session, "buying-1", SHIFTED).rows
    assert "person" not in repr(said)


def test_the_luck_of_the_best_is_that_of_normal_errors() -> None:
    headline = Measurement(estimate=0.7, low=0.7 - 0.0196, high=0.7 + 0.0196, n=1000)
    rng = np.random.default_rng(3)
    for versions in (2, 5, 20):
        drawn = rng.normal(0, 0.01, size=(20_000, versions)).max(axis=1).mean()
        count = Count(same=versions - 1, overlapping=0, evaluations=0, again=3)
        assert touched.luck(count, headline) == pytest.approx(drawn, rel=0.06)
    assert touched.luck(Count(same=0, overlapping=0, evaluations=0, again=3), headline) == 0.0


def test_it_is_told_in_words() -> None:
    headline = Measurement(estimate=0.7, low=0.68, high=0.72, n=1000)
    assert "Nobody" in touched.told(Count(same=0, overlapping=0, evaluations=0, again=0), headline)
    assert touched.told(Count(same=0, overlapping=0, evaluations=0, again=2), headline) == (
        "These held-out rows have been looked at 3 times: by this version and 2 earlier judgings of this version."
    )
    told = touched.told(Count(same=1, overlapping=2, evaluations=1, again=0), headline)
    assert "looked at 5 times" in told and "another version (the very same rows)" in told and "best of 5" in told
