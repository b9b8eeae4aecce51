"""The plots of a search: how its score rose, and how it hangs on each knob. Drawn as `charts` draws, and as heavy.

Scores are those of the validation rows. A trial that was given up shows the score after which it was; one that failed has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from flyball.learn.drawing import page
from flyball.learn.drawing.charts import LIGHT, Figure, data, plain, svg

WIDTH, HEIGHT, COLUMNS = 230, 170, 3
MOST: Final = 2_000
"""Trials that are drawn: the last of them, where there are more."""
KNOBS: Final = 24
"""Knobs that are drawn; each is a plot of its own."""
SPREAD: Final = 50.0
"""A knob whose values are further apart than by this factor is drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One trial as it is drawn.

    Attributes:
        best: the best complete score until then, in its own search; None before the first.
        knobs: name -> value; None where it had none.
    """

    search: str
    score: float | None
    best: float | None
    state: str
    chosen: bool
    knobs: dict[str, float | str | None]


def figures(dots: Sequence[Dot], metric: str) -> tuple[Figure, ...]:
    """The plots, in reading order; empty where no trial has a score."""
    shown = [dot for dot in dots if dot.score is not None][-MOST:]
    if not shown:
        return ()
    drawn = [
        Figure(
            "score", f"{metric} on validation rows, trial by trial; line: the best so far", svg(_over(shown, metric))
        )
    ]
    if names := _names(shown):
        caption = f"{metric} against each knob; ringed: what was chosen"
        drawn.append(Figure("knobs", caption, svg(_against(shown, names, metric))))
    return tuple(drawn)


def sheet(dots: Sequence[Dot], metric: str) -> str:
    """All plots as one SVG; empty where no trial has a score."""
    shown = [dot for dot in dots if dot.score is not None][-MOST:]
    if not shown:
        return ""
    over, names = _over(shown, metric), _names(shown)
    return svg(alt.vconcat(over, _against(shown, names, metric)) if names else over)


def document(title: str, dots: Sequence[Dot], metric: str) -> str:
    """The plots as a page that stands alone."""
    body = [
        page.el("header", page.el("h1", title)),
        *(page.el("figure", page.Markup(f.svg), page.el("figcaption", f.caption)) for f in figures(dots, metric)),
        page.el("footer", f"{len(dots):,} trials; the last {MOST:,} at most are drawn."),
    ]
    return page.document(title, body)


def _names(dots: Sequence[Dot]) -> list[str]:
    return list(dict.fromkeys(name for dot in dots for name, value in dot.knobs.items() if value is not None))[:KNOBS]


def _over(dots: Sequence[Dot], metric: str) -> Any:
    rows = [
        {"x": n, "y": dot.score, "best": dot.best, "state": dot.state, "search": dot.search}
        for n, dot in enumerate(dots, 1)
    ]
    y = alt.Scale(zero=False)
    base = alt.Chart(data(rows)).encode(x=alt.X("x:Q", title="trial"))
    points = base.mark_circle(size=30, opacity=0.9).encode(y=alt.Y("y:Q", title=metric, scale=y), color=_colour())
    line = base.mark_line(color=LIGHT["second"], strokeWidth=2, interpolate="step-after")
    best = line.encode(y=alt.Y("best:Q", title=metric, scale=y), detail="search:N")
    return (points + best).properties(width=3 * WIDTH, height=HEIGHT + 60)


def _colour() -> Any:
    scale = alt.Scale(domain=["complete", "pruned"], range=[LIGHT["accent"], LIGHT["soft"]])
    return alt.Color("state:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def _against(dots: Sequence[Dot], names: Sequence[str], metric: str) -> Any:
    return alt.concat(*(_one(dots, name, metric) for name in names), columns=COLUMNS, spacing=24)


def _one(dots: Sequence[Dot], name: str, metric: str) -> Any:
    values = [(dot, value) for dot in dots if (value := dot.knobs.get(name)) is not None]
    texts = any(isinstance(value, str) for _, value in values)
    rows = [
        {"x": plain(value) if texts else value, "y": dot.score, "state": dot.state, "chosen": dot.chosen}
        for dot, value in values
    ]
    if texts:
        x = alt.X("x:N", title=plain(name), axis=alt.Axis(labelAngle=0))
    else:
        numbers = [float(value) for _, value in values]
        log = min(numbers) > 0 and max(numbers) / min(numbers) > SPREAD
        x = alt.X("x:Q", title=plain(name), scale=alt.Scale(type="log" if log else "linear", zero=False, nice=False))
    y = alt.Y("y:Q", title=metric, scale=alt.Scale(zero=False))
    points = alt.Chart(data(rows)).mark_circle(size=30, opacity=0.9).encode(x=x, y=y, color=_colour())
    chosen = alt.Chart(data([row for row in rows if row["chosen"]])).mark_point(size=110, strokeWidth=2)
    ringed = chosen.encode(x=x, y=y, color=alt.value(LIGHT["second"]))
    return (points + ringed if any(row["chosen"] for row in rows) else points).properties(width=WIDTH, height=HEIGHT)
