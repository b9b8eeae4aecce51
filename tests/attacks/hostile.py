"""What an attacker's client does and ours never would: bytes as they are, pieces in time, replies by their lengths."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.memory.inbox import MemoryInbox
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.serve import auth
from flyball.serve.auth import SCOPES, Key, Keys
from flyball.serve.http import RECORDED, Server
from tests.live import ROW, Live, Reply

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
UNKNOWN_PATHS = ("/", "/nowhere", "/predict/nobody", "/v2/models/nobody", "/ingest/nobody", "//healthz", "/metrics/")
TOKENS = {scope: f"flyball_{scope}" for scope in sorted(SCOPES)}
KEYS = tuple(Key(name=s, sha256=auth.digest(t), scopes=frozenset({s})) for s, t in TOKENS.items())  # type: ignore[arg-type]
BODY = json.dumps(ROW).encode()
ASK = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer flyball_predict\r\n"
ASK += b"Content-Type: application/json\r\n"
LOOK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
QUESTION = ASK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def exposed() -> dict[str, object]:
    """The ground of a server of which nothing is free, with a key for each scope, and everything that is posted taken."""
    clock = SystemClock()
    keys = Keys(lambda: KEYS, clock).freeing(frozenset())
    return {"keys": keys, "outcomes": MemoryOutcomes(), "inbox": MemoryInbox(10_000), "pushed": frozenset({"clicks"})}


def bearer(scope: str) -> dict[str, str]:
    """The header of the key that has this scope alone."""
    return {"Authorization": f"Bearer {TOKENS[scope]}"}


@dataclass(frozen=True, slots=True)
class Way:
    """What a server has at a path: the methods that it takes, and the scope that they need; "" is none."""

    methods: tuple[str, ...]
    scope: str


def table(server: Server) -> dict[str, Way]:
    """The whole route table, as the server itself has it: a new route is in here without anybody's doing."""
    found = {path: Way(("GET", "HEAD"), "" if path in server._free else "read") for path in server._pages}
    found |= {path: Way(("POST",), "predict") for path in server._asks}
    found |= {path: Way(("POST",), post.scope) for path, post in server._posts.items()}
    return found | {f"{RECORDED}x": Way(("GET", "HEAD"), "read")}


@contextmanager
def kept(shop: Live) -> Iterator[http.client.HTTPConnection]:
    """A connection that is used again."""
    with closing(http.client.HTTPConnection("127.0.0.1", shop.port, timeout=20)) as connection:
        yield connection


def say(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request with a body that is a question, where there is one."""
    body = BODY if method in ("POST", "PUT", "PATCH") else None
    kind = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, body, {**kind, **(headers or {})})
    got = connection.getresponse()
    return Reply(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())


@dataclass(frozen=True, slots=True)
class Heard:
    """All that came back, and whether the server closed."""

    data: bytes
    closed: bool

    @property
    def replies(self) -> list[Reply]:
        """Apart; fails where what came is not whole replies one behind the other."""
        found, rest = [], self.data
        while rest:
            head, end, rest = rest.partition(b"\r\n\r\n")
            status, *lines = head.split(b"\r\n")
            assert end and re.fullmatch(rb"HTTP/1\.1 [1-5][0-9]{2} [ -~]+", status), self.data[:200]
            headers = {}
            for line in lines:
                said = re.fullmatch(rb"([a-z0-9-]+): ([^\x00-\x08\x0a-\x1f]*)", line)
                assert said is not None, line
                headers[said[1].decode()] = said[2].decode("latin-1")
            length = int(headers.get("content-length", "0"))
            assert len(rest) >= length
            found.append(Reply(int(status[9:12]), headers, rest[:length]))
            rest = rest[length:]
        return found


def heard(port: int, parts: Iterable[bytes], quiet: float = 5, replies: int = 1) -> Heard:
    """Send these, and hear what comes until the server closes or, once it said so many replies, is quiet for so long."""
    got = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it has heard enough: what it said is there to be read
        try:
            while more := connection.recv(65536):
                got += more
                if got.count(b"HTTP/1.1 ") >= replies:
                    connection.settimeout(quiet)
        except TimeoutError:
            return Heard(got, closed=False)
        except ConnectionError:
            pass
    return Heard(got, closed=True)


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, whole."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
