"""Fresh: does news still come? Of a source, by its newest row; of the questions, by how many came in the same hours before.

Both are told on plain values as **ok**, **breach**, or **blind** where too little is there to tell. Silence is a breach when
something should have come: a server that nobody reaches has no errors and no latency, and looks well by every other measure.
Not told here: more questions than usual, which harm nobody but the server, and it says so itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
import numpy as np

from flyball._kernel.clock import MICROSECOND, micros
from flyball._kernel.durations import short
from flyball.data.interval import wilson
from flyball.data.profile import Counts

State = Literal["ok", "breach", "blind"]

WEEK = timedelta(weeks=1)
DAY = timedelta(days=1)
EARLIER = 4
"""Weeks that are looked back at most; where there is no whole week yet, days."""
HALF = 0.5
"""Of what is usual: so much less is a breach. Traffic varies by more than chance, but not by half for a whole span."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. `estimate`: the age in seconds, or the share of what is usual; None where there is nothing to tell by."""

    state: State
    estimate: float | None
    reason: str


def freshness(newest: datetime | None, within: timedelta, now: datetime) -> Look:
    """Whether a source is as fresh as it was declared to be.

    Args:
        newest: the greatest `_known` of its rows before now; None while it has none.
        within: the declared `fresh_within`.
    """
    if newest is None:
        return Look(state="blind", estimate=None, reason="no row yet")
    age = now - newest
    state: State = "ok" if age <= within else "breach"
    hours = age / timedelta(hours=1)
    return Look(
        state=state, estimate=age.total_seconds(), reason=f"newest row {hours:.1f}h old, declared {short(within)}"
    )


def volume(asked: Counts, span: timedelta, since: datetime | None, now: datetime, before: State = "blind") -> Look:
    """Whether as many questions came in the last span as in the same span of earlier weeks, or days.

    If nothing changed, each of these questions falls into the last one of the spans with the same chance (a Poisson count
    given the sum is binomial: Przyborowski and Wilenski 1940), so Wilson's interval of that share bounds the ratio.

    Args:
        asked: (n,) when questions were asked, ascending, in microseconds; of at least five weeks, if there were any.
        span: at most a day.
        since: from when on `asked` is whole; spans that began before are not compared. None: there was no question ever.
        before: what it was last found to be. Few questions are often too few to tell, and it stays that until they do.
    """
    step = WEEK if since is not None and now - WEEK - span >= since else DAY
    most = EARLIER if step == WEEK else 6
    begins = [now - span - k * step for k in range(1, most + 1)]
    begins = [b for b in begins if since is not None and b >= since]
    if not begins:
        return Look(state="blind", estimate=None, reason=f"no earlier {short(span)} to compare with")
    here = _within(asked, now - span, span)
    earlier = sum(_within(asked, b, span) for b in begins)
    if not here + earlier:
        return Look(state="blind", estimate=None, reason=f"nothing is asked in this {short(span)}, now or before")
    usual = earlier / len(begins)
    low, high = (_ratio(share, len(begins)) for share in wilson(here, here + earlier))
    state: State = "breach" if high < HALF else "ok" if low >= HALF else before
    reason = f"{here} questions in {short(span)}, usually {usual:.1f}"
    return Look(state=state, estimate=here / usual if usual else None, reason=reason)


def _within(asked: Counts, begin: datetime, span: timedelta) -> int:
    start = micros(begin)
    low, high = np.searchsorted(asked, [start, start + span // MICROSECOND], side="left")
    return int(high - low)


def _ratio(share: float, spans: int) -> float:
    return spans * share / (1 - share) if share < 1 else float("inf")
