"""Plain Python rules as models: `fb.rule(lambda row: (row["visits"] or 0) > 3)`, judged and released like what was learned.

The function gets the features of one row by name: numbers as float, categories as their own value, None for what is missing
or was never seen in training; text features are left out. It answers as the task does: a Boolean or a probability; a number;
a class by its name, or a probability for each; a number for each quantile; how strange a row is. Knobs are searched where the
function closes over their values: `cut = knobs.cut`.

Nothing is learned, and no code is stored: `rule.json` holds the function's fingerprint, and the app's own function answers as
long as its fingerprint is the same. Light: a server reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.learn.build import build
from flyball.learn.export import ruled
from flyball.learn.export.ruled import Function
from flyball.learn.model import Model

load = ruled.bound
"""The predictor of a version that answers by a rule: (artifact, function, encoder, task)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A function in the place of an estimator; see `rule`."""

    function: Function


def rule(function: Function) -> Rule:
    """An estimator that answers by a function of one row, and learns nothing.

    Args:
        function: feature name -> value, to the answer. It must follow from the row alone.
    """
    return Rule(function)


def of(model: Model, knobs: Mapping[str, Any]) -> Function:
    """The function of a model that answers by a rule.

    Raises:
        StateError: `rule-changed`, when the model answers by something else by now.
        DeclarationError: `model-function-failed`.
    """
    built = build(model, knobs) if model.build is not None else None
    if not isinstance(built, Rule):
        raise ruled.changed(f"The model {model.name!r} is a {type(built).__name__} by now.")
    return built.function
