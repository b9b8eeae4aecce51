"""Adopted models answer as they answer their owners, bit for bit; what reaches outside, or is no model, is refused."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import dataframely
import msgspec
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import skops.io
from lightgbm import LGBMClassifier
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flyball._kernel.errors import Bug, DataError, DeclarationError, StateError
from flyball.learn.export import adopted, adopted_app, adopted_look
from flyball.learn.export.adopted import Adopted
from flyball.learn.task import BINARY, REGRESSION, Task
from flyball.serve import pace
from flyball.serve.plan import NEVER
from tests.oracles import frames

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnxmltools
    import skl2onnx
    from onnxmltools.convert.common.data_types import FloatTensorType as Floats
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

N = 200
ABC = Task(kind="multiclass", classes=("a", "b", "c"))


@dataclass(frozen=True)
class Files:
    """Rows, and the files that were trained on them."""

    rows: pd.DataFrame
    of: Mapping[str, bytes]
    pipeline: Pipeline
    forest: RandomForestClassifier

    @property
    def frame(self) -> pl.DataFrame:
        return frames.of_pandas(self.rows)


@pytest.fixture(scope="module")
def files() -> Files:
    rng = np.random.default_rng(7)
    rows = pd.DataFrame(
        {
            "plan": rng.choice(["free", "pro", "équipe"], N),
            "age": rng.normal(40, 9, N),
            "visits": rng.integers(0, 99, N),
        }
    )
    left = ((rows["plan"] == "pro") & (rows["visits"] > 40)).to_numpy().astype(np.int64)
    matrix = rows[["age", "visits"]].to_numpy(dtype=np.float32)
    kinds = np.array(["a", "b", "c"])[rng.integers(0, 3, N)]
    columns = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["plan"]), ("n", StandardScaler(), ["age", "visits"])]
    )
    pipeline = Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(rows, left)
    typed = [
        ("plan", StringTensorType([None, 1])),
        ("age", FloatTensorType([None, 1])),
        ("visits", Int64TensorType([None, 1])),
    ]
    boosted = LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(matrix, left)
    several = LogisticRegression().fit(matrix, kinds)
    regressor = RandomForestRegressor(5, random_state=1).fit(matrix, rows["age"] * 2)
    forest = RandomForestClassifier(5, random_state=1).fit(rows[["age", "visits"]], kinds)
    plain = {"zipmap": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {
            "pipeline": skl2onnx.to_onnx(pipeline, initial_types=typed),
            "boosted": onnxmltools.convert_lightgbm(boosted, initial_types=[("input", Floats([None, 2]))]),
            "several": skl2onnx.to_onnx(several, matrix[:1], options=plain),
            "regressor": skl2onnx.to_onnx(regressor, matrix[:1]),
        }
    written = {name: model.SerializeToString() for name, model in models.items()}
    written |= {"pipeline.skops": skops.io.dumps(pipeline), "forest.skops": skops.io.dumps(forest)}
    return Files(rows, written, pipeline, forest)


def adopt(files: Files, name: str, columns: list[str]) -> Adopted:
    found = adopted_look.look(name if "." in name else f"{name}.onnx", files.of[name])
    form = adopted_look.formed(found, "f" * 64, [(c, files.frame.schema[c]) for c in columns], found.task)
    return adopted.load(adopted.from_bytes(msgspec.json.encode(form)), found.data)


def _session(data: bytes) -> Any:
    """On one thread, as a server's: two add the trees of an ensemble in another order, which changes the last bit."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def own(files: Files, name: str) -> Any:
    """What the file answers under ONNX Runtime as its owner asks it: the last output."""
    session = _session(files.of[name])
    rows = files.rows
    given: dict[str, Any]
    if name == "pipeline":
        given = {
            "plan": rows[["plan"]].to_numpy(dtype=object),
            "age": rows[["age"]].to_numpy(dtype=np.float32),
            "visits": rows[["visits"]].to_numpy(dtype=np.int64),
        }
    else:
        given = {session.get_inputs()[0].name: rows[["age", "visits"]].to_numpy(dtype=np.float32)}
    found = session.run(None, given)[-1]
    return np.array([list(row.values()) for row in found]) if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("name", "columns", "task"),
    [
        ("pipeline", ["plan", "age", "visits"], BINARY),
        ("boosted", ["age", "visits"], BINARY),
        ("several", ["age", "visits"], ABC),
        ("regressor", ["age", "visits"], REGRESSION),
    ],
)
def test_onnx_answers_as_by_itself(files: Files, name: str, columns: list[str], task: Task) -> None:
    model = adopt(files, name, columns)
    theirs = own(files, name).astype(np.float64)
    theirs = theirs[:, 1] if task == BINARY else theirs.reshape((N,) if task == REGRESSION else (N, 3))
    assert model.form.task == task
    assert model.name == "onnx"
    ours = model.form.answers(files.frame, model.batch)
    assert np.array_equal(ours, theirs)
    row = adopted.compile_row(model.form)
    alone = [model.row(row([files.frame[c][i] for c in columns])) for i in range(20)]
    assert np.allclose(alone, theirs[:20], rtol=1e-6, atol=1e-7)
    assert len(np.unique(ours)) > 5


