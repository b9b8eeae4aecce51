"""A webhook, against servers that listen on this machine: what is sent, where it must never go, and what never leaks.

Loopback itself is forbidden, so every test that means to arrive names it in `allow`. Names are invented, and only the resolver
of the test knows them: that a request arrives proves that nobody else was asked.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import perf_counter

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError, RetryableError
from flyball.adapters.embedded import alerts
from flyball.adapters.embedded.alerts import WebhookAlerts, forbidden
from flyball.checks.alerts import one

LOOPBACK = ["127.0.0.0/8", "::1/128"]
SECRET = "T0K3N"


class Listening:
    """A server that reads one request from each connection and says `reply`, whatever it is."""

    def __init__(self, reply: bytes | Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.reply, self.context = reply, context
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                try:
                    self.serve(connection)
                except OSError:
                    continue

    def serve(self, connection: socket.socket) -> None:
        if self.context is None:
            self.answer(connection)
        else:
            with self.context.wrap_socket(connection, server_side=True) as secured:
                self.answer(secured)

    def answer(self, connection: socket.socket) -> None:
        request = b""
        while not whole(request):
            more = connection.recv(4096)
            if not more:
                return
            request += more
        self.requests.append(request)
        if callable(self.reply):
            self.reply(connection)
        else:
            connection.sendall(self.reply)


def whole(request: bytes) -> bool:
    head, found, body = request.partition(b"\r\n\r\n")
    length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return bool(found) and len(body) >= int(length[0].split(b":")[1])


@contextmanager
def listening(
    reply: bytes | Callable[[socket.socket], None] = b"HTTP/1.1 204 No Content\r\n\r\n",
    context: ssl.SSLContext | None = None,
) -> Iterator[Listening]:
    server = Listening(reply, context)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
        thread.join(30)


def to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda *_: addresses


def hook(folder: Path, port: int, host: str = "hooks.example", **more: object) -> WebhookAlerts:
    more = {"allow": LOOPBACK, "resolve": to("127.0.0.1")} | more
    return WebhookAlerts(f"http://{host}:{port}/in/{SECRET}?key={SECRET}", folder / "position.json", **more)  # type: ignore[arg-type]


def refusal(act: Callable[[], object]) -> FlyballError:
    """What it raises, which must not tell the secret part of the URL, nor must anything that it was raised from."""
    with pytest.raises(FlyballError) as raised:
        act()
    error = raised.value
    chain = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)
    assert SECRET not in f"{error}{error!r}{error.why}{error.next}{chain}"
    return error


def test_what_is_sent(tmp_path: Path) -> None:
    with listening() as server:
        hook(tmp_path, server.port).send(one(12))
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    assert first == f"POST /in/{SECRET}?key={SECRET} HTTP/1.1"
    assert headers["Host"] == f"hooks.example:{server.port}"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "shop/12"
    said = json.loads(body)
    assert (said["seq"], said["severity"], said["text"]) == (12, "warning", one(12).text)


def test_an_app_cannot_write_headers(tmp_path: Path) -> None:
    alert = type(one(1))(
        **{name: getattr(one(1), name) for name in one(1).__struct_fields__} | {"app": "a\r\nX-Evil: 1"}
    )
    with listening() as server:
        hook(tmp_path, server.port).send(alert)
    assert b"\r\nX-Evil" not in server.requests[0]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://hooks.example", "hooks.example:80"),
        ("https://hooks.example?x=1#part", "hooks.example:443"),
        ("HTTP://[::1]:81/a", "::1:81"),
    ],
)
def test_urls_that_are_taken(tmp_path: Path, url: str, host: str) -> None:
    asked: list[str] = []

    def resolve(name: str, port: int) -> Sequence[str]:
        asked.append(f"{name}:{port}")
        raise OSError("no such name")

    channel = WebhookAlerts(url, tmp_path / "p", resolve=resolve)
    assert refusal(lambda: channel.send(one(1))).code == "webhook-unreachable"
    assert asked == [host]


@pytest.mark.parametrize(
    ("rest", "target"), [("", "/"), ("/", "/"), ("?x=1", "/?x=1"), ("/a/%20;b?c#d", "/a/%20;b?c"), ("/a?", "/a")]
)
def test_what_is_asked_for(tmp_path: Path, rest: str, target: str) -> None:
    with listening() as server:
        url = f"http://hooks.example:{server.port}{rest}"
        WebhookAlerts(url, tmp_path / "p", allow=LOOPBACK, resolve=to("127.0.0.1")).send(one(1))
    assert server.requests[0].startswith(f"POST {target} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://hooks.example/{SECRET}",
        f"file:///etc/{SECRET}",
        f"gopher://hooks.example/{SECRET}",
        f"//hooks.example/{SECRET}",
        f"hooks.example/{SECRET}",
        f"http:///{SECRET}",
        f"http://:80/{SECRET}",
        f"http://user:{SECRET}@hooks.example/",
        f"http://{SECRET}@hooks.example/",
        f"http://@hooks.example/{SECRET}",
        f"http://hooks.example:0/{SECRET}",
        f"http://hooks.example:65536/{SECRET}",
        f"http://hooks.example:x{SECRET}/",
        f"http://[::1/{SECRET}",
        f"http://hooks.example\\@10.0.0.1/{SECRET}",
        f"http://hooks.example/{SECRET}\r\nX-Evil: 1",
        f"http://hooks.example/a b{SECRET}",
        f"http://hooks.example/\t{SECRET}",
        f"http://hööks.example/{SECRET}",
        "",
    ],
)
def test_urls_that_are_not(tmp_path: Path, url: str) -> None:
    error = refusal(lambda: WebhookAlerts(url, tmp_path / "p"))
    assert (type(error), error.code) == (DeclarationError, "webhook-url")


def test_networks_are_networks(tmp_path: Path) -> None:
    for network in ("10.0.0.1/8", "everything", "10.0.0.0/33"):
        assert refusal(lambda n=network: hook(tmp_path, 1, allow=[n])).code == "webhook-url"  # type: ignore[misc]


# --- addresses

FORBIDDEN = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.1 127.255.255.254
    168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
    192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255
    :: ::1 ::2 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::808:808
    64:ff9b:1::a00:1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 2002:a9fe:a9fe::1 3fff::1
    4000::1 5f00::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1
"""
PUBLIC = "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 223.255.255.255 2606:4700::1111"


