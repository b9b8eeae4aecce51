"""How a comparison is measured: everybody does the same work, in turns, in one run, and all results must agree.

These machines are noisy, so single figures mean little: the turns are interleaved, and minimum, median and maximum are shown.
Ratios are taken of medians.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Measure = Callable[[], float]
"""One turn: does the work and returns the figure."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: the case.
        unit: of the figures, such as "s" or "req/s".
        higher: whether more is better.
        figures: contestant -> one figure a turn; "ours" and "limit" among them.
    """

    name: str
    unit: str
    higher: bool
    figures: Mapping[str, list[float]] = field(default_factory=dict)

    def median(self, who: str) -> float:
        """The middle figure of a contestant."""
        return statistics.median(self.figures[who])

    def peers(self) -> dict[str, float]:
        """How many times better than each peer we are."""
        ours = self.median("ours")
        rest = [who for who in self.figures if who not in ("ours", "limit")]
        return {who: round(ours / self.median(who) if self.higher else self.median(who) / ours, 3) for who in rest}

    def row(self) -> str:
        """One JSON object, as `--json` prints it."""
        ours, limit = self.median("ours"), self.median("limit")
        said = {
            "case": self.name,
            "unit": self.unit,
            "ours": ours,
            "limit": limit,
            "ratio_to_limit": round(ours / limit, 4),
            "peers": self.peers(),
        }
        return json.dumps(said)

    def table(self) -> str:
        """The same for a person: minimum, median and maximum of each."""
        lines = [f"{self.name}  [{self.unit}, {'more' if self.higher else 'less'} is better]"]
        for who, runs in self.figures.items():
            spread = f"{min(runs):>12,.6g} {statistics.median(runs):>12,.6g} {max(runs):>12,.6g}"
            versus = "" if who == "ours" else f"   ours/{who} = {self.median('ours') / self.median(who):.3f}"
            lines.append(f"  {who:<18}{spread}{versus}")
        return "\n".join(lines)


def measure(name: str, unit: str, contestants: Mapping[str, Measure], *, higher: bool, turns: int = 5) -> Case:
    """Let everybody take a turn, `turns` times over, after one that does not count."""
    for turn in contestants.values():
        turn()
    figures: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(turns):
        for who, turn in contestants.items():
            figures[who].append(turn())
    return Case(name, unit, higher, figures)
