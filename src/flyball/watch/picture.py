"""The plots of a chronicle: releases, quality, monitors and answers over time, all on one axis of time (UTC).

    releases     a band for each version: shadow, canary, champion; a cross where it fell
    quality-...  a metric for each version that answered, with 95 % intervals; dashed: its threshold
    monitor-...  what a monitor found, against its limit
    answers      attempts a day, by role

Drawn as `learn.drawing.charts` draws: SVG without a script, for light and dark pages. Names come from outside and enter as
values only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import altair as alt

from flyball.learn.drawing import charts
from flyball.learn.drawing.charts import LIGHT, Figure
from flyball.watch.chronicle import Chronicle, Curve, Series

WIDTH: Final = 960
HALF: Final = 420
HEIGHT: Final = 150

LINES: Final = 3
VERSIONS: Final = 40
"""The latest versions that are drawn; the tables hold all."""

_ROLES: Final = {
    "champion": ("champion",),
    "canary": ("canary",),
    "shadow": ("shadow",),
    "stood in": ("previous", "baseline", "default"),
}
_DAY: Final = timedelta(days=1)


def figures(chronicle: Chronicle) -> tuple[Figure, ...]:
    """The plots that the chronicle has something for, in reading order."""
    ends = _reach(chronicle)
    drawn = []
    if chronicle.spans or chronicle.ways:
        drawn.append(("releases", "Versions: shadow, canary and champion; a cross: fell", _releases(chronicle, ends)))
    for curve in (c for c in chronicle.quality if c.points):
        drawn += [(f"quality-{curve.metric}", _quality_caption(curve), _quality(chronicle, curve, ends))]
    for k, series in enumerate(chronicle.monitors, 1):
        if any(p.estimate is not None for p in series.points):
            caption = f"{charts.plain(series.watches or series.monitor)}; grey ticks: blind"
            drawn.append((f"monitor-{k}", caption, _monitor(series, ends)))
    if chronicle.days:
        drawn.append(("answers", "Attempts a day; rules: another champion", _answers(chronicle, ends)))
    return tuple(Figure(name, caption, charts.svg(chart)) for name, caption, chart in drawn)


def _quality_caption(curve: Curve) -> str:
    each = "day" if curve.days == 1 else f"{curve.days} days"
    dashed = "; dashed: what is asked of it" if curve.threshold is not None else ""
    return f"{curve.metric} of each {each}, by version, with 95 % intervals; hollow: beside whoever answered{dashed}"


def _reach(chronicle: Chronicle) -> tuple[datetime, datetime]:
    """From the first thing that is known of the model to now."""
    days = [datetime.fromisoformat(c.day).replace(tzinfo=UTC) for c in chronicle.days[:1]]
    starts = [s.start for s in chronicle.spans[:1]] + [w.start for w in chronicle.ways[:1]] + days
    starts += [s.points[0].at for s in chronicle.monitors]
    first = min(starts, default=chronicle.at)
    return first, max(chronicle.at, first + _DAY)


def _releases(chronicle: Chronicle, ends: tuple[datetime, datetime]) -> Any:
    names = list(dict.fromkeys(name for _, name in sorted(_starts(chronicle))))[-VERSIONS:]
    bands: list[dict[str, object]] = []
    for way in chronicle.ways:
        for stage in way.stages:
            what = "canary" if stage.share else "shadow"
            share = f"{stage.share:.0%}" if stage.share else ""
            bands.append(_band(way.version, stage.start, stage.end or ends[1], what, share))
    bands += [_band(s.version, s.start, s.end or ends[1], "champion", "") for s in chronicle.spans]
    fallen = [{"version": w.version, "start": _at(w.end)} for w in chronicle.ways if w.ended == "aborted" and w.end]
    fallen += [{"version": s.version, "start": _at(s.end)} for s in chronicle.spans if s.fell and s.end]
    shown = {charts.plain(n) for n in names}
    colours = alt.Scale(domain=["champion", "canary", "shadow"], range=[LIGHT[c] for c in ("accent", "second", "soft")])
    x, y = _x("start", ends), alt.Y("version:N", sort=[charts.plain(n) for n in names], title=None)
    legend = alt.Legend(title=None, orient="top", direction="horizontal")
    made = alt.Chart(_rows(b for b in bands if b["version"] in shown))
    layers = [
        made.mark_bar(height=12).encode(x=x, x2="end:T", y=y, color=alt.Color("what:N", scale=colours, legend=legend))
    ]
    layers.append(
        made.mark_text(align="left", baseline="bottom", dy=-7, fontSize=9, color=LIGHT["muted"]).encode(
            x=x, y=y, text="share:N"
        )
    )
    crosses = [{**c, "version": charts.plain(c["version"])} for c in fallen]
    if crosses:
        cross = alt.Chart(_rows(c for c in crosses if c["version"] in shown))
        layers.append(cross.mark_text(text="✕", color=LIGHT["bad"], fontSize=15, fontWeight="bold").encode(x=x, y=y))
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(28))


def _starts(chronicle: Chronicle) -> Iterable[tuple[datetime, str]]:
    yield from ((w.start, w.version) for w in chronicle.ways)
    yield from ((s.start, s.version) for s in chronicle.spans)


def _band(version: str, start: datetime, end: datetime, what: str, share: str) -> dict[str, object]:
    return {"version": charts.plain(version), "start": _at(start), "end": _at(end), "what": what, "share": share}


def _quality(chronicle: Chronicle, curve: Curve, ends: tuple[datetime, datetime]) -> Any:
    names = list(dict.fromkeys(p.version for p in curve.points))
    # Neighbours in time differ; the names stand beside the champion changes, where a colour would come round again.
    order = ("accent", "second", "muted", "bad")
    colours = alt.Scale(
        domain=[charts.plain(n) for n in names], range=[LIGHT[order[k % len(order)]] for k in range(len(names))]
    )
    rows = [
        {
            "at": _at(p.start + (min(p.end, ends[1]) - p.start) / 2),
            "version": charts.plain(p.version),
            "mid": p.measured.estimate,
            "low": p.measured.low,
            "high": p.measured.high,
            "own": p.answered > 0,
        }
        for p in curve.points
    ]
    whole = (ends[0] - curve.days * _DAY, ends[1])
    marks = alt.Chart(_rows(rows)).encode(
        x=_x("at", whole),
        color=alt.Color(
            "version:N", scale=colours, legend=alt.Legend(title=None, orient="top", columns=8, symbolOpacity=1)
        ),
    )
    free = alt.Scale(zero=False)
    mid, low = alt.Y("mid:Q", title=curve.metric, scale=free), alt.Y("low:Q", title=curve.metric, scale=free)
    band = marks.mark_area(opacity=0.14).encode(y=low, y2="high:Q")
    bars = marks.mark_rule(opacity=0.5).encode(y=low, y2="high:Q")
    line = marks.transform_filter("datum.own").mark_line(strokeWidth=1.5).encode(y=mid)
    dots = marks.transform_filter("datum.own").mark_point(filled=True, opacity=1, size=28).encode(y=mid)
    beside = marks.transform_filter("!datum.own").mark_point(filled=False, size=28, opacity=1).encode(y=mid)
    layers = [band, bars, line, dots, beside, *_changes(chronicle, whole), *_limit(curve.threshold, curve.metric)]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT + 50)


def _changes(chronicle: Chronicle, ends: tuple[datetime, datetime]) -> list[Any]:
    """A rule wherever another version became champion."""
    rows = [{"at": _at(s.start), "version": charts.plain(s.version)} for s in chronicle.spans[1:]]
    if not rows:
        return []
    rule = alt.Chart(_rows(rows)).mark_rule(color=LIGHT["muted"], strokeDash=[2, 2]).encode(x=_x("at", ends))
    layers: list[Any] = [rule]
    for k in range(LINES):  # names of changes that follow closely stand below one another
        made = alt.Chart(_rows(rows[k::LINES])).mark_text(align="left", dx=3, fontSize=9, color=LIGHT["muted"])
        layers.append(made.encode(x=_x("at", ends), y=alt.value(6 + 11 * k), text="version:N"))
    return layers


def _limit(threshold: float | None, title: str) -> list[Any]:
    if threshold is None:
        return []
    rule = alt.Chart(_rows([{"limit": threshold}])).mark_rule(strokeDash=[5, 4], color=LIGHT["bad"])
    return [rule.encode(y=alt.Y("limit:Q", title=title))]


def _monitor(series: Series, ends: tuple[datetime, datetime]) -> Any:
    points = series.points
    title = charts.plain(series.monitor)
    rows = [
        {"at": _at(p.at), "y": p.estimate, "limit": p.threshold, "state": p.state, "low": p.low, "high": p.high}
        for p in points
    ]
    free, x = alt.Scale(zero=False, nice=True), _x("at", ends)
    seen = alt.Chart(_rows(r for r in rows if r["y"] is not None))
    colours = alt.Scale(domain=["ok", "blind", "breach"], range=[LIGHT[c] for c in ("accent", "muted", "bad")])
    y = alt.Y("y:Q", title=title, scale=free)
    colour = alt.Color("state:N", scale=colours, legend=None)
    layers = [
        seen.mark_line(color=LIGHT["soft"], strokeWidth=1.5).encode(x=x, y=y),
        seen.mark_circle(size=30, opacity=1).encode(x=x, y=y, color=colour),
    ]
    if any(p.low is not None for p in points):
        spread = alt.Chart(_rows(r for r in rows if r["low"] is not None)).mark_rule(opacity=0.6)
        layers.append(spread.encode(x=x, y=alt.Y("low:Q", title=title, scale=free), y2="high:Q", color=colour))
    limited = [r for r in rows if r["limit"] is not None]
    if limited:
        # A step: a limit is another one only where another version, with another history, answers.
        rows_of_limit = [*limited, {**limited[-1], "at": _at(ends[1])}]
        limit = alt.Chart(_rows(rows_of_limit)).mark_line(
            interpolate="step-after", strokeDash=[5, 4], strokeWidth=1, color=LIGHT["bad"]
        )
        layers.append(limit.encode(x=x, y=alt.Y("limit:Q", title=title, scale=free)))
    blind = [r for r in rows if r["state"] == "blind" and r["y"] is None]
    if blind:
        ticks = alt.Chart(_rows(blind)).mark_tick(orient="vertical", color=LIGHT["muted"], size=8)
        layers.append(ticks.encode(x=x, y=alt.value(HEIGHT - 4)))
    return alt.layer(*layers).properties(width=HALF, height=HEIGHT)


def _answers(chronicle: Chronicle, ends: tuple[datetime, datetime]) -> Any:
    of = {role: what for what, roles in _ROLES.items() for role in roles}
    rows: list[dict[str, object]] = []
    for c in chronicle.days:
        start = datetime.fromisoformat(c.day).replace(tzinfo=UTC)
        each = {"at": _at(start), "end": _at(start + _DAY), "version": charts.plain(c.version)}
        gave = c.attempts - c.failed
        rows += [{**each, "what": of.get(c.role, "stood in"), "n": gave}] if gave else []
        rows += [{**each, "what": "failed", "n": c.failed}] if c.failed else []
    shades = dict(zip((*_ROLES, "failed"), ("accent", "second", "soft", "muted", "bad"), strict=True))
    for row in rows:
        row["rank"] = list(shades).index(str(row["what"]))
    present = [what for what in (*_ROLES, "failed") if any(r["what"] == what for r in rows)]
    colours = alt.Scale(domain=present, range=[LIGHT[shades[what]] for what in present])
    whole = (min(ends[0], datetime.fromisoformat(chronicle.days[0].day).replace(tzinfo=UTC)), ends[1] + _DAY)
    bars = (
        alt.Chart(_rows(rows))
        .mark_bar(strokeWidth=0)
        .encode(
            x=_x("at", whole),
            x2="end:T",
            y=alt.Y("sum(n):Q", title="attempts a day", stack="zero"),
            color=alt.Color("what:N", scale=colours, legend=alt.Legend(title=None, orient="top")),
            detail="version:N",
            order=alt.Order("rank:Q"),
        )
    )
    return alt.layer(bars, *_changes(chronicle, whole)).properties(width=WIDTH, height=HEIGHT)


def _x(field: str, ends: tuple[datetime, datetime]) -> Any:
    """Time in UTC: the same picture wherever it is drawn."""
    domain = [alt.DateTime(**_parts(each)) for each in ends]
    return alt.X(f"{field}:T", title=None, scale=alt.Scale(type="utc", domain=domain), axis=alt.Axis(grid=True))


def _parts(moment: datetime) -> dict[str, Any]:
    return {
        "year": moment.year,
        "month": moment.month,
        "date": moment.day,
        "hours": moment.hour,
        "minutes": moment.minute,
        "seconds": moment.second,
        "utc": True,
    }


def _rows(rows: Iterable[Mapping[str, object]]) -> Any:
    kept: Sequence[Mapping[str, object]] = list(rows)
    return charts.data(kept)


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
