"""Features that a Python function makes of the request: called with a frame, for one question or for all.

A function may look at more than a row, at the time, or at chance; an expression cannot. So it is tried: for some of the
questions it must say alone what it says of all.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from flyball._kernel.errors import DeclarationError
from flyball.learn.features.declare import Called

TRIED: Final = 32
"""Questions that are asked one by one as well, spread over all."""


def each(feature: Called, questions: pl.DataFrame) -> pl.Series:
    """What a function makes of every question.

    Raises:
        DeclarationError: `function-yields-otherwise` (another type or length), `function-not-row-wise`.
    """
    frame = questions.select(feature.reads)
    found = one(feature, frame)
    for place in range(0, frame.height, max(1, frame.height // TRIED)):
        alone = one(feature, frame[place])
        if not alone.equals(found[place : place + 1], null_equal=True):
            raise DeclarationError(
                "function-not-row-wise",
                f"The feature {feature.name!r} makes something else of a question alone than of the same among others.",
                where=feature.place,
                why="A server asks one question at a time: what follows from other rows, the time, or chance is not there.",
                next="Let each value follow from its own row; look others up by fb.latest and fb.window.",
            )
    return found


def one(feature: Called, frame: pl.DataFrame) -> pl.Series:
    """What a function makes of a frame of its columns, whatever its height.

    Raises:
        DeclarationError: `function-yields-otherwise`.
    """
    found: object = feature.call(frame)
    if not isinstance(found, pl.Series) or found.dtype != feature.dtype or len(found) != frame.height:
        got = f"{len(found)} of {found.dtype}" if isinstance(found, pl.Series) else type(found).__name__
        raise DeclarationError(
            "function-yields-otherwise",
            f"The function of the feature {feature.name!r} returned {got:.100} for {frame.height} questions.",
            where=feature.place,
            why=f"It promises a series of {feature.dtype}, as long as its frame.",
            next="Return such a series, or say what it is: fb.function(..., returns=pl.Float64).",
        )
    return found.alias(feature.name)
