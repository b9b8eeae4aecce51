"""The plots of an evaluation, each defined once (Altair) and rendered to SVG without a browser (vl-convert).

A plot is drawn in the colours of LIGHT; a style inside the SVG exchanges them for those of DARK where the reader's setting
asks for it, so one file serves both, inline and on its own. It holds no script, no id, no font and no address to load from.
Names of groups come from data: they enter as values of fixed fields, never as fields or expressions, and Vega escapes them.

Heavy (Altair, V8): import it only where a report is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt
import vl_convert

from flyball._kernel.errors import bounded
from flyball.learn.quality import metrics
from flyball.learn.quality.evaluate import Evaluation

LIGHT: Final = {
    "ink": "#374151",
    "muted": "#6b7280",
    "line": "#e5e7eb",
    "soft": "#c3c9d4",
    "accent": "#2563eb",
    "second": "#d97706",
    "bad": "#b91c1c",
}
DARK: Final = {
    "ink": "#d1d5db",
    "muted": "#9ca3af",
    "line": "#30363f",
    "soft": "#566070",
    "accent": "#7aa2f7",
    "second": "#f0a04b",
    "bad": "#f87171",
}
WIDTH, HEIGHT = 380, 270
TEXT = 2_000
"""Characters of one piece of text from outside."""
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"

_STYLE = "".join(f"[{what}='{LIGHT[k]}']{{{what}:{DARK[k]}}}" for what in ("fill", "stroke") for k in LIGHT)
_CONFIG: Mapping[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": LIGHT["muted"],
        "labelFontSize": 11,
        "titleColor": LIGHT["ink"],
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": LIGHT["line"],
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "tickCount": 5,
    },
    "legend": {"labelColor": LIGHT["ink"], "titleColor": LIGHT["muted"], "labelFontSize": 11, "titleFontSize": 11},
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot: a name for files, what it shows in one line, and the SVG."""

    name: str
    caption: str
    svg: str


