"""The search for good knobs, declared: how many trials, and for what (`explore` runs it, `split` says on which rows)."""

from __future__ import annotations

from dataclasses import dataclass

from flyball._kernel import place
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DeclarationError
from flyball.learn.split import ByTime

SEED = 1788
"""The year of Watt's governor; every random choice of a training starts here."""


@dataclass(frozen=True, slots=True)
class Search:
    """How many trials, for what, on which split."""

    trials: int
    optimize: Metric
    split: ByTime


def search(*, trials: int, optimize: Metric, split: ByTime) -> Search:
    """Declare a search. `trials=1` trains with the starting knobs alone.

    Raises:
        DeclarationError: `no-trials`.
    """
    if trials < 1:
        raise DeclarationError(
            "no-trials",
            f"A search of {trials} trials chooses nothing.",
            where=place.here(),
            why="The first trial is the declared start.",
            next="Write trials=1 to train with the starting knobs alone.",
        )
    return Search(trials, optimize, split)
