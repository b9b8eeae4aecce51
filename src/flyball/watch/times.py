"""Times: how long a version that goes bad may stay, by what its release declares; before any of it has happened.

From its first bad answer to all traffic back at the champion passes: the time until somebody is **sure** (a breaker in its
process, or a guard of the loop), and then the time to **act**: an answer is committed, the loop looks and judges, the servers
follow. Sure takes so many attempts, and so depends on the traffic; to act does not.

The worst is told: the version was sound for as long as a guard remembers, so that its past speaks for it, and then every
attempt is bad (or a share of them). How long a *quality* takes that is somewhat worse nobody can say: for it, and for an A/B
test, the least is told that they need. A breaker counts in each process by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import msgspec

from flyball._kernel import conditions
from flyball._kernel import metrics as named
from flyball._kernel.conditions import Condition
from flyball.data.interval import wilson
from flyball.learn.quality import metrics
from flyball.release.policy import Release
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
        follows: between two looks of a server at the route.
        swaps: that it takes to answer by it: the champion is there already.
    """

    asked: float = 10.0
    bad: float = 1.0
    settles: timedelta = timedelta()
    processes: int = 1
    looks: float = 1.0
    judges: float = 1.0
    follows: float = 0.1
    swaps: float = 0.1

    @property
    def acts(self) -> float:
        """Seconds from being sure to the champion answering all."""
        return Settings().interval.total_seconds() + self.looks + self.judges + self.follows + self.swaps


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a bad version ends.

    Attributes:
        by: what ends it.
        attempts: bad and other ones, until it is sure.
        seconds: from the first bad one to the champion answering all.
        least: whether this is the least that it takes, and not the most.
    """

    by: str
    attempts: int
    seconds: float
    least: bool = False

    def __str__(self) -> str:
        few = "at least " if self.least else ""
        return (
            f"{self.by}: sure after {few}{self.attempts:,} attempts; all traffic is back in {few}{_spelt(self.seconds)}"
        )


def worst_case(release: Release, pace: Pace | None = None) -> list[Ending]:
    """The ways in which a version of this release that goes bad ends, each by itself: what cannot be sure of it is left out."""
    pace = pace or Pace()
    found = [_breaker(pace)] if pace.bad >= Breaker.FAULTS / Breaker.LAST else []
    looser = always.looser(release)
    always_guarded = [m.name for m in (conditions.error_rate, named.invalid_rate) if m.name not in looser]
    limit, span, few = always.FAULTS, always.LATELY, always.FEW
    found += [_sure(f"{name} <= {limit:g}, always", limit, span, pace, few=few) for name in always_guarded]
    found += [_guard(guard, release, pace) for guard in release.abort_unless]
    found.append(_covered(pace))
    tests = [stage.test for stage in release.stages if stage.test is not None]
    found += [_least(f"A/B: {test.decides}", 2 * sequential.BURN, pace, pace.settles) for test in tests]
    return [ending for ending in found if ending.attempts < NEVER]


def told(release: Release, pace: Pace | None = None) -> list[str]:
    """The same, in words; nothing for a release without stages."""
    if not release.stages:
        return []
    pace = pace or Pace()
    head = f"A version on its way that goes bad at every question, at {pace.asked:g} questions a second:"
    return [head, *map(str, worst_case(release, pace))]


def _breaker(pace: Pace) -> Ending:
    """A process takes it out with the 8th fault of 32 attempts; of a share of faults so many are needed on the mean."""
    attempts = math.ceil(Breaker.FAULTS / pace.bad)
    return Ending(by="breaker of a process", attempts=attempts, seconds=attempts * pace.processes / pace.asked)


def _guard(guard: Condition, release: Release, pace: Pace) -> Ending:
    name, said, over = guard.metric.name.removesuffix(".live"), str(guard), guard.metric.over
    limited = {conditions.error_rate.name: guard.threshold, named.invalid_rate.name: guard.threshold}
    limited |= {conditions.p99_latency.name: quality.TAIL}  # so many attempts may be slower than its threshold
    if name in limited:
        longest = [stage.test.ends if stage.test else stage.lasts for stage in release.stages]
        # Each stage may be held for the patience, and the probation after the last is as long.
        remembers = over or sum(longest, max(len(longest), 1) * release.patience)
        return _sure(said, limited[name], remembers, pace, slides=over is not None)
    if name in beside.NAMES:
        return _least(said, beside.FEW, pace)
    return _least(said, metrics.MIN_ROWS, pace, pace.settles)


def _sure(by: str, limit: float, remembers: timedelta, pace: Pace, *, few: int = 1, slides: bool = True) -> Ending:
    """By a share that is limited, of a version that was sound for as long as the guard remembers.

    Args:
        slides: whether it then forgets one of those for each that comes.
    """
    before = round(remembers.total_seconds() * pace.asked)
    if before >= live.MOST:  # attempts beyond that are forgotten, whatever the guard would remember
        before, slides = live.MOST, True

    def certain(n: int) -> bool:
        return n >= few and wilson(round(n * pace.bad), max(before, n) if slides else before + n)[0] > limit

    return _after(by, _first(certain), pace)


def _covered(pace: Pace) -> Ending:
    """A version that its breakers took out makes no attempts: the champion answers all, and the loop says so later."""
    before = round(always.LATELY.total_seconds() * pace.asked)

    def certain(n: int) -> bool:
        asked = max(before, n)
        return n >= quality.FEW and wilson(asked - n, asked)[1] < quality.COVERED / 2

    return _after("computes nothing any more (the champion answers already)", _first(certain), pace, quality.GRACE)


def _least(by: str, attempts: int, pace: Pace, wait: timedelta = timedelta()) -> Ending:
    return msgspec.structs.replace(_after(by, attempts, pace, wait), least=True)


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
