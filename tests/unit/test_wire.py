"""The wire where two ends disagree: what comes behind a last request, what never becomes whole, what many hold together."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from flyball.runtime import serving
from flyball.serve.guard import Limits
from flyball.serve.message import Reply
from tests.live import ROW, Live, live, receive_all

BODY = json.dumps(ROW).encode()
LINE = b"POST /predict/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LARGE = 40_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = Limits(body=60_000, bodies=100_000, seconds=20)
    with live(tmp_path_factory.mktemp("shop"), limits=limits) as found:
        yield found


def everything(connection: socket.socket) -> bytes:
    got = b""
    while more := connection.recv(65536):
        got += more
    return got


def test_what_comes_behind_the_last_request_is_not_answered(shop: Live) -> None:
    """Whoever said that it asks nothing more has asked nothing more: no answer is recorded that never leaves."""
    before = sum(1 for _ in shop.journal.read())
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    behind = LINE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30)) as connection:
        connection.sendall(last + behind)
        got = everything(connection)
    assert got.count(b"HTTP/1.1 ") == 1
    assert shop.ask(ROW).status == 200  # and so whatever came before has been answered
    assert sum(1 for _ in shop.journal.read()) == before + 1


def test_head_behind_an_empty_line_has_no_body_either(shop: Live) -> None:
    with closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30)) as connection:
        connection.sendall(b"\r\nHEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert everything(connection).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "framed", [b"Content-Length: %d\r\n\r\n" % LARGE, b"Transfer-Encoding: chunked\r\n\r\n9c40\r\n"]
)
def test_what_is_not_whole_is_bounded_over_all_connections(shop: Live, framed: bytes) -> None:
    """Two thirds of the bytes that all may hold are held by two; a third large one is turned away, a short one is not."""
    wire = shop.wire
    with ExitStack() as held:
        one, other = (
            held.enter_context(closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30))) for _ in "12"
        )
        for each in (one, other):
            each.sendall(LINE + framed + b" " * (LARGE - 1))
        asked = 0
        while wire.held < 2 * (LARGE - 1) and (asked := asked + 1) < 1000:
            assert shop.ask(ROW).status == 200
        refused = shop.send("POST", "/predict/orders", b" " * LARGE)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "server-busy", "1")
        assert shop.ask(ROW).status == 200
        other.sendall(b"x" if framed.startswith(b"C") else b"x\r\n0\r\n\r\n")
        assert receive_all(other).startswith(b"HTTP/1.1 422")
    asked = 0
    while wire.held and (asked := asked + 1) < 1000:  # also of those that went away
        assert shop.ask(ROW).status == 200
    assert wire.held == 0
    assert shop.send("POST", "/predict/orders", b" " * LARGE).status == 422


def test_a_reply_that_cannot_be_said_is_told_all_the_same(shop: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Reply(200, b"", headers=((b"x-said", b"one\r\nx-forged: two"),))
    monkeypatch.setitem(shop.server._pages, "/healthz", lambda *_: split)
    reply = shop.send("GET", "/healthz")
    assert (reply.status, reply.code) == (500, "header-of-two-lines") and "x-forged" not in reply.headers


def test_connections_are_no_more_than_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 1 << 20)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.update(now=both))
    assert serving.connections(4096) == 4096 and limits["now"] == (4096 + serving.FILES, 1 << 20)
    limits["now"] = (1024, 2048)
    assert serving.connections(4096) == 2048 - serving.FILES and limits["now"] == (2048, 2048)
    limits["now"] = (64, 64)
    assert serving.connections(4096) == 32
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert serving.connections(4096) == 4096
