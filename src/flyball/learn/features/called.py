"""Features that a Python function makes of the request: called with a frame, for one question or for all.

A function may look at more than a row, at the time, or at chance; an expression cannot. So it is tried: for some of the
questions it must say alone what it says of all.
"""

from __future__ import annotations

import traceback
from typing import Final

import polars as pl

from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract, masked
from flyball.learn.features import meaning
from flyball.learn.features.declare import Called

TRIED: Final = 32
"""Questions that are asked one by one as well, spread over all."""


def each(feature: Called, questions: pl.DataFrame) -> pl.Series:
    """What a function makes of every question.

    Raises:
        DeclarationError: `function-failed`, `function-yields-otherwise` (another type or length), `function-not-row-wise`.
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
        DeclarationError: `function-failed`, `function-yields-otherwise`.
    """
    if frame.is_empty():
        return pl.Series(feature.name, [], feature.dtype)
    given = meaning.laid(frame)  # a frame of its own, which the function may change
    rows = given.height
    found = _called(feature, given)
    if isinstance(found, pl.Series) and found.dtype == pl.Null:
        found = found.cast(feature.dtype)  # where all are null, Polars cannot tell of what type they would be
    if not isinstance(found, pl.Series) or found.dtype != feature.dtype or len(found) != rows:
        got = f"{len(found)} of {found.dtype}" if isinstance(found, pl.Series) else type(found).__name__
        raise DeclarationError(
            "function-yields-otherwise",
            f"The function of the feature {feature.name!r} returned {got:.100} for {rows} rows.",
            where=feature.place,
            why=f"It promises a series of {feature.dtype}, as long as its frame.",
            next="Return such a series, or say what it is: fb.function(..., returns=pl.Float64).",
        )
    return found.head(frame.height).alias(feature.name)


def _called(feature: Called, frame: pl.DataFrame) -> object:
    try:
        return feature.call(frame)
    except Exception as problem:  # the user's code: whatever it raises, it is told where
        file = getattr(getattr(feature.call, "__code__", None), "co_filename", None)
        mine = [f for f in traceback.extract_tb(problem.__traceback__) if f.filename == file]
        said = masked.raised(problem, contract.spec(feature.columns[0].contract))
        raise DeclarationError(
            "function-failed",
            f"The function of the feature {feature.name!r} failed: {said:.300}",
            where=Place(mine[-1].filename, mine[-1].lineno or 0) if mine else feature.place,
            why=f"It was called with {', '.join(feature.reads)}, where any value may be null that its column allows.",
            next="Mend that line, then run the same command again.",
        ) from problem
