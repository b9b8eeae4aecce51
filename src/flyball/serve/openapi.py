"""The OpenAPI 3.1 document of a server, from the contracts of the models that answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from flyball.serve.journal import Entry
from flyball.serve.plan import Plan
from flyball.serve.protocol import Prediction

Schema = dict[str, Any]


def document(app: str, plans: Mapping[str, Plan]) -> Schema:
    """Describe `POST /predict/<model>` for each model, and the rest of the surface.

    Args:
        app: the app's name, the title.
        plans: what answers now.
    """
    _, schemas = msgspec.json.schema_components([Prediction, Entry], ref_template="#/components/schemas/{name}")
    schemas["Error"] = _ERROR
    paths: dict[str, Any] = {}
    for model, plan in plans.items():
        # Models that ask about one contract may read different columns of it.
        title = str(plan.schema["title"])
        name = title if schemas.setdefault(title, dict(plan.schema)) == plan.schema else f"{title}_{model}"
        schemas[name] = dict(plan.schema)
        paths[f"/predict/{model}"] = {"post": _predict(model, plan.version, _ref(name))}
    if len(plans) == 1:
        (model,) = plans
        paths["/predict"] = {"post": paths[f"/predict/{model}"]["post"] | {"operationId": "predict"}}
    for path, (operation, summary, kind) in _PLAIN.items():
        answers = {"200": {"description": summary, "content": {kind: {}}}}
        paths[path] = {"get": {"operationId": operation, "summary": summary, "responses": answers | _refusals("403")}}
    paths["/readyz"]["get"]["responses"]["503"] = {"description": "Nothing answers yet."}
    paths["/predictions/{id}"] = {"get": _lookup()}
    return {
        "openapi": "3.1.0",
        "info": {"title": app, "version": ", ".join(sorted(p.version for p in plans.values())) or "none"},
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
_JSON = "application/json"
_PLAIN = {
    "/healthz": ("alive", "The process is alive.", _JSON),
    "/readyz": ("ready", "Which versions answer.", _JSON),
    "/metrics": ("metrics", "Counters and latencies, in the Prometheus text format.", "text/plain"),
    "/openapi.json": ("describe", "This document.", _JSON),
}
_REFUSALS = {
    "400": "The request was cut short, or says a header twice.",
    "403": "Foreign Host or Origin.",
    "404": "Nothing answers here, or nothing is recorded under that id.",
    "405": "Another method is taken here.",
    "408": "The body was too slow.",
    "413": "Too large.",
    "415": "Not JSON.",
    "422": "The request breaks the contract.",
    "500": "The server failed.",
    "503": "The answer could not be recorded, or the record not read; try again after Retry-After seconds.",
}


def _predict(model: str, version: str, request: Schema) -> Schema:
    answer = _ref("Prediction")
    return {
        "summary": f"Ask {model}; {version} answers now.",
        "operationId": f"predict_{model}",
        "requestBody": {"required": True, "content": {_JSON: {"schema": _one_or_many(request)}}},
        "responses": {
            "200": {"description": "Answered, and recorded.", "content": {_JSON: {"schema": _one_or_many(answer)}}},
            **_refusals("400", "403", "405", "408", "413", "415", "422", "500", "503"),
        },
    }


def _lookup() -> Schema:
    return {
        "summary": "A recorded answer.",
        "operationId": "recorded",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
        "responses": {
            "200": {"description": "As it was recorded.", "content": {_JSON: {"schema": _ref("Entry")}}},
            **_refusals("403", "404", "405", "503"),
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
