"""Class K and request smuggling: bytes that two readers could read in two ways, or that are no HTTP/1.1. Each is refused with a
4xx and the end of its connection, so that nothing behind it is taken for a request; and the fixture `unmoved` asks again.
"""

from __future__ import annotations

import pytest

from tests.attacks.hostile import ASK, BODY, LOOK, QUESTION, chunked, heard
from tests.live import Live

SECRET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer flyball_read\r\n\r\n"
"""A request within a request: if it is answered, it was smuggled."""
PATIENCE = 1.0
IN_CHUNKS = ASK + b"Transfer-Encoding: chunked\r\n\r\n"

BROKEN = {
    "both lengths": ASK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECRET,
    "both lengths, turned": ASK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SECRET,
    "two lengths": ASK + b"Content-Length: 0\r\nContent-Length: 70\r\n\r\n" + SECRET,
    "one length twice": ASK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + SECRET,
    "a list of lengths": ASK + b"Content-Length: 2, 2\r\n\r\n{}" + SECRET,
    **{
        f"the length {each!r}": ASK + b"Content-Length: %b\r\n\r\n{}" % each + SECRET
        for each in (
            b"+2",
            b"-2",
            b"0x2",
            b"2 2",
            b"",
            b"2.0",
            b"1e1",
            b"\xb2",
            b"9" * 30,
            b"18446744073709551618",
            b"2\r\n 0",
        )
    },
    **{
        f"the coding {each!r}": ASK + b"Transfer-Encoding: %b\r\n\r\n" % each + chunked(b"{}") + SECRET
        for each in (
            *(b"identity", b"xchunked", b"chunkedx", b"gzip, chunked", b"chunked, identity", b"chunked, chunked", b""),
            *(b"\x0bchunked", b"\r\n chunked", b'"chunked"', b"chunked;q=1", b"identity\r\nTransfer-Encoding: chunked"),
        )
    },
    "chunks in HTTP/1.0": IN_CHUNKS.replace(b"HTTP/1.1", b"HTTP/1.0") + chunked(b"{}") + SECRET,
    "chunks, and another protocol": ASK
    + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunked(b""),
    "chunks through a tunnel": IN_CHUNKS.replace(b"POST /predict", b"CONNECT /") + chunked(b"{}"),
    "a folded header": LOOK + b"X: 1\r\n 2\r\n\r\n" + SECRET,
    "a folded host": b"GET /healthz HTTP/1.1\r\nHost: local\r\n host\r\n\r\n" + SECRET,
    "a header before the first": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n" + SECRET,
    "lines that end in LF": b"GET /healthz HTTP/1.1\nHost: localhost\n\n" + SECRET,
    "a header that ends in LF": LOOK[:-2] + b"\nX: 1\r\n\r\n" + SECRET,
    "a header that ends in CR": LOOK[:-2] + b"\rX: 1\r\n\r\n" + SECRET,
    "an end of LF": LOOK + b"\n" + SECRET,
    "a blank before the colon": LOOK + b"Content-Length : 5\r\n\r\n" + SECRET,
    "a header without a name": LOOK + b": 1\r\n\r\n" + SECRET,
    "a header without a colon": LOOK + b"x\r\n\r\n" + SECRET,
    **{f"the byte {each:#x}": LOOK + b"X: a%cb\r\n\r\n" % each + SECRET for each in (0, 1, 8, 11, 12, 27, 127)},
    "a NUL in a name": LOOK + b"X\0: a\r\n\r\n" + SECRET,
    "a target with a host": b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "a target that is a star": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "a target that is a host": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "a target that is no ASCII": "GET /healthé HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + SECRET,
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "two blanks": b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "a tab": b"GET\t/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "HTTP/0.9": b"GET /healthz\r\nHost: localhost\r\n\r\n" + SECRET,
    **{
        f"the protocol {each!r}": b"GET /healthz %b\r\nHost: localhost\r\n\r\n" % each + SECRET
        for each in (
            b"HTTP/0.9",
            b"HTTP/2.0",
            b"HTTP/3",
            b"HTTP/1.10",
            b"HTTP/9.9",
            b"RTSP/1.0",
            b"ICE/1.0",
            b"http/1.1",
        )
    },
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a greeting of TLS": bytes.fromhex("1603010200010001fc0303") + b"\xaa" * 508,
    "a method in small letters": b"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "only ends of lines": b"\r\n\r\n" + SECRET,
    "two hosts": LOOK + b"Host: localhost\r\n\r\n" + SECRET,
    "two keys": LOOK + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n" + SECRET,
    "two idempotency keys": ASK + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n" + SECRET,
    "two lengths of a part": ASK
    + b"Inference-Header-Content-Length: 2\r\nInference-Header-Content-Length: 3\r\n\r\n"
    + SECRET,
    "a header of 100 KB": LOOK + b"X: " + b"a" * 100_000 + b"\r\n\r\n" + SECRET,
    "a target of 100 KB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + SECRET,
    "65 headers": LOOK + b"".join(b"X%d: 1\r\n" % at for at in range(64)) + b"\r\n" + SECRET,
    "a refused host first": b"GET /healthz HTTP/1.1\r\nHost: evil\r\n\r\n" + SECRET,
    "a body beyond the limit": ASK + b"Content-Length: 1048577\r\n\r\n" + SECRET,
    **{
        f"the chunk {each[:20]!r}": IN_CHUNKS + each + SECRET
        for each in (
            *(
                b"-2\r\n{}\r\n0\r\n\r\n",
                b"0x2\r\n{}\r\n0\r\n\r\n",
                b"2 \r\n{}\r\n0\r\n\r\n",
                b"2\n{}\n0\n\n",
                b"2;a\nb\r\n{}\r\n",
            ),
            *(
                b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n",
                b"2\r\n{}x0\r\n\r\n",
                b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
                b"\r\n\r\n",
            ),
            b"2\r\n{}\r\n0\r\nTransfer-Encoding : x\r\n\r\n",
        )
    },
    "chunks beyond the limit": IN_CHUNKS + b"80000\r\n" + b" " * 0x80000 + b"\r\n80001\r\n" + b" " * 0x80001 + b"\r\n",
}


