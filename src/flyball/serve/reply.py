"""What is answered: an attempt of the journal, as the caller sees it, with the numbers of an answer under their names.

What a model does not have is left out: `decision` where nothing is decided, `probabilities` but for classes, `quantiles` but
for quantiles. So an answer that is one number looks as it always has.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from flyball.learn.task import Task
from flyball.serve.journal import Answer
from flyball.serve.plan import Plan

Schema = dict[str, Any]


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a caller gets for one question; of the last three what its model has.

    Attributes:
        id: names this prediction for good: `flyball why ID`, and the outcome that comes later.
        version: the version that answered; "default" where none could, and the declared default was answered.
        role: as what it answered: "champion", "canary" (on its way to be champion), or the fallback that was left when the
            champion failed: "previous", "baseline", "default".
        output: probability, or predicted number; of the likeliest class its probability, of quantiles the middle one.
        asked: the server's time of asking.
        within_tolerance: whether it was asked near its declared moment; otherwise the answer stands, but is not audited.
        decision: true or false, by the threshold of the version; or the likeliest class.
        probabilities: of each class; they sum to one.
        quantiles: the number of each declared quantile; they never fall.
    """

    id: str
    model: str
    version: str
    role: str
    output: float
    asked: datetime
    within_tolerance: bool
    decision: bool | str | None = None
    probabilities: dict[str, float] | None = None
    quantiles: dict[str, float] | None = None


def prediction(answer: Answer, asked: datetime, task: Task) -> Prediction:
    """What is told of an answer that leaves."""
    several = named(task, answer.outputs) if answer.outputs else None
    return Prediction(
        id=answer.id,
        model=answer.model,
        version=answer.version,
        role=answer.role,
        output=answer.output,
        asked=asked,
        within_tolerance=answer.within_tolerance,
        decision=answer.decision,
        probabilities=several if task.classes else None,
        quantiles=several if task.quantiles else None,
    )


def named(task: Task, outputs: Sequence[float]) -> dict[str, float]:
    """The numbers of an answer by class, or by quantile; {} of an answer that is one number."""
    return dict(zip(task.classes or map(str, task.quantiles), outputs, strict=True)) if outputs else {}


def schema(plan: Plan, every: Schema) -> Schema:
    """The JSON schema of what `plan` answers.

    Args:
        every: that of `Prediction`.
    """
    task = plan.task
    has: dict[str, Schema] = {}
    if task.classes:
        has["decision"] = {"enum": list(task.classes), "description": "The likeliest class."}
        each: Schema = {"type": "number", "minimum": 0, "maximum": 1}
        has["probabilities"] = _closed(task.classes, each, "Of each class; they sum to one.")
    elif task.quantiles:
        has["quantiles"] = _closed(tuple(map(str, task.quantiles)), {"type": "number"}, "They never fall.")
    elif plan.finish.threshold is not None:
        has["decision"] = {"type": "boolean", "description": "By the threshold of the version."}
    shared = {name: each for name, each in every["properties"].items() if name not in _APART}
    return {**every, "properties": {**shared, **has}, "required": [*every["required"], *has]}


_APART = ("decision", "probabilities", "quantiles")


def _closed(names: tuple[str, ...], each: Schema, description: str) -> Schema:
    return {
        "type": "object",
        "properties": dict.fromkeys(names, each),
        "required": list(names),
        "additionalProperties": False,
        "description": description,
    }