@pytest.mark.parametrize("address", FORBIDDEN.split())
def test_what_must_not_be_reached(tmp_path: Path, address: str) -> None:
    """Whether it is spelt in the URL or is what a name means; and wherever it stands among the addresses of a name."""
    assert forbidden(ip_address(address))
    spelt = f"[{address}]" if ":" in address else address
    tries = [
        hook(tmp_path, 80, spelt, resolve=alerts.resolved, allow=[]),
        hook(tmp_path, 80, resolve=to(address), allow=[]),
        hook(tmp_path, 80, resolve=to("8.8.8.8", address), allow=[]),
        hook(tmp_path, 80, resolve=to(address, "8.8.8.8"), allow=["8.8.8.0/24", "2606:4700::/32"]),
    ]
    for channel in tries:
        error = refusal(lambda c=channel: c.send(one(1)))  # type: ignore[misc]
        assert (type(error), error.code) == (AdapterError, "webhook-forbidden")
        assert channel.position() == 0


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_may(address: str) -> None:
    assert forbidden(ip_address(address)) == ""


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "LOCALHOST"])
def test_other_spellings_of_this_machine(tmp_path: Path, spelling: str) -> None:
    with listening() as server:
        error = refusal(lambda: hook(tmp_path, server.port, spelling, resolve=alerts.resolved, allow=[]).send(one(1)))
    assert error.code in ("webhook-forbidden", "webhook-unreachable")  # where the resolver takes it for a name
    assert server.connections == 0


