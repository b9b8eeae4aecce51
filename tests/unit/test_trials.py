"""An A/B test on live traffic: whose answers count for which arm, what is compared, and what cannot be."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

import flyball as fb
from flyball import days, hours, metrics, minutes, roc_auc, seconds
from flyball._kernel.conditions import Outcome, Verdict
from flyball.learn.task import BINARY
from flyball.release import moves
from flyball.release.policy import Release, Stage, ab
from flyball.release.rollout import Rollout, Step, Trial
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted
from flyball.serve.router import lot
from flyball.watch import quality, trials
from flyball.watch.arms import Arms
from flyball.watch.live import MOST, Live
from tests.unit.test_watch_quality import MODEL, NOW, entry, posted

BEGAN = NOW - days(2)
ASKED = BEGAN + hours(1)


def trial(stage: Stage) -> Trial:
    step = moves._step(stage)
    assert step.trial is not None
    return step.trial


COST = trial(ab(0.5, metrics.cost, ends=days(14)))
CLICKS = trial(ab(0.5, metrics.outcome_mean, ends=days(14)))
ACCURACY = trial(ab(0.5, fb.accuracy, ends=days(14)))


def state(trial: Trial, began: datetime = BEGAN, share: float = 0.5) -> Rollout:
    """a-2 is in a test against a-1 since a moment."""
    step = Step(name="ab", share=share, seconds=0.0, trial=trial)
    return Rollout(champion="a-1", candidate="a-2", stages=(step,), began=began, entered=began)


def live(most: int = MOST) -> Live:
    made = Live(days(60), entity=("who",), most=most)
    made.task = BINARY
    return made


def look(made: Live, trial: Trial, began: datetime = BEGAN) -> Verdict:
    trials.follow(made, state(trial, began), NOW)
    return trials.judged(made, state(trial, began), trial)


def estimate(made: Live, trial: Trial) -> float:
    found = look(made, trial).measurement
    assert found is not None
    return found.estimate


def about(who: str, key: str, asked: Any, version: str, **more: Any) -> Entry:
    return msgspec.structs.replace(entry(key, asked, version, **more), inputs={"who": who})


def mine(e: int) -> bool:
    """Whether an entity drew a-2."""
    return lot("a-2", f'{{"who":"e{e}"}}') < 0.5


def traffic(entities: int, each: int, chance: dict[str, float], seed: int = 0) -> tuple[list[Entry], list[Posted]]:
    """Entities, some of them a-2's, of which so many questions were settled: an outcome is true with the arm's own chance.

    The one who did not answer is a shadow, and says the opposite, so that counting it would be seen.
    """
    rng, said, posts = np.random.default_rng(seed), [], []
    for e in range(entities):
        version, other = ("a-2", "a-1") if mine(e) else ("a-1", "a-2")
        for k in range(each):
            key, asked = f"e{e}/{k}", ASKED + seconds(e)
            role = "canary" if version == "a-2" else "champion"
            said.append(about(f"e{e}", key, asked, version, role=role, output=0.9))
            said.append(about(f"e{e}", key, asked, other, role="shadow", output=0.1))
            posts.append(posted(key, float(rng.random() < chance[version]), NOW - minutes(1)))
    return said, posts


def arms(entities: int, each: int, chance: dict[str, float], seed: int = 0) -> Live:
    made, (said, posts) = live(), traffic(entities, each, chance, seed)
    made.answered(said)
    made.settled(posts)
    return made


def test_an_effect_on_outcomes_is_found_which_no_paired_guard_could_see() -> None:
    made = arms(600, 2, {"a-1": 0.3, "a-2": 0.6})
    verdict = look(made, CLICKS)
    found = verdict.measurement
    assert found is not None and found.n == 1200
    assert found.low < 0.3 < found.high
    assert (verdict.condition, verdict.outcome) == (str(CLICKS), Outcome.PASS)
    worse = look(arms(600, 2, {"a-1": 0.6, "a-2": 0.3}), CLICKS)
    assert worse.outcome is Outcome.FAIL
    alike = look(arms(600, 2, {"a-1": 0.5, "a-2": 0.5}), CLICKS)
    assert alike.outcome is Outcome.INCONCLUSIVE and alike.measurement is not None


def test_a_metric_is_a_mean_over_what_left() -> None:
    """Every answer decides true, so what is paid is what did not come true."""
    made = arms(600, 2, {"a-1": 0.4, "a-2": 0.8})
    rows = made.frame(None, BEGAN, NOW, NOW)
    came = [rows.filter(role=role)["outcome"].to_numpy().mean() for role in ("canary", "champion")]
    assert estimate(made, COST) == pytest.approx((1 - came[0]) - (1 - came[1]))
    assert look(made, COST).outcome is Outcome.PASS, "it costs less"


def test_answers_of_one_entity_are_no_more_certain_than_it_is() -> None:
    """Ten times the same answer of everybody makes no interval narrower; ten of their own make it three times so."""
    once, chance = arms(400, 1, {"a-1": 0.5, "a-2": 0.5}), {"a-1": 0.5, "a-2": 0.5}
    said, posts = traffic(400, 10, chance)
    first = {f"e{e}": posts[10 * e].value for e in range(400)}
    echo, own = live(), live()
    echo.answered(said)
    echo.settled([msgspec.structs.replace(p, value=first[p.key.partition("/")[0]]) for p in posts])
    own.answered(said)
    own.settled(posts)
    width = []
    for made in (once, echo, own):
        found = look(made, CLICKS).measurement
        assert found is not None
        width.append(found.high - found.low)
    assert width[1] == pytest.approx(width[0], rel=0.06) and width[2] < width[0] / 2.5


def test_one_entity_that_asks_more_than_all_others_decides_nothing() -> None:
    said, posts = traffic(400, 1, {"a-1": 0.4, "a-2": 0.6})
    made = live()
    made.answered([*said, *(about("e1", f"e1/more{k}", ASKED, "a-2" if mine(1) else "a-1") for k in range(300))])
    made.settled([*posts, *(posted(f"e1/more{k}", 1.0, NOW - minutes(1)) for k in range(300))])
    verdict = look(made, CLICKS)
    assert verdict.outcome is Outcome.INCONCLUSIVE and "each arm needs 100" in verdict.reason


def test_who_was_meant_to_be_answered_by_the_version_counts_for_it_also_where_the_champion_had_to() -> None:
    made = arms(400, 1, {"a-1": 0.5, "a-2": 0.5})
    theirs = [e for e in range(400) if mine(e)]
    for e in theirs:  # the version fails at their second question, and the champion mends it
        key = f"e{e}/mended"
        made.answered([about(f"e{e}", key, ASKED + hours(1), "a-2", role="canary", failed="boom", output=np.nan)])
        made.answered([about(f"e{e}", key, ASKED + hours(1), "a-1", role="champion")])
    made.settled([posted(f"e{e}/mended", 1.0, NOW - minutes(1)) for e in theirs])
    found = look(made, CLICKS).measurement
    assert found is not None and found.n == 400 + len(theirs), "nothing is counted twice"
    assert found.estimate == pytest.approx(0.25, abs=0.12), "their mean rises by half of the rest"


@pytest.mark.parametrize("role", ["champion", "previous", "baseline", "default"])
def test_who_drew_the_version_counts_for_it_whoever_answered(role: str) -> None:
    """A breaker had taken it out, or it failed as the champion did: only the lot tells whose entity it was."""
    made, said = live(), []
    for e in range(900):
        version, by = ("a-2", "canary") if mine(e) and e % 2 else ("a-1", role if mine(e) else "champion")
        said.append(about(f"e{e}", f"e{e}/0", ASKED + seconds(e), "default" if by == "default" else version, role=by))
    made.answered(said)
    made.settled([posted(f"e{e}/0", float(e % 3 == 0), NOW - minutes(1)) for e in range(900)])
    came = {True: list[float](), False: list[float]()}
    for e in range(900):
        came[mine(e)].append(float(e % 3 == 0))
    assert estimate(made, CLICKS) == pytest.approx(np.mean(came[True]) - np.mean(came[False]))
    assert look(made, ACCURACY).measurement is not None


def test_a_correction_takes_the_place_of_what_it_corrects_and_a_void_takes_it_away() -> None:
    made, right = arms(600, 1, {"a-1": 0.3, "a-2": 0.6}), live()
    said, posts = traffic(600, 1, {"a-1": 0.5, "a-2": 0.5}, seed=5)
    trials.follow(made, state(CLICKS), NOW)
    made.settled([msgspec.structs.replace(p, seq=2) for p in posts])
    made.settled([msgspec.structs.replace(p, seq=3, value=None) for p in posts[:50]])
    right.answered(said)
    right.settled(posts[50:])
    found, expected = look(made, CLICKS).measurement, look(right, CLICKS).measurement
    assert found is not None and expected is not None and found.n == expected.n == 550
    assert [found.estimate, found.low] == pytest.approx([expected.estimate, expected.low])


def test_a_test_goes_on_beyond_what_is_kept() -> None:
    """What was forgotten was counted; of one that began before it was looked at, nobody knows what it was."""
    said, posts = traffic(600, 2, {"a-1": 0.3, "a-2": 0.6})
    made, whole = live(most=200), arms(600, 2, {"a-1": 0.3, "a-2": 0.6})
    trials.follow(made, state(CLICKS), NOW)
    for at in range(0, len(said), 100):
        made.answered(said[at : at + 100])
        made.settled(posts[at // 2 : at // 2 + 50])
    assert made.counts().dropped and made.counts().attempts == 200
    assert look(made, CLICKS) == look(whole, CLICKS)
    late = live(most=200)
    late.answered(said)
    late.answered(said[:1])
    assert late.counts().dropped
    assert "its beginning was forgotten" in look(late, CLICKS).reason
    assert look(whole, CLICKS, NOW - days(61)).measurement is None
    assert look(whole, CLICKS, NOW - days(59)).measurement is not None


def test_what_waits_too_long_for_its_outcome_is_let_go_and_told() -> None:
    said, posts = traffic(600, 1, {"a-1": 0.3, "a-2": 0.6})
    made, small = live(), functools.partial(Arms, most=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "Arms", small)
        trials.follow(made, state(CLICKS), NOW)
    made.answered(said)
    made.settled(posts)
    more, rest = traffic(1400, 1, {"a-1": 0.3, "a-2": 0.6}, seed=1)
    made.answered(more[1200:])  # 400 more than there is room for
    assert made.arms is not None and made.arms.given_up == 0, "those that have an outcome go first, and count"
    before = look(made, CLICKS).measurement
    made.settled([msgspec.structs.replace(p, seq=2, value=float(not p.value)) for p in posts[:100]])
    assert look(made, CLICKS).measurement == before, "a correction that comes after that is not counted"
    made.answered([about(f"e{e}", f"e{e}/late", ASKED + hours(9), "a-1") for e in range(1000)])
    assert made.arms.given_up > 0
    assert look(made, CLICKS).reason == f"{made.arms.given_up:,} answers were let go before their outcomes came"
    made.settled(rest[600:])
    counted = look(made, CLICKS).measurement
    assert before is not None and counted is not None and counted.n < before.n + 800


def test_what_was_asked_before_the_stage_or_while_servers_follow_does_not_count() -> None:
    made = arms(600, 1, {"a-1": 0.4, "a-2": 0.6})
    for begins in (ASKED + hours(2), ASKED + seconds(600) - quality.GRACE + timedelta(seconds=1)):
        verdict = look(made, CLICKS, begins)
        assert verdict.measurement is None and verdict.reason.startswith("outcomes of 0 and 0 entities")


def test_without_outcomes_of_enough_entities_nothing_is_decided() -> None:
    verdict = look(arms(150, 3, {"a-1": 0.1, "a-2": 0.9}), CLICKS)
    theirs = sum(map(mine, range(150)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == f"outcomes of {theirs} and {150 - theirs} entities, and each arm needs 100"
    same = look(arms(400, 1, {"a-1": 1.0, "a-2": 1.0}), CLICKS)
    assert same.outcome is Outcome.INCONCLUSIVE and "all alike" in same.reason


def test_a_test_that_is_over_is_forgotten_and_another_begins_anew() -> None:
    made = arms(600, 1, {"a-1": 0.4, "a-2": 0.6})
    first, other = state(CLICKS), state(CLICKS, BEGAN + hours(1))
    assert "from the next look on" in trials.judged(made, first, CLICKS).reason
    trials.follow(made, first, NOW)
    kept = made.arms
    trials.follow(made, first, NOW + hours(1))
    assert made.arms is kept
    assert "from the next look on" in trials.judged(made, other, CLICKS).reason
    trials.follow(made, msgspec.structs.replace(first, candidate=""), NOW)
    assert made.arms is None


def test_only_means_decide_and_only_the_right_way_round() -> None:
    trials.check(Release(ab(0.5, metrics.cost, ends=days(1)), ab(0.5, fb.accuracy, ends=days(1))), MODEL)
    less = metrics.outcome_mean <= metrics.outcome_mean.on(fb.champion)
    trials.check(Release(ab(0.5, less, ends=days(1))), MODEL)
    with pytest.raises(fb.DeclarationError, match="test-not-measurable"):
        trials.check(Release(ab(0.5, roc_auc, ends=days(1))), MODEL)
    with pytest.raises(fb.DeclarationError, match="condition-upside-down"):
        trials.check(Release(ab(0.5, fb.accuracy <= fb.accuracy.on(fb.champion), ends=days(1))), MODEL)
