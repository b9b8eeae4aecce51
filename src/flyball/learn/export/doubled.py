"""LightGBM's trees as ONNX with the same bits: thresholds, leaves and sums in double, and the last step done outside.

The graph of `onnx_write` adds leaves in float32, as most runtimes can, and so differs from LightGBM by some 3e-7. This one is a
`TreeEnsemble` (ai.onnx.ml 5) over doubles, which ONNX Runtime adds up tree by tree, as LightGBM does; it yields raw scores. The
**link** (a sigmoid, a softmax, an exponential) is then computed by the C library's functions, one number at a time, as LightGBM
does too. It is as fast as the float32 graph, and half again as fast as LightGBM's own batches.

None of that is believed: `load` asks both about rows around every threshold, and gives nothing where one bit differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from flyball.learn import task
from flyball.learn.export import boosted, graph, lightgbm_c, predictor, several

Link = Literal["identity", "sigmoid", "softmax", "exp"]
Doubles = npt.NDArray[np.float64]

PROBES = 2048
"""Rows that both are asked about."""
_SEED = 1788
_OPSET, _ML_OPSET, _IR = 17, 5, 10

_LINKS: dict[str, Link] = {
    **dict.fromkeys(("binary", "cross_entropy"), "sigmoid"),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
    "multiclass": "softmax",
}
_ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold."""
_MISSING_IS_ZERO, _NAN_MISSING, _DEFAULT_LEFT = 1, 2, 2


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """One booster.

    Attributes:
        model: ONNX: `x`, float32 (rows, features), to `score`, float64 (rows, width).
        link: what makes an answer of the scores of a row,
        scale: after they were multiplied by this.
    """

    model: bytes
    features: int
    width: int
    link: Link
    scale: float = 1.0


class Doubled:
    """Boosted trees through ONNX Runtime, with LightGBM's bits."""

    name: Literal["lightgbm"] = "lightgbm"

    def __init__(self, raw: Raw) -> None:
        self._session = graph.session(raw.model, boosted.refused)
        self._link = linked(raw.link, raw.scale)
        self.features, self.width = raw.features, raw.width

    def row(self, values: predictor.Matrix) -> task.Answer:
        """The answer to one row: float32 of shape (features,)."""
        found = self.batch(values[np.newaxis])
        return float(found[0]) if self.width == 1 else tuple(found[0].tolist())

    def batch(self, matrix: predictor.Matrix) -> task.Answers:
        """The answers to a float32 matrix of shape (rows, features): float64 of shape (rows,), or (rows, width)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.float32:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        scores = self._session.run(["score"], {graph.INPUT: np.ascontiguousarray(matrix)})[0]
        return self._link(scores[:, 0] if self.width == 1 else scores)


def load(data: bytes) -> predictor.Predictor | None:
    """A predictor that answers as `lightgbm_c.load(data)` does, bit for bit; None where that cannot be had.

    Raises:
        StateError: `hostile-model`, when the bytes are not what packaging writes.
    """
    own = lightgbm_c.load(data)
    try:
        found = several.loaded(data, _one, boosted.refused)
    except _Unlike:
        return None
    rows = probes(data)
    same = own.batch(rows).tobytes() == found.batch(rows).tobytes()
    return found if same else None


def raws(data: bytes) -> list[Raw] | None:
    """Each booster of an artifact; None where one has what a graph cannot say."""
    try:
        return [_raw(part) for part in several.parts(data)[0]]
    except _Unlike:
        return None


def probes(data: bytes) -> predictor.Matrix:
    """(PROBES, features) float32: thresholds of the trees, their neighbours, and missing values; same bytes, same rows."""
    borders: dict[int, list[float]] = {}
    features = 0
    for part in several.parts(data)[0]:
        header, trees = boosted.parsed(part.decode())
        features = int(header["max_feature_idx"]) + 1
        for tree in trees:
            for feature, border in zip(_wholes(tree["split_feature"]), _numbers(tree["threshold"]), strict=True):
                borders.setdefault(feature, []).append(border)
    rng = np.random.default_rng(_SEED)
    found = np.full((PROBES, features), np.nan, dtype=np.float32)
    for feature in range(features):
        known = np.unique(np.array(borders.get(feature, [0.0]), dtype=np.float32))
        chosen = rng.choice(known, PROBES)
        beside = np.nextafter(chosen, np.where(rng.random(PROBES) < 0.5, np.float32(np.inf), np.float32(-np.inf)))
        wide = rng.normal(0, 2 * float(np.abs(known[np.isfinite(known)]).max(initial=1.0)), PROBES)
        kinds = rng.integers(0, 6, PROBES)
        options = [chosen, beside, wide, np.round(wide), np.zeros(PROBES), np.full(PROBES, np.nan)]
        found[:, feature] = np.choose(kinds, options).astype(np.float32)
    return found


def linked(link: Link, scale: float) -> Callable[[Doubles], Doubles]:
    """Scores (rows,) or (rows, width) -> answers of the same shape, by the C library's exponential."""
    match link:
        case "identity":
            return lambda scores: np.ascontiguousarray(scores)
        case "softmax":
            return lambda scores: np.array([_softmax(row) for row in scores.tolist()]).reshape(scores.shape)
        case "exp":
            return lambda scores: np.array([_exp(score) for score in scores.tolist()])
    return lambda scores: _sigmoid(scale, scores)


