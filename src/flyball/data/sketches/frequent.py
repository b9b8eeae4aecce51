"""Which values are frequent, and how many different ones there are.

**Frequent** keeps `KEPT` counters (Misra and Gries 1982; merged as Agarwal et al. 2012 do): where there are more values, what
the next one counts is taken from all. A value is then counted too low by at most `slack`, itself at most n / (KEPT + 1);
with no more than `KEPT` different values all counts are exact.

**Distinct** keeps the `SMALLEST` least hashes (Bar-Yossef et al. 2002): fewer than that are an exact count, and where there
are more, how close together they lie tells how many, with a standard error of 2 %. Both come out the same in any order of
merging (the counters: within the bound). Hashes are keyed, so that what is stored cannot be looked up in a list of names.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

Value = str | float | bool
Hashes = npt.NDArray[np.uint64]

KEPT = 256
SMALLEST = 2048


class Frequent(msgspec.Struct, frozen=True, array_like=True):
    """Values and how often each was seen at least, the most frequent first; at most `slack` more often."""

    values: tuple[Value, ...] = ()
    counts: tuple[int, ...] = ()
    slack: int = 0


class Distinct(msgspec.Struct, frozen=True, array_like=True):
    """The least hashes, ascending: uint64, little-endian."""

    hashes: bytes = b""


def counted(values: Mapping[Value, int], slack: int = 0) -> Frequent:
    """The counters of values that were counted, short of `slack` each."""
    ordered = sorted(values.items(), key=lambda each: (-each[1], str(each[0])))
    if len(ordered) > KEPT:
        beyond = ordered[KEPT][1]
        ordered = [(value, n - beyond) for value, n in ordered[:KEPT] if n > beyond]
        slack += beyond
    return Frequent(tuple(v for v, _ in ordered), tuple(n for _, n in ordered), slack)


def contenders(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """The places of the counts that `counted` can keep, and of the one that it takes from them: no need to name the rest."""
    if len(counts) <= KEPT + 1:
        return np.arange(len(counts))
    least = np.partition(counts, len(counts) - KEPT - 1)[len(counts) - KEPT - 1]
    above = np.flatnonzero(counts > least)
    level = np.flatnonzero(counts == least)[: KEPT + 1 - len(above)]
    return np.concatenate((above, level))


def merge(a: Frequent, b: Frequent) -> Frequent:
    """The counters of both together."""
    values = dict(zip(a.values, a.counts, strict=True))
    for value, n in zip(b.values, b.counts, strict=True):
        values[value] = values.get(value, 0) + n
    return counted(values, a.slack + b.slack)


def distinct(hashes: Hashes) -> Distinct:
    """From the hashes of different values, in any order."""
    if len(hashes) > 2 * SMALLEST:
        hashes = np.partition(hashes, 2 * SMALLEST)[: 2 * SMALLEST]
    return Distinct(np.unique(hashes)[:SMALLEST].astype("<u8").tobytes())


def union(a: Distinct, b: Distinct) -> Distinct:
    """Of the values of both."""
    if not a.hashes or not b.hashes:
        return a if a.hashes else b
    return Distinct(np.union1d(*(np.frombuffer(x.hashes, dtype="<u8") for x in (a, b)))[:SMALLEST].tobytes())


def many(found: Distinct) -> tuple[int, bool]:
    """(how many different values, whether that is exact)."""
    kept = np.frombuffer(found.hashes, dtype="<u8")
    if len(kept) < SMALLEST:
        return len(kept), True
    return round((SMALLEST - 1) / ((float(kept[-1]) + 1) / 2.0**64)), False


def hashes(numbers: npt.NDArray[np.float64], seed: int) -> Hashes:
    """(rows,) keyed hashes of numbers, by splitmix64 of their bits."""
    x = numbers.view(np.uint64) ^ np.uint64(seed)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
