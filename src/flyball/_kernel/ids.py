"""Identities: time-ordered ids for things that happen, keyed hashes for people whom they happen to."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from datetime import datetime

from flyball._kernel.clock import micros


def uuid7(moment: datetime, entropy: bytes | None = None) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits; sorts by time as text.

    Args:
        moment: the time that leads the id; comes from a Clock.
        entropy: ten bytes for a deterministic id (rehearsal); random by default.
    """
    noise = int.from_bytes(entropy if entropy is not None else _ten_bytes(), "big")
    value = (
        (micros(moment) // 1000) << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_noise = threading.local()


def _ten_bytes() -> bytes:
    """From the system's generator, 256 ids at a time: asking it for each id took an eighth of the time of an answer.

    What is left over belongs to one thread of one process: two that shared it would make the same ids.
    """
    found: bytes | None = next(_noise.left, None) if getattr(_noise, "process", None) == os.getpid() else None
    if found is None:
        pool = secrets.token_bytes(10 * 256)
        _noise.process, _noise.left = os.getpid(), (pool[i : i + 10] for i in range(0, len(pool), 10))
        found = next(_noise.left)
    return found


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal: the address of an artifact."""
    return hashlib.sha256(data).hexdigest()


def keyed_hash(key: bytes, value: str) -> str:
    """HMAC-SHA-256 in hexadecimal: stands for a personal value wherever it is recorded; useless without the key."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()
