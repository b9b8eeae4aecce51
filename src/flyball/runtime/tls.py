"""TLS of a server: its certificate and its key as files, read again when they were changed, and who is let in by one of theirs.

A certificate is renewed every few weeks by somebody else's program. So the files are looked at while the server runs: a pair
that fits together counts for every connection that comes afterwards, and one that does not (half of it is there) leaves what
was. Whoever waits for that looks often; see `Certificate.renew`.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from flyball._kernel.errors import DeclarationError

SOON = timedelta(days=30)
"""How long before its end a certificate is told of."""


class Certificate:
    """A certificate with its key, and the context that holds them.

    Args:
        cert: the chain in PEM, the server's own first.
        key: its private key in PEM, unencrypted.
        client_ca: certificates in PEM; whoever shows none that one of them signed is not let in. None lets everybody in.

    Raises:
        DeclarationError: `tls-unusable`, `tls-key-exposed`.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen = self._stamp()
        self.context = _context(cert, key, client_ca)
        self._until = _until(cert)

    def renew(self) -> str:
        """Load the files again if they were changed, for connections that come from now on; what is to be told of it, or "".

        Call it on the thread of the event loop, which makes the connections. Who signs clients is read once.
        """
        try:
            if (stamp := self._stamp()) == self._seen:
                return ""
            self._seen = stamp
            # Elsewhere first: a pair that does not fit must not be loaded by half.
            _context(self._cert, self._key, None)
            until = _until(self._cert)
            self.context.load_cert_chain(self._cert, self._key, password=str)
        except (DeclarationError, OSError) as problem:
            said = problem.what if isinstance(problem, DeclarationError) else f"{problem.strerror}."
            return f"{said} The server goes on with the certificate that it has."
        self._until = until
        return f"The certificate was renewed, and holds until {until:%Y-%m-%d}."

    def ends(self, now: datetime) -> str:
        """That it ends soon, or has ended; "" where there is time."""
        if now >= self._until:
            return f"The certificate {self._cert} ended on {self._until:%Y-%m-%d}: nobody who looks will speak to this server."
        if now >= self._until - SOON:
            return f"The certificate {self._cert} ends on {self._until:%Y-%m-%d}, in {(self._until - now).days} days."
        return ""

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = [os.stat(path) for path in (self._cert, self._key)]
        except OSError as error:
            raise _unusable(Path(str(error.filename)), error.strerror or "") from None
        return tuple(n for stat in found for n in (stat.st_mtime_ns, stat.st_ino, stat.st_size, stat.st_mode))


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """What a server encrypts by: TLS 1.2 or later, with the ciphers that Python takes."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(["http/1.1"])
    _private(key)
    try:
        # A password that is empty, so that an encrypted key is refused instead of being asked for on the terminal.
        made.load_cert_chain(cert, key, password=str)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _unusable(cert, f"It and {key} make no pair: {_reason(error)}") from None
    if client_ca is not None:
        try:
            made.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(client_ca, _reason(error)) from None
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _private(key: Path) -> None:
    """A group may read it, as the programs that renew certificates like it; nobody else may, and only its owner may write."""
    try:
        mode = os.stat(key).st_mode
    except OSError as error:
        raise _unusable(key, error.strerror or "") from None
    if mode & 0o027:
        raise DeclarationError(
            "tls-key-exposed",
            f"Others can read or change the key {key}.",
            why="Whoever has it can take this server's place.",
            next=f"chmod 600 {key}; if others did have access, have a new certificate made for a new key.",
        )


def _until(cert: Path) -> datetime:
    try:
        return x509.load_pem_x509_certificates(cert.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError, IndexError) as error:
        raise _unusable(cert, type(error).__name__) from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or getattr(error, "strerror", "") or type(error).__name__)


def _unusable(path: Path, why: str) -> DeclarationError:
    return DeclarationError(
        "tls-unusable",
        f"The server cannot encrypt by {path}.",
        why=why,
        next="--tls-cert takes a chain and --tls-key its unencrypted key, both in PEM; --client-ca takes certificates.",
    )
