"""Encoding one row agrees with encoding many, and flooring never changes a leaf, whatever the values."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xgboost import XGBClassifier

from flyball.learn.encoding import encode
from flyball.learn.export import boosted, lightgbm_c, xgboost_json

TYPES: dict[str, tuple[pl.DataType, encode.Kind, st.SearchStrategy[Any]]] = {
    "text": (pl.String(), "category", st.text(alphabet="ab\u00e9\U0001f600 ", max_size=2)),
    "enum": (pl.Enum(["x", "b", "a"]), "category", st.sampled_from(["x", "b", "a"])),
    "small": (pl.Int8(), "category", st.integers(-3, 3)),
    "large": (pl.UInt64(), "category", st.integers(2**64 - 3, 2**64 - 1)),
    "float": (pl.Float64(), "number", st.floats(allow_nan=True, allow_infinity=True)),
    "single": (pl.Float32(), "number", st.floats(width=32)),
    "count": (pl.Int64(), "number", st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pl.UInt64(), "number", st.integers(0, 2**64 - 1)),
    "flag": (pl.Boolean(), "number", st.booleans()),
}
ROWS = st.lists(
    st.tuples(*(st.one_of(st.none(), values) for _, _, values in TYPES.values())),
    min_size=1,
    max_size=8,
)


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _, _) in TYPES.items()}, orient="row")


@settings(max_examples=150, deadline=None)
@given(seen=ROWS, asked=ROWS)
def test_one_row_and_many_agree_bit_for_bit(seen: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]) -> None:
    encoder = encode.fit(frame(seen), [(name, kind) for name, (_, kind, _) in TYPES.items()])
    encoder = encode.from_bytes(encoder.to_bytes())
    row = encode.compile_row(encoder)
    table = frame(asked)
    matrix = encoder.encode(table)
    assert b"".join(row(values).tobytes() for values in table.rows()) == matrix.tobytes()
    assert encode.compile_rows(encoder)(table.rows()).tobytes() == matrix.tobytes()
    assert not np.isinf(matrix).any()


FLOAT32 = st.floats(width=32, allow_nan=False)


@settings(max_examples=400, deadline=None)
@given(threshold=st.floats(allow_nan=False), x=FLOAT32, steps=st.integers(-2, 2))
def test_flooring_sends_every_float32_the_same_way(threshold: float, x: float, steps: int) -> None:
    floored = boosted.floor32(np.array([threshold]))[0]
    assert float(floored) <= threshold
    near = neighbour(threshold, steps)
    for value in (np.float32(x), near):
        assert (float(value) <= threshold) == (value <= floored)
    assert boosted.floor32(np.array([float(floored)]))[0] == floored


def neighbour(threshold: float, steps: int) -> np.float32:
    """The float32 some steps from the one nearest to `threshold`."""
    with np.errstate(all="ignore"):
        near = np.float32(threshold)
        for _ in range(abs(steps)):
            near = np.nextafter(near, np.float32(np.copysign(np.inf, steps)))
    return near


def one_split(threshold: float) -> str:
    """A stump on one feature, as LightGBM writes it."""
    return (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=0\n"
        "objective=regression\nfeature_names=Column_0\nfeature_infos=[0:1]\ntree_sizes=1\n\n"
        f"Tree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold={threshold:.17g}\n"
        "decision_type=10\nleft_child=-1\nright_child=-2\nleaf_value=1 2\nleaf_weight=1 1\nleaf_count=1 1\n"
        "internal_value=0\ninternal_weight=0\ninternal_count=2\nis_linear=0\nshrinkage=1\n\n\nend of trees\n"
    )


TWO_TREES = (
    one_split(0.5)
    .replace("max_feature_idx=0", "max_feature_idx=2")
    .replace("names=Column_0", "names=a b c")
    .replace("infos=[0:1]", "infos=[0:1] [0:1] 1:2:3")
    .replace(
        "\nend of trees",
        "Tree=1\nnum_leaves=4\nnum_cat=1\nsplit_feature=2 0 1\nsplit_gain=3 2 1\nthreshold=0 0.25 1.5\n"
        "decision_type=1 10 2\nleft_child=1 -1 -2\nright_child=2 -3 -4\nleaf_value=1 2 3 4\nleaf_weight=1 1 1 1\n"
        "leaf_count=1 1 1 1\ninternal_value=0 0 0\ninternal_weight=1 1 1\ninternal_count=4 2 2\ncat_boundaries=0 1\n"
        "cat_threshold=6\nis_linear=0\nshrinkage=0.1\n\n\nend of trees",
    )
)


@settings(max_examples=120, deadline=None)
@given(threshold=st.floats(allow_nan=False, allow_infinity=False), steps=st.integers(-1, 1))
def test_the_library_reads_floored_text_as_it_reads_the_original(threshold: float, steps: int) -> None:
    original = one_split(threshold)
    floored = boosted.floor(original)
    assert boosted.floor(floored) == floored
    column = np.array([neighbour(threshold, steps), 0, np.nan, -1, np.inf, -np.inf, 1e-35, -1e-35], dtype=np.float32)[
        :, np.newaxis
    ]
    before = lightgbm_c.LightGBM(original.encode(), 1).batch(column)
    after = lightgbm_c.load(floored.encode())
    assert before.tobytes() == after.batch(column).tobytes()
    assert [after.row(values) for values in column] == before.tolist()


FUZZ = """
import random, sys
import numpy as np
from flyball._kernel.errors import StateError
from flyball.learn.export import predictor
name, text = sys.argv[3], sys.stdin.read()
kind = {"model.txt": "lightgbm", "model.xgb": "xgboost"}[name]
matrix = np.random.default_rng(0).integers(-2, 6, (20, 3)).astype(np.float32)
chance, refused = random.Random(int(sys.argv[1])), 0
VALUES = ["-1", "0", "1", "2", "3", "7", "-7", "99999999", "2147483648", "", "1e999", "x", "0.5"]

