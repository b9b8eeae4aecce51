"""Every task's answers, trained and served: several numbers a row, classes that training never saw, quantiles, strangeness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier, XGBRegressor

from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball.learn.encoding import encode
from flyball.learn.export import boosted, lightgbm_c, pack, predictor, several, xgboost_json
from flyball.learn.export.several import Several
from flyball.learn.fit import train
from flyball.learn.fit.rivals import baseline, linear
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(240, 3)).astype(np.float32)
MATRIX[RANDOM.random(MATRIX.shape) < 0.05] = np.nan
CLEAN = np.nan_to_num(MATRIX)
CLASSES = Task(kind="multiclass", classes=("a", "b", "c"))
QUANTILES = Task(kind="quantile", quantiles=(0.1, 0.5, 0.9))
LABELS = (CLEAN[:, 0] > 0).astype(np.int64) + (CLEAN[:, 1] > 0)
NUMBERS = CLEAN[:, 0] * 3 + RANDOM.normal(size=len(CLEAN))
OUTCOMES: dict[str, np.ndarray] = {
    "binary": LABELS > 0,
    "multiclass": LABELS,
    "regression": NUMBERS,
    "quantile": NUMBERS,
    "anomaly": LABELS > 1,
}
ENCODER = encode.fit(pl.DataFrame(CLEAN, schema=["p", "q", "r"]), [(name, "number") for name in "pqr"])


def quantiles(estimator: Any) -> Several:
    parts = tuple(
        type(estimator)(**{**estimator.get_params(), **train._quantile(estimator, q)}) for q in QUANTILES.quantiles
    )
    return Several(parts, (0, 1, 2), 3)


def candidates() -> Iterator[tuple[Task, Any]]:
    small: dict[str, Any] = {"n_estimators": 4, "n_jobs": 1}
    quiet: dict[str, Any] = {**small, "verbose": -1, "min_child_samples": 5}
    for task in (BINARY, CLASSES):
        yield task, LGBMClassifier(**quiet)
        yield task, XGBClassifier(**small)
        yield task, RandomForestClassifier(3, max_depth=3, random_state=0)
    yield REGRESSION, LGBMRegressor(**quiet)
    yield REGRESSION, LGBMRegressor(**quiet, objective="tweedie")
    yield REGRESSION, XGBRegressor(**small, objective="reg:pseudohubererror")
    yield QUANTILES, quantiles(LGBMRegressor(**quiet))
    yield QUANTILES, quantiles(XGBRegressor(**small))
    yield ANOMALY, IsolationForest(n_estimators=4, random_state=0)
    for task in (BINARY, CLASSES, REGRESSION, QUANTILES):
        yield task, linear(ENCODER, task)
    for task in (BINARY, CLASSES, REGRESSION, QUANTILES, ANOMALY):
        yield task, baseline(task)


@pytest.mark.parametrize(("task", "estimator"), list(candidates()), ids=lambda v: getattr(v, "kind", type(v).__name__))
def test_one_row_and_many_answer_as_the_estimator_does(task: Task, estimator: Any) -> None:
    outcome = np.abs(OUTCOMES[task.kind]) if "tweedie" in str(estimator) else OUTCOMES[task.kind]
    fitted = train.fit(estimator, MATRIX, outcome, task)
    expected = pack.answers(fitted, MATRIX, task)
    assert expected.shape == ((240,) if task.width == 1 else (240, task.width))
    if task.classes:
        np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    packed = pack.pack(fitted, MATRIX, task)
    assert packed == pack.pack(fitted, MATRIX, task)
    assert packed.offers[0].shipped
    for kind in packed.kinds:
        loaded = predictor.load(kind, packed.artifacts)
        assert (loaded.name, loaded.features) == (kind, 3)
        found = loaded.batch(MATRIX)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        exact = next(o.parity.exact for o in packed.offers if o.kind == kind and o.parity)
        assert exact == (found.tobytes() == expected.tobytes()) or kind == "onnx"
        one = loaded.row(MATRIX[0])
        assert isinstance(one, float if task.width == 1 else tuple)
        np.testing.assert_allclose(one, found[0], rtol=1e-9 if kind in ("lightgbm", "xgboost") else 1e-6)
        assert loaded.batch(MATRIX[:0]).shape == expected[:0].shape


def test_a_line_moved_by_its_residuals_covers_what_it_says() -> None:
    fitted = train.fit(linear(ENCODER, QUANTILES), MATRIX, NUMBERS, QUANTILES)
    answers = pack.answers(fitted, MATRIX, QUANTILES)
    np.testing.assert_allclose((NUMBERS[:, np.newaxis] <= answers).mean(axis=0), QUANTILES.quantiles, atol=0.01)


@pytest.mark.parametrize("seen", [(0, 2), (1, 3), (0, 2, 3)])
@pytest.mark.parametrize(
    "estimator",
    [LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1), XGBClassifier(n_estimators=3), LogisticRegression()],
    ids=lambda e: type(e).__name__,
)
def test_a_class_that_training_never_saw_is_answered_with_nothing(estimator: Any, seen: tuple[int, ...]) -> None:
    task = Task(kind="multiclass", classes=("a", "b", "c", "d"))
    labels = np.array(seen)[np.minimum(LABELS, len(seen) - 1)]
    fitted = train.fit(estimator, CLEAN, labels, task)
    answers = pack.answers(fitted, CLEAN, task)
    unseen = [i for i in range(4) if i not in seen]
    assert not answers[:, unseen].any()
    assert (answers[:, list(seen)] > 0).all()
    assert (np.argmax(answers, axis=1) == labels).mean() > 0.6
    packed = pack.pack(fitted, CLEAN, task)
    loaded = predictor.load(packed.kinds[0], packed.artifacts)
    assert loaded.batch(CLEAN).tobytes() == answers.tobytes()
    np.testing.assert_allclose(loaded.row(CLEAN[0]), answers[0], rtol=1e-12)


def test_two_classes_by_name_are_two_numbers() -> None:
    task = Task(kind="multiclass", classes=("ham", "spam"))
    fitted = train.fit(LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1), MATRIX, LABELS % 2, task)
    answers = pack.answers(fitted, MATRIX, task)
    assert answers.shape == (240, 2)
    np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_one_class_alone_is_no_training() -> None:
    with pytest.raises(DataError, match="one-class-only"):
        train.fit(LogisticRegression(), CLEAN, LABELS * 0, CLASSES)


def test_an_estimator_of_another_task_is_refused() -> None:
    fitted = LGBMRegressor(n_estimators=1, verbose=-1).fit(MATRIX, NUMBERS)
    with pytest.raises(DeclarationError, match="not-one-number"):
        pack.pack(fitted, MATRIX, CLASSES)


def test_weights_count_and_are_not_silently_dropped() -> None:
    weights = np.where(LABELS > 0, 10.0, 1.0)
    plain, heavy = (
        pack.answers(train.fit(linear(ENCODER, BINARY), MATRIX, LABELS > 0, BINARY, w), MATRIX, BINARY)
        for w in (None, weights)
    )
    assert heavy.mean() > plain.mean() + 0.1
    from sklearn.neighbors import KNeighborsClassifier

    with pytest.raises(DeclarationError, match="estimator-takes-no-weights"):
        train.fit(KNeighborsClassifier(), CLEAN, LABELS > 0, BINARY, weights)


def test_only_the_newest_rows_are_fitted_on() -> None:
    labels = LABELS > 0
    few = train.fit(baseline(BINARY), MATRIX, labels, BINARY, rows=50)
    assert pack.answers(few, MATRIX[:1], BINARY)[0] == pytest.approx(labels[-50:].mean())


def test_a_sparse_matrix_is_answered_and_packed_as_the_dense_one() -> None:
    from scipy.sparse import csr_matrix

    rows = csr_matrix(CLEAN)
    fitted = train.fit(LogisticRegression(), rows, LABELS, CLASSES)
    np.testing.assert_array_equal(pack.answers(fitted, rows, CLASSES), pack.answers(fitted, CLEAN, CLASSES))
    assert pack.pack(fitted, rows, CLASSES).kinds == ("sklearn", "onnx")


def three() -> str:
    fitted = LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(MATRIX, LABELS)
    return boosted.floor(fitted.booster_.model_to_string())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_class:3", "num_class:400"),
        ("num_class=3", "num_class=2"),
        ("num_class=3\nnum_tree_per_iteration=3", "num_class=1\nnum_tree_per_iteration=1"),
        ("num_class=3\nnum_tree_per_iteration=3", "num_class=4\nnum_tree_per_iteration=4"),
        ("num_tree_per_iteration=3", "num_tree_per_iteration=1"),
        ("multiclass num", "multiclassova num"),
        ("multiclass num", "binary num"),
    ],
)
def test_an_objective_never_writes_more_numbers_than_there_is_room_for(old: str, new: str) -> None:
    text = three()
    assert lightgbm_c.load(text.encode()).batch(MATRIX).shape == (240, 3)
    with pytest.raises(StateError, match="hostile-model"):
        lightgbm_c.load(text.replace(old, new).encode())


def joined() -> bytes:
    fitted = train.fit(quantiles(LGBMRegressor(n_estimators=1, verbose=-1)), MATRIX, NUMBERS, QUANTILES)
    return pack.pack(fitted, MATRIX, QUANTILES).artifacts["model.txt"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"width=3", b"width=2"),
        (b"width=3", b"width=1"),
        (b"places=0,1,2", b"places=0,1,1"),
        (b"places=0,1,2", b"places=0,1"),
        (b"places=0,1,2", b"places=0,1,2,3"),
        (b"sizes=", b"sizes=1"),
        (b"sizes=", b"sizes=0,"),
        (b"places=", b"places=-"),
        (b"several", b"several "),
    ],
)
def test_parts_that_do_not_agree_are_refused(old: bytes, new: bytes) -> None:
    data = joined()
    assert predictor.load("lightgbm", {"model.txt": data}).batch(MATRIX).shape == (240, 3)
    with pytest.raises(StateError, match="hostile-model"):
        lightgbm_c.load(data.replace(old, new, 1))


def test_parts_of_parts_are_refused() -> None:
    data = joined()
    with pytest.raises(StateError, match="hostile-model"):
        lightgbm_c.load(several.join([data], (0, 1, 2), 3))


def test_xgboost_that_cannot_be_served_is_said_before_training() -> None:
    from flyball.learn.export import families

    for estimator, why in ((XGBRegressor(missing=-1), "missing=-1"), (XGBClassifier(), "no regressor")):
        assert why in families.of(estimator).cannot(estimator, REGRESSION)
    drop = XGBRegressor(booster="dart", n_estimators=2).fit(MATRIX, NUMBERS)
    with pytest.raises(DeclarationError, match="only 'gbtree' is served"):
        pack.pack(drop, MATRIX, REGRESSION)


def test_the_canonical_form_of_xgboost_is_kept_by_itself() -> None:
    fitted = XGBRegressor(n_estimators=2).fit(MATRIX, NUMBERS)
    once = xgboost_json.canonical(bytes(fitted.get_booster().save_raw("json")))
    assert xgboost_json.canonical(once) == once
    assert xgboost_json.check(once) == (3, 1)
    with pytest.raises(StateError, match="canonical"):
        xgboost_json.check(once + b" ")
