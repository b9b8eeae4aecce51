"""Class E, from the browser to this machine: a foreign Host or Origin is refused on every path of the route table and on
paths that nobody knows, whatever the method; and nothing is told to a page that asks whether it may.
"""

from __future__ import annotations

import pytest

from tests.attacks.hostile import METHODS, UNKNOWN_PATHS, heard, table
from tests.live import Live


@pytest.mark.parametrize("foreign", ["Host: evil.example", "Host: localhost\r\nOrigin: https://evil.example"])
def test_no_route_hears_a_foreign_page(shop: Live, foreign: str) -> None:
    key = "Authorization: Bearer flyball_read\r\nSec-Fetch-Site: cross-site"
    for path in (*table(shop.server), *UNKNOWN_PATHS):
        for method in METHODS:
            asked = f"{method} {path} HTTP/1.1\r\n{foreign}\r\n{key}\r\n\r\n".encode()
            got = heard(shop.port, [asked])
            assert got.closed and got.data.startswith(b"HTTP/1.1 403"), (method, path)
            assert b"foreign-host" in got.data or method == "HEAD"


def test_a_refused_head_has_no_body(shop: Live) -> None:
    """Else the next reply of a shared connection would begin with what the last one said."""
    for head in (
        b"Host: evil.example\r\n",
        b"Host: localhost\r\nContent-Length: x\r\n",
        b"Host: localhost\r\nHost: b\r\n",
    ):
        got = heard(shop.port, [b"HEAD /healthz HTTP/1.1\r\n" + head + b"\r\n"])
        assert got.closed and got.data.startswith(b"HTTP/1.1 4") and got.data.endswith(b"\r\n\r\n")


def test_no_page_is_let_in_by_cors_or_by_a_cookie(shop: Live) -> None:
    for path in table(shop.server):
        for method in ("OPTIONS", "GET", "POST"):
            asked = {"Origin": f"http://127.0.0.1:{shop.port}", "Access-Control-Request-Method": "POST"}
            reply = shop.send(method, path, headers={**asked, "Cookie": "token=flyball_read; session=1"})
            assert not any(name.startswith(("access-control", "set-cookie")) for name in reply.headers)
            assert reply.status in (401, 405) or path in shop.server._free


@pytest.mark.parametrize("headers", ["", "Sec-Fetch-Site: cross-site", "Referer: https://evil.example/"])
def test_what_a_page_may_send_without_being_asked_is_not_read(shop: Live, headers: str) -> None:
    """A form's media types, and none at all: what of these a browser sends needs nobody's leave."""
    for path, way in table(shop.server).items():
        if way.methods != ("POST",):
            continue
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            sent = {"Content-Type": kind, "Authorization": f"Bearer flyball_{way.scope}"}
            sent |= dict([headers.split(": ", 1)]) if headers else {}
            assert shop.send("POST", path, b"{}", sent).status == 415, path
