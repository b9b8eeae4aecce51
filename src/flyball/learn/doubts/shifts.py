"""Shifts: how the test rows differ from those that train, feature by feature and all together, and which of them are the same.

Both splits of one distribution differ too, and days differ from days: so what is found is compared with what is found when as
many whole days (groups, rows), drawn at random, are called the test. The chance is corrected for the number of features: that
any of them would lie as far out by luck (the first step of Westfall and Young, Resampling-Based Multiple Testing, 1993).
"""

from __future__ import annotations

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.data import profile
from flyball.data.expectations.distance import distances
from flyball.learn.doubts.leaks import SEED, TREES, roc_auc
from flyball.learn.encoding.encode import UNSEEN, Encoder, Matrix
from flyball.learn.examples import Examples
from flyball.learn.split import Mask, Spans

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

DRAWS = 199
"""Times that a test is drawn at random: a chance of 1 in 200 is the least that can be told."""
CHANCE = 0.05
MATTERS = 0.02
"""The least psi beyond chance that is told as a shift: with thousands of rows less is certain, and nothing."""
FEW = 50
"""Rows on either side below which nothing is compared."""
BLOCKS = 5
"""Days or groups on either side below which nothing is compared by them."""
ROUNDS = 30
TELLING = 5
"""Features that are named as telling most."""


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far the test rows of a feature lie from those that train.

    Attributes:
        psi: the population stability index, less what it would be by chance; `js`: the Jensen-Shannon distance.
        chance: that any feature would lie as far out by luck, corrected for how many there are; None where too few days
            (groups, rows) are on a side to tell.
        missing: shares of missing values: of the rows that train, of the test rows.
        unseen: of a category, the share of test rows whose value no training row has.
    """

    feature: str
    psi: float
    js: float
    chance: float | None
    missing: tuple[float, float]
    unseen: float = 0.0

    @property
    def certain(self) -> bool:
        """Whether it is more than luck, and matters."""
        return self.psi >= MATTERS and self.chance is not None and self.chance <= CHANCE


class Adversarial(msgspec.Struct, frozen=True, kw_only=True):
    """How well a small model tells test rows from training rows; on days (groups) that it did not learn from.

    Attributes:
        roc_auc: .5 where it cannot.
        low, high: the 95 % interval; by what is drawn together (Obuchowski, Biometrics 1997).
        telling: the features that it goes by, with their share of its gain; those that tell most first.
        n: rows.
    """

    roc_auc: float
    low: float
    high: float
    telling: tuple[tuple[str, float], ...]
    n: int


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """Test rows whose features, all of them, are those of a row that trains.

    Attributes:
        n: test rows.
        same: with the same label, too.
        contrary: that no such row has the label of.
        usual: the share of the rows that train which are in that way the same as another of them: what coarse features make.
    """

    n: int
    same: int
    contrary: int
    usual: float


def shifts(sample: Matrix, encoder: Encoder, test: Mask, blocks: Places | None) -> list[Shift]:
    """Each feature's shift, the greatest first.

    Args:
        sample: (n, columns) training and test rows.
        test: (n,) which are test rows.
        blocks: (n,) what belongs together; None: each row is on its own.
    """
    if min(int(test.sum()), int((~test).sum())) < FEW:
        return []
    of = np.arange(len(test)) if blocks is None else np.unique(blocks, return_inverse=True)[1].astype(np.int64)
    drawn, rows = _drawn(of, test), _well_known(sample, encoder, test)
    found, apart = [], []
    for i, name in enumerate(encoder.names):
        category = i in encoder.categories
        counts = _counts(rows[:, i], category, of)
        own = counts[_sides(of, test)]
        psi = np.array([_beyond(own.sum(axis=0), counts.sum(axis=0))[0]])
        if drawn is not None:
            psi = np.r_[psi, _beyond(drawn @ counts, counts.sum(axis=0))[0]]
        apart.append(psi)
        unseen = float((sample[test, i] == UNSEEN).mean()) if category else 0.0
        shift = _shift(name, own.sum(axis=0), counts.sum(axis=0), np.isnan(sample[:, i]), test)
        found.append(msgspec.structs.replace(shift, unseen=round(unseen, 6)))
    if drawn is not None:
        found = [msgspec.structs.replace(s, chance=c) for s, c in zip(found, _chances(np.stack(apart)), strict=True)]
    return sorted(found, key=lambda each: (-each.psi, each.feature))


def _sides(of: Places, test: Mask) -> Mask:
    """(blocks,) which are test blocks; one that has rows on both sides counts where most of them are."""
    size = int(of.max()) + 1
    return np.bincount(of, weights=test, minlength=size) * 2 > np.bincount(of, minlength=size)


def _drawn(of: Places, test: Mask) -> Array | None:
    """(draws, blocks) 1 for each block that is called the test, as many as there are; None where they are too few."""
    sides = _sides(of, test)
    blocks, held = len(sides), int(sides.sum())
    if min(held, blocks - held) < BLOCKS:
        return None
    rng, drawn = np.random.default_rng(SEED), np.zeros((DRAWS, blocks))
    for row in drawn:
        row[rng.choice(blocks, held, replace=False)] = 1
    return drawn


def _counts(values: Matrix, category: bool, of: Places) -> Array:
    """(blocks, places) how often each bin or category was there; they are cut by all rows, which test or not."""
    series = pl.Series(values).fill_nan(None)
    if category:
        series = series.cast(pl.Int64).cast(pl.String)
    by = profile.edges(series, "category" if category else "number")
    return profile.counted(series, of, int(of.max()) + 1, by).astype(np.float64)


def _beyond(window: Array, whole: Array) -> tuple[Array, Array]:
    """Psi beyond chance, and the divergence, of what is called the test from the rest."""
    psi, js, own, theirs = distances(window, whole - window)
    return psi - own - theirs, js


def _shift(name: str, own: Array, whole: Array, missing: Mask, test: Mask) -> Shift:
    psi, js = _beyond(own, whole)
    return Shift(
        feature=name,
        psi=round(max(0.0, float(psi)), 6),
        js=round(max(0.0, float(js)) ** 0.5, 6),
        chance=None,
        missing=(round(float(missing[~test].mean()), 6), round(float(missing[test].mean()), 6)),
    )


def _chances(apart: Array) -> list[float]:
    """(features, 1 + draws), the first as it is -> each feature's chance: that the farthest of all lies out as far."""
    drawn = apart[:, 1:]
    spread = drawn.std(axis=1, keepdims=True)
    far = (apart - drawn.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, np.inf)
    most = far[:, 1:].max(axis=0)
    return [round(float((1 + (most >= own).sum()) / (1 + drawn.shape[1])), 6) for own in far[:, 0]]


