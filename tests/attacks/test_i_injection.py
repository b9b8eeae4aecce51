"""Class I and L, injection: names, headers and cells that end a line, colour a terminal, or are a template, stay data. Replies
and metrics have the lines that they should, labels come back as they were, and an attacker makes no series of his own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from flyball.adapters.embedded.clock import SystemClock
from flyball.serve.auth import SCOPES, Keys
from flyball.serve.router import Routed
from tests.attacks.hostile import KEYS, bearer, heard
from tests.live import ROW, Live, live, plan

NAME = 'a\r\nX-Evil: 1\r\n\r\n\x1b[31m%n{{7*7}}${jndi:x}$(id)`id`"\\,evil="1"}\u2028<script>alert(1)</script>&\u202e'
"""A name that breaks whatever can be broken by one."""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of a model, and of a version, with that name."""
    keys = Keys(lambda: KEYS, SystemClock()).freeing(frozenset(SCOPES))
    hostile = replace(plan(f"v{NAME}", model=NAME), schema=plan().schema | {"description": NAME})
    with live(tmp_path_factory.mktemp("named"), {NAME: Routed(epoch=1, champion=hostile)}, keys=keys) as found:
        yield found


def test_a_hostile_name_of_a_model_stays_data(named: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = named.ask([ROW, ROW], f"/predict/{quote(NAME, safe='')}")
    assert asked.status == 200 and asked.json[0]["model"] == NAME and asked.body.count(b"\n") == 0
    for path in (*named.server._pages, "/predict/none", "/invocations/none", "/v2/models/none"):
        got = heard(named.port, [f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()])
        (reply,) = got.replies
        assert "x-evil" not in reply.headers and reply.headers["x-content-type-options"] == "nosniff"
        if path not in ("/docs", "/metrics"):  # JSON; a page shows it, and of labels Prometheus escapes what it must
            assert b"\x1b" not in reply.body and b"\r" not in reply.body
    samples = [s for f in families(named.send("GET", "/metrics").body.decode()) for s in f.samples]
    labels = {tuple(s.labels.items()) for s in samples if s.name == "flyball_answers_total"}
    assert labels == {(("model", NAME), ("role", "champion"), ("version", f"v{NAME}"))}
    assert not any("evil" in s.labels for s in samples)
    assert "\x1b" not in caplog.text


def test_a_hostile_name_is_inert_on_the_page(named: Live) -> None:
    """Class J: nothing of it is markup, and no script could run if it were."""
    page = named.send("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<script" not in page.body and b"&lt;script&gt;" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in (
        "/predict/<script>",
        "/v2/models/%3Cscript%3E",
        "/invocations/<script>",
        "/<script>",
        "/predictions/<script>",
    ):
        reply = named.send("GET", path)
        assert reply.headers["content-type"] == "application/json" and reply.status == 404
        assert reply.headers["x-content-type-options"] == "nosniff" and "location" not in reply.headers


def series(shop: Live) -> set[tuple[str, str]]:
    text = shop.send("GET", "/metrics", headers=bearer("read")).body.decode()
    assert all(line.startswith(("# ", "flyball_")) for line in text.splitlines())
    return {(s.name, repr(sorted(s.labels.items()))) for f in families(text) for s in f.samples}


def test_no_attacker_makes_a_series(shop: Live, caplog: pytest.LogCaptureFixture) -> None:
    """What he can name (models, versions, sources, ids, methods, hosts) is no label of anything."""
    caplog.set_level(logging.DEBUG)
    attacks = (
        ("POST", "/predict/{}", {}),
        ("POST", "/v2/models/orders/versions/{}/infer", {}),
        ("POST", "/predict", {"Flyball-Version": "{}", **bearer("operate")}),
        ("POST", "/predict", {"Authorization": "Bearer flyball_predict", "Content-Type": "x/{}"}),
        ("POST", "/ingest/{}", bearer("ingest")),
        ("GET", "/predictions/{}", bearer("read")),
        ("GET", "/metrics?x={}", {"Host": "{}"}),
        ("PUT", "/{}", {"X-Request-Id": "{}", "User-Agent": "{}", "traceparent": "{}"}),
    )

    def attack(marks: range) -> None:
        for at in marks:
            for method, path, headers in attacks:
                mark = f"evil{at}%n{{{{7*7}}}}%0d%0a"
                told = {"Content-Type": "application/json"} | {k: v.replace("{}", mark) for k, v in headers.items()}
                assert shop.send(method, path.replace("{}", mark), b"{}", told).status in (401, 403, 404, 405, 415, 422)

    attack(range(1))
    before = series(shop)
    attack(range(1, 12))
    assert series(shop) == before
    assert not any("evil" in labels for _, labels in before)
    assert "evil" not in caplog.text


def test_hostile_cells_come_back_as_they_were(shop: Live) -> None:
    given = ROW | {"order_id": NAME, "note": NAME + "\0\u2029"}
    asked = shop.send(
        "POST", "/predict", json.dumps(given).encode(), {"Content-Type": "application/json", **bearer("predict")}
    )
    found = shop.send("GET", f"/predictions/{asked.json['id']}", headers=bearer("read"))
    assert found.json["inputs"]["note"] == given["note"] and found.body.count(b"\n") == 0


def test_a_tensors_request_id_is_said_within_json_alone(shop: Live) -> None:
    tensors = [
        {"name": name, "shape": [1], "datatype": "FP64" if name == "price" else "BYTES", "data": [value]}
        for name, value in ROW.items()
    ]
    body = json.dumps({"id": NAME, "inputs": tensors}).encode()
    headers = {"Content-Type": "application/json", **bearer("predict")}
    reply = shop.send("POST", "/v2/models/orders/infer", body, headers)
    assert (reply.status, reply.json["id"]) == (200, NAME)
    assert set(reply.headers) == {"content-type", "content-length"}