@pytest.mark.parametrize(
    ("address", "allow", "may"),
    [
        ("10.1.2.3", ["10.1.0.0/16"], True),
        ("10.2.2.3", ["10.1.0.0/16"], False),
        ("169.254.169.254", ["10.0.0.0/8"], False),
        ("169.254.169.254", ["169.254.169.254/32"], True),
        ("fd00:1::5", ["10.0.0.0/8", "fd00:1::/64"], True),
        ("::ffff:10.1.2.3", ["10.1.0.0/16"], False),
        ("::ffff:10.1.2.3", ["::ffff:0:0/96"], False),
        ("::ffff:10.1.2.3", ["::ffff:0:0/96", "10.1.0.0/16"], True),
        ("64:ff9b::808:808", ["64:ff9b::/96"], True),
        ("64:ff9b::a9fe:a9fe", ["64:ff9b::/96"], False),
        ("64:ff9b::7f00:1", ["::/0"], False),
        ("2002:7f00:1::", ["2002::/16"], False),
        ("2002:808:808::", ["2002::/16"], True),
        ("2001:0:808:808::f5ff:fffe", ["2001::/32"], False),  # Teredo for 10.0.0.1
    ],
)
def test_what_the_operator_allows(address: str, allow: list[str], may: bool) -> None:
    assert (forbidden(ip_address(address), [ip_network(each) for each in allow]) == "") is may


def test_a_name_is_asked_once_and_what_it_said_is_reached(tmp_path: Path) -> None:
    """DNS rebinding: the first answer may be reached, and every later one may not."""
    answers = iter(["127.0.0.1", "10.0.0.1", "169.254.169.254"])
    asked: list[str] = []

    def resolve(name: str, _: int) -> Sequence[str]:
        asked.append(name)
        return [next(answers)]

    with listening() as server:
        channel = hook(tmp_path, server.port, "rebound.example", resolve=resolve)
        channel.send(one(1))
        assert asked == ["rebound.example"]
        assert refusal(lambda: channel.send(one(2))).code == "webhook-forbidden"
        assert refusal(lambda: channel.send(one(2))).code == "webhook-forbidden"
    assert len(server.requests) == server.connections == 1
    assert channel.position() == 1


def test_a_resolver_that_gives_a_name_is_not_followed(tmp_path: Path) -> None:
    with listening() as server:
        error = refusal(lambda: hook(tmp_path, server.port, resolve=to("localhost")).send(one(1)))
    assert (error.code, server.connections) == ("webhook-unreachable", 0)


def test_the_next_address_is_tried(tmp_path: Path) -> None:
    with listening() as server:
        hook(tmp_path, server.port, resolve=to("127.0.0.77", "127.0.0.1")).send(one(1))
    assert len(server.requests) == 1


# --- answers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(tmp_path: Path, status: int) -> None:
    with listening() as inside:
        reply = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{inside.port}/{SECRET}\r\n\r\n".encode()
        with listening(reply) as server:
            channel = hook(tmp_path, server.port)
            error = refusal(lambda: channel.send(one(1)))
    assert (type(error), error.code, inside.connections) == (AdapterError, "webhook-redirects", 0)
    assert channel.position() == 0


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 202 Accepted\r\n\r\n", ""),
        (b"HTTP/1.1 400 Bad\r\n\r\n", "webhook-refused"),
        (b"HTTP/1.1 401 No\r\n\r\n", "webhook-refused"),
        (b"HTTP/1.1 404 No\r\n\r\n", "webhook-refused"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "webhook-unreachable"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "webhook-refused"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 Oh\r\n",
            "webhook-busy",
        ),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n", "webhook-unreachable"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, "webhook-unreachable"),
        (b"HTTP/1.1 429 Slow\r\n\r\n", "webhook-busy"),
        (b"HTTP/1.1 408 Slow\r\n\r\n", "webhook-busy"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "webhook-busy"),
        (b"HTTP/1.1 503 Oh\r\n\r\n", "webhook-busy"),
        (b"", "webhook-unreachable"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "webhook-unreachable"),
        (b"HTTP/1.1 OK\r\n\r\n", "webhook-unreachable"),
        (b"HTTP/1.1 200", ""),
        (b"x" * 5000, "webhook-unreachable"),
    ],
)
def test_answers(tmp_path: Path, reply: bytes, code: str) -> None:
    with listening(reply) as server:
        channel = hook(tmp_path, server.port)
        if code:
            error = refusal(lambda: channel.send(one(1)))
            assert error.code == code
            assert isinstance(error, RetryableError) == (code in ("webhook-busy", "webhook-unreachable"))
        else:
            channel.send(one(1))
    assert channel.position() == (0 if code else 1)


