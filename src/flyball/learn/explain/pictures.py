"""The charts of an explanation, drawn from what was stored of it, and the page that holds them.

Heavy (Altair, V8): import it only where somebody looks.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from flyball.learn.drawing import charts, page
from flyball.learn.drawing.charts import Figure
from flyball.learn.explain import explanation
from flyball.learn.explain.dependence import Dependence
from flyball.learn.explain.explanation import Explanation

MOST = 20
"""Features in a chart."""
OF_EACH = 4
"""Numbers of an answer whose curves are drawn."""


def figures(found: Explanation) -> tuple[Figure, ...]:
    """The charts that the explanation has something for, in reading order."""
    drawn = [("contributions", f"How much each feature moves the score ({found.unit}), 95 % intervals", _sizes(found))]
    spread = f"Contributions ({found.unit}): from 5 to 95 %, thick from 25 to 75 %, dot at the median"
    drawn.append(("spread", spread, _spread(found)))
    if any(f.worth is not None for f in found.features):
        drawn.append(("worth", f"By how much {found.metric} drops without each feature, 95 % intervals", _worth(found)))
    for each in found.dependence:
        caption = f"Answers as {each.column} changes: mean, and what 80 % of {each.rows:,} rows get"
        drawn.append((f"dependence-{each.column}", caption, _curves(each)))
    return tuple(Figure(charts.plain(name), charts.plain(caption), charts.svg(chart)) for name, caption, chart in drawn)


def html(found: Explanation, version: str) -> str:
    """A page that stands alone."""
    body: list[str | None] = [
        page.el("h1", f"{version}: what it makes of its features"),
        page.el("p", explanation.told(found)),
        page.section(
            "What simplicity costs", page.el("ul", *(page.el("li", said) for said in explanation.costs(found)))
        )
        if found.rivals
        else None,
    ]
    shown = [page.el("figure", page.Markup(f.svg), page.el("figcaption", f.caption)) for f in figures(found)]
    body += [page.section("Features", page.el("div", *shown, class_="grid"))]
    if found.why:
        body += [page.section("Not told", page.el("ul", *(page.el("li", said) for said in found.why)))]
    return page.document(f"{version}: explanation", body)


def _sizes(found: Explanation) -> Any:
    rows = [
        {"feature": charts.plain(f.name), "k": k, "of": charts.plain(s.output) or "answer"}
        | {"x": s.size.estimate, "low": s.size.low, "high": s.size.high}
        for k, f in enumerate(found.features[:MOST])
        for s in f.shares[:OF_EACH]
    ]
    return _intervals(rows, "mean absolute contribution")


def _worth(found: Explanation) -> Any:
    rows = [
        {"feature": charts.plain(f.name), "k": k, "of": "answer"}
        | {"x": f.worth.estimate, "low": f.worth.low, "high": f.worth.high}
        for k, f in enumerate(found.features[:MOST])
        if f.worth is not None
    ]
    return _intervals(rows, f"drop of {charts.plain(found.metric)}")


def _intervals(rows: list[dict[str, Any]], title: str) -> Any:
    whole = alt.Chart(charts.data(rows))
    x, low = alt.X("x:Q", title=title), alt.X("low:Q", title=title)
    bars = whole.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q", y=_names(), **_coloured(rows))
    dots = whole.mark_circle(size=36, opacity=1).encode(x=x, y=_names(), **_coloured(rows))
    return (bars + dots).properties(width=charts.WIDTH, height=alt.Step(20))


def _spread(found: Explanation) -> Any:
    rows = [
        {"feature": charts.plain(f.name), "k": k, "of": charts.plain(s.output) or "answer"}
        | dict(zip(("a", "b", "c", "d", "e"), s.quantiles, strict=True))
        for k, f in enumerate(found.features[:MOST])
        for s in f.shares[:OF_EACH]
    ]
    whole, title = alt.Chart(charts.data(rows)), f"contribution ({found.unit})"
    a, b, c = (alt.X(f"{q}:Q", title=title) for q in ("a", "b", "c"))
    thin = whole.mark_rule(strokeWidth=1.5).encode(x=a, x2="e:Q", y=_names(), **_coloured(rows))
    thick = whole.mark_rule(strokeWidth=5, opacity=0.5).encode(x=b, x2="d:Q", y=_names(), **_coloured(rows))
    dots = whole.mark_circle(size=36, opacity=1).encode(x=c, y=_names(), **_coloured(rows))
    return (thin + thick + dots).properties(width=charts.WIDTH, height=alt.Step(20))


def _curves(each: Dependence) -> Any:
    numbers = all(isinstance(point, float | int) for point in each.points)
    points = [float(p) if numbers else charts.plain(p) for p in each.points]
    rows = [
        {"x": point, "k": k, "of": charts.plain(curve.output) or "answer"}
        | {"mean": curve.mean[k], "low": curve.low[k], "high": curve.high[k]}
        for curve in each.curves[:OF_EACH]
        for k, point in enumerate(points)
    ]
    whole = alt.Chart(charts.data(rows))
    sort = alt.EncodingSortField("k", order="ascending")
    x = (
        alt.X("x:Q", title=charts.plain(each.column))
        if numbers
        else alt.X("x:N", sort=sort, title=charts.plain(each.column))
    )
    y = alt.Y("mean:Q", title="answer", scale=alt.Scale(zero=False))
    low = alt.Y("low:Q", title="answer", scale=alt.Scale(zero=False))
    band = (whole.mark_area(opacity=0.15) if numbers else whole.mark_rule(strokeWidth=1.5, opacity=0.6)).encode(
        x=x, y=low, y2="high:Q", **_coloured(rows)
    )
    line = (whole.mark_line(strokeWidth=2) if numbers else whole.mark_circle(size=40, opacity=1)).encode(
        x=x, y=y, **_coloured(rows)
    )
    return (band + line).properties(width=charts.WIDTH, height=charts.HEIGHT)


def _names() -> Any:
    return alt.Y("feature:N", sort=alt.EncodingSortField("k", order="ascending"), title=None)


def _coloured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(row["of"] for row in rows))
    colours = [charts.LIGHT[name] for name in ("accent", "second", "bad", "muted")]
    if len(names) < 2:
        return {"color": alt.value(colours[0])}
    scale = alt.Scale(domain=names, range=colours[: len(names)])
    return {"color": alt.Color("of:N", scale=scale, legend=alt.Legend(title=None))}
