"""What is let in, before anything of it is understood: the caller's Host and Origin, the type and the size of a body.

A server on this machine can be reached by every web page that is open on it: by a form, by a script whose name was rebound
to this address, by an image. So requests are refused, whatever the method and the path, unless Host names this server and
Origin, where a browser sends one, is this server's own. Only JSON is read, since a browser asks before it sends that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flyball._kernel.errors import DataError, FlyballError, StateError

_JSON = b"application/json"
_ONCE = (
    *(b"host", b"origin", b"authorization", b"content-type", b"content-length", b"flyball-version"),
    *(b"idempotency-key", b"inference-header-content-length"),
)
_HOST = re.compile(rb"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask of the server.

    Attributes:
        body: bytes of one request.
        bodies: bytes of all requests that are on their way or wait for their answer, but for the short ones.
        rows: questions in one request.
        seconds: for a request to be whole, and again for its answers to be recorded.
        idle: seconds that a connection is kept while nothing is asked on it.
        connections: at a time; beyond them the idle ones give way.
        waiting: requests that wait to be computed; what comes beyond them is turned away at once.
        unlogged: whether an answer leaves that was not recorded within `seconds`; else it is turned away.
        shadows: that wait to be computed; what does not fit is dropped and counted.
        hosts: values of the Host header that are answered, without port; protects a local server from DNS rebinding.
    """

    body: int = 1024 * 1024
    bodies: int = 64 * 1024 * 1024
    rows: int = 1000
    seconds: float = 10.0
    idle: float = 75.0
    connections: int = 4096
    waiting: int = 4096
    unlogged: bool = False
    shadows: int = 1024
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Refused(Exception):
    """A request that is not answered: status, the error that says why, and headers that belong to the status."""

    def __init__(self, status: int, error: FlyballError, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status, self.error, self.headers = status, error, headers
        super().__init__(str(error))


def admit(headers: Iterable[tuple[bytes, bytes]], hosts: frozenset[bytes]) -> dict[bytes, bytes]:
    """The headers by name, if the request may be looked at.

    Raises:
        Refused: 403 `foreign-host`, or 400 `header-twice`, where two readers could disagree about which one counts.
    """
    given = list(headers)
    found = dict(given)
    if len(found) != len(given):
        names = [name for name, _ in given]
        if any(names.count(name) > 1 for name in _ONCE):
            error = DataError("header-twice", "A header that counts is there twice.", next="Send it once.")
            raise Refused(400, error)
    host = found.get(b"host", b"")
    named = _HOST.fullmatch(host)
    ours = named is not None and named[1].lower() in hosts
    if not ours or found.get(b"origin", b"http://" + host) not in (b"http://" + host, b"https://" + host):
        raise Refused(
            403,
            StateError(
                "foreign-host",
                "This server answers to its own name only.",
                why="A page elsewhere could otherwise speak to it through your browser.",
                next="Send Host: localhost, or a name that --host-name gave the server, and no Origin of another site.",
            ),
        )
    return found


def kind(headers: Mapping[bytes, bytes], kinds: frozenset[bytes] = frozenset()) -> None:
    """Let a body in by its media type.

    Args:
        kinds: what is read beside application/json; none that a form can send. b"" stands for none being named.

    Raises:
        Refused: 415 `not-json`.
    """
    sent = headers.get(b"content-type", b"")
    if sent != _JSON and sent.partition(b";")[0].strip().lower() not in {_JSON, *kinds}:
        error = DataError("not-json", "The body is not application/json.", next="Send Content-Type: application/json.")
        raise Refused(415, error)


def too_large(what: str, limit: str) -> DataError:
    """The error of a request beyond a limit."""
    return DataError(
        "request-too-large", f"The request carries {what}.", why=f"The limit is {limit}.", next="Send less."
    )
