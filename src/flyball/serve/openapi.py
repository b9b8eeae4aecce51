"""The OpenAPI 3.1 document of a server, from the contracts of the models that answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from flyball.serve.plan import Plan


def document(app: str, plans: Mapping[str, Plan], prediction: type[msgspec.Struct]) -> dict[str, Any]:
    """Describe `POST /predict/<model>` for each model, and the rest of the surface.

    Args:
        app: the app's name, the title.
        plans: what answers now.
        prediction: the type of an answer.
    """
    (_,), schemas = msgspec.json.schema_components([prediction], ref_template="#/components/schemas/{name}")
    schemas["Error"] = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("code", "what", "why", "next")},
                "required": ["code", "what"],
            }
        },
        "required": ["error"],
    }
    paths: dict[str, Any] = {}
    for model, plan in plans.items():
        name = str(plan.schema["title"])
        schemas[name] = dict(plan.schema)
        paths[f"/predict/{model}"] = {"post": _predict(model, plan.version, _ref(name), _ref("Prediction"))}
    for path, summary in _PLAIN.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
    paths["/predictions/{id}"] = {"get": _lookup()}
    return {
        "openapi": "3.1.0",
        "info": {"title": app, "version": ", ".join(sorted(p.version for p in plans.values())) or "none"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


_PLAIN = {
    "/healthz": "The process is alive.",
    "/readyz": "Which versions answer.",
    "/metrics": "Counters and latencies, in the Prometheus text format.",
    "/openapi.json": "This document.",
}


def _predict(model: str, version: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": f"Ask {model}; {version} answers now.",
        "operationId": f"predict_{model}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"oneOf": [request, {"type": "array", "items": request}]}}},
        },
        "responses": {
            "200": {
                "description": "Answered, and recorded.",
                "content": {"application/json": {"schema": {"oneOf": [answer, {"type": "array", "items": answer}]}}},
            },
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }


_ERRORS = {
    "403": "Foreign Host or Origin.",
    "413": "Too large.",
    "415": "Not JSON.",
    "422": "The request breaks the contract.",
    "503": "The answer could not be recorded; try again after Retry-After seconds.",
}


def _lookup() -> dict[str, Any]:
    return {
        "summary": "A recorded answer.",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "As it was recorded."}, "404": _error("Not recorded.")},
    }


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
