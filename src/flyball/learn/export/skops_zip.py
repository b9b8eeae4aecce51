"""skops files: taken apart, held against our own closed list, and put together anew. No library builds anything yet.

A skops file is a zip of `schema.json` (a tree of nodes, each naming a loader and a type) and arrays. `rebuilt` reads
it as data and writes the one form that is loaded, at packaging and again at loading:

* every loader and type is on the list below, chosen by us for what their loading can do; never what the file asks for,
  and narrower than what skops itself trusts (every estimator, every ufunc);
* nothing callable is built: types stand only where a dtype or the type of a dictionary's key is meant, so that no
  attribute can take the place of a method;
* trees are walked: scikit-learn follows their node numbers without looking, so a wrong one reads foreign memory;
* references between nodes go (they let a checked node be swapped for another), generators of random numbers become
  None (a fitted model draws nothing), arrays are numbered by content, the zip has no dates: same model, same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import StateError

LARGEST = 1 << 28
"""Bytes, stored and read."""

DEEPEST = 120

_TASKS = ("Classifier", "Regressor")
_LOSSES = (
    *("HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError", "HalfPoissonLoss", "HalfGammaLoss"),
    *("AbsoluteError", "PinballLoss", "HalfTweedieLoss", "HalfTweedieLossIdentity"),
)
_SKLEARN: Mapping[str, list[str]] = {
    "pipeline": ["Pipeline"],
    "compose._column_transformer": ["ColumnTransformer"],
    "impute._base": ["SimpleImputer", "MissingIndicator"],
    "preprocessing._encoders": ["OneHotEncoder", "OrdinalEncoder"],
    "preprocessing._data": [
        *(f"{kind}Scaler" for kind in ("Standard", "MinMax", "Robust", "MaxAbs")),
        *("QuantileTransformer", "PowerTransformer", "Normalizer", "Binarizer"),
    ],
    "preprocessing._polynomial": ["PolynomialFeatures"],
    "feature_selection._variance_threshold": ["VarianceThreshold"],
    "decomposition._pca": ["PCA"],
    "decomposition._truncated_svd": ["TruncatedSVD"],
    "preprocessing._discretization": ["KBinsDiscretizer"],
    "preprocessing._function_transformer": ["FunctionTransformer"],
    "preprocessing._label": ["LabelEncoder", "LabelBinarizer"],
    "linear_model._base": ["LinearRegression"],
    "linear_model._logistic": ["LogisticRegression", "LogisticRegressionCV"],
    "linear_model._ridge": ["Ridge", "RidgeCV"],
    "linear_model._coordinate_descent": ["Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"],
    "linear_model._stochastic_gradient": ["SGDClassifier", "SGDRegressor", "SGDOneClassSVM"],
    "linear_model._least_angle": ["Lars", "LassoLars"],
    "linear_model._bayes": ["BayesianRidge", "ARDRegression"],
    "linear_model._quantile": ["QuantileRegressor"],
    "linear_model._omp": ["OrthogonalMatchingPursuit"],
    "linear_model._theil_sen": ["TheilSenRegressor"],
    "svm._classes": ["LinearSVC", "LinearSVR"],
    "discriminant_analysis": ["LinearDiscriminantAnalysis", "QuadraticDiscriminantAnalysis"],
    "neural_network._multilayer_perceptron": [f"MLP{task}" for task in _TASKS],
    "neural_network._stochastic_optimizers": ["AdamOptimizer", "SGDOptimizer"],
    "covariance._elliptic_envelope": ["EllipticEnvelope"],
    "linear_model._glm.glm": ["PoissonRegressor", "GammaRegressor", "TweedieRegressor"],
    "linear_model._huber": ["HuberRegressor"],
    "naive_bayes": ["GaussianNB", "BernoulliNB", "MultinomialNB", "ComplementNB"],
    "dummy": ["DummyClassifier", "DummyRegressor"],
    "calibration": ["CalibratedClassifierCV", "_CalibratedClassifier", "_SigmoidCalibration"],
    "isotonic": ["IsotonicRegression"],
    "tree._classes": [f"{kind}{task}" for kind in ("DecisionTree", "ExtraTree") for task in _TASKS],
    "ensemble._iforest": ["IsolationForest"],
    "ensemble._weight_boosting": [f"AdaBoost{task}" for task in _TASKS],
    "ensemble._bagging": [f"Bagging{task}" for task in _TASKS],
    "ensemble._voting": [f"Voting{task}" for task in _TASKS],
    "ensemble._stacking": [f"Stacking{task}" for task in _TASKS],
    "ensemble._forest": [f"{kind}{task}" for kind in ("RandomForest", "ExtraTrees") for task in _TASKS],
    "ensemble._hist_gradient_boosting.gradient_boosting": [f"HistGradientBoosting{task}" for task in _TASKS],
    "ensemble._hist_gradient_boosting.binning": ["_BinMapper"],
    "ensemble._hist_gradient_boosting.predictor": ["TreePredictor"],
    "_loss.link": ["IdentityLink", "LogLink", "LogitLink", "MultinomialLogit", "Interval"],
    "_loss.loss": [*_LOSSES],
}
_SCALARS = ("bool", "int32", "int64", "uint8", "uint64", "float32", "float64")

_NODES: Mapping[str, frozenset[str]] = {
    "ObjectNode": frozenset(f"sklearn.{module}.{name}" for module, names in _SKLEARN.items() for name in names),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "LossNode": frozenset(f"sklearn._loss._loss.Cy{name}" for name in _LOSSES)
    | {f"sklearn.linear_model._sgd_fast.{name}" for name in ("Hinge", "ModifiedHuber")},
    "DictNode": frozenset({"builtins.dict", "sklearn.utils._bunch.Bunch"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "JsonNode": frozenset({"builtins.str"}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "NdArrayNode": frozenset({"numpy.ndarray", *(f"numpy.{name}" for name in _SCALARS)}),
    "TypeNode": frozenset({"builtins.str", "builtins.int", *(f"numpy.{name}" for name in _SCALARS)}),
}
ALLOWED: frozenset[str] = frozenset().union(*_NODES.values())
"""Every type that a stored model may hold. Estimators that reach C code with arrays of their own (support vectors,
neighbours, gradient boosting over trees) are left out: they are served as ONNX or not at all. The others answer in numpy, or
through trees that are walked here."""

_PROTOCOL = 2
_RANDOM = frozenset({"RandomStateNode", "RandomGeneratorNode"})
_DTYPES = frozenset({"dtype", "_fit_dtype"})
_BOOSTING = "sklearn.ensemble._hist_gradient_boosting.gradient_boosting."
_ISOLATION = "sklearn.ensemble._iforest.IsolationForest"
_GROWN = ("sklearn.tree._classes.", "sklearn.ensemble._forest.", _ISOLATION, _BOOSTING)
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"

Node = dict[str, Any]
Array = npt.NDArray[Any]


def rebuilt(data: bytes) -> bytes:
    """`data` in the one form that is loaded, after checking all of it; applying it twice changes nothing more.

    Raises:
        StateError: `hostile-model`, with the first thing that does not hold.
    """
    schema, stored = _opened(data)
    if schema.get("protocol") != _PROTOCOL:
        raise refused(f"it follows protocol {str(schema.get('protocol'))[:20]!r}; only {_PROTOCOL} is read")
    walk = _Walk(stored)
    try:
        tree = walk.node(schema, "", None, 0)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise refused("its schema does not hang together") from error
    tree["protocol"] = _PROTOCOL
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as target:
        for name, content in (*walk.written.items(), ("schema.json", json.dumps(tree, separators=(",", ":")).encode())):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            target.writestr(entry, content)
    return output.getvalue()


def refused(why: str) -> StateError:
    """The error for a skops file that must not be loaded."""
    return StateError(
        "hostile-model", "A stored scikit-learn model is refused.", why=why, next="flyball reproduce, or flyball apply"
    )


class _Walk:
    """One pass over a schema: checks and copies its nodes, numbering the arrays."""

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        self._numbers: dict[bytes, str] = {}
        self.written: dict[str, bytes] = {}

    def node(self, node: Any, key: str, width: int | None, depth: int) -> Node:
        """A checked copy of `node`, which stands under `key` in an estimator that reads `width` features."""
        if depth > DEEPEST or not isinstance(node, dict):
            raise refused(f"what stands under {key[:40]!r} is no node, or too deep")
        loader, name = node.get("__loader__"), f"{node.get('__module__')}.{node.get('__class__')}"
        if loader in _RANDOM:
            return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "null"}
        if not isinstance(loader, str) or name not in _NODES.get(loader, ()):
            raise refused(f"it holds a {name[:100]} ({str(loader)[:40]}), which is not on the list of allowed types")
        if loader == "TypeNode" and key not in _DTYPES and key != "key_types":
            raise refused(f"a type stands under {key[:40]!r}, where it could be called")
        if loader == "DictNode" and not _keys_are_named(node):
            raise refused(f"the keys of {key[:40]!r} and their types are not as many")
        if name.startswith(_GROWN):
            width = self._width(node, width)
            if name == _ISOLATION and _attribute(node, "_max_features").get("content") != str(width):
                raise refused("an isolation forest shows its trees other columns than they read")
        elif loader == "ObjectNode" and name != _PREDICTOR:
            width = None
        copy = {"__class__": node["__class__"], "__module__": node["__module__"], "__loader__": loader}
        copy |= {
            part: self._part(node[part], key if part == "content" else part, width, depth + 1)
            for part in ("content", "key_types", "shape", "type", "__reduce__", "is_json")
            if part in node
        }
        if loader == "NdArrayNode" and node.get("type") == "numpy":
            copy["file"] = self._file(node)
        if loader == "TreeNode":
            _check_tree(self._array(_attribute(node, "nodes")), width)
        if name == _PREDICTOR:
            _check_predictor(self._array(_attribute(node, "nodes")), width)
        return copy

    def _part(self, value: Any, key: str, width: int | None, depth: int) -> Any:
        if isinstance(value, dict) and "__loader__" in value:
            return self.node(value, key, width, depth)
        if isinstance(value, dict):
            return {name: self._part(item, name, width, depth + 1) for name, item in value.items()}
        if isinstance(value, list):
            return [self._part(item, key, width, depth + 1) for item in value]
        return value

    def _width(self, node: Node, outer: int | None) -> int | None:
        """The number of features that trees below `node` may look at: what scikit-learn holds the input against.

        None for an estimator that was not fitted, such as the pattern that a forest was grown from: no trees there.
        """
        content = _attribute(node, "n_features_in_").get("content")
        if content is None:
            return None
        if not isinstance(content, str) or not content.isascii() or not content.isdigit() or len(content) > 6:
            raise refused("an estimator of trees does not say how many features it reads")
        if outer is not None and int(content) != outer:
            raise refused("an ensemble and its trees read different numbers of features")
        return int(content)

    def _file(self, node: Node) -> str:
        content = io.BytesIO()
        np.save(content, self._array(node), allow_pickle=False)
        name = self._numbers.setdefault(content.getvalue(), f"{len(self._numbers)}.npy")
        self.written[name] = content.getvalue()
        return name

    def _array(self, node: Node) -> Array:
        if node.get("type") != "numpy" or node.get("file") not in self._stored:
            raise refused("an array has no file")
        try:
            loaded: Array = np.load(io.BytesIO(self._stored[node["file"]]), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
            raise refused("an array cannot be read") from error
        if loaded.dtype.hasobject:
            raise refused("an array is none")
        if loaded.dtype.names is None:
            return loaded
        # The bytes between the fields of a record are whatever lay in memory.
        clean = np.zeros(loaded.shape, loaded.dtype)
        for field in loaded.dtype.names:
            clean[field] = loaded[field]
        return clean


def _opened(data: bytes) -> tuple[Node, dict[str, bytes]]:
    """The schema and the arrays, read without expanding anything."""
    if len(data) > LARGEST:
        raise refused(f"it has {len(data):,} bytes; the limit is {LARGEST:,}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            entries = source.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise refused("it is compressed or encrypted")
            if sum(entry.file_size for entry in entries) > LARGEST:
                raise refused("it says that it holds more than it has")
            stored = {entry.filename: source.read(entry) for entry in entries}
        schema = json.loads(stored.pop("schema.json"))
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, NotImplementedError, RecursionError) as error:
        raise refused("it is not a skops file") from error
    if not isinstance(schema, dict):
        raise refused("its schema is no node")
    return schema, stored


def _keys_are_named(node: Node) -> bool:
    """Each key has a type: skops would leave out what has none, and with it the attribute that was checked."""
    types, content = node.get("key_types"), node.get("content")
    listed = types.get("content") if isinstance(types, dict) and types.get("__loader__") == "ListNode" else None
    return isinstance(listed, list) and isinstance(content, dict) and len(listed) == len(content)


def _attribute(node: Node, name: str) -> Node:
    """The node of one attribute, wherever its loader keeps them; an empty one if there is none."""
    try:
        found = node["content"]["content"][name]
    except (KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_tree(nodes: Array, width: int | None) -> None:
    """Children of a decision tree come after their parent; leaves have none; splits look at features that are there."""
    try:
        left, right, feature = (nodes[name] for name in ("left_child", "right_child", "feature"))
    except (ValueError, IndexError) as error:
        raise refused("a decision tree is none") from error
    _check_nodes(left.astype(np.int64), right.astype(np.int64), feature.astype(np.int64), left == -1, width)


def _check_predictor(nodes: Array, width: int | None) -> None:
    """The same for a boosted tree, which in addition must not look into sets of categories."""
    try:
        left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
        leaf, categorical = nodes["is_leaf"] != 0, nodes["is_categorical"] != 0
    except (ValueError, IndexError) as error:
        raise refused("a boosted tree is none") from error
    if np.any(categorical):
        raise refused("a boosted tree has categorical splits, which are not served")
    _check_nodes(left, right, feature, leaf, width)


def _check_nodes(left: Array, right: Array, feature: Array, leaf: Array, width: int | None) -> None:
    if width is None or left.ndim != 1 or len(left) == 0:
        raise refused("a tree stands outside an estimator of trees, or is empty")
    place, split = np.arange(len(left)), ~leaf
    for child in (left, right):
        if np.any((child[split] <= place[split]) | (child[split] >= len(left))):
            raise refused("the nodes of a tree do not form one")
    if np.any((feature[split] < 0) | (feature[split] >= width)):
        raise refused("a tree splits on a feature that is not there")
