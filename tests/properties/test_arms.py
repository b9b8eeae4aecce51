"""An A/B test that is folded in any pieces, in any order, is the test that is folded at once, and that of all rows."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball import days, hours, metrics, minutes, seconds
from flyball.learn.task import REGRESSION
from flyball.release.policy import ab
from flyball.serve.router import lot
from flyball.watch import arms, trials
from flyball.watch.live import Live
from tests.unit.test_trials import BEGAN, about, live, state, trial
from tests.unit.test_watch_quality import NOW, posted

ASKED = BEGAN + hours(1)
COST = trial(ab(0.5, metrics.cost, ends=days(14)))
BRIER = trial(ab(0.5, metrics.brier, ends=days(14)))

answers = st.tuples(
    st.integers(0, 5),  # whose
    st.integers(0, 3),  # key
    st.integers(0, 40),  # asked
    st.sampled_from(["canary", "champion", "shadow", "previous", "default"]),
    st.sampled_from([0.125, 0.5, 0.875]),
    st.sampled_from([False, False, True]),  # whether it failed
)
outcomes = st.tuples(
    st.integers(0, 3),
    st.integers(20, 60),  # settled
    st.sampled_from([0.0, 1.0, None]),
    st.booleans(),  # whether it names a prediction
)


def events(said: list[Any], posts: list[Any]) -> tuple[list[Any], list[Any]]:
    """Entries, each with an id of its own, and outcomes in the order in which they were stored."""
    entries, seen = [], set()
    for n, (who, key, asked, role, output, failed) in enumerate(said):
        if (key, asked, role == "shadow") in seen:
            continue  # one question of a request; its attempts that left are one
        seen.add((key, asked, role == "shadow"))
        version = {"canary": "a-2", "previous": "a-0", "default": "default"}.get(role, "a-1")
        e = about(f"e{who}", f"k{key}", ASKED + seconds(asked), version, role=role, output=output)
        entries.append(msgspec.structs.replace(e, id=f"p{n}", failed="boom" if failed else ""))
    told = []
    for seq, (key, settled, value, names) in enumerate(posts, start=1):
        each = posted("" if names else f"k{key}", 0.0, ASKED + seconds(settled))
        told.append(msgspec.structs.replace(each, seq=seq, value=value, prediction=f"p{key}" if names else ""))
    return entries, told


def sums(made: Live) -> tuple[np.ndarray, ...]:
    found = made.arms
    assert found is not None and not found.given_up
    return found._counts, found._sums + found._origin * found._counts


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_any_pieces_in_any_order_are_one_pass(seed: int) -> None:
    chance = random.Random(seed)
    roles = ["canary", "champion", "shadow", "previous", "default"]
    said = [
        (
            chance.randrange(6),
            chance.randrange(4),
            chance.randrange(41),
            chance.choice(roles),
            0.125,
            chance.random() < 0.2,
        )
        for _ in range(20)
    ]
    posts = [
        (chance.randrange(4), chance.randrange(61), chance.choice([0.0, 1.0, None]), chance.random() < 0.3)
        for _ in range(16)
    ]
    entries, told = events(said, posts)
    whole, pieces = live(), live()
    trials.follow(whole, state(BRIER), NOW)
    whole.answered(entries)
    whole.settled(told)
    if chance.random() < 0.7:  # or only at the end, where all lies there already
        trials.follow(pieces, state(BRIER), NOW)
    while entries or told:
        n, m = chance.randrange(20), chance.randrange(1, 8)
        if first := chance.random() < 0.5:
            pieces.settled(told[:m])
        pieces.answered(entries[:n])
        if not first:
            pieces.settled(told[:m])
        entries, told = entries[n:], told[m:]
    trials.follow(pieces, state(BRIER), NOW)
    counts, scores = sums(whole)
    others, theirs = sums(pieces)
    assert (counts == others).all() and np.allclose(scores, theirs, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(answers, max_size=25), st.lists(outcomes, max_size=20))
def test_what_is_counted_are_the_outcomes_of_what_left(said: list[Any], posts: list[Any]) -> None:
    """Against the rows that guards look at, whose outcomes are matched anew at every look."""
    entries, told = events(said, posts)
    made = live()
    trials.follow(made, state(BRIER), NOW)
    made.answered([e for e in entries if e.role != "shadow"])
    made.settled(told)
    frame = made.frame(None, BEGAN, NOW, NOW).filter(failed="").drop_nulls("outcome")
    expected = {True: [0, 0.0], False: [0, 0.0]}
    for who, output, outcome in frame.select("entity", "output", "outcome").iter_rows():
        side = expected[lot("a-2", who) < 0.5]
        side[0] += 1
        side[1] += (output - outcome) ** 2
    counts, scores = sums(made)
    for drew, n in ((True, 1), (False, 0)):
        cells = slice(n * arms.CELLS, (n + 1) * arms.CELLS)
        assert counts[cells].sum() == expected[drew][0]
        assert scores[cells].sum() == pytest.approx(expected[drew][1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-8, 8)), min_size=4, max_size=60), st.sampled_from([0, 1e7]))
def test_an_arm_is_what_its_entities_say_of_it(said: list[tuple[int, int]], far: float) -> None:
    """Mean, error, worth and skewness once more from every answer; far from zero as well."""
    made = live()
    made.task = REGRESSION
    clicks = trial(ab(0.5, metrics.outcome_mean, ends=days(14)))
    trials.follow(made, state(clicks, share=1.0), NOW)
    made.answered([about(f"e{who}", f"k{n}", ASKED, "a-2", role="canary") for n, (who, _) in enumerate(said)])
    made.settled([posted(f"k{n}", far + x, NOW - minutes(1)) for n, (_, x) in enumerate(said)])
    assert made.arms is not None
    side, _ = made.arms.sides()
    x = np.array([far + x for _, x in said])
    whose = np.array([who for who, _ in said])
    off = np.array([(x[whose == who] - x.mean()).sum() for who in sorted(set(whose.tolist()))])
    counts = np.array([(whose == who).sum() for who in sorted(set(whose.tolist()))])
    assert side.answers == len(x)
    if len(off) < 2:
        return
    assert side.entities == pytest.approx(len(x) ** 2 / (counts**2).sum())
    assert side.arm.mean == pytest.approx(x.mean())
    error = (off**2).sum() * len(off) / (len(off) - 1) / len(x) ** 2
    if x.var() < 1e-9 or error < 1e-9:
        return
    assert side.arm.variance == pytest.approx(x.var(ddof=1))
    assert float(side.arm.variance) / float(side.arm.n) == pytest.approx(error)
    skewness = float(side.arm.third) / float(side.arm.n) ** 2 / math.sqrt(error) ** 3
    assert skewness == pytest.approx((off**3).sum() / len(x) ** 3 / math.sqrt(error) ** 3, abs=1e-6)
    if len(counts) == len(x):
        assert float(side.arm.n) == pytest.approx(len(x)), "who answered once is worth one"
