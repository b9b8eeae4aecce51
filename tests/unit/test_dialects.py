"""The dialects of others: what each of their forms means, what is refused in them, and that nothing of an answer is lost."""

from __future__ import annotations

import importlib.metadata
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dataframely as dy
import msgspec
import numpy as np
import pytest

import flyball as fb
from flyball._kernel.errors import DataError, StateError
from flyball.checks.clock import Wound
from flyball.learn.finish import Finish
from flyball.learn.task import Task
from flyball.serve import protocol
from flyball.serve.dialect import Dialect
from flyball.serve.dialects import cells, inference, invocations, native, spoken
from flyball.serve.guard import Refused
from flyball.serve.message import Reply, Request
from flyball.serve.plan import Plan
from flyball.serve.router import Routed, Router
from tests.live import ROW, alone, plan

CLOCK = Wound()
PLAN = plan()
MANY = [ROW, ROW | {"order_id": "o2", "price": 0.5, "note": "a,b"}]
JSON, CSV = b"application/json", b"text/csv"


def read(dialect: Dialect, body: Any, plan: Plan = PLAN, **headers: str) -> Any:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect.read(plan, Request("POST", "/", "", {b"content-type": JSON, **named}, given))


def write(dialect: Dialect, asked: Any, plan: Plan = PLAN) -> Reply:
    router = Router(CLOCK)
    router.swap({plan.model: alone(plan)})
    given = router.ask(router.ways[plan.model], asked.rows, CLOCK.now(), 0.0)
    answers = [each.answer for each in given if each.answer is not None]
    assert len(answers) == len(asked.rows)
    return dialect.write(plan, asked.shape, answers, CLOCK.now())


def tensor(name: str, *values: Any, datatype: str = "BYTES", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": list(values)} | more


ORDERS = [tensor("order_id", "o1", "o2"), tensor("category", "books", "shoes")]
PLACED, PRICE = tensor("placed", *[ROW["placed"]] * 2), tensor("price", 8, 0.5, datatype="FP64")


# --- MLflow's


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": MANY},
        {"instances": MANY},
        {"inputs": MANY},
        {"inputs": {name: [row.get(name) for row in MANY] for name in MANY[1]}},
        {
            "dataframe_split": {
                "columns": [*MANY[1]],
                "data": [[r.get(n) for n in MANY[1]] for r in MANY],
                "index": [7, 8],
            }
        },
    ],
)
def test_each_form_of_mlflow_is_the_same_rows(body: Any) -> None:
    asked = read(invocations, body)
    assert asked.rows == PLAN.decode(json.dumps(MANY).encode())[0]
    said = json.loads(write(invocations, asked).body)
    assert [(each["output"], each["version"]) for each in said["predictions"]] == [
        (4.0, "orders-1"),
        (0.25, "orders-1"),
    ]


def test_csv_is_read_by_the_kind_of_its_columns() -> None:
    body = b"\xef\xbb\xbforder_id,placed,category,price,note\r\n1,2026-11-20 12:00:00+00:00,books,8,\r\n"
    body += b'02,"2026-11-20T12:00:00Z",shoes,5e-1,"a,b"\r\n\r\n'
    rows = read(invocations, body, content_type="text/csv; charset=UTF-8").rows
    assert [(r["order_id"], r["price"], r["note"]) for r in rows] == [("1", 8.0, None), ("02", 0.5, "a,b")]
    assert [r["placed"] for r in rows] == [datetime(2026, 11, 20, 12, tzinfo=UTC)] * 2


def test_one_row_of_inputs_is_one_question() -> None:
    assert len(read(invocations, {"inputs": ROW}).rows) == 1
    assert read(invocations, {"instances": []}).rows == []


