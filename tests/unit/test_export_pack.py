"""Packaging: what is shipped for which estimator, that it answers exactly, and that same means same bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from lightgbm import Booster, LGBMClassifier, LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flyball._kernel.errors import DeclarationError, StateError
from flyball.learn.export import boosted, graph, lightgbm_c, native, pack, parity, predictor
from flyball.learn.task import BINARY

Matrix = npt.NDArray[np.float32]
FEATURES = 6


def rows(seed: int = 0, size: int = 2500) -> Matrix:
    """Two columns of codes with unseen ones, four of numbers with missing and zero ones."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(size, FEATURES)).astype(np.float32)
    matrix[:, 0] = random.integers(-1, 4, size)
    matrix[:, 1] = random.integers(0, 40, size)
    matrix[:, 3] *= 1000
    matrix[:, 4] = np.where(random.random(size) < 0.3, 0, matrix[:, 4])
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix


def labels(matrix: Matrix) -> npt.NDArray[np.int64]:
    clean = np.nan_to_num(matrix)
    noise = np.random.default_rng(7).normal(size=len(matrix))
    return (clean[:, 2] + clean[:, 1] % 5 / 2 + clean[:, 3] / 1000 + noise > 1).astype(np.int64)


TRAIN, TEST = rows(0), rows(1)
Y = labels(TRAIN)


def linear() -> Pipeline:
    """The linear model that is always trained; nulls of categories get a code of their own, -2."""
    codes = Pipeline(
        [("fill", SimpleImputer(strategy="constant", fill_value=-2.0)), ("one", OneHotEncoder(handle_unknown="ignore"))]
    )
    numbers = Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler())])
    split = ColumnTransformer([("codes", codes, [0, 1]), ("numbers", numbers, [2, 3, 4, 5])])
    return Pipeline([("columns", split), ("model", LogisticRegression(max_iter=500))])


def boosted_trees(**knobs: Any) -> LGBMClassifier:
    return LGBMClassifier(n_estimators=25, num_leaves=15, verbose=-1, n_jobs=1, **knobs)


@pytest.fixture(scope="module")
def trees() -> LGBMClassifier:
    return boosted_trees().fit(TRAIN, Y, categorical_feature=[0, 1])


@pytest.fixture(scope="module")
def packed(trees: LGBMClassifier) -> pack.Packed:
    return pack.pack(trees, TEST, BINARY)


def test_boosted_trees_ship_as_text_and_onnx(packed: pack.Packed) -> None:
    assert packed.kinds == ("lightgbm", "onnx")
    assert sorted(packed.artifacts) == ["model.onnx", "model.txt"]
    text, converted = (offer.parity for offer in packed.offers)
    assert text is not None
    assert converted is not None
    assert text.exact
    assert text.rows == converted.rows == len(TEST) + FEATURES * parity.PROBES_PER_COLUMN
    assert 0 < converted.max_abs < 1e-6


def test_the_library_gives_the_bits_of_the_booster(trees: LGBMClassifier, packed: pack.Packed) -> None:
    loaded = predictor.load("lightgbm", packed.artifacts)
    expected = trees.predict_proba(TEST)[:, 1]
    assert loaded.batch(TEST).tobytes() == expected.tobytes()
    assert np.array([loaded.row(row) for row in TEST[:300]]).tobytes() == expected[:300].tobytes()
    strided = np.asfortranarray(TEST)
    assert loaded.batch(strided).tobytes() == expected.tobytes()
    assert np.array([loaded.row(row) for row in strided[:50]]).tobytes() == expected[:50].tobytes()


def test_the_library_gives_the_bits_of_the_booster_for_float64(packed: pack.Packed) -> None:
    text = packed.artifacts["model.txt"].decode()
    matrix = TEST.astype(np.float64) + np.random.default_rng(3).normal(size=TEST.shape) * 1e-9
    expected = Booster(model_str=text).predict(matrix)
    loaded = lightgbm_c.load(text.encode())
    assert loaded.batch(matrix).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize(
    "knobs",
    [
        {"zero_as_missing": True},
        {"use_missing": False},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
        {"boosting_type": "dart"},
        {"extra_trees": True, "min_child_samples": 2},
        {"monotone_constraints": [0, 0, 1, 1, 0, 0]},
        {"min_child_samples": 100_000},
    ],
    ids=lambda knobs: next(iter(knobs)),
)
def test_flooring_keeps_every_bit(knobs: dict[str, Any]) -> None:
    for model in (boosted_trees(**knobs), LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1, **knobs)):
        offers = pack.pack(model.fit(TRAIN, Y), TEST, BINARY).offers
        assert offers[0].kind == "lightgbm"
        assert offers[0].parity is not None
        assert offers[0].parity.exact


