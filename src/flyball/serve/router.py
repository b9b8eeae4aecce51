"""Who answers, inside one process: the champion, the share of a candidate, and whoever is left when one of them fails.

    candidate, for the entities that it was given      its fault is the champion's to mend, and no caller sees it
    champion -> previous -> baseline -> default        faults of ours only: what breaks the contract is the caller's

While there is a candidate, both it and the champion compute every question: who does not answer is the **shadow**, a small
value that whoever owns the thread computes later. So the two are compared on the same questions. A **breaker** takes a
candidate that fails, or blocks its process, out of it within attempts rather than minutes; what it saw is in the journal, from
which the loop decides. Everything here is synchronous, and the same for a server and for a rehearsal.

**Besides** compute a share of the questions, whoever answered them, each with a breaker of its own: shadows that a person set.
An **override** asks one version by its name: for operators, and so it counts for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from flyball._kernel import ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import DataError, FlyballError, StateError
from flyball.serve import plan as plans
from flyball.serve.breaker import SLOW, Breaker
from flyball.serve.guard import Refused
from flyball.serve.journal import Answer
from flyball.serve.plan import Attempt, Plan, Question

PIECE: Final = 8
"""Questions that a candidate is asked between two looks at its breaker, so that a slow one cannot hold a process up."""

DEFAULT: Final = "default"
"""Names the version of an answer that no version gave."""

OVERRIDE: Final = "override"
"""The role of an answer that an operator asked of one version; no monitor, guard or comparison counts it."""

BASELINE: Final = "baseline"
"""The name by which an override asks the champion's baseline, which has no version of its own."""

NAMED: Final = 80
"""Characters of a version that nobody knows, in a message."""

Tripped = Callable[[str, str, str], None]
"""(model, version of the candidate or shadow, why) -> told that a breaker has opened."""


class Beside(NamedTuple):
    """A version that computes the questions of this share of the entities, beside whoever answers them."""

    plan: Plan
    share: float


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
        shadows: who computes beside, and is neither champion nor candidate.
    """

    epoch: int
    champion: Plan
    candidate: Plan | None = None
    share: float = 0.0
    fallbacks: tuple[tuple[str, Plan], ...] = ()
    default: float | None = None
    slow: float = SLOW
    shadows: tuple[Beside, ...] = ()


def lot(version: str, key: str) -> float:
    """The place of an entity in [0, 1) when `version` is handed out: the same in every process and at every share.

    BLAKE2b keyed by the version, so that it is not the same entities that try every candidate. All 53 bits of a float are
    used, so that a share of 1 is everybody.
    """
    keyed = blake2b(key.encode(), digest_size=8, key=blake2b(version.encode(), digest_size=32).digest())
    return (int.from_bytes(keyed.digest(), "big") >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Way:
    """How a model's questions go at present: swapped as a whole, and kept by whoever is answering one."""

    routed: Routed
    breaker: Breaker
    besides: Mapping[str, Breaker] = field(default_factory=dict)
    """Of each shadow, by its version."""

    def breaker_of(self, plan: Plan) -> Breaker | None:
        """Who may take a plan out of this process; nobody the champion."""
        return self.breaker if plan is self.routed.candidate else self.besides.get(plan.version)

    def ready(self) -> dict[str, Plan]:
        """What can be asked by its name here."""
        found = {beside.plan.version: beside.plan for beside in self.routed.shadows}
        for role, plan in self.routed.fallbacks:
            found[BASELINE if role == BASELINE else plan.version] = plan
        if self.routed.candidate is not None:
            found[self.routed.candidate.version] = self.routed.candidate
        return {**found, self.routed.champion.version: self.routed.champion}


class Shadow(NamedTuple):
    """An attempt that nobody waits for, still to be made: see `Router.shadow`; `champion` is its own, where it was first."""

    way: Way
    plan: Plan
    question: Question
    champion: Attempt | None = None


