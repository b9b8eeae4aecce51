"""The page to read: it is complete, what it shows can be sent, and no name in it does anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from flyball.serve import docs_page, openapi
from flyball.serve.guard import Limits
from flyball.serve.router import Routed
from tests.live import alone, plan

HOSTILE = "</style><script>alert(1)</script><img src=x onerror='alert(1)'>\"'&"


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(routed: Mapping[str, Routed], app: str = "shop") -> str:
    document = openapi.document(app, routed, ["clicks"], Limits(rows=77))
    return docs_page.page(json.loads(json.dumps(document))).body.decode()


def hostile() -> dict[str, Routed]:
    schema = json.loads(json.dumps(plan().schema))
    schema["properties"]["price"]["description"] = HOSTILE
    schema["properties"]["category"]["enum"] = [HOSTILE]
    schema["properties"][HOSTILE] = {"type": "string"}
    schema["required"].append(HOSTILE)
    return {HOSTILE: alone(replace(plan(HOSTILE, model=HOSTILE), schema=schema | {"title": HOSTILE}))}


@pytest.mark.parametrize("routed", [{}, {"orders": alone(plan())}, hostile()])
def test_nothing_in_it_loads_or_runs(routed: dict[str, Routed]) -> None:
    elements = Elements(page(routed, HOSTILE if routed and "orders" not in routed else "shop"))
    assert {tag for tag, _ in elements.found} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "a", "pre", "code"),
        *("table", "tr", "td", "th", "details", "summary", "span"),
    }
    allowed = {"lang", "charset", "name", "content", "href", "class"}
    assert {name for _, given in elements.found for name in given} <= allowed
    assert {given["href"] for tag, given in elements.found if tag == "a"} == {"/openapi.json"}
    if HOSTILE in routed:
        assert elements.text.count(HOSTILE) >= 4


def test_the_policy_allows_its_one_style_and_nothing_else() -> None:
    reply = docs_page.page(openapi.document("shop", {}))
    (style,) = re.findall(r"<style>(.*?)</style>", reply.body.decode(), re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(reply.headers)[b"content-security-policy"].decode()
    assert f"default-src 'none'; style-src 'sha256-{allowed}';" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and reply.kind == b"text/html; charset=utf-8"


def test_what_it_shows_can_be_sent() -> None:
    one = plan()
    (shown,) = re.findall(r"<pre>(curl .*?)</pre>", page({"orders": alone(one)}), re.DOTALL)
    words = shlex.split(html.unescape(shown))
    assert words[1].endswith("/predict/orders")
    assert len(one.decode(words[words.index("-d") + 1].encode())[0]) == 1


@pytest.mark.parametrize("host", ["localhost:18741", "[::1]", "api.example.org:8443", "localhost.example.org"])
def test_it_is_asked_where_its_reader_found_it(host: str) -> None:
    shown = docs_page.page(openapi.document("shop", {"orders": alone(plan())}), host).body.decode()
    (curl,) = re.findall(r"<pre>(curl .*?)</pre>", shown, re.DOTALL)
    words = shlex.split(html.unescape(curl))
    near = "example" not in host
    assert words[1] == f"{'http' if near else 'https'}://{host}/predict/orders"
    assert near != ("Authorization: Bearer $TOKEN" in words)


def test_it_has_every_path_and_the_limits() -> None:
    routed = {"orders": alone(plan())}
    document: dict[str, Any] = openapi.document("shop", routed, ["clicks"], Limits(rows=77))
    text = Elements(page(routed)).text
    assert all(path in text for path in document["paths"]) and "77 questions" in text
