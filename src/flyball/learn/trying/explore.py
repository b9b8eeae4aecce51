"""The search, run: rounds of trials, judged on the span of time just before the held-out one (see `search`, `trials`).

A round is `workers` trials: they are asked for together, run at once, and are told together in the order of their numbers; and
trial n is drawn by a sampler that n seeds. So what is tried follows from the declaration, whatever the number of threads, and a
search that was killed goes on with the same trials that it would have gone on with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec
import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from flyball._kernel.errors import DataError, DeclarationError, FlyballError
from flyball.learn.knobs import Choice, Knob, Params, Span
from flyball.learn.search import SEED, Search
from flyball.learn.trying import trials
from flyball.learn.trying.trials import Ended, Trial

GIVE_UP: Final = 5
"""A search none of whose first trials has a score ends: the fault lies in the model or in the data, not in the knobs."""

Score = Callable[[Mapping[str, Knob]], Iterable[float]]
"""Knobs -> the metric after each stage; that after the last is the trial's. Called from several threads at once."""

_STATES: Final = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


Stopped = Literal["trials", "time", "exhausted"]
"""What ended a search: the trials, the time, or that nothing was left to try."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the search chose, all that it tried, and what ended it."""

    knobs: dict[str, Knob]
    score: float
    trials: list[Trial]
    stopped: Stopped = "trials"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is: the trial that just ended, the best score so far, and the seconds left of its budget."""

    trial: Trial
    of: int
    metric: str
    best: float | None
    left: float | None

    def __str__(self) -> str:
        now = f"{self.trial.score:.4f}" if self.trial.score is not None else self.trial.code
        state = f" ({self.trial.state})" if self.trial.state == "pruned" else ""
        best = f", best {self.best:.4f}" if self.best is not None else ""
        left = f", {self.left:.0f} s left" if self.left is not None else ""
        return f"trial {self.trial.number + 1} of {self.of}: {self.metric} {now}{state}{best}{left}"


def _nobody(_: Any) -> None:
    return


@dataclass(frozen=True, slots=True)
class Course:
    """What a search runs in.

    Attributes:
        past: the trials of this very search that an earlier process ended, by number.
        ended: whether they are all of them: nothing is tried any more, and what was found is found again.
        warm: what the last search of this model chose; tried second, where it is still declared.
        keep: writes a round of trials down.
        tell: is told after each trial.
        timer: seconds, from any beginning.
    """

    past: Sequence[Ended] = ()
    ended: bool = False
    warm: Mapping[str, Knob] = field(default_factory=dict)
    keep: Callable[[Sequence[Ended]], None] = _nobody
    tell: Callable[[Progress], None] = _nobody
    timer: Callable[[], float] = time.perf_counter


def run(settings: Search, knobs: type[Params], score: Score, course: Course | None = None, *, stages: int = 1) -> Found:
    """Try settings until the trials, the time or the possibilities are used up (Optuna's TPE, Watanabe 2023; seeded).

    Args:
        settings: how many trials, for which metric, within which budget.
        knobs: the ranges.
        score: knobs -> the metric after each stage, `stages` of them.
        course: what an earlier process tried, what is tried second, and who is told.

    Raises:
        DataError: `no-trial-has-a-score`.
        DeclarationError, DataError: what the first trial raised, where all failed.
    """
    course = course or Course()
    study, total = _Study.begun(settings, knobs, course), settings.trials if knobs.ranges else 1
    size, began = _size(knobs), course.timer()
    spent = sum(each.seconds for each in course.past) / settings.workers
    with ThreadPoolExecutor(settings.workers) as pool:
        while len(study.ended) < total and len(study.tried) < size and not (course.ended and course.past):
            left = _left(settings, spent + course.timer() - began)
            hurried = bool(study.ended) and left is not None and left < study.seconds()
            if hurried or (len(study.ended) >= GIVE_UP and study.best() is None):
                break
            asked = [study.ask(n) for n in range(len(study.ended), min(len(study.ended) + settings.workers, total))]
            going = [(_Try(trial, chosen, dict(study.tried)), score, course.timer, stages) for trial, chosen in asked]
            ended = list(pool.map(_try, *zip(*going, strict=True))) if len(going) > 1 else [_try(*going[0])]
            course.keep([study.told(each) for each in ended])
            left = _left(settings, spent + course.timer() - began)
            for each in study.ended[-len(ended) :]:
                course.tell(Progress(each.trial, total, settings.optimize.name, study.best_until(each), left))
    used_up: Stopped = "exhausted" if len(study.tried) >= size else "time"
    return study.found("trials" if len(study.ended) >= total else used_up)


def _left(settings: Search, spent: float) -> float | None:
    return None if settings.within is None else max(0.0, settings.within.total_seconds() - spent)


def _size(knobs: type[Params]) -> float:
    """How many different settings there are; infinite where a knob is a number with a point."""
    count = 1.0
    for type_, span in knobs.ranges.values():
        if isinstance(span, Choice):
            count *= len(span.options)
        elif span.low != span.high:
            count *= span.high - span.low + 1 if type_ is int else math.inf
    return count


Point = tuple[tuple[str, Knob], ...]
"""Knobs, as a key."""


def _point(knobs: Mapping[str, Knob]) -> Point:
    return tuple(sorted(knobs.items()))


@dataclass(frozen=True, slots=True)
class _Try:
    """A trial that is about to run, with what is known already: the same knobs are not fitted twice."""

    trial: Any
    knobs: dict[str, Knob]
    known: Mapping[Point, Trial]


@dataclass(frozen=True, slots=True)
class _Ran:
    """A trial that ran: Optuna's, ours, and what it raised."""

    trial: Any
    ended: Ended
    error: FlyballError | None = None


def _try(going: _Try, score: Score, timer: Callable[[], float], stages: int) -> _Ran:
    """Run one trial. What an estimator refuses is that trial's failure; what is wrong with us or the world is raised."""
    began, number = timer(), going.trial.number
    again = going.known.get(_point(going.knobs))
    if again is not None:
        for step, value in _reported(again):
            going.trial.report(value, step)
        return _Ran(going.trial, Ended(msgspec.structs.replace(again, number=number, origin="repeated"), 0.0))
    values: list[float] = []
    try:
        state = _staged(going.trial, _safely(score, going.knobs), values, stages)
    except (DeclarationError, DataError) as error:
        failed = Trial(number=number, knobs=going.knobs, state="failed", code=error.code)
        return _Ran(going.trial, Ended(failed, timer() - began), error)
    if not values or not math.isfinite(values[-1]):
        # A single outcome has no score: such a trial is never the best one, and says nothing of others.
        made = Trial(number=number, knobs=going.knobs, state="failed", code=trials.NO_SCORE)
    else:
        told = tuple(v if math.isfinite(v) else None for v in values) if stages > 1 else ()
        made = Trial(number=number, knobs=going.knobs, score=values[-1], state=state, stages=told)
    return _Ran(going.trial, Ended(made, timer() - began))


def _reported(trial: Trial) -> list[tuple[int, float]]:
    """What the study was told on the way: (stage, score)."""
    return [(step, value) for step, value in enumerate(trial.stages) if value is not None]


def _staged(trial: Any, scores: Iterable[float], values: list[float], stages: int) -> trials.State:
    """Collect the score after each stage, until the trial lags behind."""
    for step, value in enumerate(scores):
        values.append(value)
        if stages > 1 and math.isfinite(value):
            trial.report(value, step)
            if step < stages - 1 and trial.should_prune():
                return "pruned"
    return "complete"


def _safely(score: Score, knobs: Mapping[str, Knob]) -> Iterable[float]:
    """The scores; whatever the estimator raised is told as the declaration's fault, by its type alone."""
    try:
        yield from score(knobs)
    except (FlyballError, MemoryError):
        raise
    except Exception as error:
        raise DeclarationError(
            "trial-failed",
            f"The estimator could not be fitted or asked: {type(error).__name__}.",
            why=f"{str(error)[:500]} With {len(knobs)} knobs: {', '.join(f'{n}={v}' for n, v in knobs.items())[:500]}",
            next="Mend the model function, or leave what it refuses out of the knob's range.",
        ) from error


@dataclass(frozen=True, slots=True)
class _Study:
    """Optuna's study, beside what has ended by our own account of it."""

    settings: Search
    spans: Mapping[str, tuple[type, Span]]
    firsts: tuple[tuple[trials.Origin, dict[str, Knob]], ...]
    study: Any
    ended: list[Ended] = field(default_factory=list)
    tried: dict[Point, Trial] = field(default_factory=dict)
    errors: list[FlyballError] = field(default_factory=list)

    @classmethod
    def begun(cls, settings: Search, knobs: type[Params], course: Course) -> _Study:
        """A study that knows the trials that ended before."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.MedianPruner() if settings.prune else optuna.pruners.NopPruner()
        way: Literal["maximize", "minimize"] = "maximize" if settings.optimize.better == "higher" else "minimize"
        start = dict(knobs(**knobs.starts()).__dict__)
        warm = trials.typed(knobs, course.warm)
        firsts: list[tuple[trials.Origin, dict[str, Knob]]] = [("start", start)]
        if warm and warm != start:
            firsts.append(("warm", warm))
        made = cls(settings, knobs.ranges, tuple(firsts), optuna.create_study(direction=way, pruner=pruner))
        for each in course.past:
            made._resume(each, knobs)
        return made

    def ask(self, number: int) -> tuple[Any, dict[str, Knob]]:
        """The trial of this number: the start, then what was found last, then what the sampler draws."""
        self.study.sampler = optuna.samplers.TPESampler(seed=_seed(number))
        if number < len(self.firsts):
            self.study.enqueue_trial(self.firsts[number][1])
        trial = self.study.ask({name: _distribution(type_, span) for name, (type_, span) in self.spans.items()})
        return trial, {name: type_(trial.params[name]) for name, (type_, _) in self.spans.items()}

    def told(self, ran: _Ran) -> Ended:
        """A trial that ran becomes one of those that have ended."""
        number, made = ran.ended.trial.number, ran.ended.trial
        if number < len(self.firsts) and made.knobs == self.firsts[number][1]:
            made = msgspec.structs.replace(made, origin=self.firsts[number][0])
        value = made.score if made.state == "complete" else None
        self.study.tell(ran.trial, value, state=_STATES[made.state])
        return self._count(replace(ran.ended, trial=made), ran.error)

    def _resume(self, each: Ended, knobs: type[Params]) -> None:
        made = each.trial
        chosen = trials.typed(knobs, made.knobs)
        if chosen is None:
            raise DataError(
                "trial-of-other-knobs",
                f"Trial {made.number} of this search has other knobs than are declared.",
                why="Trials are kept by the fingerprint of what is searched, which the knobs are part of.",
                next="Report it, with the command; changing trials= by one begins another search.",
            )
        self.study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[made.state],
                value=made.score if made.state == "complete" else None,
                params=chosen,
                distributions={name: _distribution(type_, span) for name, (type_, span) in self.spans.items()},
                intermediate_values=dict(_reported(made)),
            )
        )
        self._count(replace(each, trial=msgspec.structs.replace(made, knobs=chosen)), None)

    def _count(self, each: Ended, error: FlyballError | None) -> Ended:
        self.ended.append(each)
        self.tried.setdefault(_point(each.trial.knobs), each.trial)
        if error is not None:
            self.errors.append(error)
        return each

    def seconds(self) -> float:
        """What a round takes, by the mean of those that ended."""
        return sum(each.seconds for each in self.ended) / len(self.ended)

    def best(self) -> Trial | None:
        """The best complete trial; of equals the first."""
        return self._best(self.ended)

    def best_until(self, last: Ended) -> float | None:
        """The best score when a trial ended."""
        best = self._best(self.ended[: self.ended.index(last) + 1])
        return best.score if best is not None else None

    def _best(self, ended: Sequence[Ended]) -> Trial | None:
        sign = 1.0 if self.settings.optimize.better == "higher" else -1.0
        complete = [each.trial for each in ended if each.trial.state == "complete" and each.trial.score is not None]
        return max(complete, key=lambda t: (sign * (t.score or 0.0), -t.number), default=None)

    def found(self, stopped: Stopped) -> Found:
        """What is chosen.

        Raises:
            DataError: `no-trial-has-a-score`.
            DeclarationError, DataError: what the first trial raised.
        """
        best = self.best()
        if best is not None and best.score is not None:
            every = [each.trial for each in self.ended]
            return Found(knobs=best.knobs, score=best.score, trials=every, stopped=stopped)
        if self.errors and all(each.trial.code != trials.NO_SCORE for each in self.ended):
            raise self.errors[0]
        codes = ", ".join(sorted({each.trial.code for each in self.ended}))
        raise DataError(
            "no-trial-has-a-score",
            f"None of {len(self.ended)} trials could be scored by {self.settings.optimize} ({codes}).",
            why="The validation span cannot show this metric: too few rows, or one outcome alone.",
            next="Ingest more history, or declare a longer span: split=fb.by_time(days(60)).",
        )


def _seed(number: int) -> int:
    """Of the sampler of a trial. Numbers in a row would begin with draws that are alike, so they are spread first."""
    return int(np.random.SeedSequence((SEED, number)).generate_state(1)[0])


def _distribution(type_: type, span: Span) -> BaseDistribution:
    if isinstance(span, Choice):
        return CategoricalDistribution(span.options)
    if type_ is int:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)
