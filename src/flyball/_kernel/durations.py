"""Durations spelt as one reads them: `days(30)`, `minutes(5)`, `ms(2)`. Each is a plain `timedelta`."""

from __future__ import annotations

from datetime import timedelta


def days(n: float) -> timedelta:
    """`n` days of 24 hours."""
    return timedelta(days=n)


def hours(n: float) -> timedelta:
    """`n` hours."""
    return timedelta(hours=n)


def minutes(n: float) -> timedelta:
    """`n` minutes."""
    return timedelta(minutes=n)


def seconds(n: float) -> timedelta:
    """`n` seconds."""
    return timedelta(seconds=n)


def ms(n: float) -> timedelta:
    """`n` milliseconds."""
    return timedelta(milliseconds=n)


def short(duration: timedelta) -> str:
    """The shortest exact spelling in one unit: `7d`, `6h`, `90m`, `45s`, `2ms`; names columns and prints."""
    micros = duration // timedelta(microseconds=1)
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)):
        if micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"
