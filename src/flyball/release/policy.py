"""How a new version earns its traffic, declared: stages in order, what aborts them, and how long to wait for certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from flyball._kernel import place
from flyball._kernel.conditions import Condition
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place


@dataclass(frozen=True, slots=True)
class Stage:
    """A share of the traffic for a while; a shadow (share 0) computes answers that nobody sees."""

    name: str
    share: float
    lasts: timedelta


def shadow(lasts: timedelta) -> Stage:
    """The new version answers every question beside the champion; its answers are recorded and not returned."""
    return Stage("shadow", 0.0, lasts)


def canary(share: float, lasts: timedelta) -> Stage:
    """The new version answers a fixed share of the entities, between 0 and 1."""
    if not 0.0 < share <= 1.0:
        raise DeclarationError(
            "share-out-of-range",
            f"A canary of {share} is no share of the traffic.",
            where=place.here(),
            why="A share lies above 0 and up to 1.",
            next="Write canary(0.05, hours(6)) for five in a hundred.",
        )
    return Stage("canary", share, lasts)


@dataclass(frozen=True, slots=True, init=False)
class Release:
    """The stages of a release, in order.

    Attributes:
        stages: shadow first, then canaries with growing shares.
        abort_unless: conditions on live traffic; one that fails returns all traffic to the champion.
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
