"""Arms: the two sides of an A/B test in running sums, so that a test of any length needs the memory of a short one.

An entity is in the arm that its lot names, whoever answered it, and falls by the same lot into one of `CELLS` of that arm.
A cell keeps how many settled answers it has and what their scores add up to. An arm's **mean** is that over its answers;
how far it errs is found from the cells, as whole clusters: so answers of one entity are never taken to be independent, and
their number, divided by what the clusters cost, is what the arm is **worth** in independent answers (Kish, Survey Sampling,
1965, design effect; of such a mean: Deng, Knoblich and Lu, arXiv 1803.06336).

An answer is kept for its outcome, late or corrected, among the last `WAITING` that left. Beyond, those that have one go first,
and count as they are; then the oldest, which are counted as **given up**: none of that depends on the arm or on the outcome.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel import metrics as named
from flyball.learn.quality import measures
from flyball.learn.reference import Says
from flyball.serve import router
from flyball.watch import reached, settled
from flyball.watch.sequential import Arm

Numbers = npt.NDArray[np.int64]

OUTCOME: Final = named.outcome_mean.name

CELLS: Final = 1 << 16
"""Of each arm; 2 MB. How far a mean errs is known to some thousandths by so many, and of a hundred entities two seldom meet."""

WAITING: Final = 2_000_000
"""Answers that are kept for what becomes of them; about a hundred bytes each."""

PARTS: Final = 64
"""Pieces that may lie about before they are put together."""

_BITS: Final = 1 << 53
_KEPT: Final = ("asked", "output", "outputs", "decision")

_lot = functools.lru_cache(1 << 18)(router.lot)


class Compared(NamedTuple):
    """What is compared: two versions by a metric, from a moment on; the share of the entities that are the candidate's."""

    candidate: str
    champion: str
    metric: str
    share: float
    start: int


class Side(NamedTuple):
    """One arm: what it is worth, how many settled answers, and of how many entities, were all of them asked as often."""

    arm: Arm
    answers: int
    entities: float