def test_onnx_that_answers_otherwise_is_not_shipped() -> None:
    unlike = pack.pack(boosted_trees(zero_as_missing=True).fit(TRAIN, Y), TEST, BINARY)
    assert list(unlike.artifacts) == ["model.txt"]
    converted = unlike.offers[1]
    assert not converted.shipped
    assert converted.parity is not None
    assert converted.parity.max_abs > parity.TOLERANCE
    assert f"row {converted.parity.worst_row}" in converted.refused


def test_same_estimator_same_bytes(trees: LGBMClassifier, packed: pack.Packed) -> None:
    assert pack.pack(trees, TEST, BINARY) == packed
    fitted = linear().fit(TRAIN, Y)
    assert pack.pack(fitted, TEST, BINARY) == pack.pack(fitted, TEST, BINARY)


def digests() -> str:
    """What a fresh process must find as well."""
    found = ""
    models = (boosted_trees(), linear(), RandomForestClassifier(3, max_depth=4, random_state=0), DummyClassifier())
    for model in models:
        artifacts = pack.pack(model.fit(TRAIN, Y), TEST, BINARY).artifacts
        found += "".join(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(artifacts.items()))
    return found


def test_a_fresh_process_packs_the_same_bytes() -> None:
    here = Path(__file__)
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('again', sys.argv[1])\n"
        "again = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(again)\n"
        "print(again.digests(), end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(here)], capture_output=True, text=True, check=True)
    assert done.stdout == digests()


