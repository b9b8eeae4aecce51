"""The search, run: a fixed number of trials, judged on the span of time just before the held-out one (see `search`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import optuna

from flyball._kernel.errors import DataError
from flyball.learn.model import Params, Range
from flyball.learn.search import SEED, Search


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
    if math.isnan(best.score):
        raise DataError(
            "no-trial-has-a-score",
            f"None of {len(tried)} trials could be scored by {settings.optimize}.",
            why="The validation span cannot show this metric: too few rows, or one outcome alone.",
            next="Ingest more history, or declare a longer span: split=fb.by_time(days(60)).",
        )
    # JSON has no NaN, so a trial without a score is left out of what is written down.
    return Found(knobs=best.knobs, score=best.score, trials=[t for t in tried if not math.isnan(t.score)])


def _state(value: float) -> optuna.trial.TrialState:
    return optuna.trial.TrialState.FAIL if math.isnan(value) else optuna.trial.TrialState.COMPLETE


def _suggest(trial: Any, name: str, type_: type, range_: Range) -> float:
    if type_ is int:
        return int(trial.suggest_int(name, int(range_.low), int(range_.high), log=range_.log))
    return float(trial.suggest_float(name, range_.low, range_.high, log=range_.log))
