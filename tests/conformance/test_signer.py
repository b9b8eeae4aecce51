"""The signers of the house, and the key file's own duties: made once, whole, and nobody else's to read or replace."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.ports import Signer
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.signer import SignerSuite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "signing.pem"


class TestFileSigner(SignerSuite):
    @pytest.fixture
    def signer(self, path: Path) -> Signer:
        return FileSigner(path)

    @pytest.fixture
    def again(self, path: Path, signer: Signer) -> Signer:
        return FileSigner(path)

    @pytest.fixture
    def other(self, tmp_path: Path) -> Signer:
        return FileSigner(tmp_path / "other" / "signing.pem")


class TestMemorySigner(SignerSuite):
    @pytest.fixture
    def signer(self) -> Signer:
        return MemorySigner("seed")

    @pytest.fixture
    def again(self) -> Signer:
        return MemorySigner("seed")

    @pytest.fixture
    def other(self) -> Signer:
        return MemorySigner("another seed")


def test_the_key_is_its_owners(path: Path) -> None:
    FileSigner(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    FileSigner(path)
    path.chmod(mode)
    with pytest.raises(StateError, match="key-is-exposed") as raised:
        FileSigner(path)
    assert f"chmod 600 {path}" in raised.value.next
    path.chmod(0o600)
    FileSigner(path)


def test_a_key_that_others_can_replace_is_refused(path: Path) -> None:
    FileSigner(path)
    path.parent.chmod(0o777)
    with pytest.raises(StateError, match="key-is-exposed") as raised:
        FileSigner(path)
    assert f"chmod go-w {path.parent}" in raised.value.next


def test_a_key_may_be_mounted_by_a_link(path: Path, tmp_path: Path) -> None:
    signature = FileSigner(path).sign(b"head")
    link = tmp_path / "link.pem"
    link.symlink_to(path)
    assert FileSigner(link).verify(b"head", signature)


def foreign() -> list[bytes]:
    curve = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"password")
    return [
        b"",
        b"secret",
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        curve.private_bytes(encoding, form, serialization.NoEncryption()),
        curve.private_bytes(encoding, form, locked),
    ]


@pytest.mark.parametrize("content", foreign(), ids=["empty", "text", "no key", "another kind", "encrypted"])
def test_what_is_no_such_key_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(StateError, match="key-unusable") as raised:
        FileSigner(path)
    assert raised.value.__cause__ is None
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="key-unreadable"):
        FileSigner(tmp_path / "file" / "key.pem")


def test_who_opens_at_once_has_one_key(path: Path) -> None:
    """Each makes one, and syncs it, before any is in place; threads meet there more closely than processes do."""
    start = threading.Barrier(8)

    def sign(_: int) -> str:
        start.wait()
        return FileSigner(path).sign(b"head")

    with ThreadPoolExecutor(8) as pool:
        signatures = set(pool.map(sign, range(8)))
    assert signatures == {FileSigner(path).sign(b"head")}
    assert os.listdir(path.parent) == [path.name]
