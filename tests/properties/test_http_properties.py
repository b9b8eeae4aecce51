"""Whatever bytes come, the edge answers in JSON with a status that fits, and what it answered is what it recorded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.adapters.memory.journal import MemoryJournal
from flyball.checks.clock import Wound
from flyball.serve.guard import Limits
from flyball.serve.http import Server
from flyball.serve.journal import Settings
from tests.live import ROW, plan

LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
NAMES = st.sampled_from([*ROW, "customer", "note", "returned", "settled"]) | st.text(max_size=8)
MOMENT = st.datetimes().map(lambda t: t.isoformat() + "Z") | st.datetimes().map(lambda t: t.isoformat() + "-23:59")
REQUEST = st.dictionaries(NAMES, VALUE | MOMENT, max_size=3).map(lambda change: ROW | change)
BODY = st.binary(max_size=200) | (VALUE | REQUEST | st.lists(REQUEST, max_size=12)).map(
    lambda v: json.dumps(v).encode()
)
HEADERS = st.dictionaries(
    st.sampled_from([b"host", b"origin", b"content-type", b"content-length", b"x"]),
    st.sampled_from([b"localhost:1", b"http://localhost:1", b"application/json", b"5", b""]) | st.binary(max_size=20),
)
PLAN = plan()


def exchange(method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> tuple[int, Any, MemoryJournal]:
    clock = Wound()
    journal = MemoryJournal(clock, Settings(durability="interval"))
    server = Server("shop", {"orders": PLAN}, journal.open("shop"), journal.find, clock, Limits(rows=10))
    sent: list[Any] = []
    scope = {"type": "http", "method": method, "path": path, "headers": list(headers.items())}

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server(scope, receive, send))
    start, end = sent
    assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()
    kind = dict(start["headers"])[b"content-type"]
    return start["status"], msgspec.json.decode(end["body"]) if kind == b"application/json" else None, journal


@settings(max_examples=300, deadline=None)
@given(BODY)
def test_any_body_is_answered_and_recorded_or_refused(body: bytes) -> None:
    headers = {b"host": b"localhost", b"content-type": b"application/json"}
    status, said, journal = exchange("POST", "/predict/orders", headers, body)
    entries = list(journal.read())
    if status == 200:
        answers = said if isinstance(said, list) else [said]
        assert [(a["id"], a["output"], a["version"]) for a in answers] == [(e.id, e.output, e.version) for e in entries]
    else:
        assert status in (413, 422) and not entries
        assert set(said["error"]) == {"code", "what", "why", "next"}
        assert len(json.dumps(said)) < 20_000


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]) | st.text(max_size=5),
    st.sampled_from(["/predict", "/predict/orders", "/predictions/", "/metrics", "/readyz"]) | st.text(max_size=20),
    HEADERS,
)
def test_any_request_gets_a_whole_response_and_no_stranger_gets_more(
    method: str, path: str, headers: dict[bytes, bytes]
) -> None:
    status, said, journal = exchange(method, path, headers, json.dumps(ROW).encode())
    assert status in (200, 403, 404, 405, 413, 415)
    if headers.get(b"host", b"").partition(b":")[0].lower() not in (b"localhost", b"127.0.0.1", b"[", b""):
        assert status == 403 and said["error"]["code"] == "foreign-host"
    assert status == 200 or not list(journal.read())
