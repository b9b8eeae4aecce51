"""Trials: what a search tried, as it is recorded, one fact each.

A trial is written down when it ends, so that a killed search goes on after the last one, and everybody can see what was tried
and what it was worth, also of a search that has not ended. It holds knobs and scores, never a value of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from flyball._kernel import facts
from flyball._kernel.facts import Projection, Said, Stored
from flyball._kernel.ports import Facts
from flyball.learn.knobs import Knob, Params, Range

State = Literal["complete", "pruned", "failed"]
Origin = Literal["start", "warm", "sampled", "repeated"]

NO_SCORE = "no-score"
"""The code of a trial that ran through, and whose answers the metric could not judge."""


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trial.

    Attributes:
        score: the metric on the validation rows; of a pruned trial, that of the stage after which it was given up; None
            where it failed.
        state: complete, pruned (given up early), failed.
        origin: the declared start, what the last search chose, sampled; or sampled like an earlier one, and not fitted again.
        stages: the score after each stage, where there are several; None where the metric could not judge one.
        code: why it failed.
    """

    number: int
    knobs: dict[str, Knob]
    score: float | None = None
    state: State = "complete"
    origin: Origin = "sampled"
    stages: tuple[float | None, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that has ended, and how long it took."""

    trial: Trial
    seconds: float


class Tried(Said, frozen=True, kw_only=True, tag="learn.tried"):
    """A trial of a search has ended: under which key the search runs, and by which metric it is judged."""

    key: str
    metric: str
    higher: bool
    trial: Trial


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded trial, as state."""

    key: str
    metric: str
    higher: bool
    at: datetime
    seconds: float
    trial: Trial


def _key(fact: Stored) -> str:
    said = facts.decode(fact, Tried)
    return facts.about(fact, said.key, f"{said.trial.number:06}")


def _fold(_: bytes | None, fact: Stored) -> bytes:
    said = facts.decode(fact, Tried)
    seconds = msgspec.json.decode(fact.measured, type=dict[str, float]).get("seconds", 0.0)
    row = Row(key=said.key, metric=said.metric, higher=said.higher, at=fact.at, seconds=seconds, trial=said.trial)
    return facts.encode(row)


TRIALS = Projection("learn.trying.trials", frozenset({facts.kind(Tried)}), _key, _fold)
"""(app, model, key of the search, number) -> `Row`."""


def rows(log: Facts, app: str, model: str, key: str | None = None) -> Iterator[Row]:
    """The recorded trials of a model, or of one search of it by its key; by search, then by number."""
    decoder = msgspec.json.Decoder(Row)
    prefix = f"{app}/{model}/" if key is None else f"{app}/{model}/{key}/"
    return (decoder.decode(row) for _, row in log.scan(TRIALS.name, prefix))


def typed(params: type[Params], knobs: Mapping[str, Knob]) -> dict[str, Knob] | None:
    """Recorded knobs as `params` declares them now; None where they are others, or outside of what is declared."""
    if set(knobs) != set(params.ranges):
        return None
    found: dict[str, Knob] = {}
    for name, (type_, span) in params.ranges.items():
        value = knobs[name]
        if isinstance(span, Range):
            if isinstance(value, str) or not span.low <= value <= span.high or type_(value) != value:
                return None
        elif value not in span.options:
            return None
        found[name] = type_(value)
    return found
