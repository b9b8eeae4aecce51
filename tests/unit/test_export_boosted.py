"""LightGBM's text: one canonical form, and every way that a text can lie is refused before the library reads it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flyball._kernel.errors import StateError
from flyball.learn.export import boosted, lightgbm_c

WRITTEN = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=2
objective=binary sigmoid:1
feature_names=Column_0 Column_1 Column_2
feature_infos=-1:3:1:0:4:2 [-3.1:3.9] [-3.3:3.1]
tree_sizes=663

Tree=0
num_leaves=5
num_cat=2
split_feature=0 0 1 1
split_gain=1324.84 576.431 312.603 252.951
threshold=0 1 -0.70163521170616139 0.29875576496124273
decision_type=9 9 8 10
left_child=-1 2 -2 -3
right_child=1 3 -4 -5
leaf_value=0.71964266688361245 0.29401819288132813 0.29401819288132813 0.72752101570363892 0.50205305959766489
leaf_weight=315.56887936592102 20.530431479215622 182.2364142537117 87.658022046089172 86.043269008398056
leaf_count=1368 89 790 380 373
internal_value=0.571026 0.445829 0.638976 0.368296
internal_weight=692.037 376.468 108.188 268.28
internal_count=3000 1632 469 1163
cat_boundaries=0 1 2
cat_threshold=28 2
is_linear=0
shrinkage=1


Tree=1
num_leaves=1
num_cat=0
split_feature=
split_gain=
threshold=
decision_type=
left_child=
right_child=
leaf_value=-0.25
leaf_weight=
leaf_count=2000
internal_value=
internal_weight=
internal_count=
is_linear=0
shrinkage=1


end of trees

feature_importances:
Column_0=6

parameters:
[boosting: gbdt]
[num_threads: 2]
end of parameters

pandas_categorical:null
"""
FLOORED = boosted.floor(WRITTEN)


def test_the_canonical_form_keeps_what_answers_and_drops_the_rest() -> None:
    assert boosted.check(FLOORED) == (3, 1)
    assert boosted.floor(FLOORED) == FLOORED
    for dropped in ("num_threads", "tree_sizes", "importances", "pandas"):
        assert dropped not in FLOORED
    kept = [line for line in WRITTEN.split("\nend of trees")[0].split("\n") if line and "tree_sizes" not in line]
    changed = {line for line in kept if not line.startswith("threshold=0 1 ")}
    assert changed <= set(FLOORED.split("\n"))


def test_numerical_thresholds_are_floored_and_categorical_ones_are_not() -> None:
    line = re.search(r"^threshold=(.+)$", FLOORED, re.MULTILINE)
    assert line is not None
    values = line.group(1).split()
    assert values[:2] == ["0", "1"]
    for old, new in zip([-0.70163521170616139, 0.29875576496124273], map(float, values[2:]), strict=True):
        assert new <= old < float(np.nextafter(np.float32(new), np.float32(1)))
        assert float(np.float32(new)) == new


def test_the_library_answers_from_the_canonical_form() -> None:
    loaded = lightgbm_c.load(FLOORED.encode())
    matrix = np.array([[2, 0, 0], [1, -1, 0], [1, np.nan, 0], [-1, 0.3, 0], [np.nan, 0.1, 0]], dtype=np.float32)
    leaves = np.array([0.71964266688361245, 0.29401819288132813, 0.72752101570363892, 0.50205305959766489, 0.0])
    leaves[4] = 0.29401819288132813
    expected = 1 / (1 + np.exp(-(leaves - 0.25)))
    np.testing.assert_allclose(loaded.batch(matrix), expected, rtol=1e-14)
    assert [loaded.row(row) for row in matrix] == loaded.batch(matrix).tolist()
    assert loaded.batch(matrix[:0]).shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_arrays_of_another_shape_never_reach_the_library(size: int) -> None:
    loaded = lightgbm_c.load(FLOORED.encode())
    with pytest.raises(Exception, match="wrong-shape"):
        loaded.row(np.zeros(size, dtype=np.float32))
    with pytest.raises(Exception, match="wrong-shape"):
        loaded.batch(np.zeros((2, size), dtype=np.float32))
    with pytest.raises(Exception, match="wrong-shape"):
        loaded.row(np.zeros(3, dtype=np.float64))
    with pytest.raises(Exception, match="wrong-shape"):
        loaded.batch(np.zeros((2, 3), dtype=np.int32))


