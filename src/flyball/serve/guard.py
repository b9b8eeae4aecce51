"""What is let in, before anything of it is understood: the caller's Host and Origin, the type and the size of a body.

A server on this machine can be reached by every web page that is open on it: by a form, by a script whose name was rebound
to this address, by an image. So requests are refused, whatever the method and the path, unless Host names this server and
Origin, where a browser sends one, is this server's own. Only JSON is read, since a browser asks before it sends that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from flyball._kernel.errors import DataError, FlyballError, StateError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_JSON = b"application/json"
_ONCE = (b"host", b"origin", b"authorization", b"content-type", b"content-length")
_HOST = re.compile(rb"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask of the server.

    Attributes:
        body: bytes of one request.
        rows: questions in one request.
        seconds: for a body to be whole, and again for its answers to be recorded.
        shadows: that wait to be computed; what does not fit is dropped and counted.
        hosts: values of the Host header that are answered, without port; protects a local server from DNS rebinding.
    """

    body: int = 1024 * 1024
    rows: int = 1000
    seconds: float = 10.0
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
                next="Send Host: localhost, and no Origin of another site.",
            ),
        )
    return found


async def body(
    headers: dict[bytes, bytes], receive: Receive, limits: Limits, kinds: frozenset[bytes] = frozenset()
) -> bytes:
    """The whole body; refused before it is read where its length is known to be too much, and while it is otherwise.

    Args:
        kinds: media types that are read beside application/json; none that a form can send.

    Raises:
        Refused: 415 `not-json`, 413 `request-too-large`, 408 `request-too-slow`, 400 `gone`.
    """
    kind = headers.get(b"content-type", b"")
    if kind != _JSON and kind.partition(b";")[0].strip().lower() not in {_JSON, *kinds}:
        error = DataError("not-json", "The body is not application/json.", next="Send Content-Type: application/json.")
        raise Refused(415, error)
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.body:
        raise Refused(413, too_large(f"{int(declared):,} bytes", f"{limits.body:,} bytes"))
    try:
        async with asyncio.timeout(limits.seconds):
            first, more = await _chunk(receive)
            return first if not more and len(first) <= limits.body else await _rest(first, more, receive, limits)
    except TimeoutError:
        error = DataError(
            "request-too-slow", f"The body was not whole within {limits.seconds:g} s.", next="Send it in one go."
        )
        raise Refused(408, error, ((b"connection", b"close"),)) from None


async def _rest(first: bytes, more: bool, receive: Receive, limits: Limits) -> bytes:
    chunks, size = [first], len(first)
    while more and size <= limits.body:
        chunk, more = await _chunk(receive)
        chunks.append(chunk)
        size += len(chunk)
    if size > limits.body:
        raise Refused(413, too_large(f"more than {limits.body:,} bytes", f"{limits.body:,} bytes"))
    return b"".join(chunks)


async def _chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Refused(400, DataError("gone", "The caller left before the body was whole."))
    return message.get("body", b""), message.get("more_body", False)


def too_large(what: str, limit: str) -> DataError:
    """The error of a request beyond a limit."""
    return DataError(
        "request-too-large", f"The request carries {what}.", why=f"The limit is {limit}.", next="Send less."
    )
