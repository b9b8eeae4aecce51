"""The clients of others, on the wire: NVIDIA's for the Open Inference Protocol, and MLflow's own where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.live import ROW, Live, live, plan


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("shop")) as found:
        yield found


@pytest.fixture
def client(shop: Live) -> Iterator[triton.InferenceServerClient]:
    with closing(triton.InferenceServerClient(f"127.0.0.1:{shop.port}")) as found:
        yield found


def inputs(*, binary: bool) -> list[Any]:
    table = {
        "order_id": ("BYTES", np.array([["a"], ["ä"]], dtype=object)),
        "placed": ("INT64", np.array([1_795_176_000_000_000] * 2)),
        "category": ("BYTES", np.array(["books", "shoes"], dtype=object)),
        "price": ("FP64", np.array([8, 0.5])),
        "note": ("BYTES", np.array(["x", ""], dtype=object)),
        "note.null": ("BOOL", np.array([False, True])),
    }
    found = []
    for name, (datatype, values) in table.items():
        found.append(triton.InferInput(name, list(values.shape), datatype))
        found[-1].set_data_from_numpy(values, binary_data=binary)
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_asks_and_gets_what_is_recorded(
    shop: Live, client: triton.InferenceServerClient, binary: bool
) -> None:
    given = client.infer("orders", inputs(binary=binary), request_id="q7", model_version="orders-1")
    assert given.as_numpy("output").tolist() == [4.0, 0.25]
    assert given.get_response()["id"] == "q7"
    entries = [shop.journal.find(each.decode()) for each in given.as_numpy("id")]
    assert [e and (e.inputs["order_id"], e.inputs["note"], e.version) for e in entries] == [
        ("a", "x", "orders-1"),
        ("ä", None, "orders-1"),
    ]
    only = [triton.InferRequestedOutput("output", binary_data=binary)]
    named = client.infer("orders", inputs(binary=binary), outputs=only).get_response()["outputs"]
    assert [each["name"] for each in named] == ["output"]


def test_tritonclient_learns_what_there_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("orders", "orders-1")
    assert not client.is_model_ready("orders", "9") and not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    about = client.get_model_metadata("orders")
    assert about["versions"] == ["orders-1"]
    assert {each["name"]: each["datatype"] for each in about["inputs"]}["price"] == "FP64"


def test_tritonclient_is_told_why_not(client: triton.InferenceServerClient) -> None:
    given = inputs(binary=True)
    with pytest.raises(InferenceServerException, match="request-breaks-contract") as caught:
        client.infer("orders", given[:1])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="'output' is asked for twice"):
        client.infer("orders", given, outputs=[triton.InferRequestedOutput("output")] * 2)


def test_mlflow_asks_and_is_told_why_not(shop: Live) -> None:
    scoring = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    client = scoring.ScoringServerClient("127.0.0.1", shop.port)
    client.wait_server_ready(5)
    (answer,) = client.invoke([ROW])["predictions"]
    assert shop.journal.find(answer["id"]) is not None
    with pytest.raises(Exception, match="params"):
        client.invoke([ROW], params={"a": 1})


def test_what_mlflow_sends_is_answered_on_the_wire(shop: Live) -> None:
    split = json.dumps({"dataframe_split": {"columns": [*ROW, "note"], "data": [[*ROW.values(), float("nan")]]}})
    reply = shop.send("POST", "/invocations", split.encode())
    assert reply.status == 200 and [each["output"] for each in reply.json["predictions"]] == [4.0]
    table = ",".join(ROW).encode() + b"\n" + ",".join(map(str, ROW.values())).encode()
    assert shop.send("POST", "/invocations", table, {"Content-Type": "text/csv"}).status == 200
    for body, kind, status, code in (
        (b"{}", "application/json", 422, "request-not-in-dialect"),
        (table, "application/vnd.apache.parquet", 415, "not-json"),
        (table, "text/plain", 415, "not-json"),
    ):
        refused = shop.send("POST", "/invocations", body, {"Content-Type": kind})
        assert (refused.status, refused.json["error_code"]) == (status, "BAD_REQUEST")
        assert code in refused.json["message"]
    assert shop.send("GET", "/ping").body == b"\n"


def test_a_version_has_its_path_only_while_it_answers(shop: Live) -> None:
    before = shop.server.routed
    path = "/v2/models/orders/versions/orders-2"
    missing = shop.send("POST", f"{path}/infer", b"{}")
    assert missing.status == 404 and b"orders-1 does" in missing.body
    try:
        shop.swap({"orders": plan("orders-2")})
        assert shop.send("GET", path).json["versions"] == ["orders-2"]
        assert shop.send("GET", "/v2/models/orders/versions/orders-1/ready").status == 404
    finally:
        shop.swap(before)


def test_a_page_of_another_site_asks_in_no_dialect(shop: Live) -> None:
    for path in ("/invocations", "/v2/models/orders/infer"):
        reply = shop.send("POST", path, b"{}", {"Content-Type": "text/csv", "Origin": "http://evil.example"})
        assert reply.status == 403
    assert shop.raw(
        b"POST /v2/models/orders/infer HTTP/1.1\r\nHost: localhost\r\nReferer: http://localhost/\r\nContent-Length: 2\r\n\r\n{}"
    ).startswith(b"HTTP/1.1 422")
