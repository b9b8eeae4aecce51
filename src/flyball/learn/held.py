"""Held: which examples a version learned from and which it was tested on, one bit each, kept with the version.

With that it is a matter of fact, and not of how each version was split, whether another version's test rows were held out for
it: two versions are compared on rows only if neither learned from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from flyball._kernel.errors import StateError
from flyball.learn import groups
from flyball.learn.examples import Examples
from flyball.learn.split import Bounds, Mask, Spans

ARTIFACT = "rows.bits"
"""The name under which a version keeps it."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """(n,) masks over the examples of a version."""

    fit: Mask
    test: Mask


def to_bytes(spans: Spans) -> bytes:
    """The rows that train the shipped model, then those that gates are judged on."""
    return bytes(np.packbits(np.concatenate([spans.fit, spans.test])))


def from_bytes(data: bytes, n: int) -> Held:
    """What `to_bytes` wrote, of `n` examples.

    Raises:
        StateError: `rows-unreadable`.
    """
    if len(data) != (2 * n + 7) // 8:
        raise StateError(
            "rows-unreadable",
            "The rows that a version learned from cannot be read.",
            why=f"{len(data):,} bytes do not tell {n:,} examples apart.",
            next="Train a version anew with `flyball apply`; the one that answers is not touched by this.",
        )
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=2 * n).astype(np.bool_)
    return Held(bits[:n], bits[n:])


def apart(examples: Examples, bounds: Bounds, test: Mask, theirs: Examples, fit: Mask) -> bool:
    """Whether none of the rows `test` of `examples` is among the rows `fit` of `theirs`; where groups are held out, none of
    their groups is. Rows are told by their request and when they were asked; other columns of it are other rows.
    """
    if bounds.groups is not None:
        names = bounds.groups.names
        if any(f"_request.{name}" not in theirs.frame.columns for name in names):
            return False
        ours, learned = (groups.grouped(each, names) for each in (examples, theirs))
        return not {ours[0][k] for k in np.unique(ours[1][test])} & {learned[0][k] for k in np.unique(learned[1][fit])}
    same = [n for n in examples.frame.columns if n == "_asked" or n.startswith("_request.")]
    if any(theirs.frame.schema.get(name) != examples.frame.schema[name] for name in same):
        return False
    learned_from = theirs.frame.filter(pl.Series(fit)).select(same)
    return not examples.frame.filter(pl.Series(test)).join(learned_from, on=same, how="semi", nulls_equal=True).height
