"""Identities: time-ordered ids for things that happen, keyed hashes for people whom they happen to."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import datetime
from functools import lru_cache

from flyball._kernel.clock import micros


def uuid7(moment: datetime, entropy: bytes | None = None) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits; sorts by time as text.

    Args:
        moment: the time that leads the id; comes from a Clock.
        entropy: ten bytes for a deterministic id (rehearsal); random by default.
    """
    tail = _drawn() if entropy is None else _tail(int.from_bytes(entropy, "big"))
    return f"{_head(moment)}-{tail}"


@lru_cache(maxsize=64)
def _head(moment: datetime) -> str:
    """The time in an id; a server asks for many of one moment."""
    text = f"{micros(moment) // 1000:012x}"
    return f"{text[:8]}-{text[8:]}"


_tails: list[str] = []
"""What follows the time in the next ids, made many at a time: asking the system for each took an eighth of the time of an
answer. `pop` gives each to one thread, and a forked process begins with none, so that no two ids are the same."""

os.register_at_fork(after_in_child=_tails.clear)


def _drawn() -> str:
    try:
        return _tails.pop()
    except IndexError:  # asked for rather than looked at: another thread may take the last one
        pass
    noise = secrets.token_hex(10 * 256)
    made = [_random(noise[at : at + 20]) for at in range(0, len(noise), 20)]
    last = made.pop()
    _tails.extend(made)
    return last


def _tail(noise: int) -> str:
    """The version, 12 bits of the noise, the variant, and 62 bits."""
    text = f"{0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1:020x}"
    return f"{text[:4]}-{text[4:8]}-{text[8:]}"


def _random(digits: str) -> str:
    """The same of hexadecimal digits, of which it does not matter which bits are used; three times as fast."""
    return f"7{digits[1:4]}-{_VARIANT[digits[4]]}{digits[5:8]}-{digits[8:]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal: the address of an artifact."""
    return hashlib.sha256(data).hexdigest()


def keyed_hash(key: bytes, value: str) -> str:
    """HMAC-SHA-256 in hexadecimal: stands for a personal value wherever it is recorded; useless without the key."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()
