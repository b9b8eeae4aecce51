"""What `fb.auto` may choose from: for each task an algorithm, and the knobs of each; those of another are ignored.

Light: a server reads it. `automatic` builds the estimators.

The starts are what did best over several tables, and are hard to beat where there is little time; the ranges are as wide as was
ever worth it. Trees of few leaves win on a few thousand rows, a line on a few hundred or on text, wide trees on many rows.
"""

from __future__ import annotations

from flyball.learn.knobs import Params, between, one_of
from flyball.learn.task import Task


class Boosted(Params):
    """Gradient boosted trees (LightGBM; Ke et al. 2017)."""

    trees: int = between(50, 800, start=200, log=True)
    rate: float = between(0.01, 0.2, start=0.05, log=True)
    leaves: int = between(3, 127, start=31, log=True)
    min_rows: int = between(5, 300, start=30, log=True)
    columns: float = between(0.2, 1.0, start=0.6)
    rows: float = between(0.5, 1.0, start=0.9)
    penalty: float = between(0.01, 100.0, start=1.0, log=True)


class Algorithms(Boosted):
    """Trees, or a line: one-hot categories, scaled numbers, the inverse of its penalty."""

    algorithm: str = one_of("boosted", "linear")
    strength: float = between(0.001, 100.0, start=1.0, log=True)


class OfText(Algorithms):
    """The same where there is text: thousands of columns, of which a line makes more, sooner."""

    algorithm: str = one_of("boosted", "linear", start="linear")
    strength: float = between(0.1, 1000.0, start=10.0, log=True)


class Forest(Params):
    """Isolation forest (Liu, Ting and Zhou 2008): how few random cuts set a row apart. Each tree sees all columns: a forest
    whose trees do not has no safe format.

    Attributes:
        rows: share of the rows that each tree sees.
    """

    trees: int = between(50, 400, start=100, log=True)
    rows: float = between(0.02, 1.0, start=0.25, log=True)


def knobs(task: Task, *, text: bool = False) -> type[Params]:
    """The search space of a task.

    Args:
        task: of the model.
        text: whether a feature of it is text.
    """
    match task.kind:
        case "anomaly":
            return Forest
        case "quantile":
            return Boosted
        case _:
            return OfText if text else Algorithms
