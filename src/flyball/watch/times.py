"""Times: how long a version that goes bad may stay, by what its release declares; before any of it has happened.

From its first bad answer to all traffic back at the champion passes: the time until somebody is **sure** (a breaker in its
process, or a guard of the loop), and then the time to **act**: an answer is committed, the loop looks and judges, the servers
follow. Sure takes so many attempts, and so depends on the traffic; to act does not.

The **worst** is told: the version was sound for as long as a guard remembers, so that its past speaks for it, and then every
attempt is bad (or a share of them): it fails, is too slow, decides otherwise, or says what lies beyond all that the champion
says. Where there is no worst, the **least** is told, and why: a version may be worse by as little as one likes, which no number
of outcomes finds. An A/B test has an end of its own. A breaker counts in each process by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

import msgspec

from flyball._kernel import conditions
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Condition
from flyball._kernel.durations import short
from flyball.data.interval import wilson
from flyball.learn.quality import metrics
from flyball.learn.task import BINARY, Task
from flyball.release.policy import Comparison, Release
from flyball.serve.breaker import Breaker
from flyball.serve.journal import Settings
from flyball.watch import always, beside, live, quality, sequential

NEVER = 10**9
"""Attempts after which nobody waits any more."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What the times depend on.

    Attributes:
        asked: questions a second, of all server processes; both versions compute each.
        bad: the share of them that goes wrong from one moment on.
        settles: how long an outcome takes.
        processes: that answer.
        looks: seconds between two looks of the loop.
        judges: that one look takes.
        beside: that the rest of a pass takes, which nothing that is declared bounds: a webhook has 5 for each alert, and what
            arrives is taken in by the commit.
        follows: between two looks of a server at the route.
        swaps: that it takes to answer by it: the champion is there already.
        task: what is answered.
    """

    asked: float = 10.0
    bad: float = 1.0
    settles: timedelta = timedelta()
    processes: int = 1
    looks: float = 1.0
    judges: float = 1.0
    beside: float = 0.0
    follows: float = 0.1
    swaps: float = 0.1
    task: Task = BINARY

    @property
    def acts(self) -> float:
        """Seconds from being sure to the champion answering all."""
        told = Settings().interval.total_seconds()
        return told + self.looks + self.judges + self.beside + self.follows + self.swaps


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a bad version ends.

    Attributes:
        by: what ends it.
        attempts: bad and other ones, until it is sure.
        seconds: from the first bad one to the champion answering all.
        least: whether this is the least that it takes, and not the most.
        why: there is no most, or what else ends it.
    """

    by: str
    attempts: int
    seconds: float
    least: bool = False
    why: str = ""

    def __str__(self) -> str:
        if self.least:
            return f"{self.by}: {self.attempts:,} attempts and {_spelt(self.seconds)} at least, and no most: {self.why}"
        sure = self.why or f"sure after {self.attempts:,} attempts"
        return f"{self.by}: {sure}; all traffic is back in {_spelt(self.seconds)}"


def worst_case(release: Release, pace: Pace | None = None) -> list[Ending]:
    """The ways in which a version of this release that goes bad ends, each by itself: what cannot be sure of it is left out."""
    return [ending for ending in _endings(release, pace or Pace()) if ending.attempts < NEVER]


def told(release: Release, pace: Pace | None = None) -> list[str]:
    """The same, in words, and what cannot be sure; nothing for a release without stages."""
    if not release.stages:
        return []
    pace = pace or Pace()
    head = f"A version on its way that goes bad at every question, at {pace.asked:g} questions a second:"
    never = "never sure: so much of what it remembers may be good that the bad is no proof"
    said = [str(e) if e.attempts < NEVER else f"{e.by}: {never}" for e in _endings(release, pace)]
    return [head, *said, *([] if pace.beside else [_BESIDE])]


_BESIDE: Final = (
    "Not in these times: what holds a pass of the loop up. A webhook that hangs takes 5 s for each alert, and what arrives as "
    "long as its commit: that has no bound. A breaker waits for neither."
)


def _endings(release: Release, pace: Pace) -> list[Ending]:
    found = [_breaker(pace)] if pace.bad >= Breaker.FAULTS / Breaker.LAST else []
    looser = always.looser(release)
    always_guarded = [m.name for m in (conditions.error_rate, named.invalid_rate) if m.name not in looser]
    limit, span, few = always.FAULTS, always.LATELY, always.FEW
    found += [_sure(f"{name} <= {limit:g}, always", limit, _Past(span), pace, few=few) for name in always_guarded]
    found += [_guard(guard, release, pace) for guard in release.abort_unless]
    found.append(_covered(pace))
    return found + [_test(stage.test, pace) for stage in release.stages if stage.test is not None]