def lines_damaged(text):
    lines = text.split(chr(10))
    for _ in range(chance.choice([1, 1, 2])):
        i = chance.randrange(len(lines))
        key, equals, value = lines[i].partition("=")
        parts = value.split(" ")
        parts[chance.randrange(len(parts))] = chance.choice(VALUES)
        lines[i] = chance.choice([key + equals + " ".join(parts), "", lines[chance.randrange(len(lines))], lines[i] + " 1"])
    return chr(10).join(lines)

def numbers_damaged(text):
    import re
    places = [m.span() for m in re.finditer(r"-?[0-9][0-9.e+-]*", text)]
    for start, end in sorted(chance.sample(places, chance.choice([1, 1, 2])), reverse=True):
        new = chance.choice([v for v in VALUES if v] + ["0,0", "[]", "1.0"])
        text = text[:start] + new + text[end:]
    return text

for _ in range(int(sys.argv[2])):
    damaged = (lines_damaged if kind == "lightgbm" else numbers_damaged)(text)
    try:
        predictor.load(kind, {name: damaged.encode()}).batch(matrix)
    except StateError as error:
        refused += error.code == "hostile-model"
print(refused)
"""


def xgboost(classes: int) -> bytes:
    random = np.random.default_rng(0)
    matrix, labels = random.integers(-2, 6, (60, 3)).astype(np.float32), np.arange(60) % classes
    fitted = XGBClassifier(n_estimators=2, max_depth=3).fit(matrix, labels)
    return xgboost_json.canonical(bytes(fitted.get_booster().save_raw("json")))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.txt", boosted.floor(TWO_TREES).encode()),
        ("model.xgb", xgboost(2)),
        ("model.xgb", xgboost(3)),
    ],
    ids=["lightgbm", "xgboost", "xgboost of classes"],
)
def test_no_damaged_model_ends_the_process(name: str, data: bytes) -> None:
    """In a child, because what is tested is that it lives: unchecked, one LightGBM text in twenty-five ended it."""
    rounds = 1500 if name == "model.txt" else 600
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, "20130101", str(rounds), name],
        input=data.decode(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert rounds * 0.3 < int(done.stdout) < rounds
