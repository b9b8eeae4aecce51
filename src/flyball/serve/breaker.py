"""A breaker: takes a version that fails, or blocks its process, out of it within attempts rather than minutes."""

from __future__ import annotations

from typing import Final

SLOW: Final = 0.05
"""Seconds of one attempt that count as one fault: a hundred times what an answer takes."""


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

    @property
    def room(self) -> int:
        """Faults that the next attempts may have, without one between them that opens it; 0 or less once it is open."""
        return self.FAULTS - self._recent.bit_count()

    def faults(self, failed: str, seconds: float) -> int:
        """What an attempt counts; parameters as `saw`."""
        return max(0, min(self.AT_MOST, int(seconds / self._slow)), bool(failed))

    def saw(self, failed: str, seconds: float) -> bool:
        """Count one attempt; returns whether it opens by this one.

        Args:
            failed: the code of its error, or "".
            seconds: that it took, or took longer than the champion.
        """
        faults = self.faults(failed, seconds)
        # A bit for each attempt, the latest lowest, and one more for each fault beyond the first.
        self._recent = (self._recent << max(faults, 1) | (1 << faults) - 1) & self._KEPT
        if self.why or not faults or self._recent.bit_count() < self.FAULTS:
            return False
        cause = failed or f"an answer took {seconds:.3g} s"
        self.why = f"{self._recent.bit_count()} faults in the last {self.LAST} attempts; the latest: {cause}"
        return True
