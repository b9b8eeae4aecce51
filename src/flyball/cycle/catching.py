"""Catching up: outcomes, told to A/B tests beside the answers that are read anew, in the order in which both happened.

A loop that starts reads a test from its beginning. Answers all first and then outcomes would be more than a test keeps
(`watch.arms`): so outcomes go along with the answers, and as few wait for each other as did when it happened. One process
after the other is read; where that goes back in time, outcomes do too: they are repeated, which is harmless.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from flyball._kernel.clock import MICROSECOND, micros
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Outcomes, Posted
from flyball.watch.live import Live

SLACK: Final = timedelta(minutes=10) // MICROSECOND
"""By which clocks of processes may differ; microseconds."""

PAGE: Final = 20_000
"""Outcomes that are told at a time."""


class Catching:
    """How far the outcomes are.

    Args:
        outcomes: all that are stored.
        lives: whose tests are told.
    """

    def __init__(self, outcomes: Outcomes, lives: Collection[Live]) -> None:
        self._outcomes, self._lives = outcomes, lives
        self._after = self._until = 0
        self._moments, self._numbers = [0], [0]

    def beside(self, page: Sequence[Entry]) -> None:
        """Answers were folded: tell what became known until the last of them was asked."""
        asked = [entry.asked for entry in page]
        if min(asked, default=self._until) < self._until - SLACK:
            # The last number that was told before the first of these was asked; what is left out here comes in the end.
            self._after = self._numbers[max(0, bisect_left(self._moments, min(asked) - SLACK) - 1)]
        self._until = max(asked, default=self._until)
        told: list[Posted] = []
        for posted in self._outcomes.read(self._after):
            if micros(posted.received) > self._until:
                break
            told.append(posted)
            if len(told) == PAGE:
                self._tell(told)
                told = []
        self._tell(told)

    def _tell(self, told: Sequence[Posted]) -> None:
        if not told:
            return
        self._after = told[-1].seq
        if self._after > self._numbers[-1]:
            self._moments.append(max(self._moments[-1], *(micros(posted.received) for posted in told)))
            self._numbers.append(self._after)
        for live in self._lives:
            live.tell(told)