def test_scikit_learn_answers_as_by_itself_on_names_and_texts(files: Files) -> None:
    pipeline = adopt(files, "pipeline.skops", ["plan", "age", "visits"])
    forest = adopt(files, "forest.skops", ["age", "visits"])
    assert (pipeline.name, pipeline.form.task, forest.form.task) == ("sklearn", BINARY, ABC)
    assert np.array_equal(
        pipeline.form.answers(files.frame, pipeline.batch), files.pipeline.predict_proba(files.rows)[:, 1]
    )
    theirs = files.forest.predict_proba(files.rows[["age", "visits"]])
    assert np.array_equal(forest.form.answers(files.frame, forest.batch), theirs)
    told = forest.row(adopted.compile_row(forest.form)([40.5, 3]))
    assert isinstance(told, tuple)
    assert len(told) == 3


@pytest.mark.parametrize("name", ["pipeline", "boosted", "several", "regressor", "pipeline.skops", "forest.skops"])
def test_only_trees_of_an_adopted_model_are_asked_together(files: Files, name: str) -> None:
    """A product of matrices may differ in one row of a hundred, which no trial is sure to see."""
    model = adopt(files, name, ["plan", "age", "visits"] if "pipeline" in name else ["age", "visits"])
    assert model.rowwise is (name in ("boosted", "regressor", "forest.skops"))
    rows = adopted.probes(model.form, pace.ROWS, {"plan": ("free", "pro"), "visits": (0.0, 7.0, 99.0)})
    assert rows is not None and rows.shape == (pace.ROWS, model.features)
    if model.rowwise:
        assert model.batch(rows).tobytes() == np.array([model.row(each) for each in rows]).tobytes()
    if name == "forest.skops":
        assert pace.batches(model, perf_counter, rows) <= 4, "a call costs as much for one as for many"


def test_trees_that_threads_add_up_are_asked_alone(files: Files) -> None:
    """In whichever order they come."""
    rows = files.rows[["age", "visits"]]
    forest = RandomForestRegressor(5, random_state=1, n_jobs=2).fit(rows, rows["age"])
    found = adopted_look.look("m.skops", skops.io.dumps(forest))
    form = adopted_look.formed(found, "f" * 64, [(c, files.frame.schema[c]) for c in rows], found.task)
    assert not adopted.load(form, found.data).rowwise


def test_whether_texts_may_be_asked_together_is_seen_by_texts_that_the_model_knows() -> None:
    """Of a text that it does not know nothing is left to sum, and rows look alike, alone and together."""
    rng, names = np.random.default_rng(1), [f"s{n}" for n in range(6)]
    rows = pd.DataFrame({name: rng.choice([f"c{k}" for k in range(7)], 300) for name in names})
    ones = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), names)])
    pipeline = Pipeline([("c", ones), ("m", LogisticRegression())]).fit(rows, (rows["s0"] < "c3").astype(int))
    found = adopted_look.look("m.skops", skops.io.dumps(pipeline))
    form = adopted_look.formed(found, "f" * 64, [(name, pl.String()) for name in names], found.task)
    model: Any = adopted.load(form, found.data)
    assert adopted.probes(form, pace.ROWS, {}) is None
    unknown = adopted.probes(form, pace.ROWS, {name: ["no"] for name in names})
    assert pace.batches(model, perf_counter, unknown) < pace.ROWS, "which is what would be wrong"
    known = adopted.probes(form, pace.ROWS, {name: [f"c{k}" for k in range(7)] for name in names})
    assert pace.batches(model, perf_counter, known) == NEVER
    cells = adopted.cells(frames.of_pandas(rows), names)
    assert model.batch(cells).tobytes() != np.array([model.row(each) for each in cells]).tobytes()


def test_whole_numbers_are_asked_together_only_where_it_is_known_which(files: Files) -> None:
    form = adopt(files, "pipeline", ["plan", "age", "visits"]).form
    assert adopted.probes(form, 8, {"plan": ("pro",)}) is None
    found = adopted.probes(form, 8, {"plan": ("pro",), "visits": (3.0, 40.0)})
    assert found is not None
    assert {type(each) for each in found[:, 2]} == {int} and set(found[:, 2]) == {3, 40}
    assert set(found[:, 0]) == {"pro"} and len(set(found[:, 1])) > 2


