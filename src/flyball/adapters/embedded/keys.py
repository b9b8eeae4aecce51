"""The signing key: one Ed25519 private key in a PEM file outside the store.

Whoever can write to the store must not be able to sign for it, so the key lives elsewhere, readable by its owner only;
a key that others can read, or replace, is refused. Secrets for other purposes are derived from it (HKDF), so that one
file is all there is to protect, back up and lose.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import disk

_SIGNATURE: Final = 64
"""Bytes of an Ed25519 signature (RFC 8032)."""


class FileSigner:
    """The key in `path`, created on first use: mode 0600, in a directory created with mode 0700.

    Raises:
        StateError: `key-is-exposed`, when others can read or replace it; `key-unusable`, when it is no such key.
        AdapterError: `key-unreadable`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            if not self.path.exists():
                _create(self.path)
            self._key = _load(self.path)
        except OSError as error:
            raise AdapterError(
                "key-unreadable",
                f"The signing key {self.path} can be neither read nor created",
                why=str(error),
                next="check that you own the file and its directory",
            ) from error

    def sign(self, data: bytes) -> str:
        """The Ed25519 signature of `data`, in hexadecimal."""
        return self._key.sign(data).hex()

    def verify(self, data: bytes, signature: str) -> bool:
        """Whether `signature` is this key's over `data`; only the one spelling that `sign` gives counts."""
        try:
            raw = bytes.fromhex(signature)
            self._key.public_key().verify(raw, data)
        except (ValueError, InvalidSignature):
            return False
        return len(raw) == _SIGNATURE and raw.hex() == signature

    def secret(self, purpose: str) -> bytes:
        """32 bytes derived for one purpose (HKDF-SHA-256, RFC 5869)."""
        derive = HKDF(hashes.SHA256(), length=32, salt=None, info=b"flyball/secret/1:" + purpose.encode())
        return derive.derive(self._key.private_bytes_raw())


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(handle)
        # A link, unlike a rename, fails where another process was first: then its key is the one, and ours was never used.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    disk.sync(path.parent)


def _load(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise _exposed(f"Others can read the signing key {path}", f"chmod 600 {path}")
        pem = file.read(65_536)
    if path.resolve().parent.stat().st_mode & 0o022:
        raise _exposed(f"Others can replace the signing key {path}", f"chmod go-w {path.resolve().parent}")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is not chained: its text may quote the file.
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(
            "key-unusable",
            f"{path} does not hold an unencrypted Ed25519 private key in PEM",
            next="restore it from a backup; with another key, nothing signed before can be trusted",
        )
    return key


def _exposed(what: str, command: str) -> StateError:
    return StateError(
        "key-is-exposed",
        what,
        why="Whoever has it can sign versions and history in your name, and undo the hashing of personal values",
        next=f"run `{command}`; if others did have access, make a new key and a new store",
    )
