"""Who answers, inside one process: the champion, the share of a candidate, and whoever is left when one of them fails.

    candidate, for the entities that it was given      its fault is the champion's to mend, and no caller sees it
    champion -> previous -> baseline -> default        faults of ours only: what breaks the contract is the caller's

While there is a candidate, both it and the champion compute every question: who does not answer is the **shadow**, a small
value that whoever owns the thread computes later. So the two are compared on the same questions. A **breaker** takes a
candidate that fails, or blocks its process, out of it within attempts rather than minutes; what it saw is in the journal, from
which the loop decides. Everything here is synchronous, and the same for a server and for a rehearsal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from flyball._kernel import ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import DataError, FlyballError
from flyball.serve import plan as plans
from flyball.serve.journal import Answer
from flyball.serve.plan import Attempt, Plan, Question

SLOW: Final = 0.05
"""Seconds of one attempt that count as one fault: a hundred times what an answer takes."""

DEFAULT: Final = "default"
"""Names the version of an answer that no version gave."""

Tripped = Callable[[str, str, str], None]
"""(model, version of the candidate, why) -> told that a breaker has opened."""


@dataclass(frozen=True, slots=True)
class Routed:
    """Who answers for one model.

    Attributes:
        epoch: of the route that says so; recorded with every attempt.
        candidate: who is on the way to be champion, if anybody.
        share: of the entities that the candidate answers; 0 while it only computes beside the champion.
        fallbacks: (role, plan) in the order in which they are asked when the champion fails.
        default: what is answered when all of them fail; None: an error.
        slow: seconds of an attempt of the candidate that count as one fault.
    """

    epoch: int
    champion: Plan
    candidate: Plan | None = None
    share: float = 0.0
    fallbacks: tuple[tuple[str, Plan], ...] = ()
    default: float | None = None
    slow: float = SLOW


def lot(version: str, key: str) -> float:
    """The place of an entity in [0, 1) when `version` is handed out: the same in every process and at every share.

    BLAKE2b keyed by the version, so that it is not the same entities that try every candidate. All 53 bits of a float are
    used, so that a share of 1 is everybody.
    """
    keyed = blake2b(key.encode(), digest_size=8, key=blake2b(version.encode(), digest_size=32).digest())
    return (int.from_bytes(keyed.digest(), "big") >> 11) * 2.0**-53


class Breaker:
    """Takes a failing candidate out of one process, until the route names another candidate or another stage.

    The rule: it opens with the 8th fault among the last 32 attempts, answers and shadows alike. An attempt without an answer
    is one fault; so is each `slow` seconds that an attempt took beyond the champion's own at the same question (where that
    was asked first), up to 4, so that one stall of the machine never opens it; two so near to each other do (an attempt of
    several faults counts as so many attempts). What the champion fails at as well is **shared**, and no attempt: it tells
    nothing of the candidate.

    How fast, where the champion answers: a candidate that always fails is out with its 8th attempt; one that fails half the
    time, with about its 16th; one attempt in ten, after some 600. Every answer is an attempt, so at ten questions a second the
    first takes 0.8 s of waiting and no computing. One that became slow holds its process up for less than 19 slow units more
    than the champion while no attempt takes 5 of them (0.95 s, and 0.25 s, at the 0.05 s that are usual); a longer one cannot
    be interrupted, and the second opens it.

    How often wrongly: with independent faults of probability p, the chance that an attempt opens it is at most p times that
    of 7 faults among 31, p * C(31, 7) * p**7 * (1 - p)**24: one in 4.8 billion attempts at p = 0.01, the usual limit of
    `error_rate`; one in 33,000 at p = 0.05.
    """

    __slots__ = ("_recent", "_slow", "why")

    LAST, FAULTS, AT_MOST = 32, 8, 4
    _KEPT = (1 << LAST) - 1

    def __init__(self, slow: float = SLOW) -> None:
        self._slow, self._recent = slow, 0
        self.why = ""
        """Why it is open; "" while it is closed."""

    def saw(self, failed: str, seconds: float) -> bool:
        """Count one attempt; returns whether it opens by this one.

        Args:
            failed: the code of its error, or "".
            seconds: that it took, or took longer than the champion.
        """
        faults = max(0, min(self.AT_MOST, int(seconds / self._slow)))
        if failed:
            faults = max(faults, 1)
        # A bit for each attempt, the latest lowest, and one more for each fault beyond the first.
        self._recent = (self._recent << max(faults, 1) | (1 << faults) - 1) & self._KEPT
        if self.why or not faults or self._recent.bit_count() < self.FAULTS:
            return False
        cause = failed or f"an answer took {seconds:.3g} s"
        self.why = f"{self._recent.bit_count()} faults in the last {self.LAST} attempts; the latest: {cause}"
        return True


@dataclass(frozen=True, slots=True)
class Way:
    """How a model's questions go at present: swapped as a whole, and kept by whoever is answering one."""

    routed: Routed
    breaker: Breaker
    line: tuple[tuple[str, Plan], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "line", (("champion", self.routed.champion), *self.routed.fallbacks))


