"""The OpenAPI 3.1 document of a server, from the contracts of the models that answer.

Everything that is taken, by its own schema: what is refused here is refused there. The dialects of others are in
`dialects.described`, the words that all parts use in `described`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from flyball.serve import outcomes, reply
from flyball.serve.described import ASKED, JSON, answered, body, one_or_many, record, ref, refusals
from flyball.serve.dialects import described
from flyball.serve.guard import Limits
from flyball.serve.journal import Entry
from flyball.serve.reply import Prediction
from flyball.serve.router import Routed

Schema = dict[str, Any]

_UNNAMED = re.compile(r"[^A-Za-z0-9._-]")


def document(
    app: str, routed: Mapping[str, Routed], pushed: Collection[str] = (), limits: Limits | None = None
) -> Schema:
    """Describe what each model is asked, in every dialect, and the rest of the surface.

    Args:
        app: the app's name, the title.
        routed: who answers now.
        pushed: the names under which rows are pushed.
        limits: what one request may ask.
    """
    schemas = _components()
    every = schemas.pop("Prediction")
    paths: dict[str, Any] = {}
    for model, each in routed.items():
        plan = each.champion
        # Models that ask about one contract may read different columns of it.
        title = str(plan.schema["title"])
        request = _named(schemas, title, f"{title}_{model}", dict(plan.schema))
        answer = _named(schemas, "Prediction", f"Prediction_{model}", reply.schema(plan, every))
        asks = _predict(model, plan.version, request, answer)
        paths[f"/predict/{quote(model, safe='')}"] = {"post": asks}
        if alone := len(routed) == 1:
            paths["/predict"] = {"post": asks | {"operationId": "predict"}}
        paths |= described.asks(model, plan, request, answer, alone)
    paths |= described.reads(routed) | _reads()
    paths["/outcomes"] = {"post": _outcomes()}
    paths |= {f"/ingest/{quote(name, safe='')}": {"post": _ingest(name)} for name in sorted(pushed)}
    versions = ", ".join(sorted(each.champion.version for each in routed.values()))
    return {
        "openapi": "3.1.0",
        "info": {"title": app, "version": versions or "none", "description": _limited(limits or Limits())},
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _named(schemas: dict[str, Schema], name: str, otherwise: str, schema: Schema) -> Schema:
    """Put a schema among the others, under a name that no other one has, of letters that OpenAPI takes for one."""
    name, otherwise = _UNNAMED.sub("_", name), _UNNAMED.sub("_", otherwise)
    name = name if schemas.setdefault(name, schema) == schema else otherwise
    schemas[name] = schema
    return ref(name)


def _components() -> dict[str, Schema]:
    _, schemas = msgspec.json.schema_components([Prediction, Entry], ref_template="#/components/schemas/{name}")
    schemas["Entry"]["properties"]["output"] = {"type": ["number", "null"]}  # null: the attempt failed
    return {**schemas, "Error": _ERROR, **described.SCHEMAS}


def _limited(limits: Limits) -> str:
    return (
        f"One request has at most {limits.body:,} bytes and {limits.rows:,} questions (or {outcomes.ITEMS:,} outcomes), and is "
        f"whole within {limits.seconds:g} s. Of 429 and 503 the header Retry-After says when to try again."
    )


_PARTS = ("code", "what", "why", "next")
_ERROR: Schema = {
    "title": "Error",
    **record(
        {"error": record({name: {"type": "string"} for name in _PARTS}, *_PARTS, closed=False)}, "error", closed=False
    ),
}
_TAKEN: Schema = record(
    {name: {"type": "integer"} for name in ("accepted", "repeated", "corrected")}
    | {"refused": {"type": "array", "items": {"type": "object"}}},
    *("accepted", "repeated", "corrected", "refused"),
    closed=False,
)
_PLAIN = {
    "/healthz": ("alive", "The process is alive.", JSON),
    "/readyz": ("ready", "Which versions answer.", JSON),
    "/metrics": ("metrics", "Counters and latencies, in the Prometheus text format.", "text/plain"),
    "/openapi.json": ("describe", "This document.", JSON),
    "/docs": ("docs", "This document, to be read by people.", "text/html"),
}
_BY_VERSION: Schema = {
    "name": "Flyball-Version",
    "in": "header",
    "description": "Who shall answer, for operators: needs a key with the scope operate.",
    "schema": {"type": "string"},
}


def _reads() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for path, (operation, summary, kind) in _PLAIN.items():
        answers = {"200": {"description": summary, "content": {kind: {}}}}
        paths[path] = {
            "get": {"operationId": operation, "summary": summary, "responses": answers | refusals("401", "403", "429")}
        }
    paths["/readyz"]["get"]["responses"]["503"] = {"description": "Nothing answers yet.", "content": {JSON: {}}}
    paths["/predictions/{id}"] = {"get": _lookup()}
    return paths


def _predict(model: str, version: str, request: Schema, answer: Schema) -> Schema:
    return {
        "summary": f"Ask {model}; {version} answers now.",
        "operationId": f"predict_{model}",
        "parameters": [_BY_VERSION],
        "requestBody": body(one_or_many(request)),
        "responses": answered("One answer, or one for each question of a list.", one_or_many(answer))
        | refusals(*ASKED),
    }


def _outcomes() -> Schema:
    key = {"type": ["object", "null"], "description": "The key of the question, by column."}
    told = "What came of it: true or false, a number, or the name of a class; null is void."
    one = record(
        {
            "prediction": {"type": "string", "description": "The id of an answer."},
            "model": {"type": "string"},
            "key": key,
            "outcome": {"type": ["boolean", "number", "string", "null"], "description": told},
            "settled": {"type": ["string", "null"], "format": "date-time"},
        },
        "outcome",
    )
    responses = answered("Taken, each as is said.", _TAKEN)
    responses |= refusals("400", "401", "403", "404", "405", "408", "413", "415", "422", "429", "500", "503")
    responses["422"] = {
        "description": "None was taken.",
        "content": {JSON: {"schema": {"anyOf": [_TAKEN, ref("Error")]}}},
    }
    return {
        "summary": "Say what became of a prediction, or of a question. Needs a key with the scope label.",
        "operationId": "outcomes",
        "security": [{"key": []}],
        "requestBody": body(one_or_many(one)),
        "responses": responses,
    }


def _ingest(name: str) -> Schema:
    lines = {"schema": {"type": "string", "description": "One JSON object a line."}}
    # Anything but nothing is taken: what is no row goes to quarantine, as from every other source.
    rows = {"description": "A row, which is an object, or a list of them; what is none is told by quarantine."}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
    reply = {"type": "object", "properties": {"taken": {"enum": ["accepted", "repeated"]}, "rows": {"type": "integer"}}}
    responses = {"202": {"description": "On disk; judged with the next apply.", "content": {JSON: {"schema": reply}}}}
    return {
        "summary": f"Push rows of {name}. Needs a key with the scope ingest.",
        "operationId": f"ingest_{name}",
        "security": [{"key": []}],
        "parameters": [key],
        "requestBody": body(rows, **{"application/x-ndjson": lines}),
        "responses": responses
        | refusals("400", "401", "403", "405", "408", "409", "413", "415", "422", "429", "500", "503"),
    }


def _lookup() -> Schema:
    return {
        "summary": "A recorded answer.",
        "operationId": "recorded",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
        "responses": answered("As it was recorded.", ref("Entry"))
        | refusals("401", "403", "404", "405", "429", "500", "503"),
    }
