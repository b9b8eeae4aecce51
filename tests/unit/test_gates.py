"""Gates: what was promised, judged on held-out rows, and refused when nothing held out could show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import champion, days, hours, metrics, ms
from flyball._kernel.conditions import Condition, Measurement, Metric, Outcome, Whom
from flyball._kernel.errors import Bug, DataError, DeclarationError
from flyball.learn import gates
from flyball.learn.quality.evaluate import HeldOut
from flyball.learn.task import Task

N = 4000
PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    """A calibrated model with an AUC near 0.75, blind in LGA; EWR and JFK are alike; two rows have no origin."""
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 3, N)
    y = rng.random(N) < p
    origin = rng.choice(["EWR", "JFK", "LGA"], N)
    scores = np.where(origin == "LGA", rng.permutation(p), p)
    half = [None if k < 2 else "ab"[k % 2] for k in range(N)]
    return HeldOut(y, {"boosted": scores}, {"origin": pl.Series(origin), "half": pl.Series(half, dtype=pl.String)})


def noisier(held_out: HeldOut) -> np.ndarray:
    scores = held_out.scores["boosted"]
    return np.clip(scores + np.random.default_rng(1).normal(0, 0.1, N), 0, 1)


def judged(gate: Condition, held_out: HeldOut, **more: Any) -> tuple[Outcome, str]:
    (verdict,) = gates.judge_all([gate], held_out, **more).verdicts
    assert verdict.condition == str(gate)
    return verdict.outcome, verdict.reason


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        (fb.roc_auc >= 0.6, PASS),
        (fb.roc_auc >= 0.68, OPEN),
        (fb.roc_auc >= 0.75, FAIL),
        (fb.log_loss <= 0.7, PASS),
        (fb.log_loss <= 0.3, FAIL),
        (fb.roc_auc.gap(by="origin") <= 0.1, FAIL),
        (fb.roc_auc.gap(by="origin") <= 0.5, PASS),
        (fb.roc_auc.gap(by="half") <= 0.1, PASS),
    ],
)
def test_plain_gates_and_gaps(gate: Condition, outcome: Outcome, held_out: HeldOut) -> None:
    assert judged(gate, held_out)[0] == outcome


def test_a_gap_counts_the_groups_that_it_leaves_out_and_names_none(held_out: HeldOut) -> None:
    """A verdict is a fact, and facts hold no row values: the report names the groups."""
    said = judged(fb.roc_auc.gap(by="half") <= 0.1, held_out)[1]
    assert said == "groups left out because they are too small to measure: 1"


def test_a_gap_of_one_group_is_inconclusive(held_out: HeldOut) -> None:
    one = HeldOut(held_out.outcome, held_out.scores, {"origin": pl.Series(["EWR"] * N)})
    assert judged(fb.roc_auc.gap(by="origin") <= 0.5, one) == (OPEN, "fewer than two groups can be compared")


def test_a_relative_gate_is_judged_on_pairs(held_out: HeldOut) -> None:
    """The metric alone is known to 0.02 at best; the pair settles a hundredth."""
    gate = fb.roc_auc >= fb.roc_auc.on(champion) - 0.005
    worse = noisier(held_out)
    (verdict,) = gates.judge_all([gate], held_out, champion=worse).verdicts
    assert verdict.outcome == PASS
    assert verdict.measurement is not None
    assert verdict.measurement.low > 0
    swapped = HeldOut(held_out.outcome, {"boosted": worse})
    (verdict,) = gates.judge_all([gate], swapped, champion=held_out.scores["boosted"]).verdicts
    assert verdict.outcome == FAIL
    assert judged(gate, held_out, champion=held_out.scores["boosted"])[0] == PASS


def test_the_first_version_has_nothing_to_fall_behind(held_out: HeldOut) -> None:
    gate = fb.roc_auc >= fb.roc_auc.on(champion) + 0.2
    assert judged(gate, held_out) == (PASS, "no champion yet")


def test_a_champion_that_cannot_be_asked_settles_nothing(held_out: HeldOut) -> None:
    gate = fb.roc_auc >= fb.roc_auc.on(champion) - 0.2
    assert judged(gate, held_out, champion="it reads other features") == (OPEN, "it reads other features")


def test_a_gap_can_be_held_against_the_champion(held_out: HeldOut) -> None:
    gap = fb.roc_auc.gap(by="origin")
    blind_nowhere = np.where(held_out.outcome, 0.6, 0.4) + np.random.default_rng(2).normal(0, 0.1, N)
    assert judged(gap <= gap.on(champion) + 0.02, held_out, champion=blind_nowhere.clip(0, 1))[0] == FAIL
    assert judged(gap <= gap.on(champion) + 0.02, held_out, champion=held_out.scores["boosted"])[0] == PASS


@pytest.mark.parametrize(("high", "outcome"), [(0.0015, PASS), (0.003, OPEN)])
def test_latency_is_measured_not_said(high: float, outcome: Outcome, held_out: HeldOut) -> None:
    timed = Measurement(estimate=0.001, low=0.0005, high=high, n=300)
    found = gates.judge_all([fb.model_latency <= ms(2)], held_out, latency=timed)
    (verdict,) = found.verdicts
    assert verdict.outcome == outcome
    assert verdict.measurement is None
    assert not any(ch.isdigit() for ch in verdict.reason)
    assert found.measured == {
        "model_latency.estimate": 0.001,
        "model_latency.low": 0.0005,
        "model_latency.high": high,
        "model_latency.n": 300,
    }


def test_latency_that_nobody_timed(held_out: HeldOut) -> None:
    assert judged(fb.model_latency <= ms(2), held_out) == (OPEN, "not measured")


def test_too_few_rows_hold_whatever_they_show() -> None:
    """Forty perfect answers: a bootstrap of them has no spread at all, and would pass anything."""
    y = np.arange(40) % 2 == 0
    few = HeldOut(y, {"boosted": y.astype(float)}, {"g": pl.Series([1] * 40)})
    assert judged(fb.roc_auc >= 0.65, few) == (OPEN, "40 rows, fewer than 50")
    assert judged(fb.roc_auc.gap(by="g") <= 0.65, few) == (OPEN, "40 rows, fewer than 50")


def test_what_is_undefined_is_inconclusive() -> None:
    flat = HeldOut(np.full(100, 3.0), {"boosted": np.linspace(0, 6, 100)})
    assert judged(fb.r2 >= 0.1, flat) == (OPEN, gates.UNDEFINED)


def test_decisions(held_out: HeldOut) -> None:
    ok, open_, no = fb.roc_auc >= 0.6, fb.roc_auc >= 0.68, fb.roc_auc >= 0.75
    for chosen, decision in (
        ([], "release"),
        ([ok], "release"),
        ([ok, open_], "held"),
        ([open_, no, ok], "rejected"),
    ):
        assert gates.judge_all(chosen, held_out).decision == decision


def test_same_rows_same_verdicts(held_out: HeldOut) -> None:
    promised = [fb.roc_auc >= 0.6, fb.brier <= fb.brier.on(champion), fb.roc_auc.gap(by="origin") <= 0.1]
    first = gates.judge_all(promised, held_out, champion=noisier(held_out))
    assert gates.judge_all(promised, held_out, champion=noisier(held_out)) == first
    alone = gates.judge_all(promised[:1], held_out)
    assert alone.verdicts[0] == first.verdicts[0]  # what else is promised changes nothing


def test_what_the_caller_got_wrong(held_out: HeldOut) -> None:
    assert gates.columns([fb.roc_auc >= 0.6, fb.roc_auc.gap(by="half") <= 1, fb.brier.gap(by="half") <= 1]) == ("half",)
    with pytest.raises(Bug) as missing:
        gates.judge_all([fb.roc_auc.gap(by="hour") <= 1], held_out)
    assert missing.value.code == "gap-without-slice"
    with pytest.raises(DataError):
        gates.judge_all([fb.roc_auc >= fb.roc_auc.on(champion)], held_out, champion=np.full(N, np.nan))


class Flight(fb.Contract):
    """One departure."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"))
    origin = dy.String()
    tailnum = fb.personal(dy.String(nullable=True))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))
    delay = fb.outcome(dy.Float64(nullable=True))