class Shadow(NamedTuple):
    """An attempt that nobody waits for, still to be made: see `Router.shadow`; `champion` is its own, where it was first."""

    way: Way
    plan: Plan
    question: Question
    champion: Attempt | None = None


class Given(NamedTuple):
    """What became of a question.

    Attributes:
        answer: what leaves; None if there is none.
        failed: attempts that failed before it.
        shadow: who is still to compute it beside, if anybody.
        error: why there is no answer.
    """

    answer: Answer | None
    failed: tuple[Answer, ...]
    shadow: Shadow | None
    error: FlyballError | None = None


class Router:
    """The ways of all models of one process.

    Args:
        clock: measures the attempts.
        tripped: told when a breaker opens.
    """

    def __init__(self, clock: Clock, tripped: Tripped = lambda model, version, why: None) -> None:
        self._clock, self._tripped = clock, tripped
        self.ways: Mapping[str, Way] = {}

    def swap(self, routed: Mapping[str, Routed]) -> None:
        """From the next question on, answer by `routed`; a breaker stays as it is for the same candidate and share."""
        ways = {}
        for model, each in routed.items():
            kept = self.ways.get(model)
            same = kept is not None and _stage(kept.routed) == _stage(each)
            ways[model] = Way(each, kept.breaker if kept is not None and same else Breaker(each.slow))
        self.ways = ways

    def ask(self, way: Way, row: dict[str, Any], asked: datetime, spent: float) -> Given:
        """Answer one question; what goes wrong is told, never raised.

        Args:
            way: how, one of `ways`.
            row: the request, by column.
            asked: the moment of the question.
            spent: seconds that its share of decoding the request took.
        """
        routed = way.routed
        asking = plans.question(routed.champion, row, asked, spent)
        candidate = routed.candidate
        if candidate is None or way.breaker.why:
            return self._cascade(way, asking, ())[0]
        if not (routed.share and lot(candidate.version, asking.entity) < routed.share):
            given, champion = self._cascade(way, asking, ())
            return given if given.answer is None else given._replace(shadow=Shadow(way, candidate, asking, champion))
        tried = plans.attempt(candidate, asking, routed.epoch, "canary", self._clock)
        if tried.error is None:
            self._watch(way, tried, None)
            return Given(tried.answer, (), Shadow(way, routed.champion, asking))
        given, champion = self._cascade(way, asking, (tried.answer,))
        if isinstance(given.error, DataError) and isinstance(tried.error, DataError):
            return Given(None, (), None, given.error)  # both say that it is the question's fault
        self._watch(way, tried, champion)
        return given

    def shadow(self, pending: Shadow) -> Answer | None:
        """Compute what did not answer; None if it is a candidate whose breaker has opened since."""
        way = pending.way
        candidates = pending.plan is way.routed.candidate
        if candidates and way.breaker.why:
            return None
        tried = plans.attempt(pending.plan, pending.question, way.routed.epoch, "shadow", self._clock)
        if candidates:
            self._watch(way, tried, pending.champion)
        return tried.answer

    def _cascade(self, way: Way, asking: Question, failed: tuple[Answer, ...]) -> tuple[Given, Attempt]:
        """Ask one after the other, until one answers; with it, the champion's own attempt."""
        made: list[Attempt] = []
        for role, plan in way.line:
            tried = plans.attempt(plan, asking, way.routed.epoch, role, self._clock)
            made.append(tried)
            if tried.error is None:
                return Given(tried.answer, failed, None), made[0]
            if isinstance(tried.error, DataError):
                return Given(None, failed, None, tried.error), made[0]
            failed = (*failed, tried.answer)
        default = way.routed.default
        if default is None:
            return Given(None, failed, None, made[0].error), made[0]
        return Given(_default(way.routed, default, asking), failed, None), made[0]

    def _watch(self, way: Way, tried: Attempt, champion: Attempt | None) -> None:
        """Count an attempt of the candidate, unless what was in its way is what was in the champion's."""
        if champion is not None and champion.error is not None and not isinstance(champion.error, DataError):
            return
        seconds = tried.seconds - (champion.seconds if champion is not None else 0.0)
        if way.breaker.saw(tried.answer.failed, seconds):
            self._tripped(tried.answer.model, tried.answer.version, way.breaker.why)


def _stage(routed: Routed) -> tuple[str, float] | None:
    return None if routed.candidate is None else (routed.candidate.version, routed.share)


def _default(routed: Routed, default: float, asking: Question) -> Answer:
    output, outputs, decision = plans.told(routed.champion, default, asking.row)
    return Answer(
        id=ids.uuid7(asking.asked),
        asked=micros(asking.asked),
        model=routed.champion.model,
        version=DEFAULT,
        epoch=routed.epoch,
        role=DEFAULT,
        within_tolerance=asking.within,
        key=asking.key,
        inputs=asking.recorded,
        features={},
        output=output,
        latency_us=int(asking.spent * 1e6),
        via=DEFAULT,
        outputs=outputs,
        decision=decision,
    )
