"""The description of a server: structurally an OpenAPI 3.1 document, and true of what the server takes and gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from flyball.serve import openapi
from tests.live import ROW, Live, alone, live, plan

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("shop")) as found:
        yield found


@pytest.fixture(scope="module")
def document(shop: Live) -> dict[str, Any]:
    found: dict[str, Any] = shop.send("GET", "/openapi.json").json
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def valid(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    whole = {**schema, "components": document["components"]}
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).is_valid(value)


def test_it_has_the_parts_that_the_specification_asks_for(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert {"title", "version"} <= set(document["info"])
    operations = []
    for path, item in document["paths"].items():
        assert path.startswith("/") and set(item) <= METHODS
        for operation in item.values():
            operations.append(operation["operationId"])
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path" and p["required"]}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert operation["responses"]
            for status, response in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d", status) and response["description"]
    assert len(set(operations)) == len(operations)


def test_every_reference_leads_somewhere_and_every_schema_is_one(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for node in nodes(document):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/components/schemas/") in schemas
        if "schema" in node:
            jsonschema.Draft202012Validator.check_schema(node["schema"])
    for name, schema in schemas.items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_request_is_described_as_it_is_checked(document: dict[str, Any], shop: Live) -> None:
    schema = document["paths"]["/predict/orders"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    request = document["components"]["schemas"]["OrderRequest"]
    assert set(request["required"]) == {"order_id", "placed", "category", "price"}
    assert request["properties"]["placed"]["format"] == "date-time"
    cases: list[dict[str, Any]] = [{}, {"note": None}, {"customer": "c"}, {"price": 0}]
    cases += [{"price": -1}, {"price": None}, {"price": "8"}, {"category": "hats"}, {"returned": True}, {"x": 1}]
    cases += [{"note": 3}, {"note": "x" * 10_001}, {"order_id": None}, {"category": None}]
    for change in cases:
        given = ROW | change
        assert valid(document, schema, given) == (shop.ask(given).status == 200), change
        assert valid(document, schema, [given]) == (shop.ask([given]).status == 200), change


def test_answers_and_refusals_are_as_described(document: dict[str, Any], shop: Live) -> None:
    def described(path: str, method: str, status: int) -> dict[str, Any]:
        found: dict[str, Any] = document["paths"][path][method]["responses"][str(status)]["content"]
        return dict(found["application/json"]["schema"])

    answer, many = shop.ask(ROW), shop.ask([ROW, ROW])
    assert valid(document, described("/predict/orders", "post", 200), answer.json)
    assert valid(document, described("/predict", "post", 200), many.json)
    found = shop.send("GET", f"/predictions/{answer.json['id']}")
    assert valid(document, described("/predictions/{id}", "get", 200), found.json)
    refusals = {
        422: shop.ask({}),
        415: shop.send("POST", "/predict", b"{}", {"Content-Type": "text/plain"}),
        403: shop.send("POST", "/predict", b"{}", {"Host": "evil.example"}),
        405: shop.send("PUT", "/predict"),
    }
    for status, reply in refusals.items():
        assert reply.status == status
        assert valid(document, described("/predict", "post", status), reply.json)
    assert valid(document, described("/predictions/{id}", "get", 404), shop.send("GET", "/predictions/x").json)


def test_every_page_that_is_described_is_there(document: dict[str, Any], shop: Live) -> None:
    for path, item in document["paths"].items():
        if "get" in item and "{" not in path:
            reply = shop.send("GET", path)
            assert reply.status == 200
            (kind,) = item["get"]["responses"]["200"]["content"]
            assert reply.headers["content-type"].partition(";")[0] == kind


def test_two_models_that_read_one_contract_differently_keep_their_own_schemas() -> None:
    one, two = plan(), plan("other-1", model="other")
    assert set(openapi.document("shop", {"orders": alone(one), "other": alone(two)})["components"]["schemas"]) == {
        "Entry",
        "Error",
        "InferenceError",
        "InvocationsError",
        "OrderRequest",
        "Prediction",
    }
    less = json.loads(json.dumps(one.schema))
    less["required"].remove("price")
    document = openapi.document("shop", {"orders": alone(one), "other": alone(replace(two, schema=less))})
    required = {}
    for model in ("orders", "other"):
        content = document["paths"][f"/predict/{model}"]["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["oneOf"][0]["$ref"].rpartition("/")[2]
        required[model] = "price" in document["components"]["schemas"][name]["required"]
    assert required == {"orders": True, "other": False}


def test_the_dialects_of_others_are_described_as_they_are(document: dict[str, Any], shop: Live) -> None:
    names = [*ROW, "note"]
    split = {"columns": names, "data": [[*ROW.values(), None]]}
    tensors = [{"name": n, "shape": [1], "datatype": "BYTES", "data": [str(v)]} for n, v in ROW.items() if n != "price"]
    priced = [*tensors, {"name": "price", "shape": [1, 1], "datatype": "FP64", "data": [8.0]}]
    asked: dict[str, list[Any]] = {
        "/invocations": [{form: [ROW]} for form in ("dataframe_records", "instances", "inputs")]
        + [{"inputs": {n: [v] for n, v in ROW.items()}}, {"inputs": ROW}, {"dataframe_split": split}]
        + [{"inputs": [ROW], "params": {}}, {"rows": [ROW]}, {"instances": [{}]}, [ROW], {}],
        "/v2/models/orders/infer": [
            {"inputs": priced},
            {"inputs": priced, "id": "q7", "outputs": [{"name": "output"}, {"name": "id"}], "parameters": {}},
            {"inputs": priced, "outputs": [{"name": "other"}]},
            {"inputs": [{**priced[0], "name": "other"}]},
            {"inputs": [{**priced[0], "datatype": "BF16"}]},
            {"inputs": []},
            {"inptus": priced},
        ],
    }
    for path, bodies in asked.items():
        described = document["paths"][path]["post"]
        took = []
        for body in bodies:
            reply = shop.ask(body, path)
            content = described["responses"][str(reply.status)]["content"]["application/json"]
            assert valid(document, content["schema"], reply.json), (path, body, reply.json)
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            assert valid(document, schema, body) == (reply.status == 200), (path, body)
            took.append(reply.status)
        assert {200, 422} == set(took)
