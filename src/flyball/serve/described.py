"""The words of an OpenAPI document that every part of it uses: bodies, references, refusals."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

JSON: Final = "application/json"

ASKED: Final = ("400", "401", "403", "404", "405", "408", "413", "415", "422", "429", "500", "503")
"""What can become of a question that gets no answer."""

_REFUSALS: Final = {
    "400": "The request was cut short, is no HTTP, or says a header twice.",
    "401": "A key is needed, or the one that was sent is not known.",
    "403": "Foreign Host or Origin, or the key lacks the scope.",
    "404": "Nothing answers here, or nothing is recorded under that id.",
    "405": "Another method is taken here.",
    "408": "The request was too slow.",
    "409": "Another body waits under this Idempotency-Key.",
    "413": "Too large.",
    "415": "The body is of no media type that is read here.",
    "422": "The request breaks the contract, or is not in this format.",
    "429": "The key asks more often than it may; try again after Retry-After seconds.",
    "500": "The server failed.",
    "503": "Too much waits, or the answer could not be recorded; try again after Retry-After seconds.",
}

_BEFORE: Final = ("400", "403", "408", "413")


def content(schema: Schema, kind: str = JSON) -> Schema:
    """A body of one media type."""
    return {kind: {"schema": schema}}


def body(schema: Schema, **more: Schema) -> Schema:
    """What a request must carry: JSON, or else by media type."""
    return {"required": True, "content": content(schema) | more}


def answered(description: str, schema: Schema) -> Schema:
    """The response of a request that went well."""
    return {"200": {"description": description, "content": content(schema)}}


def refusals(*statuses: str, error: str = "Error") -> Schema:
    """The responses of requests that did not.

    Args:
        error: the schema of what is said; what is refused before a path is known is said in our own.
    """
    found: Schema = {}
    for status in statuses:
        ours = error != "Error" and status in _BEFORE
        said = {"anyOf": [ref(error), ref("Error")]} if ours else ref(error)
        found[status] = {"description": _REFUSALS[status], "content": content(said)}
        if status in ("429", "503"):
            found[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found


def one_or_many(one: Schema) -> Schema:
    """Of this, or of a list of them."""
    return {"oneOf": [one, {"type": "array", "items": one}]}


def ref(name: str) -> Schema:
    """What the components name."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: Schema, *required: str, closed: bool = True) -> Schema:
    """An object; without `closed` it may have more than these."""
    found: Schema = {"type": "object", "properties": properties, "required": list(required)}
    return found | ({"additionalProperties": False} if closed else {})
