"""LightGBM's model text: parsed completely, checked completely, floored to float32, and written in one form.

*Flooring*: every numerical threshold becomes the largest float32 that is not above it. For a float32 x, `x <= t` holds
exactly when `x <= floor32(t)` does, so no row changes its leaf, and a runtime that compares in float32 agrees.

The library must never read a text that did not pass `check`: an index out of range makes it read foreign memory, and a
broken tree ends the process (an exception crosses its OpenMP region). So only our own canonical form is accepted, in
which everything has its place. Left out of it: the parameters (number of threads, paths: nothing that a prediction
depends on), importances (they follow from the trees) and `tree_sizes` (byte offsets that a text can lie about; without
them the library reads tree after tree). Refused: linear trees, and `multiclassova`, whose probabilities do not sum to one.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import StateError

Fields = dict[str, str]
Ints = npt.NDArray[np.int64]

LARGEST_TEXT = 1 << 28
"""Bytes of a model text; 256 MiB hold some two million leaves."""

MOST_FEATURES = 1 << 16
MOST_CLASSES = 1000

_NUMBER = r"-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf)"
_NUMBERS = re.compile(rf"(?:{_NUMBER}(?: {_NUMBER})*)?", re.ASCII)
_WHOLES = re.compile(r"(?:-?\d{1,10}(?: -?\d{1,10})*)?", re.ASCII)
_SIZE = re.compile(r"\d{1,8}", re.ASCII)
_OBJECTIVE = re.compile(r"[a-z_0-9]{1,40}(?: [a-z_]{1,40}(?::[-+.0-9a-z]{1,40})?){0,8}")

_FIXED = {"version": "v4", "label_index": "0"}
_CLASSES = ("num_class", "num_tree_per_iteration")
_PER_FEATURE = ("feature_names", "monotone_constraints", "feature_infos")
_HEADER = ("version", *_CLASSES, "label_index", "max_feature_idx", "objective", "average_output", *_PER_FEATURE)
_HEADER_MAY_LACK = frozenset({"objective", "average_output", "monotone_constraints"})
_DROPPED = frozenset({"tree_sizes"})

_BEFORE_LEAVES = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_PER_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
_AFTER_LEAVES = ("internal_value", "internal_weight", "internal_count")
_OF_CATEGORIES = ("cat_boundaries", "cat_threshold")
_ARRAYS = (*_BEFORE_LEAVES, *_PER_LEAF, *_AFTER_LEAVES)
_BODY = ("num_leaves", "num_cat", *_ARRAYS, *_OF_CATEGORIES, "is_linear", "shrinkage")
_WHOLE = frozenset({"split_feature", "decision_type", "left_child", "right_child", "internal_count", "leaf_count"})

_CATEGORICAL = 1
_KNOWN_DECISIONS = 12
"""Bit 0: categorical; bit 1: missing goes left; bits 2 and 3: what is missing (none, zero, NaN)."""


def floor32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above each of `values`."""
    with np.errstate(over="ignore", under="ignore"):
        near = values.astype(np.float32)
        return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def floor(text: str) -> str:
    """`text` as LightGBM wrote it, floored and in canonical form: the form that `check` accepts.

    Raises:
        StateError: `hostile-model`, when the text is not a model made of plain trees.
    """
    header, trees = _parse(text)
    for tree in trees:
        old = tree["threshold"].split()
        new = floor32(_numbers(tree["threshold"])).astype(np.float64)
        # Written anew only where it moved: LightGBM's own spelling of a number is as good as ours.
        moved = ~_categorical(tree) & (new != _numbers(tree["threshold"]))
        tree["threshold"] = " ".join(f"{new[j]:.17g}" if moved[j] else old[j] for j in range(len(old)))
    return _write(header, trees)