def test_what_pandas_and_python_write_for_nothing_is_null() -> None:
    body = json.dumps({"dataframe_records": [ROW | {"note": float("nan")}]}).encode()
    assert b"NaN" in body
    assert read(invocations, body).rows[0]["note"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": [ROW], "params": {"a": 1}}, "`params` are not taken"),
        ({"inputs": [ROW], "instances": [ROW]}, "'inputs', 'instances'"),
        ({"rows": [ROW]}, "'rows'"),
        ({}, "none"),
        ([ROW], "Expected `object`"),
        (b"{", "truncated"),
        (b'{"inputs": [{"a": NaN, "b": Infinity}]}', "finite"),
        (b'{"inputs":' + b"[" * 100_000, "recursion"),
        ({"instances": [[1, 2]]}, "in `instances`"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "one length"),
        ({"inputs": {"a": [1], "b": 2}}, "one length"),
        ({"dataframe_split": {"data": [[1]]}}, "columns"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "'a' is there twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "Row 0 has 2 cells"),
        ({"dataframe_split": {"columns": ["a"], "data": [], "dtype": 1}}, "dtype"),
    ],
)
def test_what_is_no_form_of_mlflow_is_refused_with_the_reason(body: Any, said: str) -> None:
    with pytest.raises(DataError, match="request-not-in-dialect") as caught:
        read(invocations, body)
    assert said in caught.value.why and len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "text/csv", "no header"),
        (b",price\n0,8\n", "text/csv", "no name"),
        (b"a,b\n1\n", "text/csv", "Row 0 has 1 cells"),
        (b'a\n"1', "text/csv", "end of data"),
        (b"a\n\xff", "text/csv", "utf-8"),
        (b"a\n1\n", "text/csv; charset=latin-1", "charset"),
    ],
)
def test_what_is_no_table_is_refused(body: bytes, kind: str, said: str) -> None:
    with pytest.raises(DataError, match="request-not-in-dialect") as caught:
        read(invocations, body, content_type=kind)
    assert said in caught.value.why


def test_a_csv_cell_that_its_kind_cannot_read_is_refused_by_the_contract() -> None:
    head = b"order_id,placed,category,price\n"
    for cell in (b"eight", b"nan", b"1_000", b" 8", b"9" * 5_000):
        with pytest.raises(DataError, match="request-breaks-contract"):
            read(invocations, head + b"o1,2026-11-20T12:00:00Z,books," + cell, content_type="text/csv")


# --- the Open Inference Protocol


def test_tensors_are_columns_and_outputs_are_all_of_an_answer() -> None:
    asked = read(inference, {"id": "q7", "inputs": [*ORDERS, PLACED, PRICE]})
    said = json.loads(write(inference, asked).body)
    assert (said["model_name"], said["model_version"], said["id"]) == ("orders", "orders-1", "q7")
    outputs = {each["name"]: each for each in said["outputs"]}
    assert outputs["output"] == {"name": "output", "shape": [2], "datatype": "FP64", "data": [4.0, 0.25]}
    assert outputs["role"]["data"] == ["champion"] * 2 and len(set(outputs["id"]["data"])) == 2
    assert set(outputs) == {"output", "id", "version", "role", "within_tolerance"}


@pytest.mark.parametrize(
    "price",
    [
        PRICE,
        PRICE | {"shape": [2, 1], "data": [[8], [0.5]]},
        PRICE | {"shape": [2, 1]},
        PRICE | {"datatype": "FP32"},
        PRICE | {"datatype": "FP16"},
    ],
)
def test_a_tensor_may_be_flat_or_nested_and_of_any_width(price: Any) -> None:
    assert [r["price"] for r in read(inference, {"inputs": [*ORDERS, PLACED, price]}).rows] == [8.0, 0.5]


def binary(*parts: tuple[str, str, bytes], **request: Any) -> tuple[bytes, str]:
    inputs = [
        {"name": name, "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": len(chunk)}}
        for name, datatype, chunk in parts
    ]
    head = json.dumps({"inputs": [*ORDERS, *inputs], **request}).encode()
    return head + b"".join(chunk for _, _, chunk in parts), str(len(head))


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


