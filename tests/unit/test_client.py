"""The Python client: typed answers and errors on a real server, and what it tries again where replies are lost."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flyball._kernel.errors import AdapterError, DataError, DeclarationError, RetryableError
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.checks.clock import Wound
from flyball.client import Client, Outcome, Prediction, Recorded, Refused, line
from flyball.serve import auth, journal, reply
from flyball.serve.auth import Key, Keys
from tests.live import ROW, Live, live, plan

TOKEN = "flyball_test"
SCOPES = frozenset({"predict", "label", "read"})
ASKED = ROW | {"placed": datetime(2026, 11, 20, 12, tzinfo=UTC)}


def keys() -> Keys:
    return Keys(lambda: [Key(name="shop", sha256=auth.digest(TOKEN), scopes=SCOPES)], Wound(), frozenset())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    two = {"orders": plan(), "other": plan("other-1", 2.0, "other")}
    with live(tmp_path_factory.mktemp("shop"), two, keys=keys(), outcomes=MemoryOutcomes()) as found:
        yield found


@pytest.fixture
def client(shop: Live) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{shop.port}/", f"{TOKEN}\n") as found:
        yield found


def test_answers_are_typed_and_recorded(shop: Live, client: Client) -> None:
    one = client.predict(ASKED, "orders")
    assert (one.output, one.version, one.role, one.decision) == (4.0, "orders-1", "champion", None)
    assert isinstance(one, Prediction) and one.asked.tzinfo is not None
    assert shop.journal.find(one.id) is not None
    assert [each.output for each in client.predict([ASKED, ROW], model="other")] == [16.0, 16.0]
    assert client.predict([], "orders") == []


def test_an_answer_has_the_fields_that_the_server_says() -> None:
    theirs = {f.name: f.type for f in msgspec.structs.fields(reply.Prediction)}
    assert {f.name: f.type for f in msgspec.structs.fields(Prediction)} == theirs
    assert set(Recorded.__struct_fields__) == set(journal.Entry.__struct_fields__)


def test_what_is_recorded_is_read_by_its_id(shop: Live, client: Client) -> None:
    answer = client.predict(ASKED, "orders")
    found, entry = client.recorded(answer.id), shop.journal.find(answer.id)
    assert entry is not None
    assert msgspec.structs.asdict(found) == msgspec.to_builtins(entry) | {"outputs": ()}
    assert (found.version, found.output, found.inputs["placed"]) == ("orders-1", 4.0, "2026-11-20T12:00:00Z")
    with pytest.raises(Refused, match="no-such-prediction"):
        client.recorded("../readyz")


def test_outcomes_are_taken_repeated_and_refused(client: Client) -> None:
    answer = client.predict(ASKED, "orders")
    assert client.outcome(True, prediction=answer.id) == "accepted"
    assert client.outcome(True, prediction=answer.id) == "repeated"
    assert client.outcome(False, prediction=answer.id) == "corrected"
    assert (
        client.outcome(None, key={"order_id": "x"}, model="orders", settled=datetime(2026, 1, 1, tzinfo=UTC))
        == "accepted"
    )
    taken = client.outcomes([Outcome(outcome=True, prediction=answer.id), Outcome(outcome=True)])
    assert (taken.corrected, [each.at for each in taken.refused]) == (1, [1])
    with pytest.raises(Refused, match="outcome-target"):
        client.outcome(True)
    assert client.outcomes([Outcome(outcome=True)]).refused[0].code == "outcome-target"


def test_what_the_server_refuses_is_raised_in_its_words(shop: Live, client: Client) -> None:
    with pytest.raises(Refused) as caught:
        client.predict(ROW | {"price": -1}, "orders")
    assert (caught.value.status, caught.value.code) == (422, "request-breaks-contract")
    assert "price" in caught.value.why and "openapi" in caught.value.next
    with pytest.raises(Refused, match="no-such-model"):
        client.predict(ROW, "../outcomes")
    with Client(f"http://127.0.0.1:{shop.port}", "wrong") as stranger, pytest.raises(Refused) as caught:
        stranger.predict(ROW, "orders")
    assert (caught.value.status, caught.value.code) == (401, "key-unknown") and "wrong" not in str(caught.value)
    with pytest.raises(Refused, match="request-too-large"):
        client.predict([ROW | {"note": "x" * 1000}] * 2000, "orders")


def test_it_sees_who_answers_and_what_is_counted(shop: Live, client: Client) -> None:
    assert client.ready().answering == {"orders": "orders-1", "other": "other-1"}
    assert "flyball_answers" in client.metrics()
    before = shop.server.routed
    try:
        shop.swap({})
        assert client.ready().answering == {}
    finally:
        shop.swap(before)


def test_what_has_no_form_in_json_is_not_sent(client: Client) -> None:
    with pytest.raises(DataError, match="question-unsendable"):
        client.predict({"x": object()}, "orders")


@pytest.mark.parametrize(
    "url", ["", "shop:80", "ftp://shop", "http://", "http://u:p@shop", "http://shop?x", "http://shop:x", "http://[::1"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(DeclarationError, match="server-address"):
        Client(url)


@pytest.mark.parametrize("token", ["", "a\nb", "ü"])
def test_a_token_that_no_header_holds_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(DeclarationError, match="token-unreadable") as caught:
        Client("http://shop", token)
    assert not token or token not in str(caught.value)


# --- what is tried again

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
TOO_MUCH = b'{"error":{"code":"server-busy","what":"Too much."}}'
BUSY = b"HTTP/1.1 503 x\r\nRetry-After: 2\r\nContent-Length: %d\r\n\r\n%b" % (len(TOO_MUCH), TOO_MUCH)
ANSWER = msgspec.json.encode(
    {"id": "1", "model": "m", "version": "v", "role": "champion", "output": 1.0, "asked": "2026-01-01T00:00:00Z"}
    | {"within_tolerance": True, "of_a_later_release": 1}
)
SAID = OK % (len(ANSWER), ANSWER)


@contextmanager
def scripted(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says what it is told to: each connection gets the next reply, b"" is none, and is closed."""
    asked: list[bytes] = []

    def serve() -> None:
        for each in replies:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(65536))
                if b"content-length:" in asked[-1].lower() and asked[-1].endswith(b"\r\n\r\n"):
                    asked[-1] += connection.recv(65536)
                connection.sendall(each)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        thread.join(30)
        assert not thread.is_alive()


