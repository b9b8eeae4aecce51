"""Rungs: how a trial is judged before it is whole, so that one that lags behind is given up early.

A trial first learns from a ninth of the training rows, then from a third, then from all (Jamieson and Talwalkar 2016, with a
factor of three): the newest rows, since they are the likest to those that come. This suits any estimator; it needs no callback.
Few rows favour simple models, so a rung with too few is left out: a small training is cheap anyway.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from flyball.learn.fit.fold import Fold

SHARES: Final = (9, 3)
"""The early rungs, as parts of the training rows."""
LEAST: Final = 1_000
"""Rows below which a rung says too little to give a trial up."""


def rungs(asked: pl.Series, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The training rows of each early rung, as masks over (rows,).

    Args:
        asked: when each question was asked.
        labels: (rows,); where they are classes, every rung shows all of them.
    """
    newest = np.argsort(asked.to_physical().to_numpy(), kind="stable")[::-1]
    found = []
    for share in SHARES:
        count = len(labels) // share
        mask = np.zeros(len(labels), dtype=bool)
        mask[newest[:count]] = True
        if count >= LEAST and (labels.dtype.kind == "f" or len(np.unique(labels[mask])) == len(np.unique(labels))):
            found.append(mask)
    return tuple(found)


def folds(fold: Fold, asked: pl.Series) -> tuple[Fold, ...]:
    """The same comparison, learned from the rows of each rung; the last learns from all.

    Args:
        asked: (rows that train,) when each question was asked.
    """
    early = (
        replace(
            fold,
            rows=fold.rows[mask],
            labels=fold.labels[mask],
            weights=None if fold.weights is None else fold.weights[mask],
        )
        for mask in rungs(asked, fold.labels)
    )
    return (*early, fold)
