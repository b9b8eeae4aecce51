"""One HTTP message each way, as the wire hands it over and is handed it back: plain values, no socket behind them."""

from __future__ import annotations

from typing import NamedTuple

Header = tuple[bytes, bytes]

JSON = b"application/json"
NOSNIFF: tuple[Header, ...] = ((b"x-content-type-options", b"nosniff"),)
"""A browser takes what it is told for what it is said to be."""
CLOSE: Header = (b"connection", b"close")
"""Nothing more is read on this connection: where its next request would begin is unknown."""


class Request(NamedTuple):
    """What was asked, whole.

    Attributes:
        path: as it was sent: nothing here is decoded, so that nothing is decoded twice.
        query: what follows the question mark; "" where nothing does.
        headers: by lower-case name; none that counts was there twice.
    """

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes = b""


class Reply(NamedTuple):
    """What leaves; its length and its connection are the wire's to say."""

    status: int
    body: bytes
    kind: bytes = JSON
    headers: tuple[Header, ...] = ()