MICROS = np.array([1_763_640_000_000_000, 1_763_640_000_000_001], "<i8").tobytes()


def test_binary_data_is_read_little_endian_and_a_null_has_a_tensor() -> None:
    price, note = np.array([8, 0.5], "<f4").tobytes(), texts("ä", "")
    gone = ("note.null", "BOOL", b"\x00\x01")
    body, length = binary(("placed", "INT64", MICROS), ("price", "FP32", price), ("note", "BYTES", note), gone)
    rows = read(inference, body, content_type="application/octet-stream", inference_header_content_length=length).rows
    assert [(r["price"], r["note"]) for r in rows] == [(8.0, "ä"), (0.5, None)]
    assert rows[1]["placed"] == datetime(2025, 11, 20, 12, microsecond=1, tzinfo=UTC)


def test_outputs_are_those_that_are_asked_for_in_the_form_that_is() -> None:
    wanted = [{"name": "version"}, {"name": "output", "parameters": {"binary_data": False}}]
    body = {"inputs": [*ORDERS, PLACED, PRICE], "outputs": wanted, "parameters": {"binary_data_output": True}}
    reply = write(inference, read(inference, body))
    length = int(dict(reply.headers)[b"inference-header-content-length"])
    head, rest = json.loads(reply.body[:length]), reply.body[length:]
    assert reply.kind == b"application/octet-stream"
    assert [(o["name"], o.get("data")) for o in head["outputs"]] == [("version", None), ("output", [4.0, 0.25])]
    assert rest == texts("orders-1", "orders-1") and head["outputs"][0]["parameters"] == {"binary_data_size": len(rest)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": []}, "one tensor a column"),
        ({"inputs": None}, "Expected `array`"),
        ({"inptus": []}, "inptus"),
        ({"inputs": [*ORDERS, tensor("price", 8, datatype="FP64")]}, "Expected 2 rows, got 1 - at `price`"),
        ({"inputs": [*ORDERS, PRICE | {"shape": [2, 3]}]}, "[n] or [n, 1] - at `price`"),
        ({"inputs": [*ORDERS, PRICE | {"shape": [-2]}]}, "[n] or [n, 1] - at `price`"),
        ({"inputs": [*ORDERS, PRICE | {"shape": []}]}, "[n] or [n, 1] - at `price`"),
        ({"inputs": [PRICE | {"shape": [4000]}]}, "Expected 4000 values, got 2"),
        ({"inputs": [*ORDERS, PRICE, PRICE]}, "Two tensors have the name `price`"),
        ({"inputs": [*ORDERS, PRICE | {"datatype": "BF16"}]}, "datatype 'BF16' is none of"),
        ({"inputs": [*ORDERS, PRICE | {"datatype": "BYTES"}]}, "Expected texts or null, of BYTES"),
        ({"inputs": [*ORDERS, PRICE | {"datatype": "INT8", "data": [1, 300]}]}, "from -128 to 127"),
        ({"inputs": [*ORDERS, PRICE | {"datatype": "FP16", "data": [1, 1e6]}]}, "finite"),
        ({"inputs": [*ORDERS, PRICE | {"data": [1, True]}]}, "Expected numbers or null, of FP64"),
        ({"inputs": [*ORDERS, PRICE | {"data": [1, 10**400]}]}, "finite"),
        ({"inputs": [*ORDERS, PRICE | {"data": [1, 10**309], "datatype": "FP32"}]}, "finite"),
        ({"inputs": [*ORDERS, PRICE | {"data": None}]}, "binary_data_size"),
        ({"inputs": [*ORDERS, PRICE | {"parameters": {"shared_memory_region": "x"}}]}, "Shared memory"),
        ({"inputs": [*ORDERS, PRICE | {"data": None, "parameters": {"binary_data_size": 16}}]}, "got 0"),
        ({"inputs": [*ORDERS, PRICE | {"data": None, "parameters": {"binary_data_size": -1}}]}, "a size"),
        ({"inputs": [*ORDERS, tensor("x.null", True, False, datatype="BOOL")]}, "at `x.null`"),
        ({"inputs": [*ORDERS, tensor("placed", 2**62, 0, datatype="INT64")]}, "microseconds"),
        ({"outputs": [{"name": "ouptut"}]}, "'ouptut' is none"),
        ({"outputs": [{"name": "output"}] * 2}, "asked for twice"),
        ({"outputs": [{"name": "output", "parameters": {"classification": 2}}]}, "classification"),
        ({"parameters": {"binary_data_output": 1}}, "neither true nor false"),
    ],
)
def test_what_is_no_inference_request_is_refused_with_the_reason(change: Mapping[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="request-not-in-dialect") as caught:
        read(inference, {"inputs": [*ORDERS, PLACED, PRICE], **change})
    assert said in caught.value.why + caught.value.next and len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("datatype", "chunk", "said"),
    [
        ("FP64", b"\x00" * 15, "cut short"),
        ("FP64", b"\x00" * 24, "got 3"),
        ("FP64", np.array([1, np.inf]).tobytes(), "finite"),
        ("BOOL", b"\x00\x02", "0 and 1"),
        ("BYTES", texts("a") + b"\x09\x00\x00\x00b", "cut short"),
        ("BYTES", texts("a") + b"\x00", "cut short"),
        ("BYTES", texts("a") + b"\x01\x00\x00\x00\xff", "UTF-8"),
    ],
)
def test_binary_data_that_is_none_is_refused(datatype: str, chunk: bytes, said: str) -> None:
    body, length = binary(("price", datatype, chunk))
    with pytest.raises(DataError, match="request-not-in-dialect") as caught:
        read(inference, body, inference_header_content_length=length)
    assert said in caught.value.why


