"""TLS on a real socket: what is refused, who is let in, and a certificate that is renewed while connections go on."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flyball._kernel.errors import DeclarationError
from flyball.runtime.tls import Certificate

NOW = datetime.now(UTC)


class Authority:
    """Signs certificates, in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.ca.pem"
        self.file.write_bytes(self._signed(self.name, self.key, days=900, ca=True))

    def _signed(self, name: x509.Name, key: Any, days: float, *, ca: bool) -> bytes:
        until = NOW + timedelta(days=days)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1000))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def signs(self, name: str, days: float = 90, password: bytes = b"") -> tuple[Path, Path]:
        """(certificate, key) of somebody, as files."""
        key, cert_file, key_file = (
            ec.generate_private_key(ec.SECP256R1()),
            *(self.folder / f"{name}.{e}" for e in ("crt", "key")),
        )
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        cert_file.write_bytes(
            self._signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, days, ca=False)
        )
        key_file.touch()
        key_file.chmod(0o600)
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
        return cert_file, key_file


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


def spoken(context: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """One connection: (protocol, name of the certificate that was shown)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            taken, _ = listening.accept()
            taken.settimeout(10)
            try:
                with context.wrap_socket(taken, server_side=True) as there:
                    there.sendall(b"hello")
            except OSError:
                taken.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname="127.0.0.1") as here,
            ):
                if here.recv(5) != b"hello":  # TLS 1.3 says only now that our certificate is not wanted
                    raise ssl.SSLError("hung up")
                shown: Any = here.getpeercert()
                return str(here.version()), shown["subject"][0][0][1]
        finally:
            thread.join()


def client(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        made.load_cert_chain(*own)
    return made


def test_it_is_spoken_from_version_1_2_on(ours: Authority) -> None:
    context = Certificate(*ours.signs("server")).context
    assert spoken(context, client(ours)) == ("TLSv1.3", "server")
    old = client(ours)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert spoken(context, old) == ("TLSv1.2", "server")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_with_a_client_ca_only_those_whom_it_signed_are_let_in(ours: Authority, theirs: Authority) -> None:
    context = Certificate(*ours.signs("server"), theirs.file).context
    assert spoken(context, client(ours, theirs.signs("shop")))[1] == "server"
    for stranger in (client(ours), client(ours, ours.signs("stranger"))):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            spoken(context, stranger)


def code(*arguments: Any) -> str:
    with pytest.raises(DeclarationError) as refused:
        Certificate(*arguments)
    assert "PRIVATE" not in str(refused.value) and "hunter2" not in str(refused.value)
    return refused.value.code


def test_what_makes_no_pair_is_refused(ours: Authority, tmp_path: Path) -> None:
    (cert, key), (other, _) = ours.signs("one"), ours.signs("two")
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    for pair in (
        (other, key),
        (empty, key),
        (cert, empty),
        (key, cert),
        (cert, tmp_path / "none"),
        (tmp_path / "none", key),
    ):
        if pair[1] is cert:
            cert.chmod(0o600)
        assert code(*pair) == "tls-unusable"
    assert code(cert, key, empty) == "tls-unusable"
    assert code(*ours.signs("hidden", password=b"hunter2")) == "tls-unusable", "and nobody is asked on the terminal"


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o640, False), (0o660, True), (0o604, True), (0o602, True)]
)
def test_a_key_that_others_can_read_or_change_is_refused(ours: Authority, mode: int, refused: bool) -> None:
    cert, key = ours.signs("server")
    key.chmod(mode)
    if refused:
        assert code(cert, key) == "tls-key-exposed"
    else:
        Certificate(cert, key)


@pytest.mark.parametrize(
    ("days", "told"), [(90, ""), (31, ""), (29, "in 2"), (0.5, "in 0 days"), (-1, "nobody who looks")]
)
def test_its_end_is_told_in_time(ours: Authority, days: float, told: str) -> None:
    ends = Certificate(*ours.signs("server", days)).ends(datetime.now(UTC))
    assert told in ends and bool(ends) == bool(told)


def test_a_renewed_certificate_counts_for_the_next_connection_and_half_of_one_never(
    ours: Authority, tmp_path: Path
) -> None:
    cert, key = ours.signs("live")
    running = Certificate(cert, key)
    assert running.renew() == "" and spoken(running.context, client(ours))[1] == "live"
    new_cert, new_key = ours.signs("newer", 200)
    key.write_bytes(new_key.read_bytes())
    assert "goes on" in running.renew() and running.renew() == "", "said once"
    assert spoken(running.context, client(ours))[1] == "live"
    cert.write_bytes(new_cert.read_bytes())
    assert "renewed" in running.renew() and running.ends(NOW + timedelta(days=100)) == ""
    assert spoken(running.context, client(ours)) == ("TLSv1.3", "newer")
    key.chmod(0o644)
    assert "Others can read" in running.renew()
    cert.unlink()
    assert "goes on" in running.renew()
    assert spoken(running.context, client(ours))[1] == "newer"