LIES = {
    "nothing": (FLOORED, ""),
    "no trees": (FLOORED[FLOORED.index("Tree=0") : FLOORED.index("end of trees")], ""),
    "no end": ("end of trees\n", ""),
    "more after the end": ("end of trees\n", "end of trees\nparameters:\n"),
    "another version": ("version=v4", "version=v3"),
    "many classes": ("num_class=1", "num_class=1000000"),
    "many trees a round": ("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
    "many features": ("max_feature_idx=2", "max_feature_idx=2000000000"),
    "fewer features": ("max_feature_idx=2", "max_feature_idx=0"),
    "digits of another script": ("max_feature_idx=2", "max_feature_idx=\u0662"),
    "fewer names": ("feature_names=Column_0 ", "feature_names="),
    "an objective with a line": ("objective=binary sigmoid:1", "objective=binary\x00"),
    "an unknown line": ("label_index=0", "label_index=0\nmachines=10.0.0.1"),
    "a line twice": ("label_index=0", "label_index=0\nlabel_index=0"),
    "sizes that lie": ("feature_infos=", "tree_sizes=99999999\nfeature_infos="),
    "another order": ("version=v4\nnum_class=1", "num_class=1\nversion=v4"),
    "trees out of order": ("Tree=1", "Tree=7"),
    "very many leaves": ("num_leaves=5", "num_leaves=2000000000"),
    "one leaf more": ("num_leaves=5", "num_leaves=6"),
    "no leaves": ("num_leaves=1", "num_leaves=0"),
    "negative leaves": ("num_leaves=5", "num_leaves=-5"),
    "a feature that is not there": ("split_feature=0 0 1 1", "split_feature=0 0 1 3"),
    "a negative feature": ("split_feature=0 0 1 1", "split_feature=0 0 1 -1"),
    "a leaf that is not there": ("left_child=-1 2 -2 -3", "left_child=-1 2 -2 -3000000"),
    "a node that is not there": ("right_child=1 3 -4 -5", "right_child=1 300 -4 -5"),
    "a node in a circle": (
        "left_child=-1 2 -2 -3\nright_child=1 3 -4 -5",
        "left_child=0 2 -2 -3\nright_child=1 3 -4 -5",
    ),
    "nodes going back": (
        "left_child=-1 2 -2 -3\nright_child=1 3 -4 -5",
        "left_child=-1 1 -2 -3\nright_child=2 3 -4 -5",
    ),
    "a leaf reached twice": ("right_child=1 3 -4 -5", "right_child=1 3 -4 -4"),
    "a decision of no kind": ("decision_type=9 9 8 10", "decision_type=9 9 12 10"),
    "numbers that are none": ("leaf_value=-0.25", "leaf_value=nan"),
    "numbers in hexadecimal": ("leaf_value=-0.25", "leaf_value=0x1"),
    "numbers with underscores": ("leaf_value=-0.25", "leaf_value=1_0"),
    "fewer numbers": ("leaf_value=0.71964266688361245 ", "leaf_value="),
    "a set that is not there": ("threshold=0 1 ", "threshold=0 100000000 "),
    "half a set": ("threshold=0 1 ", "threshold=0 0.5 "),
    "sets beyond the bits": ("cat_boundaries=0 1 2", "cat_boundaries=0 1 200000000"),
    "sets going back": ("cat_boundaries=0 1 2", "cat_boundaries=0 3 2"),
    "no sets": ("cat_boundaries=0 1 2\ncat_threshold=28 2\n", ""),
    "sets for no splits": ("num_cat=2", "num_cat=0"),
    "linear leaves": ("is_linear=0", "is_linear=1"),
    "a threshold as trained": ("0.29875576496124268", "0.29875576496124273"),
    "no shrinkage": ("shrinkage=1\n", "shrinkage=\n"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_text_that_lies_is_refused(lie: str) -> None:
    old, new = LIES[lie]
    text = FLOORED.replace(old, new, 1)
    assert text != FLOORED
    with pytest.raises(StateError) as caught:
        lightgbm_c.load(text.encode())
    assert caught.value.code == "hostile-model"
    assert caught.value.why


def test_bytes_that_are_no_text_and_texts_without_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match="hostile-model"):
        lightgbm_c.load(b"\xff" + FLOORED.encode())
    monkeypatch.setattr(boosted, "LARGEST_TEXT", 100)
    with pytest.raises(StateError, match="hostile-model"):
        lightgbm_c.load(FLOORED.encode())