def test_the_linear_model_and_the_baseline_ship_as_onnx_too() -> None:
    found = pack.pack(linear().fit(TRAIN, Y), TEST, BINARY)
    assert found.kinds == ("sklearn", "onnx")
    assert found.offers[0].parity is not None
    assert found.offers[0].parity.exact
    assert found.offers[1].parity is not None
    assert found.offers[1].parity.max_abs < 1e-6
    for baseline in (DummyClassifier(strategy="prior"), DummyRegressor()):
        found = pack.pack(baseline.fit(TRAIN, Y), TEST, BINARY)
        assert found.kinds == ("sklearn", "onnx")
        assert all(offer.parity is not None and offer.parity.exact for offer in found.offers)


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (HistGradientBoostingClassifier(max_iter=5), ("sklearn",)),
        (RandomForestClassifier(5, max_depth=5, random_state=0), ("sklearn",)),
        (Pipeline([("fill", SimpleImputer()), ("model", GradientBoostingClassifier(n_estimators=5))]), ("onnx",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_others_ship_in_the_formats_that_carry_them(model: Any, kinds: tuple[str, ...]) -> None:
    model.fit(TRAIN, Y)
    found = pack.pack(model, TEST, BINARY)
    assert found.kinds == kinds
    loaded = predictor.load(found.kinds[0], found.artifacts)
    assert loaded.features == FEATURES
    np.testing.assert_allclose(loaded.batch(TEST), model.predict_proba(TEST)[:, 1], atol=1e-6)
    np.testing.assert_allclose(loaded.row(TEST[0]), model.predict_proba(TEST[:1])[0, 1], atol=1e-6)


def test_what_nothing_carries_is_refused_with_both_reasons() -> None:
    with pytest.raises(DeclarationError) as caught:
        pack.pack(
            LGBMRegressor(n_estimators=3, verbose=-1, linear_tree=True).fit(np.nan_to_num(TRAIN), Y), TEST, BINARY
        )
    assert caught.value.code == "no-safe-format"
    assert "lightgbm: it has linear trees" in caught.value.why
    three = LGBMClassifier(n_estimators=2, verbose=-1).fit(TRAIN, Y + (TRAIN[:, 2] > 1))
    one = DummyClassifier().fit(TRAIN, Y * 0)
    for unlike in (three, one):
        with pytest.raises(DeclarationError, match="not-one-number"):
            pack.pack(unlike, TEST, BINARY)


def test_an_estimator_that_cannot_miss_values_is_compared_without_probes() -> None:
    found = pack.pack(LogisticRegression(max_iter=500).fit(np.nan_to_num(TRAIN), Y), np.nan_to_num(TEST), BINARY)
    assert found.kinds == ("sklearn", "onnx")
    assert found.offers[1].parity is not None
    assert found.offers[1].parity.rows == len(TEST)


def test_graphs_within_nodes_are_not_shipped() -> None:
    with pytest.raises(DeclarationError, match="onnx: node 'n0' holds a graph of its own"):
        pack.pack(
            KNeighborsClassifier(3).fit(np.nan_to_num(TRAIN)[:200, :2], Y[:200]), np.nan_to_num(TEST)[:50, :2], BINARY
        )


def test_fastest_takes_the_same_bits_first(packed: pack.Packed) -> None:
    choice = pack.fastest(packed, TEST[:8], time.monotonic)
    assert (choice.kind, choice.exact, set(choice.row_us)) == ("lightgbm", True, {"lightgbm"})
    fitted = pack.pack(linear().fit(TRAIN, Y), TEST, BINARY)
    assert pack.fastest(fitted, TEST[:3], time.monotonic).kind == "sklearn"
    near = pack.fastest(fitted, TEST[:3], time.monotonic, within=parity.TOLERANCE)
    assert (near.kind, near.exact, set(near.row_us)) == ("onnx", False, {"sklearn", "onnx"})
    assert near.row_us["onnx"] < near.row_us["sklearn"]
    only = pack.Packed(artifacts=fitted.artifacts, offers=fitted.offers[1:])
    assert pack.fastest(only, TEST[:3], time.monotonic).kind == "onnx"


def test_a_timer_that_stands_still_costs_few_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, asked = pack.pack(linear().fit(TRAIN, Y), TEST, BINARY), Counter[str]()

    class Counted:
        def __init__(self, kind: predictor.Kind) -> None:
            self.kind = kind

        def row(self, _: np.ndarray) -> float:
            asked[self.kind] += 1
            return 0.5

    monkeypatch.setattr(predictor, "load", lambda kind, _: Counted(kind))
    pack.fastest(fitted, TEST[:50], lambda: 0.0)
    assert asked == {"sklearn": pack.PASSES * pack.ALONE}
    pack.fastest(fitted, TEST[:50], lambda: 0.0, within=parity.TOLERANCE)
    assert asked["onnx"] == pack.PASSES * 50


def test_many_threads_share_one_predictor(packed: pack.Packed) -> None:
    for kind in packed.kinds:
        loaded = predictor.load(kind, packed.artifacts)
        expected = [loaded.row(row) for row in TEST[:200]]
        wrong: list[int] = []

        def ask(
            loaded: predictor.Predictor = loaded, expected: list[float] = expected, wrong: list[int] = wrong
        ) -> None:
            wrong.extend(i for i, row in enumerate(TEST[:200]) if loaded.row(row) != expected[i])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_load_refuses_what_is_not_there(packed: pack.Packed) -> None:
    with pytest.raises(StateError, match="no-such-artifact"):
        predictor.load("sklearn", packed.artifacts)
    with pytest.raises(StateError, match="hostile-model"):
        predictor.load("pickle", packed.artifacts)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["onnx", "sklearn"])
def test_arrays_of_another_shape_never_reach_the_runtime(kind: predictor.Kind) -> None:
    loaded = predictor.load(kind, pack.pack(DummyClassifier().fit(TRAIN, Y), TEST, BINARY).artifacts)
    for wrong in (np.zeros(1), np.zeros(FEATURES + 1)):
        with pytest.raises(Exception, match="wrong-shape"):
            loaded.row(wrong.astype(np.float32))
        with pytest.raises(Exception, match="wrong-shape"):
            loaded.batch(wrong.astype(np.float32)[np.newaxis])
    with pytest.raises(Exception, match="wrong-shape"):
        loaded.batch(np.zeros((1, FEATURES)))
    assert loaded.batch(TEST[:0]).shape == (0,)


def test_parity_sees_every_difference() -> None:
    native_answers = np.array([0.1, np.nan, 5e4, -0.0])
    same = parity.between(native_answers, native_answers.copy())
    assert (same.exact, same.holds, same.max_abs, same.worst_row) == (True, True, 0.0, -1)
    near = parity.between(native_answers, native_answers + np.array([0, 0, 0.1, 0]))
    assert (near.exact, near.holds, near.worst_row) == (False, True, 2)
    assert near.max_abs == pytest.approx(0.1)
    far = parity.between(native_answers, native_answers + np.array([2e-5, 0, 0, 0]))
    assert (far.holds, far.worst_row) == (False, 0)
    missing = parity.between(native_answers, np.array([0.1, 0.2, 5e4, 0]))
    assert (missing.holds, missing.worst_row, missing.max_abs) == (False, 1, parity.FAR)
    assert msgspec.json.decode(msgspec.json.encode(missing), type=parity.Parity) == missing
    assert not parity.between(native_answers, native_answers[:2]).holds
    assert not parity.between(native_answers, np.array([0.1, np.nan, 5e4, 0.0])).exact
    assert parity.between(native_answers[:0], native_answers[:0]).exact


def test_probes_leave_out_every_column() -> None:
    probed = parity.probes(np.zeros((3, FEATURES), dtype=np.float32))
    assert np.isnan(probed).sum(axis=0).tolist() == [parity.PROBES_PER_COLUMN] * FEATURES
    assert np.isnan(probed).sum(axis=1).max() == 1
    assert parity.probes(np.zeros((0, 2), dtype=np.float32)).shape == (0, 2)


def test_onnx_is_spelled_by_us(packed: pack.Packed) -> None:
    model = onnx.load_model_from_string(packed.artifacts["model.onnx"])
    assert (model.producer_name, model.producer_version, model.graph.name) == ("flyball", "", "flyball")
    assert [node.name for node in model.graph.node] == [f"n{i}" for i in range(len(model.graph.node))]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "answer"]
    assert graph.check(packed.artifacts["model.onnx"]) == (packed.artifacts["model.onnx"], FEATURES, 1)
    others = (linear(), DummyRegressor(), LGBMRegressor(n_estimators=2, verbose=-1))
    for data in (packed.artifacts, *(pack.pack(other.fit(TRAIN, Y), TEST, BINARY).artifacts for other in others)):
        onnx.checker.check_model(data["model.onnx"], full_check=True)


