"""Promise 12: nothing read from a store runs code by default.

Each attack writes bytes that a store could hold after a break-in, and loads them as serving does. What must happen: a
StateError, no file of the attacker's, and a process that lives on. The last part reads our own source: the ways to run
what was read are not there to be used.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.dummy import DummyClassifier
from sklearn.preprocessing import OneHotEncoder

from flyball._kernel.errors import StateError
from flyball.learn.encoding import encode
from flyball.learn.export import graph, native, predictor, skops_zip

SOURCE = Path(__file__).parents[2] / "src" / "flyball"
Node = dict[str, Any]


class Payload:
    """Pickled, it makes a directory when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def refused(kind: predictor.Kind, data: bytes) -> str:
    with pytest.raises(StateError) as caught:
        predictor.load(kind, {predictor.ARTIFACTS[kind]: data})
    assert caught.value.code == "hostile-model"
    return caught.value.why


@pytest.mark.parametrize("kind", list(predictor.ARTIFACTS))
def test_bytes_of_other_formats_are_refused(kind: predictor.Kind, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    npy, joined = io.BytesIO(), io.BytesIO()
    np.save(npy, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(joined, "w") as target:
        target.writestr("data.pkl", pickle.dumps(Payload(marker)))
    other = (b"", b"\0" * 64, b"/etc/passwd", pickle.dumps(Payload(marker)), npy.getvalue(), joined.getvalue())
    for data in other:
        refused(kind, data)
        with pytest.raises(StateError, match="encoder-damaged"):
            encode.from_bytes(data)
    assert not marker.exists()
    pickle.loads(other[3])  # noqa: S301 - the payload is live: only then does this test say anything
    assert marker.exists()


# --- skops -----------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
NONE: Node = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "null"}


def taken_apart(data: bytes) -> tuple[Node, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        stored = {name: source.read(name) for name in source.namelist()}
    return json.loads(stored.pop("schema.json")), stored


def joined(schema: Node, stored: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as target:
        for name, content in {**stored, "schema.json": json.dumps(schema).encode()}.items():
            target.writestr(name, content)
    return output.getvalue()


@pytest.fixture(scope="module")
def dummy() -> bytes:
    return native.dump(DummyClassifier().fit(X, Y))


def a(loader: str, module: str, name: str, **parts: Any) -> Node:
    return {"__loader__": loader, "__module__": module, "__class__": name, **parts}


def words(*values: str) -> Node:
    return a("TupleNode", "builtins", "tuple", content=[{**NONE, "content": json.dumps(value)} for value in values])


STRANGERS: dict[str, Node] = {
    "a function": a("FunctionNode", "os", "system"),
    "a type": a("TypeNode", "builtins", "eval"),
    "a class": a("ObjectNode", "subprocess", "Popen", content=NONE),
    "a constructor": a("ConstructorFromReduceNode", "os", "mkdir", content=words("ran")),
    "an operator": a("OperatorFuncNode", "operator", "methodcaller", attrs=words("system")),
    "a method": a("MethodNode", "sklearn.dummy", "DummyClassifier", content={"func": "fit", "obj": NONE}),
    "a partial": a(
        "PartialNode",
        "functools",
        "partial",
        content={"func": a("FunctionNode", "os", "mkdir"), "args": words("ran"), "kwds": NONE, "namespace": NONE},
    ),
    "a reduction": a("LossNode", "os", "mkdir", content=NONE, __reduce__={"args": words("ran")}),
    "a default factory": a(
        "DefaultDictNode", "collections", "defaultdict", content={"main": NONE, "default_factory": NONE}
    ),
    "a reference": a("CachedNode", "builtins", "str", __id__=1),
    "bytes": a("BytesNode", "builtins", "bytes", file="0.npy"),
    "a set": a("SetNode", "builtins", "set", content=[]),
    "another estimator": a("ObjectNode", "sklearn.svm._classes", "SVC", content=NONE),
    "an allowed type by another loader": a("FunctionNode", "sklearn.dummy", "DummyClassifier"),
    "an estimator's file": a("NdArrayNode", "numpy", "ndarray", type="numpy", file="../../etc/passwd"),
    "a loader that is no name": a("x", "numpy", "ndarray") | {"__loader__": ["NdArrayNode"]},
    "a type where a method stands": a("TypeNode", "numpy", "float32"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_skops_with_types_that_we_did_not_choose(
    stranger: str, dummy: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schema, stored = taken_apart(dummy)
    attributes = schema["content"]["content"]
    attributes["_validate"] = STRANGERS[stranger]
    schema["content"]["key_types"]["content"].append(a("TypeNode", "builtins", "str"))
    assert refused("sklearn", joined(schema, stored))
    root, stored = taken_apart(dummy)
    refused("sklearn", joined({**STRANGERS[stranger], "protocol": root["protocol"]}, stored))
    assert not list(tmp_path.iterdir())


def test_skops_arrays_with_pickles_inside(dummy: bytes, tmp_path: Path) -> None:
    hostile = io.BytesIO()
    np.save(hostile, np.array([Payload(tmp_path / "ran")], dtype=object), allow_pickle=True)
    for content in (hostile.getvalue(), pickle.dumps(Payload(tmp_path / "ran")), b""):
        schema, stored = taken_apart(dummy)
        refused("sklearn", joined(schema, dict.fromkeys(stored, content)))
    assert not (tmp_path / "ran").exists()


def test_skops_files_of_other_shapes(dummy: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, stored = taken_apart(dummy)
    assert predictor.load("sklearn", {"model.skops": joined(schema, stored)}).features == 4
    for protocol in (0, 1, 3, "2", None):
        refused("sklearn", joined({**schema, "protocol": protocol}, stored))
    refused("sklearn", joined(schema, stored, zipfile.ZIP_DEFLATED))
    refused("sklearn", joined([schema], stored))  # type: ignore[arg-type]
    deep: Node = NONE
    for _ in range(400):
        deep = a("ListNode", "builtins", "list", content=[deep])
    refused("sklearn", joined({**deep, "protocol": 2}, stored))
    endless = b'{"content":' * 200_000 + b"1" + b"}" * 200_000
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as target:
        target.writestr("schema.json", endless)
    refused("sklearn", output.getvalue())
    monkeypatch.setattr(skops_zip, "LARGEST", 100)
    refused("sklearn", joined(schema, stored))


def test_skops_nodes_cannot_be_swapped_for_others(dummy: bytes) -> None:
    """Two nodes of one id: skops would take the first, where only the second was looked at."""
    schema, stored = taken_apart(dummy)
    schema["content"]["content"]["n_features_in_"]["__id__"] = 1
    schema["content"]["__id__"] = 1
    rebuilt = skops_zip.rebuilt(joined(schema, stored))
    assert b"__id__" not in rebuilt
    assert rebuilt == dummy


def test_honest_types_are_built_where_a_dtype_is_meant() -> None:
    encoder = OneHotEncoder(dtype=np.float32, sparse_output=False).fit(X[:5])
    assert skops_zip.rebuilt(native.dump(encoder)) == native.dump(encoder)


def test_the_list_is_ours_and_holds_nothing_that_acts() -> None:
    assert not {name for name in skops_zip.ALLOWED if not name.startswith(("sklearn.", "numpy.", "builtins."))}
    assert {name for name in skops_zip.ALLOWED if name.startswith("builtins.")} <= {
        f"builtins.{name}" for name in ("str", "int", "dict", "list", "tuple", "slice")
    }


# --- ONNX ------------------------------------------------------------------------------------------------------------


def model(*, weight: Any = None, nodes: list[Any] | None = None, opsets: tuple[str, ...] = ("",)) -> Any:
    """X (float32, 2 features) times a weight."""
    weight = weight or helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, 2.0])
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["answer"])]
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])
    body = helper.make_graph(nodes, "g", [read], [answer], [weight])
    return helper.make_model(body, opset_imports=[helper.make_opsetid(name, 17) for name in opsets], ir_version=8)


def external(path: Path) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(path))
    return tensor