def asks(outcome: Any) -> Any:
    def build() -> object:
        return object()

    return fb.model(fb.features(Flight.origin), predicts=outcome, asked=fb.before(Flight.scheduled, hours(0)))(build)


LATE, DELAY = asks(Flight.late), asks(Flight.delay)


def test_gates_that_can_be_measured() -> None:
    gates.check(
        [
            fb.roc_auc >= 0.65,
            fb.average_precision >= fb.average_precision.on(champion) - 0.01,
            fb.roc_auc.gap(by=Flight.origin) <= 0.08,
            fb.model_latency <= ms(2),
        ],
        LATE,
    )
    gates.check([fb.r2 >= 0.1, fb.mean_absolute_error.gap(by=Flight.origin) <= 3], DELAY)


@pytest.mark.parametrize(
    ("gate", "model", "code"),
    [
        (fb.roc_auc.live(over=days(7)) >= 0.6, LATE, "gate-not-measurable"),
        (fb.error_rate <= 0.01, LATE, "gate-not-measurable"),
        (fb.p99_latency <= ms(20), LATE, "gate-not-measurable"),
        (Metric("psi", "lower", over=days(7), subject=("hour",)) <= 0.2, LATE, "gate-not-measurable"),
        (fb.r2 >= 0.1, LATE, "gate-not-measurable"),
        (fb.roc_auc >= 0.6, DELAY, "gate-not-measurable"),
        (fb.model_latency <= fb.model_latency.on(champion), LATE, "gate-not-measurable"),
        (fb.roc_auc >= fb.roc_auc.on(Whom("shadow")), LATE, "gate-not-measurable"),
        (fb.roc_auc.gap(by="carrier") <= 0.1, LATE, "gap-of-unknown-column"),
        (fb.roc_auc.gap(by=Flight.delay) <= 0.1, LATE, "gap-of-unknown-column"),
        (fb.roc_auc.gap(by=Flight.tailnum) <= 0.1, LATE, "gap-of-personal-column"),
    ],
)
def test_gates_that_nothing_held_out_could_show(gate: Condition, model: Any, code: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        gates.check([fb.model_latency <= ms(2), gate], model)
    assert refused.value.code == code
    assert refused.value.where is not None
    assert refused.value.where.file == __file__
    assert str(gate) in refused.value.what


# Decisions, classes, quantiles, and what is told


def test_a_champion_is_judged_by_what_it_decided(held_out: HeldOut) -> None:
    """Its threshold is its own: the same scores, decided otherwise, are another recall."""
    y, p = held_out.outcome.astype(bool), held_out.scores["boosted"]
    decided = {"boosted": p >= 0.3, "champion": p >= 0.5}
    both = replace(held_out, decided=decided)
    gate = metrics.recall >= metrics.recall.on(champion) + 0.1
    (verdict,) = gates.judge_all([gate], both, champion=p).verdicts
    expected = [float(decided[name][y].mean()) for name in ("boosted", "champion")]
    assert verdict.measurement is not None and verdict.outcome == PASS
    assert verdict.measurement.estimate == pytest.approx(expected[0] - expected[1])
    plain = gates.judge_all([gate], replace(held_out, decided={}), champion=p).verdicts[0]
    assert plain.measurement is not None and plain.measurement.estimate == 0 and plain.outcome == FAIL


@pytest.mark.parametrize("metric", [metrics.selection_rate, metrics.recall, metrics.false_positive_rate])
def test_gaps_of_decisions(metric: Metric, held_out: HeldOut) -> None:
    y, origin = held_out.outcome.astype(bool), held_out.slices["origin"].to_numpy()
    decided = (held_out.scores["boosted"] >= 0.3) | ((origin == "JFK") & (np.arange(N) % 4 == 0))
    rows = replace(held_out, decided={"boosted": decided})
    taking = {"selection_rate": y | True, "recall": y, "false_positive_rate": ~y}[metric.name]
    rates = [decided[taking & (origin == name)].mean() for name in ("EWR", "JFK", "LGA")]
    (verdict,) = gates.judge_all([metric.gap(by="origin") <= 0.02], rows).verdicts
    assert verdict.measurement is not None and verdict.measurement.estimate == pytest.approx(max(rates) - min(rates))
    assert verdict.outcome == FAIL
    relative = metric.gap(by="origin") <= metric.gap(by="origin").on(champion) + 0.01
    theirs = replace(rows, decided={"boosted": decided, "champion": decided})
    assert judged(relative, theirs, champion=held_out.scores["boosted"])[0] == PASS


def test_classes_and_quantiles_are_compared_with_the_champion() -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet([1.0, 1.0, 1.0], 900)
    y = np.array([rng.choice(3, p=row) for row in p], dtype=np.int64)
    classes = HeldOut(y, {"m": p}, task=Task(kind="multiclass", classes=("a", "b", "c")))
    flat = np.full_like(p, 1 / 3)
    for gate in (
        fb.log_loss <= fb.log_loss.on(champion) - 0.1,
        metrics.macro_f1 >= metrics.macro_f1.on(champion) + 0.1,
    ):
        assert judged(gate, classes, champion=flat)[0] == PASS
    assert judged(metrics.macro_roc_auc >= metrics.macro_roc_auc.on(champion), classes, champion=p)[0] == PASS
    numbers = rng.normal(size=900)
    wide, narrow = np.tile([-1.7, 0.0, 1.7], (900, 1)), np.tile([-0.2, 0.0, 0.2], (900, 1))
    bands = HeldOut(numbers, {"m": wide}, task=Task(kind="quantile", quantiles=(0.05, 0.5, 0.95)))
    assert judged(metrics.coverage >= 0.85, bands)[0] == PASS
    assert judged(metrics.coverage >= metrics.coverage.on(champion) + 0.5, bands, champion=narrow)[0] == PASS
    assert judged(metrics.pinball_loss <= metrics.pinball_loss.on(champion), bands, champion=narrow)[0] == PASS
    with pytest.raises(DeclarationError, match="gate-not-measurable"):
        gates.judge_all([metrics.f1 >= 0.1], bands)


def test_what_is_told_is_judged_and_what_is_not_is_open(held_out: HeldOut) -> None:
    size, word = metrics.model_bytes <= 1000, fb.approval(by="risk")
    small = Measurement(estimate=900, low=900, high=900, n=1)
    told = {
        str(size): (small, "bytes"),
        str(fb.approval(by="legal")): (Measurement(estimate=1, low=1, high=1, n=1), ""),
    }
    found = gates.judge_all([size, word, fb.approval(by="legal")], held_out, told=told)
    assert [v.outcome for v in found.verdicts] == [PASS, OPEN, PASS] and found.decision == "held"
    assert len({v.condition for v in found.verdicts}) == 3, "whose word it is belongs to the gate's name"


@pytest.mark.parametrize("name", ["champion", "baseline", "linear", "unmitigated"])
def test_no_model_has_the_name_of_what_it_is_compared_with(name: str) -> None:
    """Its scores were found by its name: one called `baseline` was judged by the constant."""
    with pytest.raises(DeclarationError, match="model-name-taken"):
        gates.check([fb.roc_auc >= 0.6], replace(LATE, name=name))
