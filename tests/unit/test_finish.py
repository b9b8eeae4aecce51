"""What follows a score: calibration that keeps the order and is one for a row and for many; thresholds by brute force."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.errors import StateError
from flyball.learn import finish
from flyball.learn.finish import Finish, Knots, Sigmoid
from flyball.learn.fit import finishing
from flyball.learn.task import BINARY, Task
from flyball.learn.treatment import Best, Costs, Treatment

FEW = settings(max_examples=60, deadline=None)
EDGES = [0.0, 5e-324, 1e-300, 1e-16, 0.5, 1 - 1e-16, 1.0]
scores = st.lists(st.floats(0, 1) | st.sampled_from(EDGES), min_size=2, max_size=30)


class Echo:
    """A predictor whose score is its only feature, as a Python float of any precision."""

    name: Any = "sklearn"
    features = 1

    def __init__(self, told: np.ndarray) -> None:
        self.told = told

    def row(self, values: np.ndarray) -> Any:
        """One score, by its place."""
        found = self.told[int(values[0])]
        return float(found) if found.ndim == 0 else tuple(found.tolist())

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        """All of them."""
        return self.told[matrix[:, 0].astype(int)]


def alike(told: np.ndarray, ending: Finish) -> np.ndarray:
    """The answers, after one row and many were found to be the same bits."""
    predictor = finish.finished(Echo(told), ending)
    matrix = np.arange(len(told), dtype=np.float32)[:, None]
    batch = predictor.batch(matrix)
    assert np.array([predictor.row(row) for row in matrix]).tobytes() == batch.tobytes()
    return batch


@FEW
@given(scores, st.floats(0, 40), st.floats(-50, 50))
def test_a_sigmoid_is_one_for_a_row_and_for_many_and_never_falls(seen: list[float], slope: float, shift: float) -> None:
    found = alike(np.sort(seen), Finish(calibration=Sigmoid(slope=slope, shift=shift)))
    assert ((found >= 0) & (found <= 1)).all() and (np.diff(found) >= -1e-15).all()


@FEW
@given(scores, scores, st.lists(st.booleans(), min_size=30, max_size=30))
def test_isotonic_is_one_for_a_row_and_for_many_and_never_falls(
    learned: list[float], seen: list[float], truth: list[bool]
) -> None:
    outcome = np.array(truth[: len(learned)])
    found = finishing.calibration(Treatment(calibrate="isotonic"), outcome, np.array(learned))
    if found is None:
        assert outcome.all() or not outcome.any()
        return
    answers = alike(np.sort([*seen, *learned]), Finish(calibration=found))
    assert ((answers >= 0) & (answers <= 1)).all() and (np.diff(answers) >= 0).all()


def truth(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and scores that say too much."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, n)
    return rng.random(n) < p, 1 / (1 + np.exp(-2 * np.log(p / (1 - p)) - 1))


def test_isotonic_is_scikit_learns() -> None:
    y, s = truth()
    found = finishing.calibration(Treatment(calibrate="isotonic"), y, s)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(s, y)
    at = np.linspace(-0.1, 1.1, 400)
    np.testing.assert_allclose(Finish(calibration=found).answers(at), theirs.predict(at), atol=1e-12)


def test_a_sigmoid_undoes_the_stretch_and_the_shift() -> None:
    y, s = truth(20_000)
    found = finishing.platt(y, s)
    assert found.slope == pytest.approx(0.5, abs=0.03) and found.shift == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("calibrate", ["sigmoid", "isotonic"])
def test_what_tells_all_apart_or_nothing_leads_nowhere_wild(calibrate: Any) -> None:
    y = np.arange(100) % 2 == 0
    for s, separates in ((y.astype(float), True), (np.full(100, 0.3), False), (1 - y.astype(float), False)):
        found = finishing.calibration(Treatment(calibrate=calibrate), y, s)
        answers = Finish(calibration=found).answers(s)
        if separates:
            assert answers[y].min() > 0.95 and answers[~y].max() < 0.05
        else:  # an order that is wrong is not turned round: all are told the share
            np.testing.assert_allclose(answers, 0.5, atol=1e-9)


@pytest.mark.parametrize("calibration", [Sigmoid(slope=1.0, shift=0.0), Knots(x=(0.0, 1.0), y=(0.0, 1.0))])
def test_what_is_no_number_stays_none(calibration: Any) -> None:
    """A level line beyond the last knot would make a broken score the surest answer."""
    assert np.isnan(Finish(calibration=calibration).answers(np.array([np.nan]))).all()


def test_knots_never_lead_past_their_end() -> None:
    knots = Knots(x=(0.0, 1.0), y=(0.1, 0.7))
    assert knots.one(np.nextafter(1.0, 0)) <= 0.7 == knots.one(1.0)


def test_an_anomaly_is_told_by_the_share_that_was_more_usual() -> None:
    known = np.random.default_rng(0).normal(size=1000)
    answers = Finish(calibration=finishing.usual(known)).answers(np.array([-9.0, np.median(known), 9.0]))
    assert answers == pytest.approx([0, 0.5, 1], abs=2e-3)
    tied = Finish(calibration=finishing.usual(np.repeat([1.0, 2.0], 50))).answers(np.array([1.0, 2.0, 3.0]))
    assert tied.tolist() == [0.5, 1.0, 1.0]


def test_quantiles_are_put_into_order_alike() -> None:
    found = alike(np.array([[0.0, -0.0, -1.0], [2.0, 1.0, 3.0]]), Finish(ascending=True))
    assert found.tolist() == [[-1.0, 0.0, -0.0], [1.0, 2.0, 3.0]]
    assert finishing.learn(Treatment(), Task(kind="quantile", quantiles=(0.1, 0.9)), *truth()) == Finish(ascending=True)


# Thresholds

PEERS = {
    "f1": lambda y, d: sk.f1_score(y, d, zero_division=0.0),
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "matthews": sk.matthews_corrcoef,
}


@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize("base", [0.05, 0.5])
def test_no_threshold_is_better(name: str, base: float) -> None:
    rng = np.random.default_rng(3)
    y = rng.random(150) < base
    s = np.round(np.clip(rng.normal(0.3 + 0.2 * y, 0.2), 0, 1), 2)
    best = max(PEERS[name](y, s >= t) for t in np.linspace(-0.005, 1.005, 102))
    found = finishing.learn(Treatment(decide=Best(getattr(fb.metrics, name))), BINARY, y, s)
    assert PEERS[name](y, found.decided(s)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("costs", [Costs(1, 1), Costs(1, 20), Costs(500, 1)])
def test_no_threshold_costs_less_and_deciding_nothing_is_one(costs: Costs) -> None:
    y, s = truth(200)
    s[0], y[0] = 0.999, False  # the surest answer is wrong

    def cost(d: np.ndarray) -> float:
        return float((costs.false_positive * (d & ~y) + costs.false_negative * (y & ~d)).mean())

    found = finishing.learn(Treatment(decide=costs), BINARY, y, s)
    least = min(cost(s >= t) for t in [*s, 2.0])
    assert cost(found.decided(s)) == pytest.approx(least)
    assert found.decided(s).any() == (costs.false_positive < 500)


@pytest.mark.parametrize("rate", ["selection_rate", "recall", "false_positive_rate"])
def test_thresholds_of_groups_equalise_their_rate(rate: str) -> None:
    rng = np.random.default_rng(5)
    groups = rng.choice(["a", "b", "few"], 3000, p=[0.6, 0.39, 0.01]).astype(object)
    p = np.clip(rng.beta(2, 3, 3000) + np.where(groups == "b", 0.2, 0.0), 0, 1)
    y = rng.random(3000) < p
    found = finishing.of_groups(rate, Finish(threshold=0.4), "g", (y, p, groups))
    assert set(found.thresholds) == {"a", "b"}, "a group that is too small to be measured keeps the common one"
    taking = {"selection_rate": y | True, "recall": y, "false_positive_rate": ~y}[rate]
    wanted = (p[taking] >= 0.4).mean()
    decided = found.decided(p, groups)
    for name in ("a", "b"):
        assert decided[taking & (groups == name)].mean() == pytest.approx(wanted, abs=0.002)
    assert (decided[groups == "few"] == (p[groups == "few"] >= 0.4)).all()
    each = [found.decides(float(v), {"g": g}) for v, g in zip(p[:300], groups[:300], strict=True)]
    assert each == decided[:300].tolist()
    assert found.decides(0.4, {}) and found.decides(0.4, {"g": "new"}) and not found.decides(0.39, {"g": None})


def test_ties_are_cut_on_the_nearer_side() -> None:
    y = np.tile([True, False], 100)
    groups = np.repeat(["a", "b"], 100).astype(object)
    p = np.r_[np.linspace(0, 1, 100), np.where(np.arange(100) < 10, 0.9, 0.2)]  # b: a tenth high, the rest tied
    found = finishing.of_groups("selection_rate", Finish(threshold=0.75), "g", (y, p, groups))
    assert found.decided(p, groups)[100:].mean() == pytest.approx(0.1)


def test_groups_of_a_model_without_a_threshold_decide_above_one_half() -> None:
    y, s = np.tile([True, False], 100), np.full(200, 0.5)
    found = finishing.of_groups("recall", Finish(), "g", (y, s, np.full(200, "a", dtype=object)))
    assert not found.decides(0.5, {"g": "other"}) and found.decides(0.51, {"g": "other"})
    assert not found.decided(s, np.full(200, "a", dtype=object)).any()


# Stored

FULL = Finish(
    calibration=Knots(x=(0.0, 1.0), y=(0.25, 0.75)), threshold=0.4, by="g", thresholds={"a": 0.3}, ascending=False
)


@pytest.mark.parametrize("each", [FULL, Finish(), Finish(calibration=Sigmoid(slope=1.5, shift=-2.0), threshold=0.1)])
def test_it_is_read_as_it_was_written(each: Finish) -> None:
    assert finish.from_bytes(facts.encode(each)) == each
    assert finish.from_bytes(b"{}") == finish.NOTHING


@FEW
@given(st.integers(0, len(facts.encode(FULL)) - 1), st.integers(0, 255))
def test_damage_is_refused_or_read_and_never_raises_otherwise(at: int, byte: int) -> None:
    data = bytearray(facts.encode(FULL))
    data[at] = byte
    for damaged in (bytes(data), bytes(data[:at])):
        with contextlib.suppress(StateError):  # and nothing else
            assert isinstance(finish.from_bytes(damaged), Finish)


def test_what_is_no_finish_is_refused_by_name() -> None:
    for damaged in (b"", b"\xff", b"[]", b'{"threshold": "high"}', b'{"calibration": {"type": "magic"}}'):
        with pytest.raises(StateError, match="finish-damaged"):
            finish.from_bytes(damaged)


def test_a_finish_is_small() -> None:
    y, s = truth(20_000)
    found = finishing.learn(Treatment(calibrate="isotonic", decide=Best(fb.metrics.f1)), BINARY, y, s)
    assert len(msgspec.json.encode(found)) < 50_000
