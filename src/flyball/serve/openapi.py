"""The OpenAPI 3.1 document of a server, from the contracts of the models that answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from flyball.serve import reply
from flyball.serve.journal import Entry
from flyball.serve.reply import Prediction
from flyball.serve.router import Routed

Schema = dict[str, Any]


def document(app: str, routed: Mapping[str, Routed], pushed: Collection[str] = ()) -> Schema:
    """Describe `POST /predict/<model>` for each model, and the rest of the surface.

    Args:
        app: the app's name, the title.
        routed: who answers now.
        pushed: the names under which rows are pushed.
    """
    _, schemas = msgspec.json.schema_components([Prediction, Entry], ref_template="#/components/schemas/{name}")
    every = schemas.pop("Prediction")
    schemas["Error"] = _ERROR
    schemas["Entry"]["properties"]["output"] = {"type": ["number", "null"]}  # null: the attempt failed
    paths: dict[str, Any] = {}
    for model, each in routed.items():
        plan = each.champion
        # Models that ask about one contract may read different columns of it.
        title = str(plan.schema["title"])
        name = title if schemas.setdefault(title, dict(plan.schema)) == plan.schema else f"{title}_{model}"
        schemas[name] = dict(plan.schema)
        told = reply.schema(plan, every)
        answer = "Prediction" if schemas.setdefault("Prediction", told) == told else f"Prediction_{model}"
        schemas[answer] = told
        paths[f"/predict/{model}"] = {"post": _predict(model, plan.version, _ref(name), _ref(answer))}
    if len(routed) == 1:
        (model,) = routed
        paths["/predict"] = {"post": paths[f"/predict/{model}"]["post"] | {"operationId": "predict"}}
    for path, (operation, summary, kind) in _PLAIN.items():
        answers = {"200": {"description": summary, "content": {kind: {}}}}
        paths[path] = {
            "get": {"operationId": operation, "summary": summary, "responses": answers | _refusals("401", "403")}
        }
    paths["/readyz"]["get"]["responses"]["503"] = {"description": "Nothing answers yet."}
    paths["/predictions/{id}"] = {"get": _lookup()}
    paths["/outcomes"] = {"post": _outcomes()}
    paths |= {f"/ingest/{name}": {"post": _ingest(name)} for name in sorted(pushed)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": app,
            "version": ", ".join(sorted(each.champion.version for each in routed.values())) or "none",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


_ERROR: Schema = {
    "title": "Error",
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("code", "what", "why", "next")},
            "required": ["code", "what", "why", "next"],
        }
    },
    "required": ["error"],
}
_TAKEN: Schema = {
    "type": "object",
    "properties": {name: {"type": "integer"} for name in ("accepted", "repeated", "corrected")}
    | {"refused": {"type": "array", "items": {"type": "object"}}},
    "required": ["accepted", "repeated", "corrected", "refused"],
}
_JSON = "application/json"
_PLAIN = {
    "/healthz": ("alive", "The process is alive.", _JSON),
    "/readyz": ("ready", "Which versions answer.", _JSON),
    "/metrics": ("metrics", "Counters and latencies, in the Prometheus text format.", "text/plain"),
    "/openapi.json": ("describe", "This document.", _JSON),
}
_REFUSALS = {
    "401": "A key is needed, or the one that was sent is not known.",
    "400": "The request was cut short, or says a header twice.",
    "403": "Foreign Host or Origin, or the key lacks the scope.",
    "404": "Nothing answers here, or nothing is recorded under that id.",
    "405": "Another method is taken here.",
    "408": "The body was too slow.",
    "409": "Another body waits under this Idempotency-Key.",
    "413": "Too large.",
    "415": "Not JSON.",
    "422": "The request breaks the contract.",
    "500": "The server failed.",
    "503": "The answer could not be recorded, or the record not read; try again after Retry-After seconds.",
}


def _predict(model: str, version: str, request: Schema, answer: Schema) -> Schema:
    return {
        "summary": f"Ask {model}; {version} answers now.",
        "operationId": f"predict_{model}",
        "requestBody": {"required": True, "content": {_JSON: {"schema": _one_or_many(request)}}},
        "responses": {
            "200": {"description": "Answered, and recorded.", "content": {_JSON: {"schema": _one_or_many(answer)}}},
            **_refusals("400", "401", "403", "405", "408", "413", "415", "422", "500", "503"),
        },
    }


def _outcomes() -> Schema:
    key = {"type": "object", "description": "The key of the question, by column."}
    told = "What came of it: true or false, a number, or the name of a class; null is void."
    value = {"type": ["boolean", "number", "string", "null"], "description": told}
    one: Schema = {
        "type": "object",
        "properties": {
            "prediction": {"type": "string", "format": "uuid"},
            "model": {"type": "string"},
            "key": key,
            "outcome": value,
            "settled": {"type": "string", "format": "date-time"},
        },
        "required": ["outcome"],
        "additionalProperties": False,
    }
    return {
        "summary": "Say what became of a prediction, or of a question. Needs a key with the scope label.",
        "operationId": "outcomes",
        "requestBody": {"required": True, "content": {_JSON: {"schema": _one_or_many(one)}}},
        "responses": {
            "200": {"description": "Taken, each as is said.", "content": {_JSON: {"schema": _TAKEN}}},
            **_refusals("400", "401", "403", "404", "405", "408", "413", "415", "500", "503"),
            "422": {"description": "None was taken.", "content": {_JSON: {}}},
        },
    }


def _ingest(name: str) -> Schema:
    lines = {"schema": {"type": "string", "description": "One JSON object a line."}}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
    reply = {"type": "object", "properties": {"taken": {"enum": ["accepted", "repeated"]}, "rows": {"type": "integer"}}}
    return {
        "summary": f"Push rows of {name}. Needs a key with the scope ingest.",
        "operationId": f"ingest_{name}",
        "parameters": [key],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": _one_or_many({"type": "object"})}, "application/x-ndjson": lines},
        },
        "responses": {
            "202": {"description": "On disk; judged with the next apply.", "content": {_JSON: {"schema": reply}}},
            **_refusals("400", "401", "403", "405", "408", "409", "413", "415", "422", "500", "503"),
        },
    }


def _lookup() -> Schema:
    return {
        "summary": "A recorded answer.",
        "operationId": "recorded",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
        "responses": {
            "200": {"description": "As it was recorded.", "content": {_JSON: {"schema": _ref("Entry")}}},
            **_refusals("401", "403", "404", "405", "503"),
        },
    }


def _refusals(*statuses: str) -> Schema:
    found: Schema = {}
    for status in statuses:
        found[status] = {"description": _REFUSALS[status], "content": {_JSON: {"schema": _ref("Error")}}}
        if status == "503":
            found[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found


def _one_or_many(one: Schema) -> Schema:
    return {"oneOf": [one, {"type": "array", "items": one}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
