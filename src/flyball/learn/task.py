"""What kind of thing is predicted, and so what an answer is made of. It follows from the declaration alone.

    binary       a Boolean outcome            one number: the probability of true
    multiclass   an outcome of an Enum        one probability a class, in the Enum's order; they sum to one
    regression   a number                     one number
    quantile     a number, `quantiles=`       one number a quantile, never falling
    anomaly      a Boolean, `unsupervised`    one number: the share of training rows that were more usual

`width` numbers a row: answers are float64 of shape (rows,) where the width is one, and (rows, width) otherwise. Light: a
server reads it.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Kind = Literal["binary", "multiclass", "regression", "quantile", "anomaly"]
Answers = npt.NDArray[np.float64]
"""(rows,) or (rows, width)."""
Answer = float | tuple[float, ...]
"""One row's: a number where the width is one, else `width` of them."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The kind, with the classes or the quantiles that an answer has a number for.

    Attributes:
        classes: of a multiclass outcome, in the order of its Enum; their places are the labels that estimators see.
        quantiles: ascending, each between 0 and 1.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in an answer."""
        return len(self.classes) or len(self.quantiles) or 1

    @property
    def truth(self) -> bool:
        """Whether the outcome is true or false."""
        return self.kind in ("binary", "anomaly")

    @property
    def classifies(self) -> bool:
        """Whether an estimator of it is a classifier."""
        return self.kind in ("binary", "multiclass")

    @property
    def middle(self) -> int:
        """The place of the quantile that stands for all of them: that nearest to one half."""
        return min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5)) if self.quantiles else 0

    def headline(self, answers: Answers) -> Answers:
        """(rows,) the one number that stands for an answer where only one can be shown or watched.

        Of several classes the probability of the likeliest, of quantiles the middle one.
        """
        if self.width == 1:
            return answers
        return answers.max(axis=1) if self.classes else answers[:, self.middle]


BINARY, REGRESSION, ANOMALY = Task(kind="binary"), Task(kind="regression"), Task(kind="anomaly")