def plain(text: object) -> str:
    """Text from outside on one line: control and direction characters, which could pose as something else, replaced."""
    shown = "".join(" " if c.isspace() else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return bounded(shown, TEXT)


def headline(evaluation: Evaluation) -> str:
    """The metric by which groups are shown: the first that suits the outcome."""
    return metrics.PLAINLY[evaluation.task.kind][0].name


def figures(evaluation: Evaluation) -> tuple[Figure, ...]:
    """The plots that the evaluation has something for, in reading order."""
    drawn = []
    if evaluation.roc:
        drawn.append(("roc", "How many of the true are found, for how many of the false", _roc(evaluation)))
    if evaluation.precision_recall:
        caption = "How many of those found are true; dashed: the base rate"
        drawn.append(("precision-recall", caption, _precision_recall(evaluation)))
    caption = "What came true of what was said, with 95 % intervals"
    drawn.append(("calibration", caption, _calibration(evaluation)))
    if evaluation.shares:
        drawn.append(("scores", "Predicted probability by outcome, as shares of each", _scores(evaluation)))
    else:
        drawn.append(("errors", "Errors (outcome minus prediction), the last bars open", _scores(evaluation)))
    if any(headline(evaluation) in g.measurements for g in evaluation.slices):
        caption = f"{headline(evaluation)} of each group with its 95 % interval and rows; dashed: all rows"
        drawn.append(("slices", caption, _slices(evaluation)))
    return tuple(Figure(name, caption, svg(chart)) for name, caption, chart in drawn)


def svg(chart: Any) -> str:
    """A chart as SVG text that suits light and dark pages."""
    drawn: str = vl_convert.vegalite_to_svg({**chart.to_dict(), "config": _CONFIG})
    head, rest = drawn.split(">", 1)
    return f"{head}><style>@media (prefers-color-scheme:dark){{{_STYLE}}}</style>{rest}"


def _roc(evaluation: Evaluation) -> Any:
    axes = "false positive rate", "true positive rate"
    return _sized(_line([(0, 0), (1, 1)], *axes, dashed=True) + _line(evaluation.roc, *axes))


def _precision_recall(evaluation: Evaluation) -> Any:
    axes = "recall", "precision"
    base = _line([(0, evaluation.base_rate), (1, evaluation.base_rate)], *axes, dashed=True)
    return _sized(base + _line(evaluation.precision_recall, *axes))


def _calibration(evaluation: Evaluation) -> Any:
    axes = ("mean predicted probability", "share that came true")
    if evaluation.quantiles:
        axes = ("quantile", "share of outcomes at or below it")
    elif not evaluation.shares:
        axes = ("mean prediction", "mean outcome")
    bins = [{"x": b.score, "y": b.outcome, "low": b.low, "high": b.high} for b in evaluation.calibration]
    low = 0.0 if evaluation.shares else min(b["x"] for b in bins)
    high = max(max(b["x"], b["high"]) for b in bins)
    marks = alt.Chart(data(bins)).encode(x=alt.X("x:Q", title=axes[0]))
    bars = marks.mark_rule(color=LIGHT["accent"], strokeWidth=1.5).encode(y=alt.Y("low:Q", title=axes[1]), y2="high:Q")
    dots = marks.mark_circle(color=LIGHT["accent"], size=36, opacity=1).encode(y=alt.Y("y:Q", title=axes[1]))
    return _sized(_line([(low, low), (high, high)], *axes, dashed=True) + bars + dots)


def _scores(evaluation: Evaluation) -> Any:
    edges, parts, rows = evaluation.histogram.edges, evaluation.histogram.counts, []
    for name in sorted(parts):  # false before true; stored JSON has no order of its own
        total, counts = max(1, sum(parts[name])), parts[name]
        rows += [
            {"x": edges[k], "x2": edges[k + 1], "y": c / total, "zero": 0, "of": name} for k, c in enumerate(counts)
        ]
    colours = alt.Scale(domain=sorted(parts), range=[LIGHT["second"], LIGHT["accent"]][-len(parts) :])
    legend = alt.Legend(title="outcome", orient="top-right") if evaluation.shares else None
    bars = alt.Chart(data(rows)).mark_rect(opacity=0.5, strokeWidth=0)
    return _sized(
        bars.encode(
            x=alt.X("x:Q", title="predicted probability" if evaluation.shares else "error"),
            x2="x2:Q",
            y=alt.Y("y:Q", title="share of rows", axis=alt.Axis(format="%")),
            y2="zero:Q",
            color=alt.Color("of:N", scale=colours, legend=legend),
        )
    )


def _slices(evaluation: Evaluation) -> Any:
    metric = headline(evaluation)
    rows = [
        {
            "slice": plain(g.slice),
            "group": plain(g.group),
            "n": f"{g.n:,}",
            "k": k,
            "all": evaluation.measurements[metric].estimate,
        }
        | {
            "mid": g.measurements[metric].estimate,
            "low": g.measurements[metric].low,
            "high": g.measurements[metric].high,
        }
        for k, g in enumerate(evaluation.slices)
        if metric in g.measurements
    ]
    y = alt.Y("group:N", sort=alt.EncodingSortField("k", order="ascending"), title=None, axis=alt.Axis(grid=False))
    scale = alt.Scale(zero=False)
    low, mid, all_ = (alt.X(f, title=metric, scale=scale) for f in ("low:Q", "mid:Q", "mean(all):Q"))
    whole = alt.Chart().mark_rule(strokeDash=[4, 4], color=LIGHT["muted"]).encode(x=all_)
    bars = alt.Chart().mark_rule(color=LIGHT["accent"], strokeWidth=1.5).encode(x=low, x2="high:Q", y=y)
    dots = alt.Chart().mark_circle(color=LIGHT["accent"], size=36, opacity=1).encode(x=mid, y=y)
    size = alt.Chart().mark_text(align="right", color=LIGHT["muted"], fontSize=10)
    sizes = size.encode(x=alt.value(2 * WIDTH + 40), y=y, text="n:N")
    layers = alt.layer(whole, bars, dots, sizes, data=data(rows)).properties(width=2 * WIDTH, height=alt.Step(18))
    header = alt.Header(
        title=None, labelAnchor="start", labelFontWeight="bold", labelColor=LIGHT["ink"], labelFontSize=12
    )
    by = alt.Facet("slice:N", sort=list(dict.fromkeys(plain(g.slice) for g in evaluation.slices)), header=header)
    return layers.facet(facet=by, columns=1, spacing=14).resolve_scale(y="independent")


def data(rows: Sequence[Mapping[str, object]]) -> Any:
    """Rows as values of fixed fields."""
    return alt.InlineData(values=[dict(r) for r in rows])


def _line(points: Sequence[tuple[float, float]], x: str, y: str, *, dashed: bool = False) -> Any:
    style: dict[str, Any] = {"strokeDash": [4, 4], "strokeWidth": 1} if dashed else {"strokeWidth": 2}
    rows = [{"x": a, "y": b, "k": k} for k, (a, b) in enumerate(points)]
    mark = alt.Chart(data(rows)).mark_line(color=LIGHT["muted" if dashed else "accent"], **style)
    return mark.encode(x=alt.X("x:Q", title=x), y=alt.Y("y:Q", title=y), order="k:Q")


def _sized(chart: Any) -> Any:
    return chart.properties(width=WIDTH, height=HEIGHT)