@pytest.mark.parametrize("attack", BROKEN)
def test_what_can_be_read_in_two_ways_is_read_in_none(shop: Live, attack: str) -> None:
    got = heard(shop.port, [BROKEN[attack]])
    assert got.closed
    (reply,) = got.replies
    assert 400 <= reply.status < 500 and reply.status != 404 and reply.headers["connection"] == "close"
    assert reply.code in ("not-http", "request-too-large", "request-too-slow", "header-twice", "foreign-host")


@pytest.mark.parametrize(
    "whole",
    [
        IN_CHUNKS + b"%x;ext=1\r\n%b\r\n0\r\nHost: evil\r\nX: 1\r\n\r\n" % (len(BODY), BODY) + SECRET,
        IN_CHUNKS + chunked(*[BODY[at : at + 1] for at in range(len(BODY))]) + SECRET,
        QUESTION.replace(b"HTTP/1.1", b"HTTP/1.0") + SECRET,
        QUESTION.replace(b"Content-Type", b"Connection: Keep-Alive, CLOSE\r\nContent-Type") + SECRET,
    ],
    ids=["extensions and trailers", "chunks of a byte", "HTTP/1.0", "an end that is asked for"],
)
def test_nothing_is_read_behind_what_ends_a_connection(shop: Live, whole: bytes) -> None:
    got = heard(shop.port, [whole])
    assert got.closed and [each.status for each in got.replies] == [200]


def test_what_stands_in_a_body_is_a_body(shop: Live) -> None:
    for head in (LOOK, ASK, ASK.replace(b"POST", b"DELETE"), LOOK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
        got = heard(
            shop.port,
            [head + b"Content-Length: %d\r\n\r\n" % len(SECRET) + SECRET + LOOK + b"\r\n"],
            quiet=0.25,
            replies=2,
        )
        assert (
            len(got.replies) == 2 and b"flyball_answers" not in got.data and got.replies[1].json == {"status": "alive"}
        )