def check(text: str) -> tuple[int, int]:
    """How many features `text` reads and how many numbers it answers, after proving that the library can read it safely.

    Checked: the text is in canonical form to the byte; header values; as many classes as the objective will write; every
    array has the length that its tree needs; children form one tree; features, categories and kinds of decision are in
    range; numbers are numbers; thresholds are floored.

    Raises:
        StateError: `hostile-model`, with the first thing that does not hold.
    """
    header, trees = _parse(text)
    if _write(header, trees) != text:
        raise refused("it is not in the canonical form that was written at packaging")
    for i, tree in enumerate(trees):
        thresholds = _numbers(tree["threshold"])[~_categorical(tree)]
        if not np.array_equal(floor32(thresholds), thresholds):
            raise refused(f"tree {i} has a threshold that is not a float32")
    return int(header["max_feature_idx"]) + 1, int(header["num_class"])


def parsed(text: str) -> tuple[Fields, list[Fields]]:
    """The header and the trees of a text that `check` accepts, as they are spelled there. Errors as `check`."""
    check(text)
    return _parse(text)


def refused(why: str) -> StateError:
    """The error for a model text that must not reach the library."""
    return StateError(
        "hostile-model", "A stored LightGBM model is refused.", why=why, next="flyball reproduce, or flyball apply"
    )


def _parse(text: str) -> tuple[Fields, list[Fields]]:
    if len(text) > LARGEST_TEXT:
        raise refused(f"it has {len(text):,} characters; the limit is {LARGEST_TEXT:,}")
    if "\nis_linear=1\n" in text:
        raise refused("it has linear trees, which are not served")
    body, end, _ = text.partition("\nend of trees\n")
    if not end:
        raise refused("it has no end of trees")
    blocks = re.split(r"\n{2,}", body.strip("\n"))
    header = _fields(blocks[0], "tree", _HEADER)
    _check_header(header)
    trees = [_fields(block, f"Tree={i}", _BODY) for i, block in enumerate(blocks[1:])]
    if not trees or len(trees) % int(header["num_class"]):
        raise refused("it has no trees, or not as many for each class")
    for i, tree in enumerate(trees):
        _check_tree(tree, int(header["max_feature_idx"]) + 1, f"tree {i}")
    return header, trees


def _fields(block: str, first: str, known: tuple[str, ...]) -> Fields:
    lines = block.split("\n")
    if lines[0] != first:
        raise refused(f"expected {first!r}, found {lines[0][:60]!r}")
    fields: Fields = {}
    for line in lines[1:]:
        key, equals, value = line.partition("=")
        if key in _DROPPED:
            continue
        if key not in known or key in fields or (not equals and key != "average_output"):
            raise refused(f"{first} has an unexpected line: {line[:60]!r}")
        fields[key] = value
    return fields


def _write(header: Fields, trees: list[Fields]) -> str:
    lines = ["tree", *(_line(key, header[key]) for key in _HEADER if key in header), ""]
    for i, tree in enumerate(trees):
        lines += [f"Tree={i}", *(_line(key, tree[key]) for key in _BODY if key in tree), ""]
    return "\n".join([*lines, "end of trees", ""])


def _line(key: str, value: str) -> str:
    return key if key == "average_output" else f"{key}={value}"


def _check_header(header: Fields) -> None:
    for key in _HEADER:
        if key not in header and key not in _HEADER_MAY_LACK:
            raise refused(f"the header has no {key}")
    for key, value in _FIXED.items():
        if header[key] != value:
            raise refused(f"{key} is {header[key][:20]!r}, and only {value!r} is served")
    if not _SIZE.fullmatch(header["max_feature_idx"]) or int(header["max_feature_idx"]) >= MOST_FEATURES:
        raise refused(f"max_feature_idx is {header['max_feature_idx'][:20]!r}")
    features = int(header["max_feature_idx"]) + 1
    for key in _PER_FEATURE:
        values = header[key].split(" ") if key in header else ["0"] * features
        if len(values) != features or not all(value and value.isprintable() for value in values):
            raise refused(f"{key} is not a list of {features}")
    if not _OBJECTIVE.fullmatch(header.get("objective", "regression")) or header.get("average_output"):
        raise refused("the objective is not spelled as LightGBM spells one")
    _wholes(header.get("monotone_constraints", ""))
    _check_classes(header)


