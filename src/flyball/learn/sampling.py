"""Which rows stand for all of them, where looking at each would cost too much: the same ones every time, in their order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.intp]


def evenly(n: int, most: int) -> Places:
    """At most `most` of `n` rows, evenly spaced from the first to the last, so that all times have a part."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.intp))


def drawn(n: int, most: int, seed: int) -> Places:
    """At most `most` of `n` rows, drawn without replacement by a seed."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
