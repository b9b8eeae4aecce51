"""The head of an HTTP/1.1 request: from its bytes to a value, by llhttp; nothing of the body is looked at here.

A head says how long its body is, or that it comes in chunks. Where two readers could disagree about that (both lengths, two of
them, an encoding that is not "chunked"), it is refused: what the one takes for a body is another request to the other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from flyball._kernel.errors import DataError
from flyball.serve import guard
from flyball.serve.guard import Refused
from flyball.serve.message import CLOSE, Header

LONGEST = 16 * 1024
"""Bytes of a head."""
MOST = 64
"""Headers."""
_LINE = re.compile(rb"(?:\r\n)?[A-Z-]+ /[\x21-\x7e]* HTTP/1\.([01])\r\n")
"""llhttp takes other protocols and versions as well, and more blanks between the words."""
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Head(NamedTuple):
    """What comes before the body.

    Attributes:
        path, query: as they were sent.
        headers: by lower-case name, in their order.
        length: of the body, in bytes; None: it comes in chunks.
        keeps: whether the caller will ask again on this connection.
        expects: whether it waits for "100 Continue" before it sends the body.
    """

    method: str
    path: str
    query: str
    headers: tuple[Header, ...]
    length: int | None
    keeps: bool
    expects: bool


class _Gathered:
    def __init__(self) -> None:
        self.target, self.whole = b"", False
        self.headers: list[Header] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.whole = True


def parse(data: bytes) -> Head:
    """The head that `data` is, up to and with its empty line.

    Raises:
        Refused: 400 `not-http`, 431 `request-too-large`.
    """
    found, upgrades, line = _Gathered(), False, _LINE.match(data)
    if line is None:
        raise _not_http("It does not begin with a method, a path in printable ASCII, and HTTP/1.1 (or 1.0).")
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        upgrades = True  # the caller offers another protocol: it is answered in this one (RFC 9110, 7.8)
    except httptools.HttpParserError as problem:
        raise _not_http(str(problem)[:100]) from None
    if not found.whole:
        raise _not_http("Its head is not whole.")
    if len(found.headers) > MOST:
        raise too_long(f"{len(found.headers)} headers", f"{MOST} headers")
    length = _length(found.headers)
    if length is None and (upgrades or line[1] == b"0"):
        raise _not_http("A body in chunks is HTTP/1.1's, and not another protocol's.")
    target, _, query = found.target.decode("ascii").partition("?")
    return Head(
        method=parser.get_method().decode("ascii"),
        path=target,
        query=query,
        headers=tuple(found.headers),
        length=length,
        keeps=line[1] == b"1" and length is not None and not _closes(found.headers),
        expects=any(name == b"expect" and value.lower() == b"100-continue" for name, value in found.headers),
    )


def _closes(headers: list[Header]) -> bool:
    """Whether the caller asks nothing more; llhttp has forgotten that by the time it can be asked."""
    return any(
        name == b"connection" and b"close" in (each.strip() for each in value.lower().split(b","))
        for name, value in headers
    )


def _length(headers: list[Header]) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
        raise _not_http("How long its body is can be read in two ways.")
    if codings:
        return None
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        raise _not_http("Its Content-Length is no number.")
    return int(lengths[0]) if lengths else 0


def too_long(what: str, limit: str) -> Refused:
    """The refusal of a head beyond a limit."""
    return Refused(431, guard.too_large(what, limit), (CLOSE,))


def _not_http(why: str) -> Refused:
    error = DataError("not-http", "This is not a request of HTTP/1.1.", why=why, next="Send one.")
    return Refused(400, error, (CLOSE,))