def test_a_category_that_nobody_has_seen_reaches_the_model_as_it_is(files: Files) -> None:
    for name in ("pipeline", "pipeline.skops"):
        model = adopt(files, name, ["plan", "age", "visits"])
        row = adopted.compile_row(model.form)
        unseen = pd.DataFrame({"plan": ["never"], "age": [40.25], "visits": [70]})
        assert model.row(row(["never", 40.25, 70])) == pytest.approx(
            files.pipeline.predict_proba(unseen)[0, 1], rel=1e-5
        )


def test_missing_values_are_nan_among_floats_and_refused_elsewhere(files: Files) -> None:
    boosted = adopt(files, "boosted", ["age", "visits"])
    session = _session(files.of["boosted"])
    theirs = session.run(None, {"input": np.array([[np.nan, 70]], dtype=np.float32)})[1][0][1]
    assert boosted.row(adopted.compile_row(boosted.form)([None, 70])) == theirs
    pipeline = adopt(files, "pipeline", ["plan", "age", "visits"])
    row = adopted.compile_row(pipeline.form)
    for values, column in ((["pro", 1.0, None], "visits"), ([None, 1.0, 2], "plan")):
        with pytest.raises(DataError, match=column) as caught:
            pipeline.row(row(values))
        assert caught.value.code == "adopted-value-missing"


def test_values_go_into_float32_as_their_owner_would_cast_them(files: Files) -> None:
    each = adopted.Input(name="x", dtype="float32", columns=("a", "b"))
    values = [[0.1, 2**24 + 1], [1e300, 2**53 - 1], [True, -0.0]]
    with np.errstate(over="ignore"):
        theirs = np.array(values, dtype=np.float64).astype(np.float32)
    assert np.array_equal(adopted.array(each, values), theirs)
    assert theirs[0, 1] == 2**24
    whole = adopted.Input(name="x", dtype="int64", columns=("a",))
    assert adopted.array(whole, [[2**53 + 1]]).item() == 2**53 + 1


def test_what_is_stored_is_checked_when_it_is_loaded(files: Files) -> None:
    model = adopt(files, "boosted", ["age", "visits"])
    found = adopted_look.look("m.onnx", files.of["boosted"])
    assert adopted_look.look("m.onnx", found.data).data == found.data
    for data in (_with_domain(found.data), _external(found.data), b"nothing"):
        with pytest.raises(StateError) as caught:
            adopted.load(model.form, data)
        assert caught.value.code == "hostile-model"
    with pytest.raises(StateError, match="refused"):
        adopted.from_bytes(b'{"kind":"onnx"}')
    with pytest.raises(Bug):
        model.batch(np.zeros((1, 2), dtype=np.float32))  # type: ignore[arg-type]  # a float32 matrix is not asked