@pytest.mark.parametrize("length", ["-1", "99999", "x", "9" * 30])
def test_the_length_of_the_json_is_a_part_of_the_body(length: str) -> None:
    with pytest.raises(DataError, match="request-not-in-dialect"):
        read(inference, {"inputs": [*ORDERS, PLACED, PRICE]}, inference_header_content_length=length)


def test_bytes_that_no_tensor_has_are_refused() -> None:
    body, length = binary(("price", "FP64", np.array([1.0, 2.0]).tobytes()))
    with pytest.raises(DataError, match=r"16 bytes of binary data, and the body has 17"):
        read(inference, body + b"x", inference_header_content_length=length)


def test_a_browser_must_name_a_media_type() -> None:
    body = {"inputs": [*ORDERS, PLACED, PRICE]}
    assert len(read(inference, body, content_type="").rows) == 2
    for header in ("origin", "referer", "sec_fetch_site"):
        with pytest.raises(DataError, match="names no media type"):
            read(inference, body, content_type="", **{header: "x"})


def test_what_breaks_the_contract_is_refused_in_its_own_words() -> None:
    for change in ([PLACED], [PLACED, PRICE | {"data": [8, -1]}], [PLACED, PRICE, tensor("returned", "x", "y")]):
        with pytest.raises(DataError, match="request-breaks-contract"):
            read(inference, {"inputs": [*ORDERS, *change]})


# --- both, and every column


