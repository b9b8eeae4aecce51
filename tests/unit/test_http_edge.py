"""The edge, spoken to over a socket: what is let in, what is refused and how, and what never leaves before it is recorded."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.serve import batcher
from flyball.serve.guard import Limits
from flyball.serve.journal import Settings
from flyball.serve.message import Request
from tests.live import ROW, Live, live, plan, receive_all

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PURGE")
PATHS = (
    "/predict",
    "/predict/orders",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/predictions/x",
    "/nowhere",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for all tests that do it no harm."""
    with live(tmp_path_factory.mktemp("shop"), limits=Limits(body=20_000, rows=50, seconds=30)) as found:
        yield found


def test_a_question_is_answered_and_found_again(shop: Live) -> None:
    given = ROW | {"customer": "Ada", "note": "ünïcödé \0"}
    reply = shop.ask(given)
    assert reply.status == 200
    assert reply.json["version"] == "orders-1" and reply.json["output"] == 4.0
    found = shop.send("GET", f"/predictions/{reply.json['id']}").json
    assert (found["output"], found["inputs"]["note"], found["features"]["hour"]) == (4.0, given["note"], 12)
    assert found["inputs"]["customer"] not in (None, "Ada")
    assert found["latency_us"] > 0


def test_one_model_needs_no_name(shop: Live) -> None:
    assert shop.ask(ROW, "/predict").json["model"] == "orders"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": ""},
        {"Host": "localhost.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "localhost:x@evil.example"},
        {"Host": "localhost:80@evil.example"},
        {"Host": "[::1]:x"},
        {"Host": "[::1].evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
    ],
    ids=str,
)
def test_a_foreign_page_is_refused_whatever_it_does(shop: Live, path: str, headers: dict[str, str]) -> None:
    for method in METHODS:
        body = json.dumps(ROW).encode() if method in ("POST", "PUT", "PATCH") else None
        reply = shop.send(method, path, body, headers)
        assert reply.status == 403, method
        if method != "HEAD":
            assert reply.code == "foreign-host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]", "[::1]:8741"])
def test_its_own_names_and_its_own_pages_are_answered(shop: Live, host: str) -> None:
    body = json.dumps(ROW).encode()
    for origin in ({}, {"Origin": f"http://{host}"}):
        assert shop.send("POST", "/predict/orders", body, {"Host": host, **origin}).status == 200


def test_the_page_to_read_names_the_server_as_its_reader_does(shop: Live) -> None:
    reply = shop.send("GET", "/docs", None, {"Host": "localhost:18741"})
    assert reply.status == 200 and b"curl http://localhost:18741/predict/orders " in reply.body


def test_two_hosts_are_refused(shop: Live) -> None:
    got = shop.raw(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400") and b"header-twice" in got


def test_two_keys_are_refused(shop: Live) -> None:
    twice = b"Authorization: Bearer one\r\nAuthorization: Bearer two\r\n"
    got = shop.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + twice + b"\r\n")
    assert got.startswith(b"HTTP/1.1 400") and b"header-twice" in got


@pytest.mark.parametrize("path", PATHS[:-1])
def test_other_methods_are_refused_by_name(shop: Live, path: str) -> None:
    takes = "POST" if path.startswith("/predict") and "predictions" not in path else "GET, HEAD"
    for method in METHODS:
        reply = shop.send(method, path, b"{}" if method == "POST" else None)
        if method in takes:
            assert reply.status != 405, method
        else:
            assert (reply.status, reply.headers["allow"]) == (405, takes), method


def test_head_is_get_without_its_body(shop: Live) -> None:
    reply = shop.send("HEAD", "/healthz")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/predictX",
            "/predict/../healthz",
            "/predict/..%2fhealthz",
            "/predict/",
            "/predict//orders",
            "/predict/orders/",
        ),
        *(
            "/predict/nobody",
            "/predict/orders/x",
            "/predict/" + "x" * 5000,
            "//predict",
            "/healthz/",
            "/",
            "/predict/%00",
        ),
    ],
)
def test_what_is_not_there_is_not_guessed(shop: Live, path: str) -> None:
    for method in ("GET", "POST"):
        reply = shop.send(method, path, json.dumps(ROW).encode() if method == "POST" else None)
        assert reply.status == 404
        assert reply.code in ("no-such-model", "no-such-page")