def _with_domain(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    model.graph.node[0].domain = "com.evil"
    return bytes(model.SerializeToString())


def _external(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    tensor = numpy_helper.from_array(np.zeros(3, dtype=np.float32), "stolen")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def _image() -> bytes:
    read = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 8, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "g", [read], [out])
    return bytes(helper.make_model(graph).SerializeToString())


def _one_row() -> bytes:
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [read], [out])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("name", "data", "code", "next_"),
    [
        ("m.pkl", pickle.dumps({}), "adopted-format", "skops.io.dump"),
        ("m.onnx", pickle.dumps({"a": 1}), "adopted-format", "skl2onnx"),
        ("m.joblib", b"x\x9c...", "adopted-format", "to_onnx"),
        ("m.h5", b"\x89HDF", "adopted-format", "tf2onnx"),
        ("m.txt", b"tree\nversion=v4", "adopted-format", "onnxmltools"),
        ("m.onnx", b"what is this", "adopted-format", "skl2onnx"),
        ("m.onnx", b"", "adopted-format", "skl2onnx"),
        ("image.onnx", _image(), "adopted-shape", "columns"),
        ("row.onnx", _one_row(), "adopted-shape", "dynamic"),
    ],
)
def test_what_is_no_model_of_columns_is_refused_with_the_way_out(name: str, data: bytes, code: str, next_: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        adopted_look.look(name, data)
    assert caught.value.code == code
    assert next_ in caught.value.next


def test_what_reaches_outside_is_refused(files: Files) -> None:
    hostile = skops.io.dumps({"a": io.StringIO})
    for name, data in (
        ("m.onnx", _with_domain(files.of["boosted"])),
        ("m.onnx", _external(files.of["boosted"])),
        ("m.skops", hostile),
    ):
        with pytest.raises(DeclarationError) as caught:
            adopted_look.look(name, data)
        assert caught.value.code == "adopted-unsafe"


def test_columns_and_outcomes_that_the_file_does_not_have_are_refused(files: Files) -> None:
    pipeline = adopted_look.look("m.onnx", files.of["pipeline"])
    several = adopted_look.look("m.onnx", files.of["several"])
    named = adopted_look.look("m.skops", files.of["forest.skops"])
    texts, numbers = pl.String(), pl.Float64()
    other = Task(kind="multiclass", classes=("a", "c", "b"))
    for look, columns, task in (
        (pipeline, [("plan", texts), ("age", numbers)], BINARY),
        (pipeline, [("age", numbers), ("plan", texts), ("visits", pl.Int64())], BINARY),
        (pipeline, [("plan", texts), ("age", numbers), ("visits", numbers)], BINARY),
        (several, [("a", numbers), ("b", numbers)], other),
        (several, [("a", numbers), ("b", numbers)], REGRESSION),
        (named, [("visits", numbers), ("age", numbers)], ABC),
    ):
        with pytest.raises(DeclarationError) as caught:
            adopted_look.formed(look, "f" * 64, columns, task)
        assert caught.value.code == "adopted-features-differ"


def test_columns_are_named_by_file_features_or_sample_and_else_refused(files: Files) -> None:
    boosted, pipeline = (adopted_look.look("m.onnx", files.of[n]) for n in ("boosted", "pipeline"))
    assert adopted_app.columns(pipeline, (), None, ()) == ("plan", "age", "visits")
    assert adopted_app.columns(boosted, ("x", "y"), None, ()) == ("x", "y")
    sample = files.frame.select("age", "visits", left=pl.lit(value=True))
    assert adopted_app.columns(boosted, (), sample, ("left",)) == ("age", "visits")
    for features, rows in (((), None), (("x",), None), ((), sample), (("x", "x"), None), (('a"b', "c"), None)):
        with pytest.raises(DeclarationError) as caught:
            adopted_app.columns(boosted, features, rows, ())
        assert caught.value.code == "adopted-needs-names"


def test_the_app_that_is_written_names_odd_columns_and_limits(files: Files) -> None:
    boosted = adopted_look.look("m.onnx", files.of["boosted"])
    sample = files.frame.select(pl.col("age").alias("Age (years)"), pl.lit(2**25).cast(pl.Int64).alias("class"))
    text = adopted_app.code(boosted, adopted_app.Names("odd", "m.onnx", "left"), sample.columns, sample)
    assert 'alias="Age (years)"' in text
    assert "class_ = dy.Int64(" in text
    compile(text, "app.py", "exec")
    notes = adopted_app.told(boosted, sample.columns, sample)
    assert any("2^24" in note and "class" in note for note in notes)
    assert any("no sample" in note for note in adopted_app.told(boosted, ("a", "b"), None))


@pytest.mark.parametrize(
    ("dtype", "values", "limits"),
    [
        (pl.Int8, [-100, 100], "min=-128, max=127"),
        (pl.UInt8, [1, 200], "min=0, max=255"),
        (pl.Int32, [0, 2**31 - 1], "min=0, max=2_147_483_647"),
        (pl.UInt16, [20, 30], "min=10, max=40"),
    ],
)
def test_limits_are_no_wider_than_their_type(files: Files, dtype: Any, values: list[int], limits: str) -> None:
    boosted = adopted_look.look("m.onnx", files.of["boosted"])
    sample = pl.DataFrame({"age": values, "visits": values}, schema={"age": dtype, "visits": dtype})
    text = adopted_app.code(boosted, adopted_app.Names("odd", "m.onnx", "left"), sample.columns, sample)
    assert text.count(f"({limits})\n") == 2
    (said,) = {line.partition(" = ")[2] for line in text.splitlines() if line.endswith(f"({limits})")}
    assert isinstance(eval(said, {"dy": dataframely}), dataframely.Column)  # noqa: S307 - it refuses what is wider


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([10.0, 30.0], "min=0.0, max=50.0"),
        ([-3.0, 5.0], "min=-11.0, max=13.0"),
        ([-5.0, -2.5], "min=-7.5, max=0.0"),
        ([7, 7], "min=0, max=14"),
        ([0.0, 0.0], "min=0.0, max=1.0"),
        ([0.0, 1e300], ""),
        ([2**62, 2**63 - 1], ""),
    ],
)
def test_limits_leave_room_for_what_a_small_sample_did_not_see(files: Files, values: list[float], limits: str) -> None:
    boosted = adopted_look.look("m.onnx", files.of["boosted"])
    sample = pl.DataFrame({"age": values, "visits": values})
    text = adopted_app.code(boosted, adopted_app.Names("odd", "m.onnx", "left"), sample.columns, sample)
    assert text.count(f"({limits})\n") == 2