@pytest.mark.parametrize(
    ("dialect", "body", "kind"),
    [
        (inference, {"inputs": [PRICE | {"shape": [10**12]}]}, "application/json"),
        (invocations, {"inputs": {"price": [1] * 5_000}}, "application/json"),
        (invocations, b"price\n" + b"1\n" * 5_000, "text/csv"),
    ],
)
def test_a_table_that_is_far_too_long_is_not_made_into_rows(dialect: Dialect, body: Any, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        read(dialect, body, content_type=kind)
    assert (caught.value.status, caught.value.error.code) == (413, "request-too-large")


class Kinds(fb.Contract):
    """One column of each kind."""

    key = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    flag = dy.Bool(nullable=True)
    count = dy.Int16(nullable=True)
    level = dy.Int64(nullable=True, is_in=[1, 2])
    day = dy.Date(nullable=True)
    wall = dy.Datetime(nullable=True)
    small = dy.Float32(nullable=True)


KINDS = replace(
    PLAN, decode=protocol.decoder(Kinds, frozenset()), schema=protocol.schema(Kinds, frozenset()), key=("key",)
)


def test_columns_have_kinds_that_decide_how_a_cell_is_read() -> None:
    assert cells.kinds(KINDS) == {
        **{"key": "text", "at": "instant", "flag": "truth", "count": "whole", "level": "whole"},
        **{"day": "text", "wall": "text", "small": "number"},
    }
    table = b"key,at,flag,count,level,day,wall,small\n"
    table += b"a,2026-01-01T00:00:00Z,True,-3.0,2,2026-01-02,2026-01-01T10:00:00,.5\nb,2026-01-01T00:00:00Z,,,,,,\n"
    first, second = read(invocations, table, KINDS, content_type="text/csv").rows
    assert (first["flag"], first["count"], first["level"], str(first["day"]), first["small"]) == (
        True,
        -3,
        2,
        "2026-01-02",
        0.5,
    )
    assert [second[name] for name in ("flag", "count", "level", "day", "wall", "small")] == [None] * 6
    at, floats = tensor("at", 0, 1, datatype="INT64"), tensor("count", 3.0, None, datatype="FP64")
    asked = read(inference, {"inputs": [tensor("key", "a", "b"), at, floats]}, KINDS).rows
    assert [row["count"] for row in asked] == [3, None]
    with pytest.raises(DataError, match="Expected `int"):
        read(
            inference,
            {"inputs": [tensor("key", "a"), tensor("at", 0, datatype="INT64"), tensor("count", 3.5, datatype="FP64")]},
            KINDS,
        )


THREE = Task(kind="multiclass", classes=("late", "on time", "early"))


class Thirds:
    """Says the same of everything."""

    name = "lightgbm"
    features = 3

    def row(self, values: np.ndarray) -> tuple[float, ...]:
        return (0.5, 0.25, 0.25)

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        return np.tile([0.5, 0.25, 0.25], (len(matrix), 1))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"task": THREE, "predictor": Thirds()},
            {"decision": ([2], "BYTES", ["late"] * 2), "probabilities": ([2, 3], "FP64", [0.5, 0.25, 0.25] * 2)},
        ),
        (
            {"task": Task(kind="quantile", quantiles=(0.1, 0.5, 0.9)), "predictor": Thirds()},
            {"quantiles": ([2, 3], "FP64", [0.5, 0.25, 0.25] * 2)},
        ),
        ({"finish": Finish(threshold=1.0)}, {"decision": ([2], "BOOL", [True, False])}),
    ],
)
def test_every_task_has_its_outputs_and_the_metadata_names_them(changed: Any, expected: Any) -> None:
    each = replace(PLAN, **changed)
    said = json.loads(write(inference, read(inference, {"inputs": [*ORDERS, PLACED, PRICE]}, each), each).body)
    found = {o["name"]: (o["shape"], o["datatype"], o["data"]) for o in said["outputs"]}
    assert {name: found.get(name) for name in expected} == expected
    about = json.loads(inference.pages("shop", {"orders": alone(each)})["/v2/models/orders"].reply.body)
    assert [o["name"] for o in about["outputs"]] == list(found)
    assert all(o["shape"][1:] == found[o["name"]][0][1:] for o in about["outputs"])
    if each.task.classes:
        assert about["outputs"][2]["parameters"] == {"names": list(THREE.classes)}


