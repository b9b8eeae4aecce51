"""An evaluation: every model on the same rows, slices that name what they leave out, curves of bounded size."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from flyball._kernel import facts
from flyball._kernel.errors import DataError
from flyball.learn.quality import curves, evaluate, metrics
from flyball.learn.quality.evaluate import Evaluation, HeldOut

N = 3000


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    rng = np.random.default_rng(0)
    p = rng.beta(2, 5, N)
    y = rng.random(N) < p
    origin = np.where(np.arange(N) < 30, "tiny", np.where(rng.random(N) < 0.5, "EWR", "JFK"))
    return HeldOut(
        outcome=y,
        scores={"boosted": p, "linear": np.clip(p + rng.normal(0, 0.2, N), 0, 1), "baseline": np.full(N, 0.3)},
        slices={
            "origin": pl.Series(origin),
            "distance": pl.Series(rng.integers(80, 5000, N)),
            "tail": pl.Series([f"N{k // 60}" for k in range(N)]),
            "gap": pl.Series([None if k % 2 else k % 4 == 0 for k in range(N)], dtype=pl.Boolean),
        },
    )


@pytest.fixture(scope="module")
def found(held_out: HeldOut) -> Evaluation:
    return evaluate.evaluate(held_out, metrics.CLASSIFICATION)


def test_models_are_compared_on_the_same_rows(found: Evaluation, held_out: HeldOut) -> None:
    assert [m.name for m in found.models] == ["boosted", "linear", "baseline"]
    main, linear, baseline = found.models
    assert main.measurements == found.measurements
    assert not main.differences
    auc = sk.roc_auc_score(held_out.outcome, held_out.scores["linear"])
    assert linear.measurements["roc_auc"].estimate == pytest.approx(auc)
    apart = linear.differences["roc_auc"]
    assert apart.estimate == pytest.approx(auc - main.measurements["roc_auc"].estimate)
    assert apart.high < 0
    alone = linear.measurements["roc_auc"]
    assert apart.high - apart.low < alone.high - alone.low  # pairing takes out what both share
    assert baseline.measurements["roc_auc"].estimate == 0.5


def test_groups_in_reading_order_and_nothing_silently_left_out(found: Evaluation) -> None:
    groups = [(g.slice, g.group) for g in found.slices]
    assert [g for s, g in groups if s == "origin"] == ["EWR", "JFK"]
    distance = [g for s, g in groups if s == "distance"]
    assert len(distance) == 5
    assert distance[0].startswith("≤")
    assert distance[-1].startswith(">")
    assert [g for s, g in groups if s == "gap"] == ["False", "True", evaluate.NONE]
    left = {(x.slice, x.group): x for x in found.left_out}
    assert left["origin", "tiny"].why == "30 rows, fewer than 50"
    rest = left["tail", "26 more groups"]
    assert rest.n == 26 * 60
    for name in ("origin", "distance", "tail", "gap"):
        assert (
            sum(g.n for g in found.slices if g.slice == name)
            + sum(x.n for x in found.left_out if x.slice == name and not x.metric)
            == N
        )


def test_a_group_is_measured_on_its_rows_alone(found: Evaluation, held_out: HeldOut) -> None:
    rows = (held_out.slices["origin"] == "JFK").to_numpy()
    group = next(g for g in found.slices if g.group == "JFK")
    assert group.n == rows.sum()
    assert group.measurements["log_loss"].estimate == pytest.approx(
        sk.log_loss(held_out.outcome[rows], held_out.scores["boosted"][rows])
    )


def test_curves_lie_on_scikit_learns_and_are_short(found: Evaluation, held_out: HeldOut) -> None:
    y, s = held_out.outcome, held_out.scores["boosted"]
    false, true, _ = sk.roc_curve(y, s, drop_intermediate=False)
    theirs = {(round(a, 6), round(b, 6)) for a, b in zip(false, true, strict=True)}
    assert len(found.roc) <= curves.POINTS
    assert set(found.roc) <= theirs
    assert (found.roc[0], found.roc[-1]) == ((0, 0), (1, 1))
    precision, recall, _ = sk.precision_recall_curve(y, s)
    theirs = {(round(a, 6), round(b, 6)) for a, b in zip(recall, precision, strict=True)}
    assert len(found.precision_recall) <= curves.POINTS
    assert set(found.precision_recall) <= theirs
    assert found.precision_recall[-1][0] == 1
    assert found.precision_recall[-1][1] >= found.base_rate


def test_calibration_bins_are_those_of_the_metric(found: Evaluation) -> None:
    assert sum(b.n for b in found.calibration) == N
    assert [b.score for b in found.calibration] == sorted(b.score for b in found.calibration)
    off = sum(b.n * abs(b.outcome - b.score) for b in found.calibration) / N
    assert off == pytest.approx(found.measurements["calibration_error"].estimate)
    assert all(0 <= b.low <= b.outcome <= b.high <= 1 for b in found.calibration)


def test_the_histogram_counts_every_row_once(found: Evaluation) -> None:
    assert sum(map(sum, found.histogram.counts.values())) == N
    assert len(found.histogram.edges) == curves.BARS + 1


def test_it_is_stored_and_read_back_and_repeats(found: Evaluation, held_out: HeldOut) -> None:
    stored = facts.encode(found)
    assert msgspec.json.decode(stored, type=Evaluation) == found
    again = evaluate.evaluate(held_out, metrics.CLASSIFICATION)
    assert facts.encode(again) == stored
    assert len(stored) < 100_000


def test_a_regressor() -> None:
    rng = np.random.default_rng(1)
    s = rng.gamma(2, 10, 500)
    held = HeldOut(s + rng.normal(0, 5, 500), {"boosted": s, "baseline": np.full(500, 20.0)})
    found = evaluate.evaluate(held, metrics.REGRESSION)
    assert list(found.measurements) == ["mean_absolute_error", "root_mean_squared_error", "r2"]
    assert found.roc == found.precision_recall == ()
    assert sum(found.histogram.counts["error"]) == 500
    assert found.models[1].differences["mean_absolute_error"].low > 0


def test_too_few_rows_are_said_not_measured(held_out: HeldOut) -> None:
    few = HeldOut(held_out.outcome[:20], {"boosted": held_out.scores["boosted"][:20]})
    found = evaluate.evaluate(few, metrics.CLASSIFICATION)
    assert not found.measurements
    assert not found.models
    assert found.left_out[0].why == "20 rows, fewer than 50"
    assert msgspec.json.decode(facts.encode(found), type=Evaluation) == found


def test_a_group_within_few_blocks_is_left_out(held_out: HeldOut) -> None:
    days = np.arange(N) // 100
    one_day = HeldOut(
        held_out.outcome, held_out.scores, {"wave": pl.Series(["first" if d < 3 else "later" for d in days])}, days
    )
    found = evaluate.evaluate(one_day, metrics.CLASSIFICATION)
    assert found.units == 30
    assert [(x.group, x.why) for x in found.left_out] == [("first", "rows of 3 blocks, fewer than 5")]


def test_no_rows_at_all() -> None:
    with pytest.raises(DataError) as none:
        HeldOut(np.zeros(0, dtype=bool), {"boosted": np.zeros(0)})
    assert none.value.code == "nothing-held-out"


def test_long_and_odd_groups() -> None:
    rng = np.random.default_rng(2)
    y, s = rng.random(300) < 0.5, rng.random(300)
    held = HeldOut(
        y,
        {"m": s},
        {
            "long": pl.Series(["x" * 5000] * 300),
            "close": pl.Series(1e7 + rng.random(300) * 1e-3),
            "nan": pl.Series(np.where(np.arange(300) < 100, np.nan, rng.random(300))),
        },
    )
    found = evaluate.evaluate(held, metrics.CLASSIFICATION)
    assert max(len(g.group) for g in found.slices) < 100
    assert next(g.n for g in found.slices if g.slice == "nan" and g.group == evaluate.NONE) == 100


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_errors_of_any_size_have_a_histogram(scale: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0, scale, 200)
    edges = curves.histogram(y, np.zeros(200)).edges
    assert len(set(edges)) == curves.BARS + 1 and edges[-1] == pytest.approx(np.quantile(np.abs(y), 0.995))
