"""LightGBM's trees as ONNX in doubles: the same bits as LightGBM's own library, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor

from flyball.learn.export import boosted, doubled, lightgbm_c, several

RNG = np.random.default_rng(7)
X = RNG.normal(0, 3, (400, 3)).astype(np.float32)
X[:, 2] = RNG.integers(-1, 6, 400)
X[RNG.random(X.shape) < 0.1] = np.nan
Z = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 2])
SMALL = {"n_estimators": 12, "num_leaves": 7, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}


def text(estimator: Any, labels: Any) -> bytes:
    return boosted.floor(estimator.fit(X, labels).booster_.model_to_string()).encode()


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [
        (LGBMClassifier(**SMALL), Z > 1),
        (LGBMClassifier(**SMALL, sigmoid=2.5), Z > 1),
        (LGBMClassifier(**SMALL), np.digitize(Z, [0, 2])),
        (LGBMRegressor(**SMALL), Z),
        (LGBMRegressor(**SMALL, objective="poisson"), np.abs(np.round(Z))),
        (LGBMRegressor(**SMALL, objective="quantile", alpha=0.9), Z),
        (LGBMClassifier(**SMALL | {"min_child_samples": 500}), Z > 1),  # trees of one leaf
    ],
)
def test_the_bits_are_those_of_the_library(estimator: Any, labels: Any) -> None:
    data = text(estimator, labels)
    found, own = doubled.load(data), lightgbm_c.load(data)
    assert isinstance(found, doubled.Doubled)
    for rows in (X, doubled.probes(data)):
        assert found.batch(rows).tobytes() == own.batch(rows).tobytes()
    assert [found.row(row) for row in X[:40]] == [own.row(row) for row in X[:40]]
    assert found.batch(X[:0]).shape == own.batch(X[:0]).shape
    assert (found.name, found.features) == (own.name, own.features)


def test_several_boosters_answer_together() -> None:
    parts = [text(LGBMRegressor(**SMALL, objective="quantile", alpha=alpha), Z) for alpha in (0.1, 0.9)]
    data = several.join(parts, (0, 1), 2)
    found = doubled.load(data)
    assert found is not None and found.batch(X).tobytes() == lightgbm_c.load(data).batch(X).tobytes()


def test_what_a_graph_cannot_say_is_none() -> None:
    zero = LGBMClassifier(**SMALL, zero_as_missing=True)
    root = LGBMRegressor(**SMALL, reg_sqrt=True)
    assert doubled.load(text(zero, Z > 1)) is None
    assert doubled.load(text(root, np.abs(Z))) is None


def test_one_bit_is_enough_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = text(LGBMClassifier(**SMALL), Z > 1)
    true = doubled.linked
    monkeypatch.setattr(doubled, "linked", lambda *of: lambda scores: np.nextafter(true(*of)(scores), 2))
    assert doubled.load(data) is None


def test_the_same_text_is_the_same_graph() -> None:
    data = text(LGBMClassifier(**SMALL), Z > 1)
    assert doubled.raws(data) == doubled.raws(data)