def _check_classes(header: Fields) -> None:
    """The objective writes as many numbers as it says itself, into room for as many as the header says."""
    found = [header[key] for key in _CLASSES]
    if not all(_SIZE.fullmatch(value) for value in found) or not 1 <= int(found[0]) <= MOST_CLASSES:
        raise refused(f"it has {found[0][:20]!r} classes")
    wanted = f"multiclass num_class:{found[0]}" if found[0] != "1" else ""
    objective = header.get("objective", "")
    if found[0] != found[1] or ((wanted or objective.startswith("multi")) and objective != wanted):
        raise refused(f"its objective {objective[:60]!r} is not that of {found[0]} classes")


def _check_tree(tree: Fields, features: int, name: str) -> None:
    for key in ("num_leaves", "num_cat"):
        if not _SIZE.fullmatch(tree.get(key, "")):
            raise refused(f"{name} has no {key}")
    if tree.get("is_linear") != "0":
        raise refused(f"{name} is linear, which is not served")
    if len(_numbers(tree.get("shrinkage", ""))) != 1:
        raise refused(f"{name} has no shrinkage")
    leaves = int(tree["num_leaves"])
    for key in _ARRAYS:
        needed = leaves if key in _PER_LEAF else leaves - 1
        found = len(_wholes(tree.get(key, "x")) if key in _WHOLE else _numbers(tree.get(key, "x")))
        # A tree that never split has no weight to tell, and LightGBM stops reading it after the leaf's value.
        if found != needed and not (leaves == 1 and found == 0 and key != "leaf_value"):
            raise refused(f"{name} has {found} of {key}, and needs {needed}")
    if leaves < 1:
        raise refused(f"{name} has no leaf")
    _check_splits(tree, features, leaves, name)
    _check_categories(tree, name)


def _check_splits(tree: Fields, features: int, leaves: int, name: str) -> None:
    """Children form one tree: a node's children come after it, and everything but the root is a child once."""
    left, right = _wholes(tree["left_child"]), _wholes(tree["right_child"])
    place = np.arange(leaves - 1)
    reached = np.sort(np.concatenate([left, right]))
    if not np.array_equal(reached, np.concatenate([np.arange(-leaves, 0), place[1:]])[: 2 * len(place)]):
        raise refused(f"the nodes of {name} do not form one tree")
    if np.any((left >= 0) & (left <= place)) or np.any((right >= 0) & (right <= place)):
        raise refused(f"the nodes of {name} go in circles")
    splits, decisions = _wholes(tree["split_feature"]), _wholes(tree["decision_type"])
    if np.any((splits < 0) | (splits >= features)):
        raise refused(f"{name} splits on a feature that is not there")
    if np.any((decisions < 0) | (decisions >= _KNOWN_DECISIONS)):
        raise refused(f"{name} has an unknown kind of decision")


def _check_categories(tree: Fields, name: str) -> None:
    """Each categorical split points at a set of bits that is there."""
    count, thresholds = int(tree["num_cat"]), _numbers(tree["threshold"])
    chosen = thresholds[_categorical(tree)]
    if count == 0:
        if len(chosen) or any(key in tree for key in _OF_CATEGORIES):
            raise refused(f"{name} has categorical splits without categories")
        return
    bounds, bits = (_wholes(tree.get(key, "x")) for key in _OF_CATEGORIES)
    if len(bounds) != count + 1 or bounds[0] != 0 or np.any(np.diff(bounds) < 1) or bounds[-1] != len(bits):
        raise refused(f"the categories of {name} overlap or end early")
    if np.any((bits < 0) | (bits >= 1 << 32)):
        raise refused(f"{name} has categories that are not bits")
    if not np.array_equal(chosen, np.floor(chosen)) or np.any((chosen < 0) | (chosen >= count)):
        raise refused(f"{name} splits on categories that are not there")


def _categorical(tree: Fields) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = (_wholes(tree["decision_type"]) & _CATEGORICAL) != 0
    return flags


def _numbers(value: str) -> npt.NDArray[np.float64]:
    if not _NUMBERS.fullmatch(value):
        raise refused(f"{value[:40]!r} is no list of numbers")
    return np.array(value.split(), dtype=np.float64)


def _wholes(value: str) -> Ints:
    if not _WHOLES.fullmatch(value):
        raise refused(f"{value[:40]!r} is no list of whole numbers")
    return np.array(value.split(), dtype=np.int64)
