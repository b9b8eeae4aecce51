"""Explanation: contributions account for every score, exact ones are Shapley's own, and nothing told is anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flyball._kernel import facts
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement
from flyball._kernel.errors import StateError
from flyball.learn import task
from flyball.learn.encoding import encode
from flyball.learn.explain import dependence, explanation, neighbours, pictures, shap
from flyball.learn.explain.explanation import Explanation, Subject
from flyball.learn.export import native, pack, predictor, several
from flyball.learn.quality.evaluate import Compared
from flyball.learn.quality.worth import Rows
from flyball.learn.task import Task

N = 400
RNG = np.random.default_rng(3)
FRAME = pl.DataFrame(
    {
        "a": RNG.normal(size=N),
        "b": [None if x < 0.1 else x for x in RNG.random(N)],
        "kind": RNG.choice(["one", "two", "three"], N),
        "w_1": RNG.normal(size=N),
        "w_2": RNG.normal(size=N),
    }
)
KINDS = [("a", "number"), ("b", "number"), ("kind", "category"), ("w_1", "number"), ("w_2", "number")]
FEATURES = {"a": ("a",), "b": ("b",), "kind": ("kind",), "w": ("w_1", "w_2")}
ENCODER = encode.fit(FRAME, KINDS)  # type: ignore[arg-type]
X = ENCODER.encode(FRAME)
CLEAN = np.nan_to_num(X)
SIGNAL = CLEAN[:, 0] * 2 + (CLEAN[:, 2] == 1) + CLEAN[:, 3] * CLEAN[:, 4] + RNG.normal(size=N)
THREE = Task(kind="multiclass", classes=("low", "mid", "high"))
TRAIN = 300


def subject(estimator: Any, of: Task, labels: np.ndarray, train: np.ndarray = X[:TRAIN]) -> Subject:
    fitted = estimator.fit(X[:TRAIN], labels[:TRAIN])
    packed = pack.pack(fitted, X[TRAIN:], of)
    answers = predictor.load(packed.kinds[0], packed.artifacts)
    return Subject("m", of, ENCODER, FEATURES, answers, packed.artifacts, train)


@pytest.fixture(scope="module")
def boosted() -> Subject:
    return subject(LGBMClassifier(n_estimators=8, num_leaves=6, verbose=-1, n_jobs=1), task.BINARY, SIGNAL > 0.5)


def placed(version: Subject, rows: np.ndarray) -> tuple[shap.Explainer, shap.Contributions]:
    made = version.explainer()
    found = made.one(rows)
    shap.hold(found, made, shap.picked(version.scores.batch(rows), version.task))
    return made, found


def test_boosted_trees_are_exact_and_in_log_odds(boosted: Subject) -> None:
    made, found = placed(boosted, X[TRAIN:])
    assert (made.method, made.unit, found.error) == ("tree", shap.LOG_ODDS, None)
    answers = boosted.predictor.batch(X[TRAIN:])
    odds = np.log(answers / (1 - answers))
    assert np.allclose(found.base[:, 0] + found.values[:, 0].sum(axis=1), odds, atol=1e-9)
    assert found.values.shape == (N - TRAIN, 1, len(FEATURES)), "columns of one feature go together"


def test_classes_are_explained_one_by_one() -> None:
    labels = np.digitize(SIGNAL, [-1.0, 1.0])
    version = subject(LGBMClassifier(n_estimators=4, num_leaves=5, verbose=-1, n_jobs=1), THREE, labels)
    made, found = placed(version, X[TRAIN:])
    assert (made.method, made.unit, found.values.shape[1]) == ("tree", shap.LOG_SHARE, 3)


def test_a_positive_answer_of_trees_is_explained_by_its_logarithm() -> None:
    counts = np.round(np.exp(np.clip(SIGNAL, -2, 2)))
    estimator = LGBMRegressor(objective="poisson", n_estimators=4, num_leaves=5, verbose=-1, n_jobs=1)
    assert placed(subject(estimator, task.REGRESSION, counts), X[TRAIN:])[0].unit == shap.LOG


def test_of_quantiles_the_middle_one_is_explained() -> None:
    of = Task(kind="quantile", quantiles=(0.1, 0.5, 0.9))
    parts = [
        pack.pack(
            LGBMRegressor(objective="quantile", alpha=q, n_estimators=4, num_leaves=5, verbose=-1, n_jobs=1).fit(
                X[:TRAIN], SIGNAL[:TRAIN]
            ),
            X[TRAIN:],
            task.REGRESSION,
        ).artifacts["model.txt"]
        for q in of.quantiles
    ]
    joined = {"model.txt": several.join(parts, (0, 1, 2), 3)}
    version = Subject("m", of, ENCODER, FEATURES, predictor.load("lightgbm", joined), joined, X[:TRAIN])
    made, found = placed(version, X[TRAIN:])
    assert (made.method, made.unit) == ("tree", shap.ITSELF)
    assert np.allclose(found.score[:, 0], version.predictor.batch(X[TRAIN:])[:, 1])


def test_a_linear_model_is_coefficients_times_what_differs_from_the_mean() -> None:
    clean = Subject("m", task.BINARY, ENCODER, FEATURES, *_linear(), CLEAN[:TRAIN])
    made, found = placed(clean, CLEAN[TRAIN:])
    assert (made.method, made.unit, found.error) == ("additive", shap.LOG_ODDS, None)
    scaler, last = LINEAR.steps[0][1], LINEAR.steps[1][1]
    background = shap.thinned(CLEAN[:TRAIN], shap.BACKGROUND)
    each = last.coef_[0] * (scaler.transform(CLEAN[TRAIN:]) - scaler.transform(background).mean(axis=0))
    wanted = np.column_stack([each[:, 0], each[:, 1], each[:, 2], each[:, 3] + each[:, 4]])
    assert np.allclose(found.values[:, 0], wanted, atol=1e-5)


LINEAR = make_pipeline(StandardScaler(), LogisticRegression())


def _linear() -> tuple[Any, Mapping[str, bytes]]:
    data = {"model.skops": native.dump(LINEAR.fit(CLEAN[:TRAIN], SIGNAL[:TRAIN] > 0.5))}
    return predictor.load("sklearn", data), data


def test_sampling_sums_exactly_and_knows_how_far_it_is_off() -> None:
    """Against every order of the features and every background row, written out."""

    def batch(matrix: np.ndarray) -> np.ndarray:
        clean = np.nan_to_num(matrix.astype(np.float64))
        return clean[:, 0] * clean[:, 1] * (clean[:, 3] > 0) + np.maximum(clean[:, 2] * clean[:, 0], clean[:, 4])

    model = SimpleNamespace(name="onnx", features=5, row=lambda r: float(batch(r[None])[0]), batch=batch)
    version = Subject("m", task.REGRESSION, ENCODER, FEATURES, model, {}, X[:TRAIN])
    made, found = placed(version, X[TRAIN : TRAIN + 12])
    assert made.method == "sampled" and found.error is not None
    wanted = [_written_out(batch, row, X[:TRAIN], list(version.places.values())) for row in X[TRAIN : TRAIN + 12]]
    off, sure = np.abs(found.values[:, 0] - np.array(wanted)), found.error[:, 0]
    assert np.mean(off <= 2 * sure) > 0.9
    assert off.max() > sure.mean() / 2, "and it does not say that it is less sure than it is"
    again = version.explainer().one(X[TRAIN : TRAIN + 12])
    assert np.array_equal(again.values, found.values), "one seed, one answer"


def _written_out(batch: Any, row: np.ndarray, background: np.ndarray, places: list[list[int]]) -> np.ndarray:
    total, orders = np.zeros(len(places)), list(permutations(range(len(places))))
    for order in orders:
        rows = background.copy()
        before = batch(rows).mean()
        for k in order:
            rows[:, places[k]] = row[places[k]]
            after = batch(rows).mean()
            total[k] += after - before
            before = after
    return total / len(orders)


def test_a_forest_is_sampled_and_without_training_rows_it_is_said_that_it_cannot_be() -> None:
    forest = RandomForestRegressor(n_estimators=5, max_depth=4, random_state=0)
    clean = SIGNAL.astype(np.float64)
    version = subject(forest, task.REGRESSION, clean)
    assert placed(version, X[TRAIN : TRAIN + 5])[0].method == "sampled"
    gone = Subject("m", version.task, ENCODER, FEATURES, version.predictor, version.artifacts, X[:0])
    with pytest.raises(StateError, match="explain-no-background"):
        gone.explainer()


def test_boosted_trees_need_no_training_rows(boosted: Subject) -> None:
    gone = Subject("m", boosted.task, ENCODER, FEATURES, boosted.predictor, boosted.artifacts, X[:0])
    assert np.array_equal(placed(gone, X[TRAIN:])[1].values, placed(boosted, X[TRAIN:])[1].values)


# --- dependence


def test_no_point_of_a_grid_is_one_row_s() -> None:
    for column in ("a", "b", "kind"):
        at = dependence.grid(ENCODER, column, X)
        assert at is not None and min(at.counts) >= dependence.SHARED and sum(at.counts) <= N
    numbers = dependence.grid(ENCODER, "a", X)
    assert numbers is not None
    assert not set(np.float32(numbers.points)) & set(X[:, 0]), "means of many rows, not the values of some"
    few = dependence.grid(ENCODER, "a", X[: 2 * dependence.SHARED - 1])
    assert few is None
    missing = dependence.grid(ENCODER, "b", X)
    assert missing is not None and missing.points[-1] == dependence.NONE


def test_partial_dependence_is_the_mean_of_what_each_row_would_be_answered() -> None:
    at = dependence.grid(ENCODER, "a", X)
    assert at is not None
    rows = CLEAN[:50]
    (found,) = dependence.dependence(lambda m: m[:, 0] * 2.0 + m[:, 3], rows, [("a", "a", at)], ("",))
    line = np.array(at.points, dtype=np.float64) * 2
    assert np.allclose(found.curves[0].mean, line + rows[:, 3].mean(), atol=1e-4)
    assert np.allclose(found.curves[0].low, line + np.quantile(rows[:, 3], 0.1), atol=1e-4)


# --- neighbours


def test_a_row_is_nearest_to_itself_and_what_the_model_ignores_does_not_count() -> None:
    places = {name: list(columns) for name, columns in zip(FEATURES, ([0], [1], [2], [3, 4]), strict=True)}
    plain = neighbours.scale(ENCODER, X, places, {})
    found = neighbours.nearest(X[17], [X[:100], X[100:]], plain, 3)
    assert found[0] == (17, 0.0) and 0 < found[1][1] <= found[2][1] <= 1
    only = neighbours.scale(ENCODER, X, places, {"kind": 2.0})
    same = {place for place, far in neighbours.nearest(X[17], [X], only, N) if far == 0}
    assert same == set(np.flatnonzero(X[:, 2] == X[17, 2]).tolist())
    lost = neighbours.distance(X[17], np.where(np.arange(5) == 1, np.nan, X[17])[None].astype(np.float32), plain)
    assert lost[0] == pytest.approx(1 / 4), "a missing value differs from any other"


# --- the whole


def _compared(low: float, middle: float, high: float) -> list[Compared]:
    def of(name: str, apart: dict[str, Measurement]) -> Compared:
        return Compared(name=name, measurements={}, differences=apart)

    return [of("m", {}), of("linear", {"roc_auc": Measurement(estimate=middle, low=low, high=high, n=100)})]


@pytest.fixture(scope="module")
def whole(boosted: Subject) -> Explanation:
    held_out = Rows(X[TRAIN:], SIGNAL[TRAIN:] > 0.5)
    return explanation.explain_version(boosted, held_out, named.roc_auc, _compared(-0.016, -0.012, -0.008))


def test_what_decides_is_told_first_with_its_worth_and_its_sign(whole: Explanation) -> None:
    first = whole.features[0]
    assert first.name == "a" and first.tells == "worth"
    assert first.shares[0].follows is not None and first.shares[0].follows > 0.9
    assert first.shares[0].size.low <= first.shares[0].size.estimate <= first.shares[0].size.high
    assert whole.dependence[0].column == "a"
    assert whole.dependence[0].curves[0].mean[-1] > whole.dependence[0].curves[0].mean[0]


def test_what_simplicity_costs_is_said_by_name(whole: Explanation) -> None:
    assert explanation.costs(whole) == [
        "m answers with boosted trees (LightGBM); the linear model is 0.012 (0.008 to 0.016) worse in roc_auc"
    ]
    (better,) = explanation.rivals(_compared(0.01, 0.02, 0.03), named.roc_auc)
    (same,) = explanation.rivals(_compared(-0.01, 0.002, 0.03), named.roc_auc)
    assert (better.tells, same.tells) == ("better", "the same")


def test_it_is_stored_as_a_small_value_that_holds_no_row(whole: Explanation) -> None:
    data = facts.encode(whole)
    assert explanation.from_bytes(data) == whole and len(data) < 20_000
    values = {f"{v:.6g}" for v in X[:, [0, 1, 3, 4]].ravel().tolist()}
    told = {f"{point:.6g}" for d in whole.dependence for point in d.points if isinstance(point, float)}
    assert not told & values
    with pytest.raises(StateError, match="explanation-unreadable"):
        explanation.from_bytes(data[:-1])


def test_a_page_shows_it(whole: Explanation) -> None:
    shown = pictures.html(whole, "m-1")
    assert shown.count("<svg") == 3 + len(whole.dependence) and "the linear model is 0.012" in shown