class Arms:
    """What an A/B test has seen.

    Args:
        compared: what.
        says: what the answers of a version are made of; None where nobody knows.
        most: answers that are kept for their outcomes.

    Attributes:
        whole: whether it has seen the test from its beginning.
        given_up: answers that were let go before their outcome came.
    """

    def __init__(self, compared: Compared, says: Callable[[str], Says | None], most: int = WAITING) -> None:
        self.compared, self.says, self._most = compared, says, most
        self.whole, self.given_up = True, 0
        self._rows: list[pl.DataFrame] = []
        self._place = np.empty(0, np.int64)
        self._score, self._seq = np.empty(0), np.empty(0, np.int64)
        self._counts = np.zeros(2 * CELLS, np.int64)
        self._sums, self._squares = np.zeros(2 * CELLS), np.zeros(2)
        self._origin, self._empty = 0.0, True

    def answered(self, attempts: pl.DataFrame, told: pl.DataFrame) -> None:
        """Fold attempts, of which those count that left.

        Args:
            attempts: as `live.Live` keeps them.
            told: the outcomes that are known already, as it keeps them.
        """
        left = pl.col("asked") >= self.compared.start
        rows = attempts.filter(left, pl.col("role") != "shadow", failed="")
        if not rows.height:
            return
        # What stood in for a version has none of its own; it says what the champion does.
        own = pl.col("role").is_in(("baseline", "default")) | pl.lit(value=self.compared.metric == OUTCOME)
        kept = rows.select(
            *_KEPT,
            key=pl.col("key").hash(),
            id=pl.col("id").hash(),
            version=pl.when(own).then(pl.lit(self.compared.champion)).otherwise("version"),
        )
        self._rows.append(kept)
        self._place = np.append(self._place, self._places(rows["entity"]))
        self._score = np.append(self._score, np.full(rows.height, np.nan))
        self._seq = np.append(self._seq, np.zeros(rows.height, np.int64))
        if told.height:
            self._meet(kept, len(self._place) - rows.height, told)
        self._bounded()

    def settled(self, told: pl.DataFrame) -> None:
        """Fold outcomes; a repeat is harmless."""
        if self._rows:
            self._meet(self._all(), 0, told)

    def sides(self) -> tuple[Side, Side]:
        """The candidate's arm, and the champion's."""
        return self._side(1), self._side(0)

    def _side(self, n: int) -> Side:
        cells = slice(n * CELLS, (n + 1) * CELLS)
        arm, entities = worth(self._counts[cells], self._sums[cells], self._squares[n])
        answers = int(self._counts[cells].sum())
        return Side(arm._replace(mean=float(arm.mean) + self._origin), answers, float(entities))

    def _places(self, entities: pl.Series) -> Numbers:
        """Of each the cell, those of the candidate's arm after the champion's; by bits of the lot that name no arm."""
        names, share = entities.unique(), self.compared.share
        lots = np.array([_lot(self.compared.candidate, name) for name in names])
        places = (lots * _BITS).astype(np.int64) % CELLS + CELLS * (lots < share)
        found = entities.replace_strict(names, pl.Series(places), return_dtype=pl.Int64)
        return found.to_numpy()

    def _meet(self, rows: pl.DataFrame, first: int, told: pl.DataFrame) -> None:
        """Let outcomes reach rows, which begin at number `first`, and count what they make of them."""
        # Digests of 64 bits, for room: that two of ten million are alike is one in 100,000 tests.
        keyed, named = (
            told.filter(pl.col(name) != "").with_columns(pl.col(name).hash()) for name in ("key", "prediction")
        )
        found = reached.reached(rows.select("asked", "key").with_row_index("row"), rows, keyed, named)
        at = found["row"].to_numpy().astype(np.int64)
        new = found["seq"].to_numpy() > self._seq[at + first]
        found, at = found.filter(pl.Series(new)), at[new]
        if not len(at):
            return
        met = rows[at].with_columns(found["label"], outcome=found["value"], failed=pl.lit(""))
        self._count(at + first, self._scores(met))
        self._seq[at + first] = found["seq"].to_numpy()

    def _count(self, at: Numbers, scores: measures.Array) -> None:
        """Put scores in the place of what the answers `at` had before; NaN is none."""
        if self._empty and np.isfinite(scores).any():
            # Far from zero, the square of a mean would swallow a variance.
            self._origin, self._empty = float(scores[np.isfinite(scores)][0]), False
        for values, sign in ((self._score[at], -1), (scores - self._origin, 1)):
            there = np.isfinite(values)
            place, x = self._place[at][there], values[there]
            np.add.at(self._counts, place, sign)
            np.add.at(self._sums, place, sign * x)
            np.add.at(self._squares, place // CELLS, sign * x**2)
        self._score[at] = scores - self._origin

    def _scores(self, met: pl.DataFrame) -> measures.Array:
        """What each answer adds to the metric, NaN where it is nothing: void, or no answer or outcome of the task."""
        found = np.full(met.height, np.nan)
        for (version,), rows in met.with_row_index("row").group_by("version", maintain_order=True):
            says = self.says(str(version))
            if says is not None:
                known, scores = _scored(self.compared.metric, says, rows)
                found[known["row"].to_numpy()] = scores
        return found

    def _all(self) -> pl.DataFrame:
        if len(self._rows) > 1:
            whole = pl.concat(self._rows)
            self._rows = [whole.rechunk() if whole.n_chunks() > PARTS else whole]
        return self._rows[0]

    def _bounded(self) -> None:
        """Let go of the oldest, an eighth of all at a time; first of those whose outcomes came."""
        if len(self._place) <= self._most:
            return
        asked = self._all()["asked"].to_numpy()
        order = np.lexsort((asked, self._seq == 0))
        gone = order[: len(order) - self._most * 7 // 8]
        self.given_up += int(np.count_nonzero(self._seq[gone] == 0))
        kept = np.ones(len(order), dtype=bool)
        kept[gone] = False
        self._rows = [self._all().filter(pl.Series(kept))]
        self._place, self._score, self._seq = self._place[kept], self._score[kept], self._seq[kept]


def worth(
    counts: npt.NDArray[np.int64], sums: measures.Array, squares: measures.Array | float
) -> tuple[Arm, measures.Array]:
    """An arm by its cells, or many at once: what its answers are worth, and how many entities weigh as much.

    Args:
        counts, sums: (..., cells) the answers of each cell, and what their scores add up to.
        squares: (...) what the squares of all scores add up to.

    Returns:
        The arm, without variance where the cells show no spread; and the entities, were each asked as often (Kish).
    """
    n, cells = counts.sum(-1).astype(np.float64), np.count_nonzero(counts, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nan_to_num(sums.sum(-1) / n)
        off = sums - mean[..., None] * counts
        one = (squares / n - mean**2) * n / (n - 1)
        error = (off**2).sum(-1) * cells / (cells - 1) / n**2
        spread = (one > 0) & (error > 0)
        of = np.where(spread, one / error, n)
        third = np.where(spread, (off**3).sum(-1) / n**3 * of**2, 0.0)
        entities = np.nan_to_num(n**2 / (counts.astype(np.float64) ** 2).sum(-1))
    return Arm(of, mean, np.where(spread, one, 0.0), third), entities


def _scored(metric: str, says: Says, rows: pl.DataFrame) -> tuple[pl.DataFrame, measures.Array]:
    """The rows that can be scored, and their scores."""
    if metric == OUTCOME:
        known = rows.filter(pl.col("outcome").is_not_null())
        return known, settled.outcome(known, says.task).astype(np.float64)
    known = settled.known(rows, says.task)
    if not known.height:
        return known, np.empty(0)
    answers = settled.scores(known, says.task).reshape(known.height, -1)
    sound = np.isfinite(answers).all(axis=1)
    if says.task.truth or says.task.classes:  # no chance, and so no answer of the task
        sound &= (answers.min(axis=1) >= 0) & (answers.max(axis=1) <= 1 + 1e-6)
    known = known.filter(pl.Series(sound))
    if not known.height:
        return known, np.empty(0)
    y, answers = settled.outcome(known, says.task), settled.scores(known, says.task)
    (column,) = measures.READS[metric]
    return known, measures.columns((metric,), y, answers, settled.terms(known, says))[column]
