"""skops files: trees whose numbers would make scikit-learn read foreign memory, and that honest ones pass."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from flyball._kernel.errors import StateError
from flyball.learn.export import native, parity, skops_zip

Node = dict[str, Any]
X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
NONE: Node = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "null"}


def refused(data: bytes) -> str:
    with pytest.raises(StateError) as caught:
        native.load(data)
    assert caught.value.code == "hostile-model"
    return caught.value.why


def taken_apart(data: bytes) -> tuple[Node, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        stored = {name: source.read(name) for name in source.namelist()}
    return json.loads(stored.pop("schema.json")), stored


def joined(schema: Node, stored: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as target:
        for name, content in {**stored, "schema.json": json.dumps(schema).encode()}.items():
            target.writestr(name, content)
    return output.getvalue()


@pytest.fixture(scope="module")
def forest() -> bytes:
    return native.dump(RandomForestClassifier(2, max_depth=3, random_state=0).fit(X, Y))


@pytest.fixture(scope="module")
def boosting() -> bytes:
    return native.dump(HistGradientBoostingClassifier(max_iter=2).fit(X, Y))


def trees_of(schema: Any) -> list[Node]:
    """Every attribute dictionary that holds an array of nodes."""
    if isinstance(schema, list):
        return [found for item in schema for found in trees_of(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if "nodes" in schema else []
    return own + [found for item in schema.values() for found in trees_of(item)]


def with_nodes(data: bytes, change: Callable[[Any], None]) -> bytes:
    """`data` with the array of the first tree changed in place."""
    schema, stored = taken_apart(data)
    name = trees_of(schema)[0]["nodes"]["file"]
    nodes = np.load(io.BytesIO(stored[name]))
    change(nodes)
    output = io.BytesIO()
    np.save(output, nodes)
    return joined(schema, {**stored, name: output.getvalue()})


@pytest.mark.parametrize(
    ("field", "value"),
    [(side, value) for side in ("left_child", "right_child") for value in (10**9, -5, 0)]
    + [("feature", 10**9), ("feature", 4), ("feature", -5)],
)
def test_trees_that_would_read_foreign_memory(forest: bytes, field: str, value: int) -> None:
    def change(nodes: Any) -> None:
        nodes[field][0] = value

    assert "tree" in refused(with_nodes(forest, change))


@pytest.mark.parametrize(("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 4), ("is_categorical", 1)])
def test_boosted_trees_that_would_read_foreign_memory(boosting: bytes, field: str, value: int) -> None:
    def change(nodes: Any) -> None:
        nodes[field][0] = value

    assert "tree" in refused(with_nodes(boosting, change))


def test_trees_cannot_be_given_narrower_rows_than_they_read(forest: bytes) -> None:
    """scikit-learn holds the rows against the forest's own number, and the trees then read without looking."""
    schema, stored = taken_apart(forest)
    own = schema["content"]["content"]
    own["n_features_in_"]["content"] = "2"
    refused(joined(schema, stored))
    schema, stored = taken_apart(forest)
    names = list(schema["content"]["content"])
    schema["content"]["key_types"]["content"] = schema["content"]["key_types"]["content"][: len(names) - 2]
    assert "keys" in refused(joined(schema, stored))
    schema, stored = taken_apart(forest)
    del schema["content"]["content"]["n_features_in_"], schema["content"]["key_types"]["content"][0]
    for tree in trees_of(schema):
        tree["nodes"] = NONE
    refused(joined(schema, stored))


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_depth=4),
        ExtraTreesRegressor(3, max_depth=4),
        HistGradientBoostingClassifier(max_iter=3),
        LogisticRegression(),
        Ridge(),
        GaussianNB(),
        CalibratedClassifierCV(RandomForestClassifier(2, max_depth=3), method="isotonic", cv=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_honest_estimators_come_back_as_they_were(model: Any) -> None:
    model.fit(X, Y)
    data = native.dump(model)
    assert native.dump(model) == data == skops_zip.rebuilt(data)
    assert parity.between(native.answers(model, X), native.load(data).batch(X)).exact
