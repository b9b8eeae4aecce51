"""Columns cut into groups that have a name: categories, fifths of numbers, and the rows without a value.

Cut by the column alone, before any loss is looked at. Groups beyond the `LEVELS` largest are only "the rest" of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import bounded

LEVELS = 24
LABEL = 60
NONE = "(none)"

_TEXTS = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column, cut: (n,) the group of each row, -1 for none of them, and the groups' names."""

    name: str
    codes: npt.NDArray[np.intp]
    labels: tuple[str, ...]


def cut(frame: pl.DataFrame) -> tuple[Column, ...]:
    """The columns of `frame` that can be cut: numbers, truths and text; others (times, lists) have no groups to name."""
    texts = [n for n, dtype in frame.schema.items() if isinstance(dtype, _TEXTS)]
    numbers = [n for n, dtype in frame.schema.items() if dtype.is_numeric() or isinstance(dtype, pl.Boolean)]
    # A dense rank is a code that is the same in every run, whatever order the rows were read in.
    ranks = frame.select(pl.col(n).cast(pl.String).rank("dense").fill_null(0) for n in texts)
    wide = frame.select(pl.col(n).cast(pl.Float64) for n in numbers)
    found: dict[str, Column] = {}
    for name in texts:
        codes, first = _dense(ranks[name].to_numpy())
        values = frame[name].gather(first).to_list()
        found[name] = _largest(name, codes, [_name(value) for value in values])
    for name in numbers:
        found[name] = _numeric(name, wide[name].to_numpy(), truth=isinstance(frame.schema[name], pl.Boolean))
    return tuple(found[name] for name in frame.columns if name in found and len(found[name].labels) > 1)


def _dense(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(n,) codes from 0 on, and for each the first row that has it."""
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    return codes, first


def _numeric(name: str, values: npt.NDArray[np.float64], *, truth: bool) -> Column:
    gone = ~np.isfinite(values)
    kept = values[~gone]
    if not len(kept):
        return Column(name, np.zeros(len(values), np.intp), (NONE,))
    few = np.unique(kept[:1000])
    if len(few) <= LEVELS and len(few := np.unique(kept)) <= LEVELS:
        codes = np.searchsorted(few, np.where(gone, few[0], values))
        labels = ["no" if v == 0 else "yes" for v in few] if truth else [f"{v:g}" for v in few]
    else:
        edges = np.unique(np.quantile(kept, [0.2, 0.4, 0.6, 0.8]))
        codes = np.searchsorted(edges, np.where(gone, edges[0], values), side="left")
        labels = [f"≤ {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges))]
        labels.append(f"> {edges[-1]:g}")
    if gone.any():
        codes, labels = np.where(gone, len(labels), codes), [*labels, NONE]
    return _largest(name, codes, labels)


def _largest(name: str, codes: npt.NDArray[np.intp], labels: Sequence[str]) -> Column:
    sizes = np.bincount(codes, minlength=len(labels))
    if len(labels) > LEVELS:
        kept = np.sort(np.argsort(-sizes, kind="stable")[:LEVELS])
        place = np.full(len(labels), -1, np.intp)
        place[kept] = np.arange(LEVELS)
        return Column(name, place[codes], tuple(labels[k] for k in kept))
    return Column(name, np.asarray(codes, np.intp), tuple(labels))


def _name(value: object) -> str:
    return NONE if value is None else bounded(str(value), LABEL)
