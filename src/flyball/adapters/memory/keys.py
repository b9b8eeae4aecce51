"""A signer from a seed, for rehearsals and tests: same seed, same signatures.

Symmetric (HMAC-SHA-512, as long as an Ed25519 signature and many times faster), because a rehearsal signs a year of
transactions in seconds and nothing that it signs outlives its process. It protects nothing.
"""

from __future__ import annotations

import hashlib
import hmac


class MemorySigner:
    """Signatures and secrets that follow from `seed`."""

    def __init__(self, seed: int | str = 0) -> None:
        self._key = hashlib.sha256(f"flyball/seed:{seed}".encode()).digest()

    def sign(self, data: bytes) -> str:
        """64 bytes in hexadecimal that follow from the seed and `data`."""
        return hmac.new(self._key, b"sign:" + data, hashlib.sha512).hexdigest()

    def verify(self, data: bytes, signature: str) -> bool:
        """Whether `signature` is this seed's over `data`."""
        return hmac.compare_digest(self.sign(data).encode(), signature.encode())

    def secret(self, purpose: str) -> bytes:
        """32 bytes that follow from the seed and `purpose`."""
        return hmac.new(self._key, b"secret:" + purpose.encode(), hashlib.sha256).digest()
