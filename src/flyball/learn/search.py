"""The search for good knobs: a fixed number of trials, judged on the span of time just before the held-out one.

Time is split, never shuffled. With a held-out span of 30 days before the cutoff:

    ... train ... | 30 days: validation, where trials are compared | 30 days: test, where gates are judged | cutoff

A row trains only if its outcome was known before the span that follows begins, so nothing of a later span leaks into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
import optuna
import polars as pl

from flyball._kernel import place
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DataError, DeclarationError
from flyball.learn.model import Params, Range

SEED = 1788
"""The year of Watt's governor; every random choice of a training starts here."""


@dataclass(frozen=True, slots=True)
class ByTime:
    """Hold out the last `span` of questions, and validate on the one before."""

    span: timedelta


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


def by_time(span: timedelta) -> ByTime:
    """Split by when questions were asked."""
    return ByTime(span)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the spans begin and end, in asked time."""

    validation: datetime
    test: datetime
    end: datetime

    @classmethod
    def before(cls, end: datetime, split: ByTime) -> Bounds:
        """Two spans back from `end`."""
        return cls(end - 2 * split.span, end - split.span, end)


@dataclass(frozen=True, slots=True)
class Spans:
    """Row masks over the examples: `fit` trains the shipped model, `explore` the trials."""

    explore: np.ndarray
    validation: np.ndarray
    fit: np.ndarray
    test: np.ndarray


def spans(asked: pl.Series, settled: pl.Series, bounds: Bounds) -> Spans:
    """Cut the examples at `bounds`.

    Raises:
        DataError: `too-little-history`, when one of the spans is empty.
    """
    found = Spans(
        explore=(settled < bounds.validation).to_numpy(),
        validation=((asked >= bounds.validation) & (settled < bounds.test)).to_numpy(),
        fit=(settled < bounds.test).to_numpy(),
        test=((asked >= bounds.test) & (asked < bounds.end)).to_numpy(),
    )
    for name in ("explore", "validation", "test"):
        if not getattr(found, name).any():
            raise DataError(
                "too-little-history",
                f"No settled question falls into the {name} span.",
                why=f"Questions: {asked.min()!s} to {asked.max()!s}; validation from {bounds.validation}, "
                f"test from {bounds.test} to {bounds.end}.",
                next="Ingest more history, or declare a shorter span: split=by_time(days(7)).",
            )
    return found


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: the knobs and the score on the validation span."""

    number: int
    knobs: dict[str, float]
    score: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the search chose, and all that it tried."""

    knobs: dict[str, float]
    score: float
    trials: list[Trial]


def run(settings: Search, knobs: type[Params], score: Callable[[Mapping[str, float]], float]) -> Found:
    """Try `settings.trials` settings, the starting one first (Optuna's TPE, Watanabe 2023; seeded).

    Args:
        settings: how many trials and for which metric.
        knobs: the ranges.
        score: knobs -> the metric on the validation span.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Literal["maximize", "minimize"] = "maximize" if settings.optimize.better == "higher" else "minimize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=SEED))
    study.enqueue_trial({name: range_.start for name, (_, range_) in knobs.ranges.items()})
    tried: list[Trial] = []
    # Without a knob to turn, one trial says all that forty would.
    for number in range(settings.trials if knobs.ranges else 1):
        trial = study.ask()
        chosen = {name: _suggest(trial, name, *what) for name, what in knobs.ranges.items()}
        value = score(chosen)
        study.tell(trial, None if math.isnan(value) else value, state=_state(value))
        tried.append(Trial(number=number, knobs=chosen, score=value))
    sign = 1.0 if direction == "maximize" else -1.0
    # A trial without a score (NaN: one class only, say) is never the best one.
    best = max(tried, key=lambda t: (not math.isnan(t.score), sign * t.score, -t.number))
    return Found(knobs=best.knobs, score=best.score, trials=tried)


def _state(value: float) -> optuna.trial.TrialState:
    return optuna.trial.TrialState.FAIL if math.isnan(value) else optuna.trial.TrialState.COMPLETE


def _suggest(trial: Any, name: str, type_: type, range_: Range) -> float:
    if type_ is int:
        return int(trial.suggest_int(name, int(range_.low), int(range_.high), log=range_.log))
    return float(trial.suggest_float(name, range_.low, range_.high, log=range_.log))
