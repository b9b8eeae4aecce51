"""XGBoost's model in JSON: checked completely and written in one form, because the library believes what it reads.

Kept: trees on numbers, one number or one a class. Dropped: names and attributes, which no answer depends on. Refused: linear
and dropped-out boosters, splits on categories, vector leaves, objectives that are not listed; and whatever does not hang
together, since the library follows the numbers of nodes, features and classes without looking.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import StateError

LARGEST = 1 << 28
MOST_FEATURES = 1 << 16
MOST_CLASSES = 1000

_SINGLE = frozenset(
    {"binary:logistic", "reg:logistic", "reg:squarederror", "reg:absoluteerror", "reg:quantileerror", "reg:gamma"}
    | {"reg:tweedie", "reg:squaredlogerror", "reg:pseudohubererror", "count:poisson"}
)
_CLASSES = "multi:softprob"
_NO_PARENT = (1 << 31) - 1
_SIZE = re.compile(r"\d{1,8}", re.ASCII)
_SETTING = re.compile(r"[-+.0-9a-zA-Z,\[\]]{1,60}", re.ASCII)

_WHOLE = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")
_REAL = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")
_OF_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_TREE = frozenset({*_WHOLE, *_REAL, *_OF_CATEGORIES, "id", "tree_param"})
_TREE_PARAM = frozenset({"num_deleted", "num_feature", "num_nodes", "size_leaf_vector"})
_LEARNER = frozenset(
    {"attributes", "feature_names", "feature_types", "gradient_booster", "learner_model_param", "objective"}
)
_PARAM = frozenset({"base_score", "boost_from_average", "num_class", "num_feature", "num_target"})
_NO_CATEGORIES: dict[str, list[int]] = {"enc": [], "feature_segments": [], "sorted_idx": []}


def canonical(data: bytes) -> bytes:
    """What XGBoost wrote (`save_raw("json")`), in the form that `check` accepts.

    Raises:
        StateError: `hostile-model`, with the first thing that does not hold.
    """
    model = _parsed(data)
    learner = _keys(_keys(model, frozenset({"learner", "version"}))["learner"], _LEARNER)
    learner |= {"attributes": {}, "feature_names": [], "feature_types": []}
    written = _written(model)
    check(written)
    return written


def check(data: bytes) -> tuple[int, int]:
    """How many features a model reads and how many numbers it answers, after proving that the library can read it safely.

    Raises:
        StateError: `hostile-model`, with the first thing that does not hold.
    """
    model = _parsed(data)
    if _written(model) != data:
        raise refused("it is not in the canonical form that was written at packaging")
    try:
        return _checked(_keys(model, frozenset({"learner", "version"})))
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise refused("it does not hang together") from error


def refused(why: str) -> StateError:
    """The error for a model that must not reach the library."""
    return StateError(
        "hostile-model", "A stored XGBoost model is refused.", why=why, next="flyball reproduce, or flyball apply"
    )


def _parsed(data: bytes) -> Any:
    if len(data) > LARGEST:
        raise refused(f"it has {len(data):,} bytes; the limit is {LARGEST:,}")
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise refused("it is not JSON") from error


def _no_number(name: str) -> float:
    raise ValueError(name)


def _written(model: Any) -> bytes:
    return json.dumps(model, sort_keys=True, separators=(",", ":")).encode()


def _keys(value: Any, wanted: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != wanted:
        raise refused(f"where {sorted(wanted)[0]!r} and its like should stand, is something else")
    return value


def _size(value: Any, low: int, high: int, name: str) -> int:
    if not isinstance(value, str) or not _SIZE.fullmatch(value) or not low <= int(value) <= high:
        raise refused(f"{name} is {str(value)[:20]!r}")
    return int(value)


def _checked(model: dict[str, Any]) -> tuple[int, int]:
    version = model["version"]
    if len(version) != 3 or version[0] != 3 or not all(type(v) is int and 0 <= v < 1000 for v in version):
        raise refused("it was not written by XGBoost 3")
    learner = _keys(model["learner"], _LEARNER)
    if learner["attributes"] != {} or learner["feature_names"] != [] or learner["feature_types"] != []:
        raise refused("it has attributes or names")
    param = _keys(learner["learner_model_param"], _PARAM)
    features = _size(param["num_feature"], 1, MOST_FEATURES, "num_feature")
    classes = _size(param["num_class"], 0, MOST_CLASSES, "num_class")
    width = max(1, classes)
    _size(param["num_target"], 1, 1, "num_target")
    _size(param["boost_from_average"], 0, 1, "boost_from_average")
    score = json.loads(param["base_score"], parse_constant=_no_number)
    if not isinstance(score, list) or len(score) != width or not all(type(v) in (int, float) for v in score):
        raise refused("it does not start from one number a class")
    _check_objective(learner["objective"], classes)
    _check_trees(learner["gradient_booster"], features, width)
    return features, width


def _check_objective(objective: Any, classes: int) -> None:
    """One that writes as many numbers as there are classes."""
    name = objective["name"]
    if name != _CLASSES if classes else name not in _SINGLE:
        raise refused(f"its objective {str(name)[:40]!r} is not served for {classes} classes")
    for key, settings in objective.items():
        if key == "name":
            continue
        if not isinstance(settings, dict) or not all(
            isinstance(v, str) and _SETTING.fullmatch(v) for v in settings.values()
        ):
            raise refused("its objective has settings that are none")
        if classes and settings.get("num_class", str(classes)) != str(classes):
            raise refused("its objective has another number of classes")
        if "," in settings.get("quantile_alpha", ""):
            raise refused("it answers several quantiles at once")


def _check_trees(booster: Any, features: int, width: int) -> None:
    if booster.get("name") != "gbtree":
        raise refused(f"its booster is {str(booster.get('name'))[:20]!r}, and only 'gbtree' is served")
    model = _keys(
        _keys(booster, frozenset({"name", "model"}))["model"],
        frozenset({"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"}),
    )
    trees = model["trees"]
    param = _keys(model["gbtree_model_param"], frozenset({"num_parallel_tree", "num_trees"}))
    _size(param["num_parallel_tree"], 1, 100_000, "num_parallel_tree")
    _size(param["num_trees"], len(trees), len(trees), "num_trees")
    if model["cats"] != _NO_CATEGORIES:
        raise refused("it knows categories")
    info, ends = _whole(model["tree_info"], len(trees)), model["iteration_indptr"]
    if np.any((info < 0) | (info >= width)):
        raise refused("a tree belongs to a class that is not there")
    rounds = _whole(ends, len(ends))
    if not trees or rounds[0] != 0 or rounds[-1] != len(trees) or np.any(np.diff(rounds) < 1):
        raise refused("its rounds and its trees do not agree")
    for i, tree in enumerate(trees):
        _check_tree(_keys(tree, _TREE), i, features)


def _check_tree(tree: dict[str, Any], place: int, features: int) -> None:
    """Children come after their node; splits look at features that are there; nothing is said of categories."""
    param = _keys(tree["tree_param"], _TREE_PARAM)
    nodes = _size(param["num_nodes"], 1, 1 << 26, "num_nodes")
    _size(param["num_deleted"], 0, 0, "num_deleted")
    _size(param["num_feature"], features, features, "num_feature")
    _size(param["size_leaf_vector"], 0, 1, "size_leaf_vector")
    left, right, parents, splits, kinds, defaults = (_whole(tree[key], nodes) for key in _WHOLE)
    for key in _REAL:
        _real(tree[key], nodes)
    if type(tree["id"]) is not int or tree["id"] != place or any(tree[key] != [] for key in _OF_CATEGORIES):
        raise refused(f"tree {place} is out of place, or knows categories")
    inner = left != -1
    own = np.arange(nodes)
    if np.any(inner != (right != -1)):
        raise refused(f"a node of tree {place} has one child")
    for child in (left[inner], right[inner]):
        if np.any((child <= own[inner]) | (child >= nodes)) or np.any(parents[child] != own[inner]):
            raise refused(f"the nodes of tree {place} do not form one")
    if parents[0] != _NO_PARENT or len(np.unique([*left[inner], *right[inner]])) != nodes - 1:
        raise refused(f"the nodes of tree {place} do not form one")
    if np.any((splits < 0) | (splits >= features)) or np.any(kinds != 0) or np.any((defaults < 0) | (defaults > 1)):
        raise refused(f"tree {place} splits by what is not there")


def _whole(values: Any, length: int) -> npt.NDArray[np.int64]:
    if not isinstance(values, list) or len(values) != length or not all(type(v) is int for v in values):
        raise refused(f"where {length} whole numbers should stand, is something else")
    return np.array(values, dtype=np.int64)


def _real(values: Any, length: int) -> None:
    if not isinstance(values, list) or len(values) != length or not all(type(v) in (int, float) for v in values):
        raise refused(f"where {length} numbers should stand, is something else")
