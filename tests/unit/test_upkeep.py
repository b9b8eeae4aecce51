"""Keeping up: whose port it is, and what is not started again; with real sockets and real children."""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, DeclarationError
from flyball.runtime import upkeep
from flyball.runtime.upkeep import Upkeep


def reserved(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    return upkeep._reserved(host, port, threading.Event(), print)


def listening(port: int) -> socket.socket:
    """As a server of ours does."""
    server = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - nobody listens
@pytest.mark.parametrize("served", [False, True], ids=["nobody listens yet", "a server listens"])
def test_two_never_share_a_port(monkeypatch: pytest.MonkeyPatch, host: str, served: bool) -> None:
    """Each would answer some of the other's questions, by another app perhaps."""
    monkeypatch.setattr(upkeep, "DRAINS", 0.3)
    with closing(reserved()) as held:
        port = held.getsockname()[1]
        server = listening(port) if served else None
        with pytest.raises(AdapterError, match="port-taken"):
            reserved(port, host)
        if server is not None:
            server.close()
    with closing(reserved(port)) as again:
        assert again.getsockname()[1] == port


def test_each_takes_a_free_port_of_its_own() -> None:
    with closing(reserved()) as one, closing(reserved()) as other:
        assert one.getsockname()[1] != other.getsockname()[1]


def test_connections_that_ended_a_moment_ago_are_nobody() -> None:
    """The server ended first, so its side waits (TIME_WAIT) for a minute."""
    with closing(reserved()) as held:
        port = held.getsockname()[1]
        with closing(listening(port)) as server, socket.create_connection(("127.0.0.1", port)) as client:
            answered, _ = server.accept()
            answered.close()
            assert client.recv(1) == b""
    with closing(socket.socket()) as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    reserved(port).close()


def test_servers_that_end_are_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Their parent was killed, and they answer what they were asked before they go."""
    with closing(reserved()) as held:
        port = held.getsockname()[1]
        server = listening(port)
    timer = threading.Timer(0.5, server.close)
    timer.start()
    reserved(port).close()
    timer.join()
    assert capsys.readouterr().out.count("waiting") == 1


def keep(folder: Path, loop: list[str]) -> Upkeep:
    return Upkeep(
        loop=loop, server=["serve"], servers=1, host="127.0.0.1", port=0, route=folder / "route.json", code=folder
    )


def test_a_child_that_refuses_ends_it(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DeclarationError, match="child-refuses") as raised:
        upkeep.up(keep(tmp_path, ["loop", "--no-such-option"]), threading.Event(), said.append, said.append)
    assert raised.value.exit_code == 2
    assert said == []


def test_after_a_change_of_the_code_a_child_that_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake that was saved a moment ago takes nobody down who answers."""
    times = itertools.chain([1], itertools.repeat(2))
    monkeypatch.setattr(upkeep, "_newest", lambda _: next(times))
    said, stop = [], threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "is started again" in text:
            stop.set()

    upkeep.up(keep(tmp_path, ["loop", "--no-such-option"]), stop, said.append, say)
    assert "A Python file beside the app changed" in said[0]
    assert "begun again" in said[0]
    assert said[1].startswith("the loop ended with 2")
