"""No two requests are answered crosswise: on several connections, whatever is pipelined and however it is cut into pieces,
the replies of a connection are those of its own requests, in their order, and nothing is answered behind one that ends it.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.hostile import ASK, LOOK, chunked
from tests.live import ROW, Live


class Sent(NamedTuple):
    """A request, the status of its reply, whether the connection ends with it, and what its reply must hold."""

    data: bytes
    status: int
    ends: bool
    told: str


def question(mark: int, kind: str) -> Sent:
    """One of each kind, that only its own reply fits."""
    price = mark / 8
    body = json.dumps(ROW | {"order_id": f"o{mark}", "price": price}).encode()
    whole = b"Content-Length: %d\r\n\r\n" % len(body) + body
    infer = ASK.replace(b"/predict", b"/v2/models/orders/infer")
    match kind:
        case "one":
            return Sent(ASK + whole, 200, False, f'"output":{price / 2},')
        case "chunks":
            return Sent(
                ASK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:9], body[9:]), 200, True, f":{price / 2},"
            )
        case "refused":
            bad = json.dumps(ROW | {f"x{mark}x": 1}).encode()
            return Sent(ASK + b"Content-Length: %d\r\n\r\n" % len(bad) + bad, 422, False, f"x{mark}x")
        case "dialect":
            bad = json.dumps({"inputs": [], f"x{mark}x": 1}).encode()
            return Sent(infer + b"Content-Length: %d\r\n\r\n" % len(bad) + bad, 422, False, f"x{mark}x")
        case "absent":
            return Sent(ASK.replace(b"/predict", b"/predict/x%dx" % mark) + whole, 404, False, f"x{mark}x")
        case "recorded":
            return Sent(
                LOOK.replace(b"/healthz", b"/predictions/x") + b"Authorization: Bearer flyball_read\r\n\r\n",
                404,
                False,
                "",
            )
        case "key":
            return Sent(ASK.replace(b"flyball_predict", b"flyball_read") + whole, 403, False, "")
        case "head":
            return Sent(LOOK.replace(b"GET", b"HEAD") + b"\r\n", 200, False, "")
        case "look":
            return Sent(LOOK + b"Content-Length: %d\r\n\r\n" % len(body) + body, 200, False, "alive")
        case "smuggled":
            return Sent(ASK + b"Content-Length: 1\r\n" + whole, 400, True, "not-http")
    return Sent(ASK.replace(b"localhost", b"evil") + whole, 403, True, "foreign-host")


KINDS = ("one",) * 4 + (
    "refused",
    "dialect",
    "absent",
    "recorded",
    "key",
    "look",
    "head",
    "chunks",
    "smuggled",
    "foreign",
)
PLANS = st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), min_size=2, max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLANS, st.data())
def test_each_reply_is_its_own_requests(shop: Live, plans: list[list[str]], data: st.DataObject) -> None:
    sent = [[question(100 * at + nth, kind) for nth, kind in enumerate(kinds)] for at, kinds in enumerate(plans)]
    streams = [b"".join(each.data for each in requests) for requests in sent]
    with ExitStack() as held:
        callers = [
            held.enter_context(closing(socket.create_connection(("127.0.0.1", shop.port), timeout=30))) for _ in streams
        ]
        left = dict(enumerate(streams))
        while left:
            at = data.draw(st.sampled_from(sorted(left)))
            size = data.draw(st.integers(1, 900))
            # One that was ended, rightly or not (see below), takes nothing; what is drawn next does not hang on when.
            with suppress(ConnectionError):
                callers[at].sendall(left[at][:size])
            left[at] = left[at][size:]
            if not left[at]:
                del left[at]
        for requests, caller in zip(sent, callers, strict=True):
            answered(requests, caller)


def answered(requests: list[Sent], caller: socket.socket) -> None:
    """Read what came, and compare it with what was asked."""
    last = next((nth for nth, each in enumerate(requests) if each.ends), len(requests) - 1)
    expected, got = requests[: last + 1], b""
    while True:
        heads = got.count(b"HTTP/1.1 ")
        if heads >= len(expected) and whole(got, expected):
            break
        more = caller.recv(65536)
        assert more, (got, expected)
        got += more
    for reply, each in zip(split(got, expected), expected, strict=True):
        assert reply.startswith(b"HTTP/1.1 %d " % each.status), (reply, each)
        assert each.told.encode() in reply, (reply, each)
    if requests[last].ends:
        with suppress(ConnectionResetError):
            assert caller.recv(65536) == b"", "nothing is answered behind it"


def split(got: bytes, expected: list[Sent]) -> list[bytes]:
    """Replies apart; a reply to HEAD has no body, whatever length it says."""
    found = []
    for each in expected:
        head, end, got = got.partition(b"\r\n\r\n")
        length = 0
        if not each.data.startswith(b"HEAD"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        if not end or len(got) < length:
            return []
        found.append(head + end + got[:length])
        got = got[length:]
    assert not got, "more was answered than was asked"
    return found


def whole(got: bytes, expected: list[Sent]) -> bool:
    return len(split(got, expected)) == len(expected)