def test_a_question_whose_reply_is_lost_is_not_asked_again() -> None:
    with scripted(b"") as (url, asked), Client(url) as client, pytest.raises(AdapterError, match="answer-unknown"):
        client.predict(ROW)
    assert len(asked) == 1


@pytest.mark.parametrize("lost", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"])
def test_what_does_no_harm_twice_is_tried_again(lost: bytes) -> None:
    taken = b'{"accepted":0,"repeated":1,"corrected":0,"refused":[]}'
    waits: list[float] = []
    with scripted(lost, OK % (len(taken), taken)) as (url, asked), Client(url, wait=waits.append) as client:
        assert client.outcome(True, prediction="p") == "repeated"
    assert len(asked) == 2 and asked[0] == asked[1] and waits == [0.2]


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    waits: list[float] = []
    with scripted(BUSY, SAID) as (url, asked), Client(url, wait=waits.append) as client:
        assert client.predict(ROW).output == 1.0
    assert len(asked) == 2 and waits == [2.0]


def test_a_server_that_stays_busy_is_left_in_time() -> None:
    waits: list[float] = []
    with (
        scripted(BUSY, BUSY) as (url, _),
        Client(url, timeout=3.0, wait=waits.append) as client,
        pytest.raises(Refused, match="server-busy") as caught,
    ):
        client.predict(ROW)
    assert (caught.value.status, caught.value.again, waits) == (503, 2.0, [2.0])


def test_a_server_that_is_not_there_is_tried_and_told() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    waits: list[float] = []
    with pytest.raises(RetryableError, match="server-unreachable"):
        Client(f"http://127.0.0.1:{port}", tries=3, wait=waits.append).predict(ROW)
    assert waits == [0.2, 0.4]


def test_what_is_no_servers_reply_is_told_as_that() -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 13\r\n\r\n<html></html>"
    with scripted(page, OK % (2, b"{}")) as (url, _), Client(url) as client:
        with pytest.raises(Refused, match="http-502"):
            client.predict(ROW)
        with pytest.raises(AdapterError, match="reply-unreadable"):
            client.predict(ROW)


def test_connections_are_kept_and_one_that_was_closed_is_noticed(shop: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Counted(line.HTTPConnection):
        def connect(self) -> None:
            made.append(self)
            super().connect()

    monkeypatch.setattr(line, "HTTPConnection", Counted)
    with Client(f"http://127.0.0.1:{shop.port}", TOKEN) as client:
        for _ in range(3):
            client.predict(ROW, "orders")
        assert len(made) == 1
        made[0].sock.shutdown(socket.SHUT_RDWR)  # as a server that ends an idle connection
        client.predict(ROW, "orders")
        assert len(made) == 2


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "shop.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


def test_tls_trusts_the_file_that_is_named_and_nobody_else(tmp_path: Path, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with live(tmp_path, tls=context) as shop:
        with Client(f"https://localhost:{shop.port}", ca_file=str(certificate)) as client:
            assert [client.predict(ROW).output for _ in range(2)] == [4.0, 4.0]
        with pytest.raises(RetryableError, match="CERTIFICATE_VERIFY_FAILED"):
            Client(f"https://localhost:{shop.port}", tries=1).predict(ROW)
    with pytest.raises(AdapterError, match="ca-file-unreadable"):
        Client("https://localhost", ca_file=str(tmp_path / "none.pem"))