@pytest.mark.parametrize("wanted", ["x", "0" * 32, "..", "%2e%2e%2ffacts.sqlite", "a" * 3000])
def test_a_prediction_that_is_not_there(shop: Live, wanted: str) -> None:
    reply = shop.send("GET", f"/predictions/{wanted}")
    assert (reply.status, reply.code) == (404, "no-such-prediction")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"])
def test_what_a_form_could_send_is_refused(shop: Live, kind: str) -> None:
    reply = shop.send("POST", "/predict", json.dumps(ROW).encode(), {"Content-Type": kind})
    assert (reply.status, reply.code) == (415, "not-json")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=1"])
def test_json_has_many_spellings(shop: Live, kind: str) -> None:
    assert shop.send("POST", "/predict", json.dumps(ROW).encode(), {"Content-Type": kind}).status == 200


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(shop: Live) -> None:
    got = shop.raw(HEAD + b"Content-Length: 20001\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413") and b"request-too-large" in got


def test_a_body_that_does_not_say_is_cut(shop: Live) -> None:
    got = shop.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunked(b" " * 6000)] * 4)
    assert got.startswith(b"HTTP/1.1 413") and b"request-too-large" in got


def test_a_body_in_pieces_is_one_body(shop: Live) -> None:
    body = json.dumps(ROW).encode()
    got = shop.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunked(body[:9], body[9:]) + b"0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b'{"order_id"', b""])
def test_a_body_that_stops_coming_is_given_up(tmp_path: Path, begun: bytes) -> None:
    with live(tmp_path, limits=Limits(seconds=0.4)) as shop:
        got = shop.raw(HEAD + b"Content-Length: 100\r\n\r\n" + begun)
    assert got.startswith(b"HTTP/1.1 408") and b"request-too-slow" in got and b"connection: close" in got.lower()


def test_a_caller_that_leaves_early_harms_nobody(shop: Live) -> None:
    for cut in (HEAD[:40], HEAD + b"Content-Length: 100\r\n\r\n{", HEAD + b"Content-Length: 3\r\n\r\n{}"):
        with closing(socket.create_connection(("127.0.0.1", shop.port))) as connection:
            connection.sendall(cut)
    assert shop.ask(ROW).status == 200


