"""The groups of rows that a version answers worse than the rest: found on one half of the rows, confirmed on the other.

Candidates are the groups of every column, and of pairs of the `PAIRED` columns that tell most. A group may be **harder** (its
mean loss lies above that of all other rows, as in Slice Finder: Chung et al., ICDE 2019), or **further off** (its loss lies
further above what the answers themselves lead to expect: not only hard, but wrong about how hard).

Looking at hundreds of groups finds bad ones by chance. So the blocks are parted at random; one half chooses at most `TRIED` of
each kind, and the other half alone tests them, as if they had been named beforehand. Holm's correction (Scandinavian Journal of
Statistics 6, 1979) covers them together whatever their dependence: with 97.5 % none of the reported is an accident. Holm and
not Benjamini-Hochberg, since each reported group is a claim that somebody acts on, and few are tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.conditions import Measurement
from flyball.learn.examine import losses, means
from flyball.learn.examine.groups import Column
from flyball.learn.examine.means import Array, Mask
from flyball.learn.examine.subject import Rows, silent
from flyball.learn.quality.metrics import Blocks
from flyball.learn.task import Answers, Task

ROWS = 50_000
"""Rows that take part, at most."""
SUPPORT = 30
"""Rows of a group in either half, at least."""
SHARE = 0.005
"""The same, as a share of the half: what is smaller is nothing to act on."""
PAIRED = 12
"""Columns whose pairs are looked at: those that tell most by themselves."""
TRIED = 10
"""Groups of each kind that are put to the test."""
NOTICED = 2.0
"""Standard errors above the rest from which a group is put to the test."""
ALPHA = 0.025
"""One-sided: the probability of reporting any group by accident."""
ALIKE = 0.6
"""Two groups that share more of their rows than this (Jaccard) say the same; the stronger one speaks."""

Worse = Literal["harder", "further off"]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A group that is answered worse than the rest, measured on rows that did not find it.

    Attributes:
        columns: one or two; `groups` has the group of each.
        worse: in which way.
        n: its rows in the confirming half; `share`: of them all.
        loss: its mean loss; `rest`: that of the other rows.
        difference: of the mean loss, or of the surplus where `further off`: this less the rest; intervals hold together.
        p: one-sided, corrected by Holm.
        lean: the mean of outcome less answer: above zero the answers lie too low. None where it has no meaning.
    """

    columns: tuple[str, ...]
    groups: tuple[str, ...]
    worse: Worse
    n: int
    share: float
    loss: float
    rest: float
    difference: Measurement
    p: float
    lean: Measurement | None


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and how much was looked at.

    Attributes:
        why: not applicable, and why; "" otherwise.
        n: rows that took part; `columns`: that could be cut.
        candidates: groups that were large enough to be looked at; `tried`: that were put to the test.
    """

    why: str = ""
    n: int = 0
    columns: int = 0
    candidates: int = 0
    tried: int = 0
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    worse: Worse
    columns: tuple[int, ...]
    codes: tuple[int, ...]
    t: float


@dataclass(frozen=True, slots=True, eq=False)
class _Half:
    """One half of the rows: per kind what is compared, and the groups."""

    values: Mapping[Worse, Array]
    codes: tuple[npt.NDArray[np.intp], ...]
    blocks: Blocks | None

    def mask(self, found: _Candidate) -> Mask:
        parts = [self.codes[c] == k for c, k in zip(found.columns, found.codes, strict=True)]
        return np.asarray(np.logical_and.reduce(parts))


def worst(task: Task, rows: Rows, answers: Answers, columns: Sequence[Column], seed: int) -> Worst:
    """The groups that are answered worse than the rest, the strongest first.

    Args:
        task: decides on the loss. Of an anomaly only the rows that are one are compared: which of them are overlooked.
        rows: (n,) held out, at most some `ROWS` of them; their matrix is not read.
        answers: (n,) or (n, width) to them.
        columns: (n,) each.
        seed: of the halves.
    """
    why = silent(task, rows) or ("" if columns else "no column has groups that may be named")
    if why:
        return Worst(why=why)
    values, kept = _values(task, rows, answers)
    own = means.numbered(rows.blocks, len(rows))
    chance = np.random.default_rng(seed).permutation(int(own.max()) + 1)
    first = (chance % 2 == 0)[own]
    find, confirm = (_half(values, columns, rows.blocks, np.flatnonzero(kept & part)) for part in (first, ~first))
    least = max(SUPPORT, int(SHARE * len(next(iter(find.values.values())))))
    looked, chosen = 0, []
    for worse in find.values:
        count, candidates = _look(worse, find, columns, least)
        looked += count
        chosen += _strongest(candidates, find)
    lean = losses.lean(task, rows.outcome, answers)
    own_lean = None if lean is None else lean[kept & ~first]
    slices = _confirm(chosen, confirm, columns, least, own_lean)
    return Worst(n=int(kept.sum()), columns=len(columns), candidates=looked, tried=len(chosen), slices=slices)


def _values(task: Task, rows: Rows, answers: Answers) -> tuple[Mapping[Worse, Array], Mask]:
    """What is compared of each row, and which rows are."""
    if task.kind == "anomaly":
        true = rows.outcome.astype(np.bool_)
        return {"harder": losses.misplaced(true, answers)}, true
    everyone = np.ones(len(rows), dtype=np.bool_)
    surplus = losses.surplus(task, rows.outcome, answers)
    loss = losses.of_rows(task, rows.outcome, answers)
    return {"harder": loss} if surplus is None else {"harder": loss, "further off": surplus}, everyone


def _half(
    values: Mapping[Worse, Array], columns: Sequence[Column], blocks: Blocks | None, index: npt.NDArray[np.intp]
) -> _Half:
    return _Half(
        {worse: column[index] for worse, column in values.items()},
        tuple(column.codes[index] for column in columns),
        None if blocks is None else blocks[index],
    )


def _look(worse: Worse, half: _Half, columns: Sequence[Column], least: int) -> tuple[int, list[_Candidate]]:
    """How many groups were large enough, and those that stand out; pairs only where they say more than either column."""
    values = half.values[worse]
    widths = [len(column.labels) for column in columns]
    found: list[_Candidate] = []
    alone: list[tuple[Array, Array]] = []
    looked = 0
    for c, codes in enumerate(half.codes):
        t, mean, n = _stand_out(np.where(codes < 0, widths[c], codes), widths[c] + 1, values, least)
        alone.append((t, mean))
        looked += int(np.count_nonzero(n[:-1] >= least))
        found += [_Candidate(worse, (c,), (k,), float(t[k])) for k in _notable(t[:-1])]
    telling = sorted(range(len(columns)), key=lambda c: (-alone[c][0][:-1].max(), c))[:PAIRED]
    for a, b in combinations(sorted(telling), 2):
        wide = widths[b] + 1
        codes = np.where(half.codes[a] < 0, widths[a], half.codes[a]) * wide
        codes = codes + np.where(half.codes[b] < 0, widths[b], half.codes[b])
        t, mean, n = (
            part.reshape(-1, wide)[:-1, :-1] for part in _stand_out(codes, (widths[a] + 1) * wide, values, least)
        )
        looked += int(np.count_nonzero(n >= least))
        parent_t = np.maximum(alone[a][0][:-1, None], alone[b][0][None, :-1])
        parent_mean = np.maximum(alone[a][1][:-1, None], alone[b][1][None, :-1])
        t = np.where((t > parent_t) & (mean > parent_mean), t, -np.inf)
        for at in _notable(t.ravel()):
            i, j = divmod(at, wide - 1)
            found.append(_Candidate(worse, (a, b), (i, j), float(t[i, j])))
    return looked, found


def _stand_out(codes: npt.NDArray[np.intp], width: int, values: Array, least: int) -> tuple[Array, Array, Array]:
    """Of each group (width,): Welch's t against all other rows, -inf where it is too small; its mean; its size."""
    n = np.bincount(codes, minlength=width).astype(np.float64)
    total = np.bincount(codes, values, minlength=width)
    square = np.bincount(codes, values * values, minlength=width)
    rest = len(values) - n
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, other = total / n, (total.sum() - total) / rest
        noise = (square / n - mean**2) / n + ((square.sum() - square) / rest - other**2) / rest
        t = (mean - other) / np.sqrt(np.maximum(noise, 0))
    return np.where((n >= least) & (rest >= least) & np.isfinite(t), t, -np.inf), np.nan_to_num(mean, nan=-np.inf), n


