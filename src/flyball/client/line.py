"""The connections to one server: those that are idle are kept, and any thread may take one."""

from __future__ import annotations

import selectors
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from flyball._kernel.errors import AdapterError, DeclarationError

IDLE: Final = 30.0
"""Seconds after which a connection is not used again: less than a server keeps it, so that the two seldom cross."""


class Reply(NamedTuple):
    """What came back; `again`: seconds after which it may be tried again, where the server says so."""

    status: int
    again: float | None
    body: bytes


class Lost(Exception):
    """No reply came: `sent`, whether the server may have been asked all the same."""

    def __init__(self, *, sent: bool, why: str) -> None:
        self.sent, self.why = sent, why
        super().__init__(why)


class Line:
    """See the module.

    Args:
        url: of the server.
        headers: of every request.
        timeout: of each thing that is waited for, seconds.
        ca_file: certificates that are trusted instead of the system's, PEM.

    Raises:
        DeclarationError: `server-address`.
        AdapterError: `ca-file-unreadable`.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float, ca_file: str | None) -> None:
        try:
            parts = urlsplit(url)
            self.host, self._port, self._path = parts.hostname or "", parts.port, parts.path.rstrip("/")
            sound = bool(self.host) and not (parts.query or parts.fragment or parts.username)
        except ValueError:  # a port that is no number, or half an address in brackets
            sound = False
        if not sound or parts.scheme not in ("http", "https"):
            raise DeclarationError(
                "server-address", "This is no address of a server.", next="Give one such as http://127.0.0.1:8741."
            )
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        except OSError as problem:
            raise AdapterError(
                "ca-file-unreadable", "The certificates to trust cannot be read.", why=_reason(problem)
            ) from None
        self.headers, self._timeout = headers, timeout
        self._kept: list[tuple[HTTPConnection, float]] = []
        """With when each was last used."""

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._kept:
            self._kept.pop()[0].close()

    def once(self, method: str, path: str, body: bytes | None) -> Reply:
        """Ask, once.

        Raises:
            Lost: no reply came.
        """
        connection = self._connected()
        try:
            headers = self.headers if body is None else {**self.headers, "Content-Type": "application/json"}
            connection.request(method, self._path + path, body, headers)
            got = connection.getresponse()
            said, closes = got.read(), got.will_close
        except (OSError, HTTPException) as problem:
            connection.close()
            raise Lost(sent=True, why=_reason(problem)) from None
        if closes:
            connection.close()
        else:
            self._kept.append((connection, time.perf_counter()))
        after = got.getheader("Retry-After", "")
        return Reply(got.status, float(after) if after.isascii() and after.isdigit() else None, said)

    def _connected(self) -> HTTPConnection:
        """A connection that was kept and still stands, or a new one."""
        while self._kept:
            try:
                kept, used = self._kept.pop()
            except IndexError:  # another thread took the last one
                break
            if time.perf_counter() - used < IDLE and not _closed(kept):
                return kept
            kept.close()
        if self._tls is None:
            connection = HTTPConnection(self.host, self._port, timeout=self._timeout)
        else:
            connection = HTTPSConnection(self.host, self._port, timeout=self._timeout, context=self._tls)
        try:
            connection.connect()
        except OSError as problem:
            connection.close()
            raise Lost(sent=False, why=_reason(problem)) from None
        return connection


def _reason(problem: OSError | HTTPException) -> str:
    if isinstance(problem, TimeoutError):
        return "it took too long"
    return f"{type(problem).__name__}: {problem}".rstrip(": ")


def _closed(connection: HTTPConnection) -> bool:
    """Whether the server has ended it meanwhile: something to read, where nothing was asked."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))
