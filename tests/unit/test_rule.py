"""Rules: plain Python as a model; what they see, what they may answer, and that only their own function answers for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball._kernel.errors import DeclarationError, StateError
from flyball.learn import rule
from flyball.learn.encoding import encode
from flyball.learn.export import pack, predictor, ruled
from flyball.learn.fit import train
from flyball.learn.task import BINARY, REGRESSION, Task

FRAME = pl.DataFrame({"town": ["Ulm", "Bonn", None], "size": [0.1, 2.5, None], "floor": [3, 4, None]})
ENCODER = encode.fit(FRAME, [("town", "category"), ("size", "number"), ("floor", "category")])
CLASSES = Task(kind="multiclass", classes=("low", "high"))


def bound(function: ruled.Function, task: Task = BINARY) -> ruled.Bound:
    return ruled.Bound(function, ENCODER, task)


def large(row: Mapping[str, Any]) -> bool:
    return bool((row["size"] or 0) > 0.1)


def test_a_rule_sees_the_values_that_were_asked_with() -> None:
    seen: list[dict[str, Any]] = []

    def look(row: Mapping[str, Any]) -> float:
        seen.append(dict(row))
        return 0.5

    matrix = ENCODER.encode(FRAME.vstack(FRAME[:1].with_columns(town=pl.lit("Köln"))))
    assert bound(look).batch(matrix).tolist() == [0.5] * 4
    assert seen == [
        {"town": "Ulm", "size": 0.1, "floor": 3},
        {"town": "Bonn", "size": 2.5, "floor": 4},
        {"town": None, "size": None, "floor": None},
        {"town": None, "size": 0.1, "floor": 3},
    ]


def test_a_rule_is_fitted_from_the_start_and_packed_as_a_fingerprint() -> None:
    rows = ENCODER.encode(FRAME)
    mine = train.fit(bound(large), rows, np.array([True, False, True]), BINARY)
    assert pack.answers(mine, rows, BINARY).tolist() == [0.0, 1.0, 0.0]
    packed = pack.pack(mine, rows, BINARY)
    assert packed.kinds == ("rule",)
    assert list(packed.artifacts) == ["rule.json"]
    assert b"0.1" not in packed.artifacts["rule.json"]
    choice = pack.fastest(packed, rows, lambda: 0.0)
    assert (choice.kind, choice.exact) == ("rule", True)
    loaded = rule.load(packed.artifacts["rule.json"], large, ENCODER, BINARY)
    assert (loaded.name, loaded.features, loaded.row(rows[1])) == ("rule", 3, 1.0)


def test_another_function_does_not_answer_for_a_version() -> None:
    data = ruled.stored(bound(large))
    with pytest.raises(StateError, match="rule-changed"):
        rule.load(data, lambda row: (row["size"] or 0) > 0.2, ENCODER, BINARY)
    fewer = encode.fit(FRAME, [("size", "number")])
    with pytest.raises(StateError, match="rule-changed"):
        rule.load(data, large, fewer, BINARY)
    with pytest.raises(StateError, match="rule-needs-its-app"):
        predictor.load("rule", {"rule.json": data})


@pytest.mark.parametrize(
    ("task", "answer", "expected"),
    [
        (BINARY, True, 1.0),
        (BINARY, np.float32(0.5), 0.5),
        (REGRESSION, -3, -3.0),
        (CLASSES, "high", (0.0, 1.0)),
        (CLASSES, (0.25, 0.75), (0.25, 0.75)),
        (Task(kind="quantile", quantiles=(0.1, 0.9)), (1, 2), (1.0, 2.0)),
    ],
)
def test_what_a_rule_may_answer(task: Task, answer: Any, expected: Any) -> None:
    assert bound(lambda row: answer, task).row(ENCODER.encode(FRAME)[0]) == expected


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (BINARY, 1.5),
        (BINARY, None),
        (BINARY, "high"),
        (BINARY, (0.5, 0.5)),
        (REGRESSION, math.nan),
        (CLASSES, "middle"),
        (CLASSES, (0.5, 0.6)),
        (CLASSES, (1.5, -0.5)),
        (CLASSES, 1.0),
    ],
)
def test_what_it_may_not(task: Task, answer: Any) -> None:
    with pytest.raises(DeclarationError, match="rule-out-of-range") as caught:
        bound(lambda row: answer, task).row(ENCODER.encode(FRAME)[0])
    assert caught.value.where is not None
    assert caught.value.where.file == __file__


def test_a_rule_that_fails_points_at_its_line_and_says_no_value() -> None:
    def failing(row: Mapping[str, Any]) -> bool:
        return bool({"secret": 1}[row["town"]])

    with pytest.raises(DeclarationError, match="rule-failed") as caught:
        bound(failing).row(ENCODER.encode(FRAME)[0])
    assert caught.value.where is not None
    assert caught.value.where.line == failing.__code__.co_firstlineno + 1
    assert "Ulm" not in str(caught.value)
