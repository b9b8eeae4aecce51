"""The description of a server as a page to read: one HTML file, from its OpenAPI document, that loads nothing and runs nothing.

There is no script in it, and the policy that it is sent with allows none: what unfolds is `details` of HTML itself, and the one
style is allowed by its hash. Every name and every text is escaped, since names come from declarations and stores.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from flyball.serve.message import Reply

Schema = Mapping[str, Any]

_STYLE: Final = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d8dee4 }
code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { background: #f6f8fa; padding: .75rem; overflow-x: auto; border-radius: 6px }
details { border: 1px solid #d8dee4; border-radius: 6px; margin: .5rem 0; padding: .25rem .75rem }
summary { cursor: pointer; padding: .25rem 0 }
.verb { display: inline-block; width: 3.5rem; font-weight: 600; color: #0550ae }
.said { color: #57606a }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #d8dee4 }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
).encode()
_HEADERS: Final = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]*)?", re.IGNORECASE)


def page(document: Schema, host: str = "127.0.0.1:8741") -> Reply:
    """The page of an OpenAPI document of `openapi.document`.

    Args:
        host: as whom the reader knows this server, and its port. Beyond loopback a question is encrypted and needs a key.
    """
    paths = document["paths"]
    asked = {path: item["post"] for path, item in paths.items() if path.startswith("/predict/")}
    info = document["info"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f'<h1>{escape(info["title"])}</h1><p class="said">{escape(info["version"])}</p>',
        f"<p>{escape(info.get('description', ''))} Machines read <a href='/openapi.json'>/openapi.json</a>.</p>",
    ]
    for path, operation in asked.items():
        parts += _model(path, operation, document, host)
    parts.append("<h2>Everything that there is</h2>")
    parts += [_operation(verb, path, each) for path, item in paths.items() for verb, each in item.items()]
    parts.append("</body></html>")
    return Reply(200, "\n".join(parts).encode(), b"text/html; charset=utf-8", _HEADERS)


def _model(path: str, operation: Schema, document: Schema, host: str) -> list[str]:
    """What a person needs to ask one model."""
    request = _followed(operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"][0], document)
    example = json.dumps(_example(request, document), ensure_ascii=False)
    # What stands in single quotes is the shell's no more, but for the quote itself.
    quoted = example.replace("'", "'\\''")
    near = _LOOPBACK.fullmatch(host) is not None
    where = f"{'http' if near else 'https'}://{host}{path}"
    key = "" if near else ' -H "Authorization: Bearer $TOKEN"'
    curl = f"curl {where}{key} -H 'Content-Type: application/json' \\\n  -d '{quoted}'"
    return [
        f"<h2>{escape(operation['summary'])}</h2>",
        f"<pre>{escape(curl)}</pre>",
        _table(request, document),
    ]


def _operation(verb: str, path: str, operation: Schema) -> str:
    rows = []
    for status, response in sorted(operation["responses"].items()):
        kinds = ", ".join(response.get("content", {}))
        rows.append(
            f"<tr><td>{escape(status)}</td><td>{escape(response['description'])}</td><td>{escape(kinds)}</td></tr>"
        )
    bodies = []
    for kind, each in operation.get("requestBody", {}).get("content", {}).items():
        schema = json.dumps(each.get("schema", {}), indent=1, ensure_ascii=False)
        bodies.append(f"<p>Body: <code>{escape(kind)}</code></p><pre>{escape(schema)}</pre>")
    return (
        f'<details><summary><span class="verb">{escape(verb.upper())}</span> <code>{escape(path)}</code> '
        f'<span class="said">{escape(operation.get("summary", ""))}</span></summary>{"".join(bodies)}'
        f"<table><tr><th>Status</th><th></th><th></th></tr>{''.join(rows)}</table></details>"
    )


def _table(schema: Schema, document: Schema) -> str:
    required = schema.get("required", ())
    rows = []
    for name, each in schema.get("properties", {}).items():
        needed = "required" if name in required else ""
        limits = {k: v for k, v in _followed(each, document).items() if k not in ("description", "default", "title")}
        rows.append(
            f"<tr><td><code>{escape(name)}</code></td><td>{needed}</td>"
            f"<td><code>{escape(json.dumps(limits, ensure_ascii=False)[:300])}</code></td>"
            f"<td>{escape(str(each.get('description', '')))}</td></tr>"
        )
    return f"<table><tr><th>Column</th><th></th><th>Holds</th><th></th></tr>{''.join(rows)}</table>"


def _followed(schema: Schema, document: Schema) -> Schema:
    """A schema, or the one that it refers to."""
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    found: Schema = document["components"]["schemas"][name] if name else schema
    return found


_EXAMPLES: Final = {
    "date-time": "2026-11-21T12:00:00Z",
    "date": "2026-11-21",
    "partial-time": "12:00:00",
    "duration": "PT1H",
}


def _example(schema: Schema, document: Schema) -> Any:
    """A value of the form of a schema, with what an object requires; its limits may ask for another one."""
    schema = _followed(schema, document)
    schema = next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), schema)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(properties[name], document) for name in schema.get("required", ())}
        case "boolean":
            return True
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            high = schema.get("maximum", schema.get("exclusiveMaximum"))
            return 1 if (low is None or low < 1) and (high is None or high > 1) else low if low is not None else high
    return _EXAMPLES.get(schema.get("format", ""), "text")
