"""Identities: time-ordered ids for things that happen, keyed hashes for people whom they happen to."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime

from flyball._kernel.clock import micros


def uuid7(moment: datetime, entropy: bytes | None = None) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits; sorts by time as text.

    Args:
        moment: the time that leads the id; comes from a Clock.
        entropy: ten bytes for a deterministic id (rehearsal); random by default.
    """
    noise = int.from_bytes(entropy if entropy is not None else secrets.token_bytes(10), "big")
    value = (
        (micros(moment) // 1000) << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal: the address of an artifact."""
    return hashlib.sha256(data).hexdigest()


def keyed_hash(key: bytes, value: str) -> str:
    """HMAC-SHA-256 in hexadecimal: stands for a personal value wherever it is recorded; useless without the key."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()
