"""What a feature is worth to a version: how much worse it answers held-out questions whose feature is another question's.

The **worth** of a feature is the drop of a metric when its outputs are shuffled among the rows, all of them together, so that
they keep their own values and their relation to each other, and lose that to the outcome and to every other feature
(permutation importance: Breiman, Random Forests, 2001, section 10; Fisher, Rudin and Dominici, JMLR 20(177), 2019, "model
reliance"). It is above zero where the version needs the feature, in the metric's unit, whichever direction is the better one.

It says what *this version* makes of a feature, not what another training could: features that say the same share their worth
between them, and each alone may seem worth little. Shuffling also asks about rows that cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball._kernel.conditions import Measurement, Metric
from flyball.learn import sampling
from flyball.learn.quality import metrics
from flyball.learn.quality.measures import PLAIN, Terms
from flyball.learn.quality.metrics import Array, Blocks, Outcome, Panel

PERMUTATIONS = 10
"""Shuffles of each feature."""
REPLICATES = 200
"""Draws of the rows behind an interval."""
ROWS = 20_000
"""Rows that take part, at most: a sample of them where more were held out."""

Matrix = npt.NDArray[np.float32]
Answer = Callable[[Matrix], Array]
Tells = Literal["worth", "harm", "nothing"]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Held-out rows of a version.

    Attributes:
        matrix: (n, columns) encoded, as its predictor reads them.
        outcome: (n,) Boolean for a classifier, numbers for a regressor; settled.
        blocks: (n,) int, rows with the same number share a cause and are redrawn together; None redraws each on its own.
        terms: what the metric needs besides, such as which quantiles an answer is of.
    """

    matrix: Matrix
    outcome: Outcome
    blocks: Blocks | None = None
    terms: Terms = PLAIN

    def sample(self, n: int, seed: int) -> Rows:
        """At most `n` of them, drawn without replacement and left in their order."""
        if len(self.outcome) <= n:
            return self
        kept = sampling.drawn(len(self.outcome), n, seed)
        blocks = None if self.blocks is None else self.blocks[kept]
        return Rows(self.matrix[kept], self.outcome[kept], blocks, self.terms)


def worth(
    answer: Answer,
    rows: Rows,
    features: Mapping[str, Sequence[int]],
    metric: Metric,
    permutations: int = PERMUTATIONS,
    seed: int = metrics.SEED,
) -> dict[str, Measurement | None]:
    """The worth of each feature with its 95 % interval; None where `metrics.unmeasurable` says why, or the metric is undefined.

    The estimate is the mean drop over the permutations. The interval is the percentile interval of a two-way bootstrap (Owen,
    The pigeonhole bootstrap, Annals of Applied Statistics 2007): each replicate redraws the rows, by blocks, and redraws which
    permutations are averaged, so it holds the noise of both; all features meet the same draws. It errs to the wide side.

    Args:
        answer: the version's predictor.
        rows: as they are; at most `ROWS` of them take part.
        features: name -> its columns of the matrix, which are shuffled together.
        metric: what the app optimises; a plain metric that suits the outcome.
        permutations: of each feature.
        seed: of the sample, the permutations and the draws; the same seed, the same numbers.
    """
    rows = rows.sample(ROWS, seed)
    if metrics.unmeasurable(rows.outcome, rows.blocks):
        return dict.fromkeys(features)
    plain = answer(rows.matrix)
    metrics.check(rows.outcome, plain)
    panels = [Panel([metric.name], rows.outcome, plain, terms=rows.terms)]
    places: dict[str, list[int]] = {name: [] for name in features}
    for name, columns in features.items():
        for shuffled in _shuffled(rows.matrix, columns, permutations, seed):
            scores = answer(shuffled)
            if np.array_equal(scores, plain):
                places[name].append(0)  # it never looks at the feature: no panel is needed to see that nothing drops
            else:
                places[name].append(len(panels))
                panels.append(Panel([metric.name], rows.outcome, scores, terms=rows.terms))
    draws = metrics.Draws(len(rows.outcome), REPLICATES, seed, rows.blocks)
    estimates = np.array([panel.estimates[0] for panel in panels])
    drawn = np.stack([values[0] for values in metrics.replicate(panels, draws)])
    sign = 1.0 if metric.better == "higher" else -1.0
    drops, drops_drawn = sign * (estimates[0] - estimates), sign * (drawn[0] - drawn)
    chosen = np.random.default_rng(seed).integers(0, permutations, size=(permutations, REPLICATES))
    found: dict[str, Measurement | None] = {}
    for name, own in places.items():
        values = np.take_along_axis(drops_drawn[own], chosen, axis=0).mean(axis=0)
        # Without the metric's name: what its interval corrects for cancels in a difference.
        found[name] = metrics.interval("", float(drops[own].mean()), values, len(rows.outcome))
    return found


def tells(measured: Measurement) -> Tells:
    """What an interval says: the feature is worth something, does harm, or nothing can be told, since it holds zero."""
    if measured.low > 0:
        return "worth"
    return "harm" if measured.high < 0 else "nothing"


def _shuffled(matrix: Matrix, columns: Sequence[int], permutations: int, seed: int) -> Iterator[Matrix]:
    """The matrix with these columns of other rows; by a generator of the feature's own, so that what it is worth does not
    depend on which others are asked about.
    """
    rng, own = np.random.default_rng((seed, *columns)), list(columns)
    for _ in range(permutations):
        shuffled = matrix.copy()
        shuffled[:, own] = matrix[rng.permutation(len(matrix))][:, own]
        yield shuffled