DEEP = 9_000


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[[]]", b"\xff\xfe", b'{"order_id": "\xff"}', b'{"note": "\\ud800"}', b"\xef\xbb\xbf{}"]
    + [b"[" * DEEP, b'{"a":' * (DEEP // 6), b'{"note":' + b"[" * DEEP + b"]" * DEEP + b"}", b"1" * DEEP]
    + [json.dumps(ROW).encode()[:-1] + b', "price": ' + number + b"}" for number in (b"1e999", b"NaN", b"9" * DEEP)]
    + [json.dumps(ROW | change).encode() for change in ({"returned": True}, {"price": -1}, {"prise": 1})]
    + [json.dumps(ROW | {"placed": moment}).encode() for moment in ("9999-12-31T23:59:59-23:59", "x" * 9000)],
    ids=lambda body: repr(body[:30]),
)
def test_what_breaks_the_contract_is_told_and_bounded(shop: Live, body: bytes) -> None:
    reply = shop.send("POST", "/predict/orders", body)
    assert (reply.status, reply.code) == (422, "request-breaks-contract")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_ends_of_time_are_answered_and_flagged(shop: Live, moment: str) -> None:
    reply = shop.ask(ROW | {"placed": moment})
    assert (reply.status, reply.json["within_tolerance"]) == (200, False)


def test_a_list_is_answered_in_order_and_bounded(shop: Live) -> None:
    rows = [ROW | {"order_id": f"o{n}", "price": float(n)} for n in range(50)]
    assert [each["output"] for each in shop.ask(rows).json] == [n / 2 for n in range(50)]
    assert len({each["id"] for each in shop.ask(rows).json}) == 50
    assert shop.ask([]).json == []
    reply = shop.ask([*rows, ROW])
    assert (reply.status, reply.code) == (413, "request-too-large")


def test_one_bad_row_of_a_list_leaves_nothing_behind(shop: Live) -> None:
    before = shop.counted("flyball_answers_total")
    assert shop.ask([ROW, ROW | {"price": -1}]).status == 422
    assert shop.counted("flyball_answers_total") == before


def test_refusals_are_counted_by_code(shop: Live) -> None:
    def refused(code: str) -> float:
        return shop.counted(f'flyball_refusals_total{{code="{code}"}}')

    before = refused("not-json")
    shop.send("POST", "/predict", b"{}", {"Content-Type": "text/plain"})
    assert refused("not-json") == before + 1


def test_metrics_tell_answers_latencies_and_what_waits(shop: Live) -> None:
    labels = '{model="orders",role="champion",version="orders-1"}'
    asked, requests = (shop.counted(f"flyball_{name}{labels}") for name in ("answers_total", "answer_seconds_count"))
    shop.ask([ROW, ROW])
    assert shop.counted(f"flyball_answers_total{labels}") == asked + 2
    assert shop.counted(f"flyball_answer_seconds_count{labels}") == requests + 1
    assert shop.counted(f"flyball_answer_seconds_sum{labels}") > 0
    assert shop.counted("flyball_waiting") == shop.counted("flyball_withheld_total") == 0


def test_a_web_socket_is_not_spoken(shop: Live) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    for path in (b"/predict", b"/healthz"):
        got = shop.raw(b"GET %s HTTP/1.1\r\nHost: evil.example\r\n%s\r\n" % (path, upgrade))
        assert got.startswith(b"HTTP/1.1 403")


def test_nothing_answers_yet(tmp_path: Path) -> None:
    with live(tmp_path, {}) as empty:
        assert empty.send("GET", "/readyz").status == 503
        assert empty.send("GET", "/healthz").status == 200
        assert empty.ask(ROW).code == "no-such-model"


def test_of_two_models_one_must_be_named(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": plan(), "other": plan("other-3", 0.25, "other")}) as both:
        assert both.ask(ROW, "/predict").code == "no-such-model"
        assert both.ask(ROW, "/predict/other").json["output"] == 2.0
        assert both.send("GET", "/readyz").json["answering"] == {"orders": "orders-1", "other": "other-3"}


def test_what_nobody_foresaw_is_told_as_a_bug_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError("secret " * 10_000)

    with live(tmp_path, {"orders": replace(plan(), encode=broken)}) as shop:
        reply = shop.ask(ROW)
        assert (reply.status, reply.code) == (500, "server-failed")
        assert b"secret" not in reply.body
        assert shop.counted('flyball_refusals_total{code="server-failed"}') == 1
        assert shop.send("GET", "/healthz").status == 200
    assert "ZeroDivisionError" in caplog.text


# --- the journal under it


class Disk:
    """SQLite's connections, over a disk that can be stopped, or broken."""

    def __init__(self) -> None:
        self.goes = threading.Event()
        self.goes.set()
        self.broken = False

    def connect(self, path: str) -> journal_segment.Connection:
        disk, real = self, journal_segment.connect(path)

        class Slow:
            def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> journal_segment.Cursor:
                if sql.startswith("INSERT INTO pages"):
                    disk.goes.wait(20)
                    if disk.broken:
                        raise sqlite3.OperationalError("disk I/O error")
                return real.execute(sql, parameters)

            def close(self) -> None:
                real.close()

        return Slow()


def recorded(folder: Path) -> set[str]:
    return {entry.id for entry in SqliteJournal(folder / "journal", SystemClock()).read()}


def until(condition: Any) -> None:
    waited = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it never came true")


def test_a_journal_that_cannot_be_written_acknowledges_nothing(tmp_path: Path) -> None:
    disk = Disk()
    with live(tmp_path, connect=disk.connect) as shop:
        disk.broken = True
        reply = shop.ask([ROW, ROW])
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "journal-write", "1")
        assert shop.counted("flyball_answers_total") == shop.counted("flyball_waiting") == 0
        disk.broken = False
        assert shop.ask(ROW).status == 200, "the next one is tried again"
    assert len(recorded(tmp_path)) == 1


def test_a_journal_that_stays_full_turns_callers_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "HOLDS", 0.05)
    disk = Disk()
    settings = Settings(block=4, patience=timedelta(0))
    with live(tmp_path, connect=disk.connect, settings=settings) as shop, ThreadPoolExecutor(4) as pool:
        disk.goes.clear()
        in_flight = [pool.submit(shop.ask, ROW) for _ in range(4)]
        until(lambda: shop.counted("flyball_waiting") == 4)
        reply = shop.ask(ROW)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "journal-full", "1")
        assert not any(each.done() for each in in_flight), "nothing leaves before its commit"
        disk.goes.set()
        answered = {each.result().json["id"] for each in in_flight}
        assert shop.counted("flyball_waiting") == 0
    assert answered == recorded(tmp_path)


