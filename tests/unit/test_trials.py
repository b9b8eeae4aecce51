"""An A/B test on live traffic: whose answers count for which arm, what is compared, and what cannot be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

import flyball as fb
from flyball import days, hours, metrics, minutes, roc_auc, seconds
from flyball._kernel.conditions import Outcome
from flyball.learn.task import BINARY
from flyball.release import moves
from flyball.release.policy import Release, Stage, ab
from flyball.release.rollout import Trial
from flyball.serve.journal import Entry
from flyball.serve.router import lot
from flyball.watch import quality, trials
from flyball.watch.live import Live
from tests.unit.test_watch_quality import MODEL, NOW, entry, posted

BEGAN = NOW - days(2)
ASKED = BEGAN + hours(1)


def trial(stage: Stage) -> Trial:
    step = moves._step(stage)
    assert step.trial is not None
    return step.trial


COST = trial(ab(0.5, metrics.cost, ends=days(14)))
CLICKS = trial(ab(0.5, metrics.outcome_mean, ends=days(14)))


def live() -> Live:
    made = Live(days(60), entity=("who",))
    made.task = BINARY
    return made


def about(who: str, key: str, asked: Any, version: str, **more: Any) -> Entry:
    return msgspec.structs.replace(entry(key, asked, version, **more), inputs={"who": who})


def arms(entities: int, each: int, chance: dict[str, float], seed: int = 0) -> Live:
    """Entities, half of them a-2's, of which so many questions were settled: an outcome is true with the arm's own chance.

    The one who did not answer is a shadow, and says the opposite, so that counting it would be seen.
    """
    made, rng, said, posts = live(), np.random.default_rng(seed), [], []
    for e in range(entities):
        version, other = ("a-2", "a-1") if e % 2 else ("a-1", "a-2")
        for k in range(each):
            key, asked = f"e{e}/{k}", ASKED + seconds(e)
            role = "canary" if version == "a-2" else "champion"
            said.append(about(f"e{e}", key, asked, version, role=role, output=0.9))
            said.append(about(f"e{e}", key, asked, other, role="shadow", output=0.1))
            posts.append(posted(key, float(rng.random() < chance[version]), NOW - minutes(1)))
    made.answered(said)
    made.settled(posts)
    return made


def test_an_effect_on_outcomes_is_found_which_no_paired_guard_could_see() -> None:
    made = arms(600, 2, {"a-1": 0.3, "a-2": 0.6})
    verdict = trials.judged(made, CLICKS, "a-2", "a-1", (BEGAN, NOW))
    found = verdict.measurement
    assert found is not None and found.n == 600, "a unit is an entity"
    assert found.low < 0.3 < found.high
    assert (verdict.condition, verdict.outcome) == (str(CLICKS), Outcome.PASS)
    worse = trials.judged(arms(600, 2, {"a-1": 0.6, "a-2": 0.3}), CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert worse.outcome is Outcome.FAIL
    alike = trials.judged(arms(600, 2, {"a-1": 0.5, "a-2": 0.5}), CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert alike.outcome is Outcome.INCONCLUSIVE and alike.measurement is not None


def test_a_metric_is_a_mean_over_entities_of_what_left() -> None:
    """Every answer decides true, so what is paid is what did not come true."""
    made = arms(600, 2, {"a-1": 0.4, "a-2": 0.8})
    found, reason = trials.measure(made, COST, "a-2", "a-1", (BEGAN, NOW))
    rows = made.frame(None, BEGAN, NOW, NOW)
    came = [rows.filter(role=role)["outcome"].to_numpy().mean() for role in ("canary", "champion")]  # each has two
    assert found is not None, reason
    assert found.estimate == pytest.approx((1 - came[0]) - (1 - came[1]))
    assert trials.judged(made, COST, "a-2", "a-1", (BEGAN, NOW)).outcome is Outcome.PASS, "it costs less"


def test_who_was_meant_to_be_answered_by_the_version_counts_for_it_also_where_the_champion_had_to() -> None:
    made = arms(400, 1, {"a-1": 0.5, "a-2": 0.5})
    for e in range(1, 400, 2):  # the version fails at their second question, and the champion mends it
        key = f"e{e}/mended"
        made.answered([about(f"e{e}", key, ASKED + hours(1), "a-2", role="canary", failed="boom", output=np.nan)])
        made.answered([about(f"e{e}", key, ASKED + hours(1), "a-1", role="champion")])
    made.settled([posted(f"e{e}/mended", 1.0, NOW - minutes(1)) for e in range(1, 400, 2)])
    found, _ = trials.measure(made, CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert found is not None and found.n == 400, "nobody is in both arms"
    assert found.estimate == pytest.approx(0.25, abs=0.12), "their mean rises by half of the rest"


def test_who_drew_the_version_counts_for_it_also_where_a_breaker_had_taken_it_out() -> None:
    """Then the champion answers as champion, and only the lot tells whose entity it was."""
    made, said = live(), []
    for e in range(900):
        mine = lot("a-2", f'{{"who":"e{e}"}}') < 0.5
        version, role = ("a-2", "canary") if mine and e % 2 else ("a-1", "champion")
        said.append(about(f"e{e}", f"e{e}/0", ASKED + seconds(e), version, role=role))
    made.answered(said)
    made.settled([posted(f"e{e}/0", float(e % 3 == 0), NOW - minutes(1)) for e in range(900)])
    found, _ = trials.measure(made, CLICKS, "a-2", "a-1", (BEGAN, NOW), 0.5)
    blind, _ = trials.measure(made, CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert found is not None and blind is not None
    came = {"a-2": list[float](), "a-1": list[float]()}
    for e in range(900):
        came["a-2" if lot("a-2", f'{{"who":"e{e}"}}') < 0.5 else "a-1"].append(float(e % 3 == 0))
    assert found.estimate == pytest.approx(np.mean(came["a-2"]) - np.mean(came["a-1"]))
    assert found.n == blind.n == 900 and found.estimate != pytest.approx(blind.estimate)


def test_a_test_whose_beginning_is_forgotten_decides_nothing() -> None:
    """What slides is a new test at every look."""
    made = arms(600, 2, {"a-1": 0.1, "a-2": 0.9})
    made.most = 2000
    made.answered([about("late", "late", NOW - hours(1), "a-1")])
    assert made.counts().dropped
    found, reason = trials.measure(made, CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert found is None and "than attempts are kept (2,000" in reason
    old = arms(600, 2, {"a-1": 0.1, "a-2": 0.9})
    assert trials.measure(old, CLICKS, "a-2", "a-1", (NOW - days(61), NOW))[0] is None
    assert trials.measure(old, CLICKS, "a-2", "a-1", (NOW - days(59), NOW))[0] is not None


def test_what_was_asked_before_the_stage_or_while_servers_follow_does_not_count() -> None:
    made = arms(600, 1, {"a-1": 0.4, "a-2": 0.6})
    for begins in (ASKED + hours(2), ASKED + seconds(600) - quality.GRACE + timedelta(seconds=1)):
        found, reason = trials.measure(made, CLICKS, "a-2", "a-1", (begins, NOW))
        assert found is None and reason.startswith("outcomes of 0 and 0 entities")


def test_without_outcomes_of_enough_entities_nothing_is_decided() -> None:
    verdict = trials.judged(arms(150, 3, {"a-1": 0.1, "a-2": 0.9}), CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "outcomes of 75 and 75 entities, and each arm needs 100"
    same = trials.judged(arms(400, 1, {"a-1": 1.0, "a-2": 1.0}), CLICKS, "a-2", "a-1", (BEGAN, NOW))
    assert same.outcome is Outcome.INCONCLUSIVE and "all alike" in same.reason


def test_only_means_decide_and_only_the_right_way_round() -> None:
    trials.check(Release(ab(0.5, metrics.cost, ends=days(1)), ab(0.5, fb.accuracy, ends=days(1))), MODEL)
    less = metrics.outcome_mean <= metrics.outcome_mean.on(fb.champion)
    trials.check(Release(ab(0.5, less, ends=days(1))), MODEL)
    with pytest.raises(fb.DeclarationError, match="test-not-measurable"):
        trials.check(Release(ab(0.5, roc_auc, ends=days(1))), MODEL)
    with pytest.raises(fb.DeclarationError, match="condition-upside-down"):
        trials.check(Release(ab(0.5, fb.accuracy <= fb.accuracy.on(fb.champion), ends=days(1))), MODEL)