def test_the_body_is_neither_waited_for_nor_shown(tmp_path: Path) -> None:
    def reply(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 99\r\n\r\nroot:" + SECRET.encode())
        server.ended.wait(60)

    with listening(reply) as server:
        started = perf_counter()
        assert refusal(lambda: hook(tmp_path, server.port).send(one(1))).code == "webhook-refused"
        assert perf_counter() - started < 30
        server.ended.set()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT", 0.3)
    with listening(lambda _: server.ended.wait(60) and None) as server:
        error = refusal(lambda: hook(tmp_path, server.port).send(one(1)))
        server.ended.set()
    assert (error.code, error.why) == ("webhook-unreachable", "It took too long.")


def test_a_server_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps no connection open: the time is for all of it."""
    monkeypatch.setattr(alerts, "TIMEOUT", 0.3)

    def drip(connection: socket.socket) -> None:
        while not server.ended.wait(0.1):
            connection.sendall(b"H")

    with listening(drip) as server:
        started = perf_counter()
        error = refusal(lambda: hook(tmp_path, server.port).send(one(1)))
        took = perf_counter() - started
        server.ended.set()
    assert (error.code, error.why) == ("webhook-unreachable", "It took too long.")
    assert took < 30  # where each byte begins the time anew: 1,024 of them, 100 s


def test_a_name_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT", 0.3)
    ended = threading.Event()

    def resolve(*_: object) -> Sequence[str]:
        ended.wait(60)
        return []

    error = refusal(lambda: hook(tmp_path, 80, resolve=resolve).send(one(1)))
    ended.set()
    assert (error.code, error.why) == ("webhook-unreachable", "It took too long.")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert refusal(lambda: hook(tmp_path, port).send(one(1))).code == "webhook-unreachable"


# --- TLS


def identity(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name`, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(pem))
    server.load_cert_chain(pem)
    return server, client


def secure(folder: Path, port: int, host: str, trust: ssl.SSLContext | None) -> WebhookAlerts:
    url = f"https://{host}:{port}/{SECRET}"
    return WebhookAlerts(url, folder / "p.json", allow=LOOPBACK, resolve=to("127.0.0.1"), trust=trust)


def test_the_host_must_prove_its_name(tmp_path: Path) -> None:
    """Its name, not its address; and to whom the operator's machine trusts."""
    presents, trusts = identity(tmp_path, "hooks.example")
    with listening(context=presents) as server:
        secure(tmp_path, server.port, "hooks.example", trusts).send(one(1))
        for host, trust in (("other.example", trusts), ("127.0.0.1", trusts), ("hooks.example", None)):
            error = refusal(lambda h=host, t=trust: secure(tmp_path, server.port, h, t).send(one(2)))  # type: ignore[misc]
            assert (type(error), error.code) == (AdapterError, "webhook-untrusted")
    assert len(server.requests) == 1


def test_what_speaks_no_tls_is_told_nothing(tmp_path: Path) -> None:
    with listening(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        server.serve = lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")  # type: ignore[method-assign]
        assert refusal(lambda: secure(tmp_path, server.port, "hooks.example", None).send(one(1))).code == (
            "webhook-unreachable"
        )
    assert server.requests == []


# --- the position


def test_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    with listening() as server:
        hook(tmp_path, server.port).send(one(5))
        hook(tmp_path, server.port).send(one(5))
    assert len(server.requests) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["position.json"]


def test_a_new_channel_is_not_told_of_old_times(tmp_path: Path) -> None:
    """But of all that comes after it was first opened, also when it is opened again before anything got through."""
    hook(tmp_path, 1, since=10)
    with listening() as server:
        channel = hook(tmp_path, server.port, since=12)
        for seq in (9, 10, 11):
            channel.send(one(seq))
        assert hook(tmp_path, server.port, since=99).position() == 11
    assert len(server.requests) == 1


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"\xff", b'{"seq": "1"}'])
def test_a_damaged_position_is_named(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "position.json").write_bytes(junk)
    for act in (hook(tmp_path, 1).position, lambda: hook(tmp_path, 1).send(one(1))):
        assert refusal(act).code == "alerts-unreadable"