class _Unlike(Exception):
    """A graph would not say what these trees say."""


def _one(part: bytes) -> Doubled:
    return Doubled(_raw(part))


def _raw(part: bytes) -> Raw:
    header, trees = boosted.parsed(part.decode())
    name, *settings = header.get("objective", "").split(" ")
    if name not in _LINKS or "average_output" in header or "sqrt" in settings:
        raise _Unlike
    scale = next((float(s.removeprefix("sigmoid:")) for s in settings if s.startswith("sigmoid:")), 1.0)
    features, width = int(header["max_feature_idx"]) + 1, int(header["num_class"])
    try:
        model = _written(trees, features, width)
    except onnx.checker.ValidationError as problem:
        raise _Unlike from problem
    return Raw(model=model, features=features, width=width, link=_LINKS[name], scale=scale)


def _written(trees: list[boosted.Fields], features: int, width: int) -> bytes:
    names = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs", "missing_value_tracks_true")
    nodes: dict[str, Any] = {name: [] for name in names}
    splits: list[float] = []
    leaves: list[float] = []
    targets: list[int] = []
    roots: list[int] = []
    for number, tree in enumerate(trees):
        base, first = len(splits), len(leaves)
        roots.append(base)
        values = _numbers(tree["leaf_value"])
        leaves += values
        targets += [number % width] * len(values)
        for feature, border, left, right, tracks in _branches(tree):
            splits.append(border)
            nodes["featureids"].append(feature)
            for side, child in (("true", left), ("false", right)):
                nodes[f"{side}leafs"].append(int(child < 0))
                nodes[f"{side}nodeids"].append(first + ~child if child < 0 else base + child)
            nodes["missing_value_tracks_true"].append(tracks)
    made = helper.make_node(
        "TreeEnsemble",
        ["wide"],
        ["score"],
        name="trees",
        domain="ai.onnx.ml",
        n_targets=width,
        aggregate_function=1,
        post_transform=0,
        tree_roots=roots,
        nodes_splits=numpy_helper.from_array(np.array(splits, dtype=np.float64)),
        nodes_modes=numpy_helper.from_array(np.zeros(len(splits), dtype=np.uint8)),
        leaf_targetids=targets,
        leaf_weights=numpy_helper.from_array(np.array(leaves, dtype=np.float64)),
        **{f"nodes_{name}": values for name, values in nodes.items()},
    )
    cast = helper.make_node("Cast", [graph.INPUT], ["wide"], name="wide", to=onnx.TensorProto.DOUBLE)
    given = helper.make_tensor_value_info(graph.INPUT, onnx.TensorProto.FLOAT, [None, features])
    score = helper.make_tensor_value_info("score", onnx.TensorProto.DOUBLE, [None, width])
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    whole = helper.make_graph([cast, made], "flyball", [given], [score])
    model = helper.make_model(whole, producer_name="flyball", opset_imports=opsets, ir_version=_IR)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _branches(tree: boosted.Fields) -> Iterable[tuple[int, float, int, int, int]]:
    """(feature, threshold, left child, right child, whether a missing value goes left) of each node.

    A tree of one leaf becomes a node that leads there either way: a graph has no other.
    """
    if int(tree["num_leaves"]) == 1:
        return [(0, 0.0, -1, -1, 0)]
    found = []
    columns = (tree[name] for name in ("split_feature", "left_child", "right_child", "decision_type"))
    for feature, left, right, kind, border in zip(*map(_wholes, columns), _numbers(tree["threshold"]), strict=True):
        missing = kind >> 2
        if kind & 1 or missing == _MISSING_IS_ZERO:
            raise _Unlike
        # Where nothing counts as missing LightGBM reads a missing value as zero.
        tracks = bool(kind & _DEFAULT_LEFT) if missing == _NAN_MISSING else border >= 0
        found.append((feature, _beside_zero(border), left, right, int(tracks)))
    return found


def _beside_zero(border: float) -> float:
    """A threshold for numbers as they are: LightGBM reads whatever is as near to zero as this as zero, before it compares."""
    if -_ZERO <= border < 0:
        return float(np.nextafter(np.float32(-_ZERO), np.float32(-np.inf)))
    return _ZERO if 0 <= border <= _ZERO else border


def _numbers(value: str) -> list[float]:
    return [float(each) for each in value.split()]


def _wholes(value: str) -> list[int]:
    return [int(each) for each in value.split()]


def _sigmoid(scale: float, scores: Doubles) -> Doubles:
    listed = (-scale * scores).tolist()
    exp = math.exp
    try:
        return np.array([1.0 / (1.0 + exp(score)) for score in listed], dtype=np.float64)
    except OverflowError:
        return np.array([1.0 / (1.0 + _exp(score)) for score in listed], dtype=np.float64)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _softmax(scores: list[float]) -> list[float]:
    most = max(scores)
    found = [math.exp(score - most) for score in scores]
    total = 0.0
    for each in found:  # one after the other, as LightGBM does: `sum` compensates for what is lost, since Python 3.12
        total += each
    return [each / total for each in found]