def test_the_honest_model_answers() -> None:
    loaded = predictor.load("onnx", {"model.onnx": model().SerializeToString()})
    assert loaded.row(np.array([1, 2], dtype=np.float32)) == 5.0


def test_onnx_whose_tensors_live_in_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([1, 2], dtype=np.float32).tobytes())
    lying = external(secret)
    lying.data_location = TensorProto.DEFAULT
    within = helper.make_node("Constant", [], ["c"], value=external(secret))
    nodes = [within, helper.make_node("MatMul", ["x", "c"], ["answer"])]
    for hostile in (model(weight=external(secret)), model(weight=lying), model(nodes=nodes)):
        assert "another file" in refused("onnx", hostile.SerializeToString())


def test_onnx_with_operators_that_are_not_the_standards() -> None:
    custom = [helper.make_node("Run", ["x"], ["answer"], domain="com.attacker")]
    assert "com.attacker" in refused("onnx", model(nodes=custom, opsets=("", "com.attacker")).SerializeToString())
    assert "com.attacker" in refused("onnx", model(nodes=custom).SerializeToString())
    assert "com.microsoft" in refused("onnx", model(opsets=("", "com.microsoft")).SerializeToString())


def test_onnx_with_graphs_functions_or_settings_inside() -> None:
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])
    branch = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["answer"])], "b", [], [answer])
    looping = helper.make_node("If", ["x"], ["answer"], then_branch=branch, else_branch=branch)
    assert "graph of its own" in refused("onnx", model(nodes=[looping]).SerializeToString())
    for change in (
        lambda m: m.functions.add(name="f", domain="d"),
        lambda m: m.training_info.add(),
        lambda m: m.metadata_props.add(key="ort_config", value="{}"),
    ):
        changed = model()
        change(changed)
        assert "functions" in refused("onnx", changed.SerializeToString())