def test_an_output_that_one_of_the_answers_lacks_is_left_out() -> None:
    each = replace(PLAN, finish=Finish(threshold=1.0))
    answers = [a for a in (g.answer for g in _given(each)) if a is not None]
    mixed = [answers[0], msgspec.structs.replace(answers[1], decision=None, version="orders-0")]
    said = json.loads(
        inference.write(
            each, inference.Form(None, {"decision": False, "version": False}, False), mixed, CLOCK.now()
        ).body
    )
    assert [o["name"] for o in said["outputs"]] == ["version"] and "model_version" not in said


def _given(each: Plan) -> Any:
    router = Router(CLOCK)
    router.swap({"orders": alone(each)})
    return router.ask(router.ways["orders"], PLAN.decode(json.dumps(MANY).encode())[0], CLOCK.now(), 0.0)


# --- where they answer


def test_paths_name_models_and_the_version_that_answers() -> None:
    two = {"orders": alone(PLAN), "prêt": alone(plan("2", model="prêt"))}
    found = {path: model for each in spoken.ALL for path, model in each.paths(two)}
    assert found["/v2/models/orders/versions/orders-1/infer"] == found["/predict/orders"] == "orders"
    assert found["/invocations/pr%C3%AAt"] == found["/v2/models/pr%C3%AAt/infer"] == "prêt"
    assert "/invocations" not in found and "/predict" not in found
    assert dict(invocations.paths({"orders": alone(PLAN)}))["/invocations"] == "orders"


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/v2/models/orders/versions/9/infer", "version-not-answering", "orders-1 does"),
        ("/v2/models/orders/versions/9", "version-not-answering", "orders-1 does"),
        ("/v2/models/other/infer", "no-such-model", "Answering: orders"),
        ("/v2/models/orders/config", "no-such-page", "openapi"),
        ("/v2/repository/index", "no-such-page", "openapi"),
        ("/invocations/other", "no-such-model", "Answering: orders"),
        ("/predict/other", "no-such-model", "Answering: orders"),
    ],
)
def test_what_is_not_there_is_told_in_the_dialect_of_its_path(path: str, code: str, said: str) -> None:
    errors = [e for e in (each.absent(path, {"orders": alone(PLAN)}) for each in spoken.ALL) if e is not None]
    (error,) = errors
    assert isinstance(error, StateError) and error.code == code and said in error.why + error.next
    body = json.loads(spoken.of(path).refuse(404, error))
    assert set(body) == ({"error"} if path.startswith(("/v2", "/predict")) else {"error_code", "message"})
    assert path.startswith("/predict") or code in str(body)


def test_other_paths_are_nobodys() -> None:
    for path in ("/", "/v2x", "/v", "/predictions/x", "/invocationsx", "/openapi.json"):
        assert [each.absent(path, {}) for each in spoken.ALL] == [None] * 3
        assert spoken.of(path) is native


def test_readiness_follows_who_answers_and_needs_no_key() -> None:
    nobody: dict[str, Routed] = {}
    assert inference.pages("shop", nobody)["/v2/health/ready"].reply.status == 503
    assert invocations.pages("shop", nobody)["/ping"].reply.status == 503
    pages = {**inference.pages("shop", {"orders": alone(PLAN)}), **invocations.pages("shop", {"orders": alone(PLAN)})}
    free = {path for path, page in pages.items() if page.free}
    assert free == {p for p in pages if p.endswith(("/ready", "/live", "/ping", "/health"))}
    assert pages["/version"].reply.body.decode() == importlib.metadata.version("flyball")
    assert {page.reply.status for page in pages.values()} == {200}


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (422, "BAD_REQUEST"), (500, "INTERNAL_ERROR")])
def test_a_refusal_has_the_code_that_mlflow_has(status: int, code: str) -> None:
    said = json.loads(invocations.refuse(status, DataError("x-y", "What", why="Why.")))
    assert said == {"error_code": code, "message": "What. Why. [x-y]"}
