"""Settled answers as metrics are told of them: outcomes, scores, and what was decided, of rows of `live.Live.frame`.

What an answer is made of is the version's own: its reference says it (`Says`), since the classes of another version may have
another order. A row whose answer or outcome does not fit that (a class that the outcome no longer has) is no row.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from flyball.learn.quality.measures import Array, Outcome, Terms
from flyball.learn.reference import Says
from flyball.learn.task import Task


def known(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The rows that gave an answer of such a task, whose outcome came."""
    came = pl.col("label").is_in(task.classes) if task.classes else pl.col("outcome").is_not_null()
    return answered(rows, task).filter(came)


def answered(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The rows that gave an answer of such a task."""
    return rows.filter(pl.col("outputs").list.len() == task.width if task.width > 1 else pl.lit(value=True), failed="")


def paired(mine: pl.DataFrame, theirs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The questions that both answered: with the answers of the one, and, row by row, with those of the other."""
    said = {f"their {name}": name for name in ("output", "outputs", "decision")}
    # A key that one request names a thousand times is one question, and not a million pairs.
    other = theirs.select("asked", "key", **said).unique(("asked", "key"), keep="first", maintain_order=True)
    both = mine.join(other, on=("asked", "key"), how="inner", maintain_order="left")
    return both, both.with_columns(**{name: pl.col(their) for their, name in said.items()})


def outcome(rows: pl.DataFrame, task: Task) -> Outcome:
    """(n,) true or false, places of classes, or numbers, of rows that are `known`."""
    if task.classes:
        places = pl.col("label").replace_strict(task.classes, range(len(task.classes)), return_dtype=pl.Int64)
        return rows.select(places).to_series().to_numpy()
    came = rows["outcome"].to_numpy()
    return came > 0 if task.truth else came


def scores(rows: pl.DataFrame, task: Task) -> Array:
    """(n,) answers, or (n, width), of rows that are `known`."""
    if task.width == 1:
        return rows["output"].to_numpy()
    return rows["outputs"].list.to_array(task.width).to_numpy().reshape(-1, task.width)


def terms(rows: pl.DataFrame, says: Says) -> Terms:
    """What metrics need besides: a decision that was not recorded is true above one half, as it is without a threshold."""
    if not says.task.truth:
        return Terms(quantiles=says.task.quantiles)
    decided = pl.coalesce(pl.col("decision") == "true", pl.col("output") > 0.5)
    return Terms(np.asarray(rows.select(decided).to_series().to_numpy()), (), says.costs)