def test_onnx_of_other_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = model()
    renamed.graph.input[0].name = "y"
    typed = model()
    typed.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    unsized = model()
    unsized.graph.input[0].type.tensor_type.shape.dim[1].Clear()
    broken = model(nodes=[helper.make_node("MatMul", ["x", "nowhere"], ["answer"])])
    for changed in (renamed, typed, unsized, broken):
        refused("onnx", changed.SerializeToString())
    monkeypatch.setattr(graph, "MOST_NODES", 0)
    assert "nodes" in refused("onnx", model().SerializeToString())
    monkeypatch.setattr(graph, "LARGEST", 10)

    def never(_: bytes) -> Any:
        pytest.fail("parsed before its size was looked at")

    monkeypatch.setattr(onnx, "load_model_from_string", never)
    assert "bytes" in refused("onnx", model().SerializeToString())


def test_the_runtime_is_given_what_was_checked() -> None:
    """A field that this parser does not know is not passed on to a parser that might."""
    data = model().SerializeToString()
    hidden = b"\xfa\x7f\x04\x08\x01\x10\x01"
    assert graph.check(data + hidden) == graph.check(data)


# --- our own source --------------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "runpy",
}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "FunctionType"}
FORBIDDEN_ATTRIBUTES = {"deserialize", "from_pickle", "read_pickle", "get_untrusted_types", "unsafe_load", "system"}
FORBIDDEN_ATTRIBUTES |= {"popen", "load_external_data_for_model", "load_external_data_for_tensor"}
FORBIDDEN_ARGUMENTS = {("allow_pickle", True), ("trusted", True), ("shell", True)}


def ways_to_run_what_was_read(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        # Called, or given another name; to be listed as a name is no harm (fingerprints refuse functions that use them).
        used = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Assign) else None
        if isinstance(used, ast.Name) and used.id in FORBIDDEN_CALLS:
            found.append(used.id)
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES:
            found.append(node.attr)
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found += [str(pair) for pair in [(node.arg, node.value.value)] if pair in FORBIDDEN_ARGUMENTS]
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_our_source_has_no_way_to_run_what_it_reads(path: Path) -> None:
    assert not ways_to_run_what_was_read(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.numpy_pickle as n",
        "from yaml import load",
        "from cloudpickle import loads",
        "pl.Expr.deserialize(data)",
        "frame = pl.LazyFrame.deserialize(data, format='binary')",
        "eval(text)",
        "f = exec",
        "answer = FunctionType(code, {})()",
        "np.load(path, allow_pickle=True)",
        "skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_the_search_finds_each_of_them(source: str) -> None:
    assert ways_to_run_what_was_read(source)
