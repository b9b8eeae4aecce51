"""How often: a token bucket, which fills at a steady rate up to its size and gives one of what is in it to each request.

Over any span of `t` seconds it admits at most `burst + per_second * t`; whoever is refused is told when to come back. The state
is two numbers, moved by the clock that it is handed. A bucket is one process's: several server processes have one each, so that
together they admit as many times as much. To divide the rate among them would refuse a caller whose one connection the
kernel gave to one of them, at a fraction of what was promised.
"""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from flyball._kernel.errors import StateError

_SPELT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/(s|min|h)(?::([0-9]{1,9}))?")
_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often something may happen.

    Attributes:
        per_second: what comes back each second; above zero.
        burst: how many at once after a rest; at least one.

    Raises:
        ValueError: a rate of nothing, or without an end.
    """

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if not (0 < self.per_second < math.inf and self.burst >= 1):
            raise ValueError("a rate has per_second above 0, and a burst of at least 1")

    def __str__(self) -> str:
        return f"{self.per_second:g}/s, {self.burst:,} at once"


def parse(text: str) -> Rate:
    """A rate as it is written: `100/s`, `30/min`, `100/s:500` with its burst, which is else what comes in a second (or 1).

    Raises:
        ValueError: it is written otherwise.
    """
    found = _SPELT.fullmatch(text)
    if found is None or not (per_second := float(found[1]) / _SECONDS[found[2]]):
        raise ValueError(f"{text[:40]!r} is no rate: write 100/s, 30/min, or 100/s:500 for 500 at once")
    return Rate(per_second=per_second, burst=int(found[3]) if found[3] else max(1, round(per_second)))


class Bucket:
    """A bucket that begins full.

    Args:
        now: seconds of a monotonic clock.
    """

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate, self._left, self._at = rate, float(rate.burst), now

    def take(self, now: float) -> float:
        """Take one; returns 0.0, or where there is none the seconds until there is."""
        rate = self.rate
        if now > self._at:  # a clock that stands still or goes back gives nothing
            self._left = min(float(rate.burst), self._left + (now - self._at) * rate.per_second)
            self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / rate.per_second


def too_many(name: str, rate: Rate) -> StateError:
    """The error of a key that asks too often."""
    return StateError(
        "too-many-requests",
        f"The key {name!r} asks more often than it may.",
        why=f"Its rate is {rate}, in each server process.",
        next="Wait as long as Retry-After says; ask several questions in one request; or have the rate raised.",
    )


def too_many_unknown() -> StateError:
    """The error where too many tokens were no key's: whoever has a key is let in all the same."""
    return StateError(
        "too-many-unknown-keys",
        "Too many tokens were sent that no key has.",
        why="Somebody guesses, or goes on with a token that was taken away. Keys that hold are let in meanwhile.",
        next="Wait as long as Retry-After says, and send a token that holds.",
    )
