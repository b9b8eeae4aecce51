"""The dialects of others in the OpenAPI document, typed by each model's own columns and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from flyball.serve.described import ASKED, JSON, answered, body, content, record, refusals
from flyball.serve.dialects import cells, inference, invocations, tensors
from flyball.serve.plan import Plan
from flyball.serve.router import Routed

Schema = dict[str, Any]

SCHEMAS: Final[Mapping[str, Schema]] = {
    "InferenceError": record({"error": {"type": "string"}}, "error"),
    "InvocationsError": record(
        {"error_code": {"type": "string"}, "message": {"type": "string"}}, "error_code", "message"
    ),
}
"""What the components must have."""

_TEXT: Final[Schema] = {"type": "string"}
_ANY: Final[Schema] = {"type": "object"}
_HEADER: Final[Schema] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of the JSON, where binary data follows it.",
    "schema": {"type": "integer", "minimum": 0},
}


def reads(routed: Mapping[str, Routed]) -> dict[str, Schema]:
    """Path -> what GET of it gives: health, metadata."""
    ready = record({"ready": {"type": "boolean"}}, "ready", closed=False)
    server = record(
        {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}, "name", "version"
    )
    found = {
        "/v2": _get("inference_server", "The server, for the Open Inference Protocol.", server, "401", "403", "429"),
        "/v2/health/live": _get("inference_live", "The process is alive.", record({"live": {"const": True}}, "live")),
        "/v2/health/ready": _get("inference_ready", "Whether models answer.", ready),
    }
    found["/v2/health/ready"]["get"]["responses"]["503"] = {
        "description": "Nothing answers yet.",
        "content": content(ready),
    }
    tensor = record({"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array"}}, "name", "datatype", closed=False)
    listed: Schema = {"type": "array", "items": tensor}
    about = record(
        {"name": _TEXT, "versions": {"type": "array", "items": _TEXT}, "inputs": listed, "outputs": listed},
        "name",
        closed=False,
    )
    for model, each in routed.items():
        at = f"/v2/models/{quote(model, safe='')}"
        for path, name in ((at, model), (f"{at}/versions/{quote(each.champion.version, safe='')}", f"{model}-version")):
            is_ready = record({"name": {"const": model}, "ready": {"type": "boolean"}}, "name", "ready")
            found[path] = _get(f"inference_model_{name}", f"Inputs and outputs of {model}.", about, "401", "403", "429")
            found[f"{path}/ready"] = _get(f"inference_ready_{name}", f"Whether {model} answers.", is_ready)
    ping = {"200": {"description": "Models answer.", "content": {JSON: {}}}}
    silent = {"503": {"description": "Nothing answers yet.", "content": {JSON: {}}}}
    for path, name in (("/ping", "ping"), ("/health", "health")):
        responses = ping | silent | refusals("403", error="Error")
        found[path] = {"get": {"summary": "As MLflow has it.", "operationId": name, "responses": responses}}
    plain = {"200": {"description": "flyball's.", "content": content(_TEXT, "text/plain")}}
    responses = plain | refusals("401", "403", "429")
    found["/version"] = {
        "get": {"summary": "The version of the server.", "operationId": "version", "responses": responses}
    }
    return found


def asks(model: str, plan: Plan, request: Schema, answer: Schema, alone: bool) -> dict[str, Schema]:
    """Path -> what POST to it takes, for one model.

    Args:
        request: the schema of one question.
        answer: that of what is said of it.
        alone: whether it is the only model.
    """
    name, safe = quote(plan.version, safe=""), quote(model, safe="")
    infer = _infer(model, plan)
    found = {
        f"/v2/models/{safe}/infer": {"post": infer | {"operationId": f"infer_{model}"}},
        f"/v2/models/{safe}/versions/{name}/infer": {"post": infer | {"operationId": f"infer_{model}-version"}},
    }
    invoke = _invoke(model, plan, request, answer)
    found[f"{invocations.INVOCATIONS}/{safe}"] = {"post": invoke | {"operationId": f"invoke_{model}"}}
    if alone:
        found[invocations.INVOCATIONS] = {"post": invoke | {"operationId": "invoke"}}
    return found


def _infer(model: str, plan: Plan) -> Schema:
    parameters: Schema = {"type": ["object", "null"]}
    names = list(cells.kinds(plan))
    datatypes = ["BOOL", "BYTES", *(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64))]
    columns = [*names, *(f"{name}{tensors.NULL}" for name in names)]
    shape: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2}
    tensor = record(
        {
            "name": {"enum": columns},
            "shape": {**shape, "description": "[n] or [n, 1], the same n in every tensor."},
            "datatype": {"enum": [*datatypes, "FP16", "FP32", "FP64"]},
            "parameters": parameters,
            "data": {"type": ["array", "null"], "description": "Row-major; left out of a tensor in binary data."},
        },
        *("name", "shape", "datatype"),
    )
    wanted = record({"name": {"enum": list(inference.outputs(plan))}, "parameters": parameters}, "name")
    asked = record(
        {
            "id": {"type": ["string", "null"], "description": "Is said again."},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "description": "One tensor a column."},
            "outputs": {"type": ["array", "null"], "items": wanted, "description": "Left out: all that there are."},
            "parameters": parameters,
        },
        "inputs",
    )
    outputs: Schema = {"type": "array", "items": _output(plan)}
    answer = record(
        {"model_name": {"const": model}, "model_version": _TEXT, "id": _TEXT, "parameters": _ANY, "outputs": outputs},
        *("model_name", "outputs"),
    )
    binary: Schema = {"schema": {"type": "string", "format": "binary", "description": "JSON, then binary data."}}
    said = answered("An answer a row.", answer)
    said["200"]["content"][inference.OCTETS.decode()] = binary
    return {
        "summary": f"Ask {model} in the Open Inference Protocol; {plan.version} answers now.",
        "parameters": [_HEADER],
        "requestBody": body(asked, **{inference.OCTETS.decode(): binary}),
        "responses": said | refusals(*ASKED, error="InferenceError"),
    }


def _output(plan: Plan) -> Schema:
    there = inference.outputs(plan)
    shape: Schema = {"type": "array", "items": {"type": "integer"}}
    datatype = {"enum": sorted({each[0] for each in there.values()})}
    properties = {"name": {"enum": list(there)}, "shape": shape, "datatype": datatype, "data": {"type": "array"}}
    return record({**properties, "parameters": _ANY}, "name", "shape", "datatype")


def _invoke(model: str, plan: Plan, request: Schema, answer: Schema) -> Schema:
    many: Schema = {"type": "array", "items": request}
    columns: dict[str, Schema] = {
        name: {"type": "array", "items": each} for name, each in plan.schema["properties"].items()
    }
    required = list(plan.schema.get("required", ()))
    lists = record(columns, *required)
    split = record(
        {
            "columns": {"type": "array", "items": {"enum": list(columns)}, "uniqueItems": True},
            "data": {"type": "array", "items": {"type": "array"}, "description": "Rows of cells."},
            "index": {"description": "Is not read."},
        },
        *("columns", "data"),
    )
    forms = {"dataframe_split": split, "dataframe_records": many, "instances": many}
    forms["inputs"] = {"anyOf": [many, lists, request]}
    asked: Schema = {"oneOf": [record({form: each}, form) for form, each in forms.items()]}
    table = {"schema": {"type": "string", "description": "With a header, in UTF-8; an empty cell is null."}}
    told = record({"predictions": {"type": "array", "items": answer}}, "predictions")
    return {
        "summary": f"Ask {model} in the formats of MLflow; {plan.version} answers now.",
        "requestBody": body(asked, **{"text/csv": table}),
        "responses": answered("An answer a row.", told) | refusals(*ASKED, error="InvocationsError"),
    }


def _get(operation: str, summary: str, schema: Schema, *statuses: str) -> Schema:
    responses = answered(summary, schema) | refusals(*(statuses or ("403",)), error="InferenceError")
    return {"get": {"summary": summary, "operationId": operation, "responses": responses}}
