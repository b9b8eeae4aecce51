"""The search for good knobs, declared: how many trials, for what, and within which budget (`explore` runs it, `split` says on
which rows).

The declared start is tried first, and what the last search of this model chose second, so a search never does worse on its
validation rows than either. There is no switch for that: it is one trial, and it is recorded where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flyball._kernel import place
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DeclarationError
from flyball.learn.split import Split

SEED = 1788
"""The year of Watt's governor; every random choice of a training starts here."""

MOST_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Search:
    """How many trials, for what, on which split.

    Attributes:
        within: no trial begins that would not end within this time, by the mean of those before; None: only `trials` counts.
        workers: trials that run at once. The same number tries the same knobs; another number other ones.
        prune: whether a trial that lags behind the median of the others is given up early.
    """

    trials: int
    optimize: Metric
    split: Split
    within: timedelta | None = None
    workers: int = 1
    prune: bool = False

    @property
    def cause(self) -> tuple[object, ...]:
        """What decides on the knobs that are found; what is left at its default does not show."""
        rest = (self.within, self.workers, self.prune)
        return (self.trials, self.optimize.name, self.split, *(rest if rest != (None, 1, False) else ()))


def search(
    *,
    trials: int,
    optimize: Metric,
    split: Split,
    within: timedelta | None = None,
    workers: int = 1,
    prune: bool = False,
) -> Search:
    """Declare a search. `trials=1` trains with the starting knobs alone.

    Args:
        trials: at most so many.
        optimize: the metric on the validation rows.
        split: which rows train, which compare trials, and which are held out.
        within: a budget of time as well, such as minutes(5). How many trials fit in then depends on the machine; what was
            chosen is recorded, and reproduced without a search.
        workers: trials at once, each in a thread: worth it where fitting leaves the interpreter alone (LightGBM, numpy).
        prune: give up a trial early that lags behind: after a ninth and a third of the newest training rows, or after each
            span of a split that has several.

    Raises:
        DeclarationError: `no-trials`, `no-budget`, `no-workers`.
    """
    if trials < 1:
        raise DeclarationError(
            "no-trials",
            f"A search of {trials} trials chooses nothing.",
            where=place.here(),
            why="The first trial is the declared start.",
            next="Write trials=1 to train with the starting knobs alone.",
        )
    if within is not None and within <= timedelta(0):
        raise DeclarationError(
            "no-budget",
            f"A search within {within} has no time for a trial.",
            where=place.here(),
            why="The budget is how long the search may take.",
            next="Write within=minutes(5), or leave it out: then only trials= counts.",
        )
    if not 1 <= workers <= MOST_WORKERS:
        raise DeclarationError(
            "no-workers",
            f"A search by {workers} workers cannot run.",
            where=place.here(),
            why=f"From 1 to {MOST_WORKERS} trials run at once, each in a thread of one process.",
            next="Write workers=2, or leave it out.",
        )
    return Search(trials, optimize, split, within, workers, prune)