def test_serving_boosted_trees_imports_nothing_heavy(packed: pack.Packed, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(packed.artifacts["model.txt"])
    script = (
        "import sys, pathlib, numpy\n"
        "from flyball.learn.export import predictor\n"
        "loaded = predictor.load('lightgbm', {'model.txt': pathlib.Path(sys.argv[1]).read_bytes()})\n"
        "print(loaded.row(numpy.zeros(loaded.features, dtype=numpy.float32)))\n"
        "heavy = {'lightgbm', 'sklearn', 'pandas', 'scipy', 'onnx', 'onnxruntime', 'polars', 'skops'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.txt")], capture_output=True, text=True, check=True
    )
    answer, heavy = done.stdout.split("\n", 1)
    zeros = np.zeros((1, FEATURES), dtype=np.float32)
    assert float(answer) == lightgbm_c.load(packed.artifacts["model.txt"]).batch(zeros)[0]
    assert heavy.strip() == "[]"


def test_serving_onnx_imports_neither_estimators_nor_frames(packed: pack.Packed) -> None:
    script = (
        "import sys\nfrom flyball.learn.export import graph\n"
        "print(sorted({'lightgbm', 'sklearn', 'pandas', 'scipy', 'skops'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_text_of_a_wide_model_round_trips() -> None:
    wide = np.random.default_rng(5).normal(size=(400, 120)).astype(np.float32)
    model = LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1).fit(wide, wide[:, 0])
    text = boosted.floor(model.booster_.model_to_string())
    assert boosted.check(text) == (120, 1)
    assert lightgbm_c.load(text.encode()).batch(wide).tobytes() == model.predict(wide).tobytes()


def test_native_answers_are_of_the_positive_class() -> None:
    fitted = linear().fit(TRAIN, Y.astype(bool))
    np.testing.assert_array_equal(native.answers(fitted, TEST), fitted.predict_proba(TEST)[:, 1])
