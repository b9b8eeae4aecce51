"""What every Signer does. Subclass `SignerSuite`, supply its three fixtures, and run it with pytest."""

from __future__ import annotations

import pytest

from flyball._kernel.ports import Signer


class SignerSuite:
    """The behaviour of a Signer."""

    @pytest.fixture
    def signer(self) -> Signer:
        """The signer under test."""
        raise NotImplementedError

    @pytest.fixture
    def again(self) -> Signer:
        """The same key, opened a second time."""
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Signer:
        """Another key."""
        raise NotImplementedError

    def test_a_signature_holds(self, signer: Signer, again: Signer) -> None:
        """Also when the key is opened again; it is 64 bytes in hexadecimal."""
        for data in (b"", b"head", bytes(range(256)) * 100):
            signature = signer.sign(data)
            assert len(bytes.fromhex(signature)) == 64
            assert signer.verify(data, signature)
            assert again.verify(data, signature)

    def test_signing_is_deterministic(self, signer: Signer, again: Signer) -> None:
        """Same key and data, same signature: what is signed can be made again, byte for byte."""
        assert signer.sign(b"head") == again.sign(b"head")

    def test_other_data_or_another_key_does_not(self, signer: Signer, other: Signer) -> None:
        """A signature is over one text by one key."""
        signature = signer.sign(b"head")
        assert not signer.verify(b"heads", signature)
        assert not other.verify(b"head", signature)

    @pytest.mark.parametrize("place", [0, 63, 64, 127])
    def test_a_changed_signature_does_not(self, signer: Signer, place: int) -> None:
        """Not one digit may differ."""
        signature = signer.sign(b"head")
        digit = "0" if signature[place] != "0" else "1"
        assert not signer.verify(b"head", signature[:place] + digit + signature[place + 1 :])

    def test_only_one_spelling_holds(self, signer: Signer) -> None:
        """A second spelling of one signature would let stored bytes change unseen."""
        signature = signer.sign(b"head")
        spaced = signature[:2] + " " + signature[2:]
        for spelling in (signature.upper(), spaced, f"{signature}\n", f"{signature}00", signature[:-2], "", "ä", "zz"):
            assert not signer.verify(b"head", spelling), spelling

    def test_secrets_are_apart_and_stay(self, signer: Signer, again: Signer, other: Signer) -> None:
        """32 bytes for each purpose, the same whenever the key is opened."""
        subjects, tokens = signer.secret("subjects"), signer.secret("tokens")
        assert len(subjects) == len(tokens) == 32
        assert len({subjects, tokens, other.secret("subjects")}) == 3
        assert again.secret("subjects") == subjects
