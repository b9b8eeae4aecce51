"""Class K, exhaustion: callers that are slow, that never read, that are too many, or that ask for more than there is. They are
cut off in their time, others are answered meanwhile, and what they cost is bounded.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

import pytest

from flyball.serve import wire
from flyball.serve.guard import Limits
from tests.attacks.hostile import ASK, LOOK, heard
from tests.live import ROW, Live, live

PATIENCE = 0.4
PAUSE = threading.Event()


def dripping(data: bytes, seconds: float) -> Iterator[bytes]:
    """A byte at a time."""
    for at in range(len(data)):
        yield data[at : at + 1]
        PAUSE.wait(seconds)


LENGTH = b"Content-Length: 4000\r\n\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("at_once", "drips"),
    [
        (b"", LOOK * 99),
        (b"", ASK + LENGTH + b" " * 4000),
        (ASK + LENGTH, b" " * 4000),
        (ASK + CHUNKS, b"1\r\n \r\n" * 700),
        (b"", b"\x16\x03" * 2000),
    ],
)
def test_a_byte_now_and_then_helps_nobody(shop: Live, at_once: bytes, drips: bytes) -> None:
    """The deadline is of the whole, so what comes within it does not put it off."""
    parts = chain([at_once], dripping(drips, 0.012))
    got = heard(shop.port, parts)
    assert got.closed and got.replies[0].code == "request-too-slow"
    assert next(parts, b""), "it was cut off long before all of it, 48 seconds, had come"


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_more_connections_than_there_are_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for which there is no room are told so and closed, also by a caller that keeps its end open."""
    monkeypatch.setattr(wire, "SWEEPS_EVERY", 0.05)
    monkeypatch.setattr(wire, "LINGERS", 0.2)
    with live(tmp_path, limits=Limits(seconds=0.5, connections=4)) as shop, ExitStack() as held:
        before, callers = files(), []
        for _ in range(30):
            callers.append(held.enter_context(closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30))))
            callers[-1].sendall(LOOK)
        told = [each.recv(4096) for each in callers[4:]]
        assert all(each.startswith(b"HTTP/1.1 503") and b"server-busy" in each for each in told)
        for each in callers[4:]:
            assert each.recv(4096) == b""
        assert files() - before <= len(callers) + 4, "the server's ends are closed"
        assert callers[0].recv(4096).startswith(b"HTTP/1.1 408"), "those that are slow make room in their time"
        until(lambda: heard(shop.port, [LOOK + b"\r\n"], quiet=0.25).data.startswith(b"HTTP/1.1 200"))


def test_idle_connections_give_way(tmp_path: Path) -> None:
    with live(tmp_path, limits=Limits(connections=4)) as shop, ExitStack() as held:
        for _ in range(20):
            each = held.enter_context(closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30)))
            each.sendall(LOOK + b"\r\n")
            assert each.recv(4096).startswith(b"HTTP/1.1 200")
        assert shop.ask(ROW).status == 200


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        PAUSE.wait(0.02)
    raise AssertionError("it never came true")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that hold so little that a reply does not fit."""
    real = socket.create_server

    def narrowed(*arguments: object, **more: object) -> socket.socket:
        made = real(*arguments, **more)  # type: ignore[arg-type]
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        return made

    monkeypatch.setattr(socket, "create_server", narrowed)
    monkeypatch.setattr(wire, "SWEEPS_EVERY", 0.05)


def deaf(port: int) -> socket.socket:
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    caller.settimeout(30)
    caller.connect(("127.0.0.1", port))
    return caller


MANY = json.dumps([ROW | {"note": "x" * 700}] * 1000).encode()
LONG = ASK + b"Content-Length: %d\r\n\r\n" % len(MANY) + MANY


@pytest.mark.usefixtures("narrow")
def test_who_never_reads_is_asked_no_more_and_cut_off(tmp_path: Path) -> None:
    """One reply is made, none of the many that are asked for behind it, and the deadline is a request's, not an idle one's."""
    with live(tmp_path, limits=Limits(seconds=0.4)) as shop, closing(deaf(shop.port)) as caller:
        with pytest.raises(ConnectionError):
            caller.sendall(LONG * 12)
        assert shop.counted("flyball_answers_total") <= 2000
        assert shop.ask(ROW).status == 200


@pytest.mark.usefixtures("narrow")
def test_who_reads_late_is_answered_whole(tmp_path: Path) -> None:
    """What came while the caller did not read is read when it does: also a body that was only half there."""
    with live(tmp_path, limits=Limits(seconds=10)) as shop, closing(deaf(shop.port)) as caller:
        asking = threading.Thread(target=caller.sendall, args=(LONG + LONG + LONG,))
        asking.start()
        PAUSE.wait(0.3)
        got = b""
        while got.count(b"HTTP/1.1 200") < 3 or not got.endswith(b"]"):
            got += caller.recv(1 << 20)
        asking.join()
        assert got.count(b'"output":4.0') == 3000


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_hostile_bodies_hold_is_given_back(shop: Live) -> None:
    """Half a million pieces of a body, and heads that nobody sends twice."""
    pieces = ASK + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\n  \r\n" * 400_000 + b"0\r\n\r\n"
    heads = b"".join(LOOK + b"X: %d-%b\r\n\r\n" % (at, b"a" * 1500) for at in range(1000))

    def attack() -> None:
        assert heard(shop.port, [pieces]).replies[0].status in (408, 422)
        assert len(heard(shop.port, [heads], quiet=0.25, replies=1000).replies) == 1000

    attack()
    before = resident()
    for _ in range(2):
        attack()
    assert resident() - before < 24 * 1024 * 1024
