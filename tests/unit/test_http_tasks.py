"""Answers of several numbers and decisions, from a predictor that can be told in advance to caller, journal and description."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import jsonschema
import numpy as np
import polars as pl
import pytest

from flyball._kernel.errors import StateError
from flyball.cycle import predict
from flyball.learn.finish import NOTHING, Finish
from flyball.learn.task import BINARY, REGRESSION, Answer, Task
from flyball.serve import openapi, reply
from flyball.serve import plan as plans
from flyball.serve.router import Routed
from tests.live import ROW, Live, alone, live, plan

CLASSES = Task(kind="multiclass", classes=("late", "on time", "early"))
QUANTILES = Task(kind="quantile", quantiles=(0.1, 0.5, 0.9))
GROUPED = Finish(threshold=3.5, by="note", thresholds={"strict": 5.0})


class Shares:
    """The price is the first number; what is left of `whole` is shared by the rest."""

    name: Literal["lightgbm"] = "lightgbm"
    features = 3

    def __init__(self, whole: float, width: int = 3) -> None:
        self.whole, self.width = whole, width

    def row(self, values: np.ndarray) -> Answer:
        """The answer to one row."""
        price = float(values[1])
        return (price, *[(self.whole - price) / (self.width - 1)] * (self.width - 1))

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        """The answers to many."""
        return np.array([self.row(values) for values in matrix])


def several(model: str, task: Task, whole: float, width: int = 3) -> plans.Plan:
    return replace(plan(f"{model}-1", model=model), task=task, predictor=Shares(whole, width))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    asked = {
        "kind": several("kind", CLASSES, 1.0),
        "span": several("span", QUANTILES, 20.0),
        "yes": replace(plan("yes-1", model="yes"), finish=GROUPED),
        "plain": plan("plain-1", model="plain"),
    }
    with live(tmp_path_factory.mktemp("shop"), asked) as found:
        yield found


def told(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("output", "decision", "probabilities", "quantiles") if name in answer}


@pytest.mark.parametrize(
    ("model", "price", "expected"),
    [
        ("kind", 0.5, (0.5, "late", (0.5, 0.25, 0.25))),
        ("kind", 0.2, (0.4, "on time", (0.2, 0.4, 0.4))),
        ("span", 8.0, (6.0, None, (8.0, 6.0, 6.0))),
        ("yes", 8.0, (4.0, True, ())),
        ("yes", 6.0, (3.0, False, ())),
        ("plain", 8.0, (4.0, None, ())),
    ],
)
def test_what_is_told_is_what_is_recorded(shop: Live, model: str, price: float, expected: Any) -> None:
    output, decision, numbers = expected
    answers = shop.ask([ROW | {"price": price}] * 2, f"/predict/{model}").json
    assert told(answers[0]) == told(answers[1])
    said: dict[str, Any] = {"output": output} | ({} if decision is None else {"decision": decision})
    if numbers:
        name = "probabilities" if model == "kind" else "quantiles"
        keys = CLASSES.classes if model == "kind" else ("0.1", "0.5", "0.9")
        said[name] = pytest.approx(dict(zip(keys, numbers, strict=True)))
    assert told(answers[0]) == pytest.approx(said)
    recorded = shop.journal.find(answers[0]["id"])
    assert recorded is not None
    assert (recorded.output, recorded.decision) == (answers[0]["output"], decision)
    assert recorded.outputs == pytest.approx(numbers)
    page = shop.send("GET", f"/predictions/{answers[0]['id']}").json
    assert (page["decision"], page["outputs"]) == (decision, list(recorded.outputs))


def test_a_group_is_decided_by_its_own_threshold(shop: Live) -> None:
    rows = [ROW | {"note": note} for note in ("strict", "other", None)] + [ROW]
    assert [each["decision"] for each in shop.ask(rows, "/predict/yes").json] == [False, True, True, True]


def test_the_description_is_true_of_every_answer(shop: Live) -> None:
    document = shop.send("GET", "/openapi.json").json
    wrong = {"kind": {"decision": "never"}, "span": {"quantiles": {"0.1": 1.0}}, "yes": {"decision": 1}}
    for model in ("kind", "span", "yes", "plain"):
        content = document["paths"][f"/predict/{model}"]["post"]["responses"]["200"]["content"]["application/json"]
        judge = jsonschema.Draft202012Validator({**content["schema"], "components": document["components"]})
        answer = shop.ask(ROW | {"price": 0.5}, f"/predict/{model}").json
        judge.validate(answer)
        judge.validate([answer])
        for changed in (wrong.get(model, {"output": "x"}), {"output": None}):
            assert not judge.is_valid(answer | changed)
        for name in ("decision", "probabilities", "quantiles"):
            assert name not in answer or not judge.is_valid({k: v for k, v in answer.items() if k != name})


def test_one_schema_serves_models_that_answer_alike() -> None:
    two = {name: alone(several(name, CLASSES, 1.0)) for name in ("a", "b")}
    three = {**two, "c": alone(several("c", QUANTILES, 1.0))}
    assert {n for n in openapi.document("x", two)["components"]["schemas"] if "Prediction" in n} == {"Prediction"}
    schemas = openapi.document("x", three)["components"]["schemas"]
    assert {n for n in schemas if "Prediction" in n} == {"Prediction", "Prediction_c"}


@pytest.mark.parametrize(
    "other", [several("kind", CLASSES, 1.0, width=2), several("kind", REGRESSION, 1.0), replace(plan(), task=CLASSES)]
)
def test_a_version_of_another_task_is_no_answer(other: plans.Plan) -> None:
    with pytest.raises(StateError, match="answer-of-another-task"):
        plans.told(other, other.predictor.row(np.array([0, 0.5, 0], dtype=np.float32)), {})


def test_an_answer_with_a_number_that_is_none_does_not_leave(shop: Live) -> None:
    broken = several("kind", CLASSES, math.inf)
    before = shop.server.routed
    try:
        shop.swap({**before, "kind": Routed(2, broken, fallbacks=(("previous", several("kind", CLASSES, 1.0)),))})
        answer = shop.ask(ROW | {"price": 0.5}, "/predict/kind").json
    finally:
        shop.swap(before)
    assert (answer["role"], answer["decision"]) == ("previous", "late")
    (failed,) = [e for e in shop.journal.read() if e.failed == "answer-not-finite"]
    assert (failed.outputs, failed.decision, math.isnan(failed.output)) == ((), None, True)


def test_the_declared_default_is_decided_like_an_answer(shop: Live) -> None:
    nothing = replace(plan("yes-1", math.nan, "yes"), finish=GROUPED)
    before = shop.server.routed
    try:
        shop.swap({**before, "yes": Routed(2, nothing, default=4.0)})
        answers = shop.ask([ROW, ROW | {"note": "strict"}], "/predict/yes").json
    finally:
        shop.swap(before)
    assert [(a["role"], a["output"], a["decision"]) for a in answers] == [
        ("default", 4.0, True),
        ("default", 4.0, False),
    ]


@pytest.mark.parametrize(
    ("task", "finish"), [(CLASSES, NOTHING), (QUANTILES, NOTHING), (BINARY, GROUPED), (BINARY, NOTHING)]
)
def test_a_file_is_told_what_a_server_tells(task: Task, finish: Finish) -> None:
    rng = np.random.default_rng(1)
    answers = rng.random((50, 3)) if task.width > 1 else rng.random(50) * 8
    rows = pl.DataFrame({"note": [["strict", "other", None][n % 3] for n in range(50)]})
    columns = {s.name: s.to_list() for s in predict.told(answers, rows, task, finish)}
    served = replace(plan(), task=task, finish=finish)
    for n, row in enumerate(rows.iter_rows(named=True)):
        one: Answer = tuple(answers[n].tolist()) if task.width > 1 else float(answers[n])
        output, outputs, decision = plans.told(served, one, row)
        assert columns["_output"][n] == output
        assert columns.get("_decision", [None] * 50)[n] == decision
        several = {name: values[n] for name, values in columns.items() if name[:3] in ("_p_", "_q_")}
        assert {name[3:]: value for name, value in several.items()} == reply.named(task, outputs)


def test_what_one_number_says_looks_as_it_always_has(shop: Live) -> None:
    body = shop.ask(ROW, "/predict/plain").body
    assert set(json.loads(body)) == {"id", "model", "version", "role", "output", "asked", "within_tolerance"}