def _notable(t: Array) -> list[int]:
    return [int(k) for k in np.flatnonzero(t >= NOTICED)]


def _strongest(candidates: list[_Candidate], half: _Half) -> list[_Candidate]:
    chosen: list[_Candidate] = []
    masks: list[Mask] = []
    for found in sorted(candidates, key=lambda c: (-c.t, len(c.columns), c.columns, c.codes))[: 5 * TRIED]:
        mask = half.mask(found)
        if all(np.count_nonzero(mask & m) <= ALIKE * np.count_nonzero(mask | m) for m in masks):
            chosen.append(found)
            masks.append(mask)
        if len(chosen) == TRIED:
            break
    return chosen


def _confirm(
    chosen: Sequence[_Candidate], half: _Half, columns: Sequence[Column], least: int, lean: Array | None
) -> tuple[Slice, ...]:
    level = 1 - 2 * ALPHA / max(len(chosen), 1)
    tested = []
    for found in chosen:
        mask = half.mask(found)
        # Too few to say: it takes part in the correction all the same, since it was chosen before anybody counted.
        enough = np.count_nonzero(mask) >= least // 2
        measured, p = means.difference(half.values[found.worse], mask, half.blocks, level) if enough else (None, 1.0)
        tested.append((p, found, mask, measured))
    slices, reached = [], 0.0
    for rank, (p, found, mask, measured) in enumerate(sorted(tested, key=lambda each: each[0])):
        reached = max(reached, min(1.0, p * (len(tested) - rank)))
        if reached > ALPHA or measured is None:
            break
        loss = half.values["harder"]
        slices.append(
            Slice(
                columns=tuple(columns[c].name for c in found.columns),
                groups=tuple(columns[c].labels[k] for c, k in zip(found.columns, found.codes, strict=True)),
                worse=found.worse,
                n=int(np.count_nonzero(mask)),
                share=float(mask.mean()),
                loss=float(loss[mask].mean()),
                rest=float(loss[~mask].mean()),
                difference=measured,
                p=reached,
                lean=None
                if lean is None
                else means.mean(lean[mask], None if half.blocks is None else half.blocks[mask]),
            )
        )
    return tuple(slices)