class Given(msgspec.Struct, frozen=True):
    """What became of a question.

    Attributes:
        answer: what leaves; None if there is none.
        failed: attempts that failed before it.
        shadow: of champion and candidate the one that did not answer, still to compute it, if there are two.
        error: why there is no answer.
        besides: the shadows that are still to compute it.
    """

    answer: Answer | None
    failed: tuple[Answer, ...] = ()
    shadow: Shadow | None = None
    error: FlyballError | None = None
    besides: tuple[Shadow, ...] = ()


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
        """From the next question on, answer by `routed`; a breaker stays as it is for the same version and share."""
        ways = {}
        for model, each in routed.items():
            kept = self.ways.get(model)
            same = kept is not None and _stage(kept.routed) == _stage(each)
            besides = {
                beside.plan.version: (_kept(kept, beside) if kept is not None else None) or Breaker(each.slow)
                for beside in each.shadows
            }
            ways[model] = Way(each, kept.breaker if kept is not None and same else Breaker(each.slow), besides)
        self.ways = ways

    def ask(self, way: Way, rows: Sequence[dict[str, Any]], asked: datetime, spent: float) -> list[Given]:
        """Answer questions that were asked together, in their order; what goes wrong is told, never raised.

        Args:
            way: how, one of `ways`.
            rows: the requests, by column.
            asked: the moment of the questions.
            spent: seconds that each one's share of decoding its request took.
        """
        asking = [plans.question(way.routed.champion, row, asked, spent) for row in rows]
        found: list[tuple[Given, Attempt | None]] = []
        if way.routed.candidate is None:
            found += self._cascade(way, asking)
        else:
            while len(found) < len(asking):
                found += self._divided(way, way.routed.candidate, asking[len(found) : len(found) + PIECE])
        if not way.routed.shadows:
            return [given for given, _ in found]
        return [_watched(way, each, *made) for each, made in zip(asking, found, strict=True)]

    def override(
        self, way: Way, wanted: str, rows: Sequence[dict[str, Any]], asked: datetime, spent: float
    ) -> list[Given]:
        """Ask one version, by its name: nobody mends its faults, nobody computes beside, and no breaker counts it.

        Args:
            wanted: a version, or `BASELINE`; the rest as `ask`.

        Raises:
            Refused: 404 `version-not-here`, naming those that can be asked.
        """
        ready = way.ready()
        plan = ready.get(wanted)
        if plan is None:
            named = wanted if len(wanted) <= NAMED else f"{wanted[:NAMED]}…"
            error = StateError(
                "version-not-here",
                f"This server cannot ask {named!r}.",
                why=f"Ready here: {', '.join(ready)}.",
                next="flyball shadow APP VERSION makes a version ready.",
            )
            raise Refused(404, error)
        asking = [plans.question(way.routed.champion, row, asked, spent) for row in rows]
        given: list[Given] = []
        for each in plans.attempts(plan, asking, way.routed.epoch, OVERRIDE, self._clock):
            if each.error is None:
                given.append(Given(each.answer))
            else:
                faults = () if isinstance(each.error, DataError) else (each.answer,)
                given.append(Given(None, faults, None, each.error))
        return given

    def _divided(self, way: Way, candidate: Plan, asking: Sequence[Question]) -> Sequence[tuple[Given, Attempt | None]]:
        """Some are answered by the candidate, the rest by the champion; who does not answer computes beside.

        Returns:
            What became of them, or of the first of them, where the breaker must be asked before the candidate is asked more.
        """
        if way.breaker.why:
            return self._cascade(way, asking)
        share = way.routed.share
        theirs = [i for i, each in enumerate(asking) if share and lot(candidate.version, each.entity) < share]
        chosen = [asking[i] for i in theirs]
        tried = dict(zip(theirs, self._tried(way, candidate, chosen), strict=False))
        if len(tried) < len(theirs):
            asking = asking[: max(tried) + 1]
        left = [i for i in range(len(asking)) if i not in tried or tried[i].error is not None]
        cascaded = dict(zip(left, self._cascade(way, [asking[i] for i in left]), strict=True))
        given: list[tuple[Given, Attempt | None]] = []
        for i, each in enumerate(asking):
            if i not in cascaded:
                self._watch(way.breaker, tried[i], None)
                given.append((Given(tried[i].answer, (), Shadow(way, way.routed.champion, each)), None))
            elif i in tried:
                found, champion = cascaded[i]
                given.append((self._mended(way, tried[i], found, champion), champion))
            else:
                found, champion = cascaded[i]
                beside = None if found.answer is None else Shadow(way, candidate, each, champion)
                given.append((replace(found, shadow=beside), champion))
        return given

    def _tried(self, way: Way, candidate: Plan, chosen: Sequence[Question]) -> list[Attempt]:
        """The candidate's attempts, one at least, until as much time is gone, or as much went wrong, as its breaker lets pass
        without a look. So one that became slow is looked at after an attempt or a few, and not a piece.
        """
        epoch, breaker = way.routed.epoch, way.breaker
        made = plans.together(candidate, chosen, epoch, "canary", self._clock)
        if made is not None:
            return made
        made, room, left = [], breaker.room, Breaker.AT_MOST * way.routed.slow
        for each in chosen:
            tried = plans.attempt(candidate, each, epoch, "canary", self._clock)
            made.append(tried)
            left -= tried.seconds
            room -= breaker.faults(tried.answer.failed, tried.seconds)
            if left <= 0 or room <= 0:
                break
        return made

    def _mended(self, way: Way, tried: Attempt, given: Given, champion: Attempt) -> Given:
        """The candidate failed on a question of its own, and what the champion and those behind it made of it."""
        if isinstance(given.error, DataError) and isinstance(tried.error, DataError):
            return Given(None, (), None, given.error)  # both say that it is the question's fault
        self._watch(way.breaker, tried, champion)
        return replace(given, failed=(tried.answer, *given.failed))

    def shadow(self, pending: Shadow) -> Answer | None:
        """Compute what did not answer; None if it is one whose breaker has opened since."""
        way = pending.way
        breaker = way.breaker_of(pending.plan)
        if breaker is not None and breaker.why:
            return None
        tried = plans.attempt(pending.plan, pending.question, way.routed.epoch, "shadow", self._clock)
        if breaker is not None:
            self._watch(breaker, tried, pending.champion)
        return tried.answer

    def _cascade(self, way: Way, asking: Sequence[Question]) -> list[tuple[Given, Attempt]]:
        """Ask the champion, and where it fails one after the other behind it; with it, the champion's own attempt."""
        made = plans.attempts(way.routed.champion, asking, way.routed.epoch, "champion", self._clock)
        return [
            (Given(each.answer) if each.error is None else self._behind(way, asking[i], each), each)
            for i, each in enumerate(made)
        ]

    def _behind(self, way: Way, asking: Question, first: Attempt) -> Given:
        """The champion failed: who is behind it answers, unless it is the question's fault."""
        failed: tuple[Answer, ...] = ()
        behind, tried = iter(way.routed.fallbacks), first
        while tried.error is not None:
            if isinstance(tried.error, DataError):
                return Given(None, failed, None, tried.error)
            failed = (*failed, tried.answer)
            following = next(behind, None)
            if following is None:
                default = way.routed.default
                if default is None:
                    return Given(None, failed, None, first.error)
                return Given(_default(way.routed, default, asking), failed, None)
            role, plan = following
            tried = plans.attempt(plan, asking, way.routed.epoch, role, self._clock)
        return Given(tried.answer, failed)

    def _watch(self, breaker: Breaker, tried: Attempt, champion: Attempt | None) -> None:
        """Count an attempt, unless what was in its way is what was in the champion's."""
        if champion is not None and champion.error is not None and not isinstance(champion.error, DataError):
            return
        seconds = tried.seconds - (champion.seconds if champion is not None else 0.0)
        if breaker.saw(tried.answer.failed, seconds):
            self._tripped(tried.answer.model, tried.answer.version, breaker.why)


def _watched(way: Way, asking: Question, given: Given, champion: Attempt | None) -> Given:
    """With the shadows that compute what was answered; the lot of an entity is the same that a canary would draw."""
    if given.answer is None:
        return given
    besides = tuple(
        Shadow(way, plan, asking, champion)
        for plan, share in way.routed.shadows
        if not way.besides[plan.version].why and (share >= 1.0 or lot(plan.version, asking.entity) < share)
    )
    return replace(given, besides=besides)


def _kept(way: Way, beside: Beside) -> Breaker | None:
    same = any((each.plan.version, each.share) == (beside.plan.version, beside.share) for each in way.routed.shadows)
    return way.besides[beside.plan.version] if same else None


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