def test_a_journal_that_has_no_room_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    disk = Disk()
    settings = Settings(block=4, patience=timedelta(0))
    with live(tmp_path, connect=disk.connect, settings=settings) as shop, ThreadPoolExecutor(9) as pool:
        disk.goes.clear()
        in_flight = [pool.submit(shop.ask, ROW) for _ in range(4)]
        until(lambda: shop.counted("flyball_waiting") == 4)
        in_flight += [pool.submit(shop.ask, rows) for rows in (ROW, [ROW, ROW], [ROW] * 3, ROW, [])]
        sleep(0.1)
        assert not any(each.done() for each in in_flight[:-1])
        disk.goes.set()
        assert [each.result().status for each in in_flight] == [200] * 9
        assert shop.counted("flyball_refusals_total") == 0
    assert len(recorded(tmp_path)) == 4 + 1 + 2 + 3 + 1


def test_a_list_is_recorded_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "HOLDS", 0.05)
    disk = Disk()
    settings = Settings(block=4, patience=timedelta(0))
    with live(tmp_path, connect=disk.connect, settings=settings) as shop, ThreadPoolExecutor(2) as pool:
        disk.goes.clear()
        in_flight = [pool.submit(shop.ask, ROW) for _ in range(2)]
        try:
            until(lambda: shop.counted("flyball_waiting") == 2)
            reply = shop.ask([ROW] * 3)
        finally:
            disk.goes.set()
        assert (reply.status, reply.code) == (503, "journal-full")
        assert [each.result().status for each in in_flight] == [200, 200]
        assert shop.counted("flyball_waiting") == 0
    assert len(recorded(tmp_path)) == 2


def test_a_disk_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    disk = Disk()
    with live(tmp_path, connect=disk.connect, limits=Limits(seconds=0.2)) as shop:
        disk.goes.clear()
        reply = shop.ask(ROW)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "journal-slow", "1")
        disk.goes.set()
        until(lambda: shop.counted("flyball_withheld_total") == 1)
    assert len(recorded(tmp_path)) == 1


def test_under_interval_an_answer_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    disk = Disk()
    settings = Settings(durability="interval", patience=timedelta(0))
    with live(tmp_path, connect=disk.connect, settings=settings) as shop:
        disk.goes.clear()
        answered = {shop.ask(ROW).json["id"] for _ in range(3)}
        disk.goes.set()
    assert answered == recorded(tmp_path)


def test_a_caller_that_leaves_while_its_answer_is_written_has_it_recorded(tmp_path: Path) -> None:
    disk = Disk()
    with live(tmp_path, connect=disk.connect) as shop:
        disk.goes.clear()
        body = json.dumps(ROW).encode()
        with closing(socket.create_connection(("127.0.0.1", shop.port))) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            until(lambda: shop.counted("flyball_waiting") == 1)
        disk.goes.set()
        until(lambda: shop.counted("flyball_answers_total") == 1)
        assert shop.ask(ROW).status == 200
    assert len(recorded(tmp_path)) == 2


def test_many_questions_on_one_connection(shop: Live) -> None:
    body = json.dumps(ROW).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30)) as connection:
        for bad in (False, True, False):
            connection.sendall(request.replace(b'"price": 8.0', b'"price": -80') if bad else request)
            assert receive_all(connection).startswith(b"HTTP/1.1 422" if bad else b"HTTP/1.1 200")


def test_who_asks_one_question_is_not_behind_a_long_list(tmp_path: Path) -> None:
    order: list[str] = []
    with live(tmp_path, settings=Settings(durability="interval", patience=timedelta(0))) as shop:

        def ask(asked: Any, name: str) -> None:
            body = json.dumps(asked).encode()
            request = Request("POST", "/predict/orders", "", {b"content-type": b"application/json"}, body)
            shop.server.receive(request, lambda reply: order.append(f"{name} {reply.status}"))

        def both() -> None:
            ask([ROW] * 1000, "list")
            ask(ROW, "one")

        shop.on_loop(both)
        until(lambda: len(order) == 2)
    assert order == ["one 200", "list 200"]