def adversarial(sample: Matrix, encoder: Encoder, test: Mask, blocks: Places | None) -> Adversarial | None:
    """Adversarial validation: None where there is too little to tell. Arguments as of `shifts`."""
    of = np.arange(len(test)) if blocks is None else np.unique(blocks, return_inverse=True)[1].astype(np.int64)
    sides = _sides(of, test)
    if min(int(test.sum()), int((~test).sum())) < FEW or min(int(sides.sum()), int((~sides).sum())) < BLOCKS:
        return None
    # Every other block of each side: what is learned of a day's weather says nothing of the day after.
    half = np.empty(len(sides), dtype=np.int64)
    for side in (sides, ~sides):
        half[side] = np.arange(int(side.sum())) % 2
    rows = _well_known(sample, encoder, test)
    folds, scores, gain = half[of], np.zeros(len(test)), np.zeros(sample.shape[1])
    for fold in (0, 1):
        learn, rest = folds == fold, folds != fold
        data = lightgbm.Dataset(rows[learn], test[learn].astype(np.float64))
        booster = lightgbm.train({**TREES, "objective": "binary"}, data, ROUNDS)
        scores[rest] = np.asarray(booster.predict(rows[rest], num_threads=1))
        gain += booster.feature_importance("gain")
    found = [_interval(scores[folds == fold], test[folds == fold], of[folds == fold]) for fold in (0, 1)]
    auc, error = sum(f[0] for f in found) / 2, (found[0][1] + found[1][1]) ** 0.5 / 2
    order = np.argsort(-gain, kind="stable")[:TELLING]
    return Adversarial(
        roc_auc=round(auc, 6),
        low=round(max(0.0, auc - 1.96 * error), 6),
        high=round(min(1.0, auc + 1.96 * error), 6),
        telling=tuple((encoder.names[i], round(float(gain[i] / gain.sum()), 4)) for i in order if gain[i] > 0),
        n=len(test),
    )


def _well_known(sample: Matrix, encoder: Encoder, test: Mask) -> Matrix:
    """The sample with one code for all categories that few training rows share: only a test row can be unseen, and by that
    alone it would be told.
    """
    rows = sample.copy()
    for i in encoder.categories:
        codes, counts = np.unique(sample[~test, i], return_counts=True)
        rows[~np.isin(sample[:, i], codes[counts >= profile.KNOWN_WELL]) & ~np.isnan(sample[:, i]), i] = UNSEEN
    return rows


def _interval(scores: Array, test: Mask, of: Places) -> tuple[float, float]:
    """The ROC AUC, and its variance by blocks: that of the share of the other side below each row, summed over its block."""
    auc = roc_auc(scores, test)
    above = _variance(scores[test], scores[~test], of[test])
    below = _variance(-scores[~test], -scores[test], of[~test])
    return auc, above + below


def _variance(own: Array, other: Array, of: Places) -> float:
    ascending = np.sort(other)
    placed = (np.searchsorted(ascending, own, "left") + np.searchsorted(ascending, own, "right")) / 2 / len(other)
    sums, units = np.bincount(of, placed - placed.mean()), len(np.unique(of))
    return float((sums**2).sum()) / len(own) ** 2 * units / max(1, units - 1)


def duplicates(examples: Examples, spans: Spans) -> Duplicates:
    """Test rows that are in the training rows as well."""
    names = list(examples.features)
    rows = examples.frame.select(_features=pl.struct(names).hash(1788), _label=pl.col("_label"))
    fit, test = rows.filter(pl.Series(spans.fit)), rows.filter(pl.Series(spans.test))
    known = test["_features"].is_in(fit["_features"].unique().implode())
    same = test.select(pl.struct("_features", "_label").hash(1789)).to_series()
    both = same.is_in(fit.select(pl.struct("_features", "_label").hash(1789)).to_series().unique().implode())
    twins = fit.select(pl.struct("_features", "_label").is_duplicated()).to_series()
    return Duplicates(
        n=test.height,
        same=int((known & both).sum()),
        contrary=int((known & ~both).sum()),
        usual=round(float(twins.to_numpy().mean()), 6),
    )
