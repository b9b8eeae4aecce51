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
    return f"{_head(moment, moment.fold)}-{tail}"


@lru_cache(maxsize=64)
def _head(moment: datetime, _fold: int) -> str:
    """The time in an id; a server asks for many of one moment. Two that differ in their fold are equal, and an hour apart."""
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
    made = _many(secrets.token_hex(_DIGITS * 128).encode())
    last = made.pop()
    _tails.extend(made)
    return last


def _many(digits: bytes) -> list[str]:
    """As `_tail`, of 19 hexadecimal digits each: a digit of all is laid out at a time, which takes a quarter of the time."""
    text = bytearray(b"7???-????-????????????" * (len(digits) // _DIGITS))
    for n, place in enumerate(_PLACES):
        text[place::_TAIL] = digits[n::_DIGITS] if place != _VARIES else digits[n::_DIGITS].translate(_VARIANT)
    found = text.decode()
    return [found[at : at + _TAIL] for at in range(0, len(found), _TAIL)]


def _tail(noise: int) -> str:
    """The version, 12 bits of the noise, the variant, and 62 bits."""
    text = f"{0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1:020x}"
    return f"{text[:4]}-{text[4:8]}-{text[8:]}"


_TAIL, _DIGITS, _VARIES = 22, 19, 5
_PLACES = (1, 2, 3, 5, 6, 7, 8, *range(10, 22))
_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal: the address of an artifact."""
    return hashlib.sha256(data).hexdigest()


def keyed_hash(key: bytes, value: str) -> str:
    """HMAC-SHA-256 in hexadecimal: stands for a personal value wherever it is recorded; useless without the key."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()