def _breaker(pace: Pace) -> Ending:
    """A process takes it out with the 8th fault of 32 attempts; of a share of faults so many are needed on the mean."""
    attempts = math.ceil(Breaker.FAULTS / pace.bad)
    return Ending(by="breaker of a process", attempts=attempts, seconds=attempts * pace.processes / pace.asked)


def _guard(guard: Condition, release: Release, pace: Pace) -> Ending:
    name, said, over = guard.metric.name.removesuffix(".live"), str(guard), guard.metric.over
    longest = [stage.test.ends if stage.test else stage.lasts for stage in release.stages]
    # Each stage may be held for the patience, and the probation after the last is as long.
    remembers = over or sum(longest, max(len(longest), 1) * release.patience)
    past = _Past(remembers, slides=over is not None)
    if name in (conditions.error_rate.name, named.invalid_rate.name):
        return _sure(said, guard.threshold, past, pace)
    if name == conditions.p99_latency.name:
        # So many attempts may be slower than its threshold; of those that callers wait for, of whom there is a share.
        shares = [stage.share for stage in release.stages if stage.share]
        callers = msgspec.structs.replace(pace, asked=pace.asked * min(shares, default=1.0))
        return _sure(said, quality.TAIL, past, callers)
    if name == named.prediction_shift.name:
        reach = functools.partial(beside.reach, len(pace.task.classes))
        return _after(said, _first(lambda n: n >= beside.FEW and _apart(n, past, pace, reach) > guard.threshold), pace)
    if name == named.disagreement.name:
        if pace.task.truth or pace.task.classes:
            return _sure(said, guard.threshold, past, pace, few=beside.FEW)
        return _least(said, beside.FEW, pace, "two numbers may lie apart by as little as one likes")
    waits = "" if pace.settles else "; outcomes take their time besides"
    why = (
        f"a little worse it may pass, and undecided it falls when a stage is over for {short(release.patience)}{waits}"
    )
    return _least(said, metrics.MIN_ROWS, pace, why, pace.settles)


def _test(test: Comparison, pace: Pace) -> Ending:
    """One that is lost or undecided ends with the test, where the champion then stays."""
    said = f"A/B: {test.decides}"
    if test.undecided == "release":
        why = f"undecided after {_spelt(test.ends.total_seconds())}, it goes on"
        return _least(said, 2 * sequential.BURN, pace, why, pace.settles)
    seconds = test.ends.total_seconds()
    why = "lost, or undecided at its end"
    return Ending(by=said, attempts=math.ceil(seconds * pace.asked), seconds=seconds + pace.acts, why=why)


class _Past(NamedTuple):
    """For how long a guard remembers that a version was sound, and whether it forgets one attempt for each that comes."""

    remembers: timedelta
    slides: bool = True

    def seen(self, n: int, pace: Pace) -> int:
        """The attempts that are looked at when `n` came since it went bad."""
        before = round(self.remembers.total_seconds() * pace.asked)
        if before >= live.MOST:  # attempts beyond that are forgotten, whatever the guard would remember
            return max(live.MOST, n)
        return max(before, n) if self.slides else before + n


def _sure(by: str, limit: float, past: _Past, pace: Pace, *, few: int = 1) -> Ending:
    """By a share that is limited, of a version that was sound for as long as the guard remembers."""

    def certain(n: int) -> bool:
        return n >= few and wilson(round(n * pace.bad), past.seen(n, pace))[0] > limit

    return _after(by, _first(certain), pace)


def _apart(n: int, past: _Past, pace: Pace, reach: Callable[[int], float]) -> float:
    """How far two spreads are apart at least, of which so many lie where none of the other does."""
    seen = past.seen(n, pace)
    return round(n * pace.bad) / seen - reach(seen)


def _covered(pace: Pace) -> Ending:
    """A version that its breakers took out makes no attempts: the champion answers all, and the loop says so later."""
    before = round(always.LATELY.total_seconds() * pace.asked)

    def certain(n: int) -> bool:
        asked = max(before, n)
        return n >= quality.FEW and wilson(asked - n, asked)[1] < quality.COVERED / 2

    return _after("computes nothing any more (the champion answers already)", _first(certain), pace, quality.GRACE)


def _least(by: str, attempts: int, pace: Pace, why: str, wait: timedelta = timedelta()) -> Ending:
    return msgspec.structs.replace(_after(by, attempts, pace, wait), least=True, why=why)


def _after(by: str, attempts: int, pace: Pace, wait: timedelta = timedelta()) -> Ending:
    return Ending(by=by, attempts=attempts, seconds=wait.total_seconds() + attempts / pace.asked + pace.acts)


def _first(certain: Callable[[int], bool]) -> int:
    """The least number of attempts that is certain; all that are more are too."""
    high = 1
    while not certain(high):
        if high >= NEVER:
            return NEVER
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if certain(middle) else (middle, high)
    return high


def _spelt(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
