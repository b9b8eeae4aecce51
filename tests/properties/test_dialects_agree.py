"""Whatever is asked, and in whatever dialect: the same rows, the same answers, or the same refusal; never a fault of ours."""

from __future__ import annotations

import csv
import io
import json
import struct
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.errors import DataError
from flyball.checks.clock import Wound
from flyball.serve.dialect import Dialect
from flyball.serve.dialects import inference, invocations, native, spoken
from flyball.serve.message import Request
from flyball.serve.router import Router
from tests.live import ROW, alone, plan

CLOCK, PLAN = Wound(), plan()
ROUTER = Router(CLOCK)
ROUTER.swap({"orders": alone(PLAN)})

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ASKED = st.fixed_dictionaries(
    {
        "order_id": TEXT,
        "placed": st.just(ROW["placed"]) | st.sampled_from(["2026-11-20T12:00:00", "soon"]),
        "category": st.sampled_from(["books", "shoes", "shoes", "hats"]),
        "price": st.none() | st.floats(0, 1000) | st.floats(allow_nan=False, allow_infinity=False),
        "note": st.none() | TEXT,
    }
)
SOUND = {"placed": ROW["placed"], "category": "books", "price": 8.0}
COLUMNS = ("order_id", "placed", "category", "price", "note")
MOSTLY_SOUND = (ASKED | ASKED.map(lambda row: row | SOUND)).map(lambda row: {name: row[name] for name in COLUMNS})

Said = tuple[list[dict[str, Any]], list[float]] | str


def said(dialect: Dialect, body: bytes, **headers: str) -> Said:
    """The rows and the outputs, or the code of the refusal."""
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = Request("POST", "/", "", {b"content-type": b"application/json", **named}, body)
    try:
        asked = dialect.read(PLAN, request)
    except DataError as refused:
        return refused.code
    answers = [g.answer for g in ROUTER.ask(ROUTER.ways["orders"], asked.rows, CLOCK.now(), 0.0) if g.answer]
    told = json.loads(dialect.write(PLAN, asked.shape, answers, CLOCK.now()).body)
    if isinstance(told, dict):
        told = told["predictions"] if "predictions" in told else [{"output": o} for o in told["outputs"][0]["data"]]
    return asked.rows, [each["output"] for each in told]


def table(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(rows[0])
    writer.writerows(
        ["" if v is None else repr(v) if isinstance(v, float) else v for v in row.values()] for row in rows
    )
    return out.getvalue().encode()


def tensors(rows: list[dict[str, Any]], *, binary: bool) -> tuple[bytes, str]:
    inputs, chunks = [], list[bytes]()

    def add(name: str, datatype: str, values: list[Any], chunk: bytes) -> None:
        one: dict[str, Any] = {"name": name, "shape": [len(rows)], "datatype": datatype}
        inputs.append(one | ({"parameters": {"binary_data_size": len(chunk)}} if binary else {"data": values}))
        chunks.append(chunk if binary else b"")

    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "price":
            numbers = np.array([float("nan") if v is None else v for v in values])
            add(name, "FP64", values, numbers.tobytes())
            continue
        texts = [("" if v is None else v).encode() for v in values]
        add(name, "BYTES", values, b"".join(struct.pack("<I", len(t)) + t for t in texts))
        if binary and None in values:
            gone = [v is None for v in values]
            add(f"{name}.null", "BOOL", gone, bytes(gone))
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(chunks), str(len(head))


@settings(max_examples=60, deadline=None)
@given(st.lists(MOSTLY_SOUND, min_size=1, max_size=4))
def test_all_dialects_say_the_same_of_the_same_rows(rows: list[dict[str, Any]]) -> None:
    expected = said(native, json.dumps(rows).encode())
    assert not isinstance(expected, str) or expected == "request-breaks-contract"
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    split = {"columns": [*columns], "data": [list(row.values()) for row in rows]}
    for form in ({"dataframe_records": rows}, {"instances": rows}, {"inputs": columns}, {"dataframe_split": split}):
        assert said(invocations, json.dumps(form).encode()) == expected
    assert said(invocations, table(rows), content_type="text/csv") == expected
    for binary in (False, True):
        body, length = tensors(rows, binary=binary)
        assert said(inference, body, inference_header_content_length=length) == expected


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(
    ["inputs", "instances", "dataframe_split", "columns", "data", "name", "shape", "datatype", "outputs", "parameters"]
)
VALUE = st.recursive(
    LEAF | st.sampled_from(["FP64", "BYTES", "BOOL", "INT64", "price"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["price", "order_id", "placed", "note.null"]),
        "shape": st.lists(st.integers(-1, 3), max_size=2),
    },
    optional={
        "datatype": st.sampled_from(["FP64", "FP16", "BYTES", "BOOL", "INT64", "UINT64", "X"]),
        "data": st.lists(LEAF, max_size=3),
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 40) | LEAF),
    },
)
BODY = st.binary(max_size=80) | (VALUE | st.lists(TENSOR, max_size=3).map(lambda t: {"inputs": t})).map(
    lambda value: json.dumps(value).encode()
)


@settings(max_examples=200, deadline=None)
@given(BODY, st.binary(max_size=40), st.booleans(), st.sampled_from(["application/json", "text/csv", ""]))
def test_whatever_comes_is_read_or_refused_by_a_known_code(body: bytes, rest: bytes, more: bool, kind: str) -> None:
    headers = {"content_type": kind} | ({"inference_header_content_length": str(len(body))} if more else {})
    for dialect in spoken.ALL:
        found = said(dialect, body + rest if more else body, **headers)
        assert not isinstance(found, str) or found in ("request-not-in-dialect", "request-breaks-contract")
