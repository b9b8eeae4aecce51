"""Small drawings for the page of a table: bars, boxes, dots with intervals, weeks, and shares as stripes.

Each is an SVG of a few shapes, without a script, coloured by the page's own variables, so it follows light and dark. What a
shape is about stands in its title, which a reader sees on hovering. Text from outside enters through `page.el` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from flyball.data.sketches.bias import Share
from flyball.learn.drawing import page
from flyball.learn.drawing.page import Markup

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def bars(counts: Sequence[int], labels: Sequence[str], wide: int = 300, high: int = 64, kind: str = "bars") -> Markup:
    """A bar for each count, the highest as high as there is room; a bar that has any row is seen."""
    most, step = max(counts, default=0) or 1, wide / max(1, len(counts))
    gap = min(2.0, step * 0.15)
    drawn = []
    for k, (n, label) in enumerate(zip(counts, labels, strict=True)):
        tall = max(1.5, (high - 1) * n / most) if n else 0.0
        shape = {"x": f"{k * step:.2f}", "y": f"{high - 1 - tall:.2f}", "width": f"{step - gap:.2f}"}
        drawn.append(page.el("rect", page.el("title", f"{label}: {n:,}"), height=f"{tall:.2f}", **shape))
    base = page.el("line", x1="0", x2=str(wide), y1=f"{high - 0.5}", y2=f"{high - 0.5}", class_="base")
    return _svg(wide, high, kind, *drawn, base)


def box(marks: Sequence[float], ends: tuple[float, float], wide: int = 200, kind: str = "box") -> Markup:
    """p5, p25, p50, p75 and p95 on an axis between `ends`."""
    room = (ends[1] - ends[0]) or 1.0
    p5, p25, p50, p75, p95 = (f"{4 + (wide - 8) * min(1.0, max(0.0, (m - ends[0]) / room)):.1f}" for m in marks)
    inner = page.el(
        "rect", x=p25, y="3", width=f"{max(1.0, float(p75) - float(p25)):.1f}", height="8", rx="2", class_="mid"
    )
    return _svg(
        wide,
        14,
        kind,
        page.el("line", x1=p5, x2=p95, y1="7", y2="7", class_="reach"),
        inner,
        page.el("line", x1=p50, x2=p50, y1="2", y2="12", class_="half"),
    )


def interval(share: Share, upto: float, mark: float | None = None, wide: int = 120) -> Markup:
    """A share as a dot with its interval, from 0 to `upto`; `mark` as a line behind it."""
    low, mid, high = (f"{5 + (wide - 10) * x / upto:.1f}" for x in (share.low, share.estimate, share.high))
    shapes = [page.el("line", x1="5", x2=str(wide - 5), y1="9", y2="9", class_="rail")]
    if mark is not None:
        at = f"{5 + (wide - 10) * min(mark, upto) / upto:.1f}"
        shapes.append(page.el("line", x1=at, x2=at, y1="1", y2="17", class_="at"))
    shapes.append(page.el("line", x1=low, x2=high, y1="9", y2="9", class_="bar"))
    shapes.append(page.el("circle", cx=mid, cy="9", r="3.5", class_="dot"))
    return _svg(wide, 18, "glyph", *shapes)


def week(counts: Sequence[int]) -> Markup:
    """A cell for each hour of the week; the darker, the more rows."""
    most, cell, left = max(counts, default=0) or 1, 21, 36
    drawn = []
    for k, n in enumerate(counts):
        day, hour = divmod(k, 24)
        title = page.el("title", f"{_DAYS[day]} {hour:02d}:00: {n:,}")
        at = {"x": str(left + hour * cell), "y": str(day * cell), "width": str(cell - 2), "height": str(cell - 2)}
        drawn.append(page.el("rect", title, rx="3", fill_opacity=f"{0.04 + 0.96 * n / most:.3f}", **at))
    names = [
        page.el("text", name, x=str(left - 8), y=str(k * cell + 14), text_anchor="end") for k, name in enumerate(_DAYS)
    ]
    hours = [
        page.el("text", f"{h:02d}", x=str(left + h * cell + 9), y=str(7 * cell + 12), text_anchor="middle")
        for h in range(0, 24, 3)
    ]
    return _svg(left + 24 * cell, 7 * cell + 18, "week", *drawn, *names, *hours)


def stripes(rows: Mapping[str, Sequence[float]], columns: Sequence[str]) -> Markup:
    """A row of cells for each name, one a column: the darker, the greater the share."""
    left, tall = 200, 24
    wide = min(72.0, 860 / max(1, len(columns)))
    drawn: list[Markup] = []
    for k, (name, shares) in enumerate(rows.items()):
        shown = name if len(name) <= 26 else f"{name[:25]}…"
        drawn.append(page.el("text", shown, x=str(left - 12), y=str(k * tall + 15), text_anchor="end"))
        for j, share in enumerate(shares):
            title = page.el("title", f"{name}, {columns[j]}: {share:.1%} missing")
            at = {
                "x": f"{left + j * wide:.1f}",
                "y": str(k * tall),
                "width": f"{wide - 2:.1f}",
                "height": str(tall - 3),
            }
            drawn.append(page.el("rect", title, rx="3", fill_opacity=f"{0.05 + 0.95 * share:.3f}", **at))
    every = max(1, len(columns) // 12)
    for j in range(0, len(columns), every):
        at = {"x": f"{left + j * wide + wide / 2 - 1:.1f}", "y": str(len(rows) * tall + 14)}
        drawn.append(page.el("text", columns[j].removeprefix("batch "), text_anchor="middle", **at))
    return _svg(1072, len(rows) * tall + 20, "stripes", *drawn)


def _svg(wide: float, high: float, kind: str, *shapes: Markup) -> Markup:
    size = {"viewBox": f"0 0 {wide:g} {high:g}", "width": f"{wide:g}", "height": f"{high:g}"}
    return page.el("svg", *shapes, class_=f"strokes {kind}", role="img", **size)
