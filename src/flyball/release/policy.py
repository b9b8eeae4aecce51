"""How a new version earns its traffic, declared: stages in order, what aborts them, and how long to wait for certainty.

A stage ends when its time is over **and** as much was seen as it asks for: answers, outcomes, the word of a person. An A/B test
(`ab`) is a stage as well: it ends when its question is decided, or at its end undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypedDict, Unpack

from flyball._kernel import conditions, place
from flyball._kernel.conditions import Condition, Metric
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place

ANYBODY = "*"
"""Whose word a stage waits for, where anybody's counts."""

Undecided = Literal["keep", "release"]
"""What an A/B test that ends undecided means: the champion stays, or the version goes on."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The question of an A/B test, decided by an interval that holds at every look.

    Attributes:
        decides: the candidate's mean a question against the champion's.
        ends: when it is over, counted from the stage's beginning.
        error_rate: the chance that it decides at all, at any look, where the two differ by exactly what is compared with.
    """

    decides: Condition
    ends: timedelta
    error_rate: float
    undecided: Undecided


@dataclass(frozen=True, slots=True)
class Stage:
    """A share of the traffic for a while; a shadow (share 0) computes answers that nobody sees.

    Attributes:
        lasts: the least time that it takes.
        at_least: answers that the version must have given in it; of a shadow, computed.
        outcomes: how many of those must be settled.
        approval: whose word it waits for: a key's name, `ANYBODY`, or "" for nobody's.
        test: the A/B test that it is, if it is one.
    """

    name: str
    share: float
    lasts: timedelta
    at_least: int = 0
    outcomes: int = 0
    approval: str = ""
    test: Comparison | None = None


class Needs(TypedDict, total=False):
    """What a stage needs besides its time.

    Attributes:
        at_least: answers that the version gives in it.
        outcomes: how many of those are settled.
        approval: the word of a person, said while it lasts: True for anybody's, or the name of a key.
    """

    at_least: int
    outcomes: int
    approval: bool | str


def shadow(lasts: timedelta, **needs: Unpack[Needs]) -> Stage:
    """The new version answers every question beside the champion; its answers are recorded and not returned.

    Args:
        lasts: at least so long.
        **needs: what it needs besides: `at_least=`, `outcomes=`, `approval=`.

    Raises:
        DeclarationError: `sample-negative`.
    """
    return _stage("shadow", 0.0, lasts, needs)


def canary(share: float, lasts: timedelta, **needs: Unpack[Needs]) -> Stage:
    """The new version answers a fixed share of the entities, between 0 and 1; `lasts` and `needs` as in `shadow`.

    Raises:
        DeclarationError: `share-out-of-range`, `sample-negative`.
    """
    if not 0.0 < share <= 1.0:
        raise DeclarationError(
            "share-out-of-range",
            f"A canary of {share} is no share of the traffic.",
            where=place.here(),
            why="A share lies above 0 and up to 1.",
            next="Write canary(0.05, hours(6)) for five in a hundred.",
        )
    return _stage("canary", share, lasts, needs)


def ab(
    share: float,
    decides: Metric | Condition,
    lasts: timedelta = timedelta(),
    *,
    ends: timedelta,
    error_rate: float = 0.05,
    undecided: Undecided = "keep",
    **needs: Unpack[Needs],
) -> Stage:
    """An A/B test: the version answers a share of the entities, until it is certainly better, or worse, or `ends` is over.

    Args:
        share: of the entities that the version answers, above 0 and below 1; half is the fastest.
        decides: a mean a question, such as `metrics.cost`: better by anything; or by a margin,
            `accuracy >= accuracy.on(champion) - 0.01`.
        lasts: at least so long, however sure it is before: a week has all its days.
        ends: it lasts no longer.
        error_rate: the chance of a decision where there is nothing to decide; see `watch.sequential`.
        undecided: "keep": the champion stays. "release": the version goes on.
        **needs: as in `shadow`.

    Raises:
        DeclarationError: `test-out-of-range`, `test-not-relative`, `sample-negative`.
    """
    _check_test(share, error_rate, lasts, ends)
    condition = decides
    if isinstance(condition, Metric):
        condition = Condition(
            condition, ">=" if condition.better == "higher" else "<=", 0.0, conditions.champion, place.here()
        )
    if condition.whom != conditions.champion:
        raise DeclarationError(
            "test-not-relative",
            f"An A/B test cannot be decided by {condition}.",
            where=place.here(),
            why="Its two arms are the version and the champion: what decides is their difference.",
            next=f"Write ab({share:g}, {condition.metric}, ends=days(14)), or compare with {condition.metric}.on(champion).",
        )
    return _stage("ab", share, lasts, needs, Comparison(condition, ends, error_rate, undecided))


def _check_test(share: float, error_rate: float, lasts: timedelta, ends: timedelta) -> None:
    wrong = (
        f"a share of {share:g}" if not 0.0 < share < 1.0
        else f"an error rate of {error_rate:g}" if not 0.0 < error_rate < 0.5
        else f"an end after {ends}" if ends <= timedelta()
        else f"at least {lasts} and an end after {ends}" if lasts > ends
        else ""
    )  # fmt: skip
    if wrong:
        raise DeclarationError(
            "test-out-of-range",
            f"No A/B test has {wrong}.",
            where=place.here(),
            why="Both arms need entities, the error rate lies between 0 and 0.5, and it ends after it has lasted.",
            next="Write ab(0.5, metrics.cost, ends=days(14), error_rate=0.05).",
        )


def _stage(name: str, share: float, lasts: timedelta, needs: Needs, test: Comparison | None = None) -> Stage:
    at_least, outcomes, approval = needs.get("at_least", 0), needs.get("outcomes", 0), needs.get("approval", False)
    if at_least < 0 or outcomes < 0:
        raise DeclarationError(
            "sample-negative",
            f"A {name} cannot ask for {min(at_least, outcomes)} of anything.",
            where=place.here(),
            why="at_least counts answers, and outcomes those of them that are settled.",
            next="Write canary(0.05, hours(6), at_least=1000, outcomes=200).",
        )
    whose = (ANYBODY if approval else "") if isinstance(approval, bool) else approval
    return Stage(name, share, lasts, at_least, outcomes, whose, test)


@dataclass(frozen=True, slots=True, init=False)
class Release:
    """The stages of a release, in order.

    Attributes:
        stages: shadow first, then canaries and tests with growing shares.
        abort_unless: conditions on live traffic; one that fails returns all traffic to the champion. Beside them every release
            is guarded by what `watch.always` says.
        patience: how long an inconclusive stage is held before it is aborted.
    """

    stages: tuple[Stage, ...]
    abort_unless: tuple[Condition, ...]
    patience: timedelta
    place: Place = field(compare=False)

    def __init__(
        self, *stages: Stage, abort_unless: Sequence[Condition] = (), patience: timedelta = timedelta(days=3)
    ) -> None:
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "abort_unless", tuple(abort_unless))
        object.__setattr__(self, "patience", patience)
        object.__setattr__(self, "place", place.here())
        shares = [s.share for s in stages]
        if shares != sorted(shares):
            raise DeclarationError(
                "stages-out-of-order",
                f"The shares of this release are {', '.join(f'{s:g}' for s in shares)}.",
                where=self.place,
                why="A release only ever gives a version more traffic; less is a rollback.",
                next="Order the stages: shadow, then canaries with growing shares.",
            )
