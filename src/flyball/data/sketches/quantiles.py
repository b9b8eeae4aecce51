"""Quantiles of any number of values in little memory, with an error that the sketch itself knows.

Values lie in levels; one at level l stands for 2**l. A level that holds `2 * WIDTH` is sorted, every second value of it moves
up, by turns the odd and the even ones (Manku, Rajagopalan and Lindsay 1998; KLL 2016 without chance), and every such step
moves the rank of anything by at most 2**l. The sum of these steps is `slack`: no rank is wrong by more. A sorted batch enters
at the level where `WIDTH` of it are left, by the middle of each block, at the cost of half a block.

Sketches merge in any order and grouping; the values kept may then differ, the bound never fails. Nothing is drawn by chance:
the same values in the same steps give the same bytes. `slack` is at most (log2(n / WIDTH) / 2 + 1) / WIDTH of n: 0.8 % of
ten million rows; what is found is mostly ten times better.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

WIDTH = 1024
"""Values of a level that stay when it is full: 8 kB."""


class Quantiles(msgspec.Struct, frozen=True, array_like=True):
    """Numbers without NaN; infinite ones are the least and the greatest.

    Attributes:
        n: how many.
        slack: no rank that is read off is wrong by more.
        low, high: the least and the greatest; None without values.
        levels: float64, little-endian; those at place l stand for 2**l values each.
        turns: how often each level was full.
    """

    n: int = 0
    slack: int = 0
    low: float | None = None
    high: float | None = None
    levels: tuple[bytes, ...] = ()
    turns: tuple[int, ...] = ()


EMPTY = Quantiles()


def of(ascending: Numbers) -> Quantiles:
    """The sketch of values that are sorted, without NaN; (rows,)."""
    n = len(ascending)
    if not n:
        return EMPTY
    level = 0
    while n >> level > WIDTH:
        level += 1
    block = 1 << level
    whole = (n >> level) << level
    levels = [np.empty(0)] * level + [ascending[block // 2 : whole : block]]
    if level:
        levels[0] = ascending[whole:]
    return _packed(n, block // 2, (float(ascending[0]), float(ascending[-1])), levels, [0] * (level + 1))


def merge(a: Quantiles, b: Quantiles) -> Quantiles:
    """The sketch of the values of both."""
    if not a.n or not b.n:
        return a if a.n else b
    height = max(len(a.levels), len(b.levels))
    levels = [np.sort(np.concatenate((_level(a, at), _level(b, at)))) for at in range(height)]
    turns = [sum(each.turns[at] for each in (a, b) if at < len(each.turns)) for at in range(height)]
    slack, at = a.slack + b.slack, 0
    while at < len(levels):
        if len(levels[at]) >= 2 * WIDTH:
            if at + 1 == len(levels):
                levels.append(np.empty(0))
                turns.append(0)
            held = levels[at]
            even = len(held) // 2 * 2
            levels[at], turned = held[even:], turns[at]
            levels[at + 1] = np.sort(np.concatenate((levels[at + 1], held[turned % 2 : even : 2])))
            slack += 1 << at
            turns[at] = turned + 1
        at += 1
    ends = [x for each in (a, b) for x in (each.low, each.high) if x is not None]
    return _packed(a.n + b.n, slack, (min(ends), max(ends)), levels, turns)


def quantile(found: Quantiles, q: float) -> float | None:
    """A value that is `q` of the way up, its rank wrong by at most `slack`; None without values."""
    if found.low is None or found.high is None:
        return None
    if q <= 0 or q >= 1:
        return found.low if q <= 0 else found.high
    values, upto = _ranks(found)
    at = int(np.searchsorted(upto, max(1.0, q * found.n), side="left"))
    return float(values[min(at, len(values) - 1)])


def rank(found: Quantiles, value: float) -> int:
    """How many values are at most `value`, wrong by at most `slack`."""
    if found.low is None or found.high is None or value < found.low:
        return 0
    if value >= found.high:
        return found.n
    values, upto = _ranks(found)
    at = int(np.searchsorted(values, value, side="right"))
    return int(upto[at - 1]) if at else 0


def counts(found: Quantiles, edges: Numbers) -> npt.NDArray[np.int64]:
    """How many values lie in each bin: (len(edges) - 1,); a bin has its upper edge, the first also its lower one."""
    if not found.n:
        return np.zeros(max(0, len(edges) - 1), dtype=np.int64)
    upto = np.array([rank(found, float(e)) for e in edges], dtype=np.int64)
    upto[0] = rank(found, float(np.nextafter(edges[0], -np.inf)))
    return np.diff(upto)


def _ranks(found: Quantiles) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """The values kept, ascending, and how many values each of them and those below stand for."""
    parts = [_level(found, at) for at in range(len(found.levels))]
    weights = np.concatenate([np.full(len(p), 1 << at, dtype=np.int64) for at, p in enumerate(parts)])
    values = np.concatenate(parts)
    order = np.argsort(values, kind="stable")
    return values[order], np.cumsum(weights[order])


def _level(found: Quantiles, at: int) -> Numbers:
    return np.frombuffer(found.levels[at], dtype="<f8") if at < len(found.levels) else np.empty(0)


def _packed(n: int, slack: int, ends: tuple[float, float], levels: list[Numbers], turns: list[int]) -> Quantiles:
    kept = tuple(np.ascontiguousarray(each, dtype="<f8").tobytes() for each in levels)
    return Quantiles(n, slack, ends[0], ends[1], kept, tuple(turns))
