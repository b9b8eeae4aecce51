"""Calling a model's function with its knobs, and saying whose line it was when it failed. Light: a server of a rule does it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

from flyball._kernel.errors import Bug, DeclarationError
from flyball._kernel.place import Place
from flyball.learn.adopted import File
from flyball.learn.model import Model


def build(model: Model, knobs: Mapping[str, Any]) -> Any:
    """What the model function returns for these knobs: an estimator that was not fitted.

    Raises:
        DeclarationError: `model-function-failed`, with the user's line.
    """
    if model.build is None:
        raise Bug("no-model-function", f"The model {model.name!r} has no function of its own.", next="report this")
    if isinstance(model.build, File):
        model.build()
    try:
        return model.build(model.knobs(**knobs)) if inspect.signature(model.build).parameters else model.build()
    except Exception as error:
        mine = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == model.build.__code__.co_filename]
        raise DeclarationError(
            "model-function-failed",
            f"The function of the model {model.name!r} failed: {type(error).__name__}: {error}",
            where=Place(mine[-1].filename, mine[-1].lineno or 0) if mine else model.place,
            why=f"It was called with {', '.join(f'{n}={_said(v)}' for n, v in knobs.items()) or 'no knobs'}.",
            next="Mend that line, then run the same command again.",
        ) from error


def _said(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
