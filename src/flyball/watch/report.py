"""A chronicle as something to read: one Markdown file with figures beside it, and one HTML file that needs nothing else.

First who answers, since when, who is on the way, and what fell and why; then the pictures; then every decision, training,
monitor and count behind them. Same chronicle, same bytes. Heavy, as `picture` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from flyball._kernel.conditions import Outcome, Verdict
from flyball.learn.drawing import page
from flyball.learn.drawing.charts import Figure
from flyball.learn.reports.report import Rendered
from flyball.watch import picture
from flyball.watch.chronicle import Chronicle, Count, Way

_STATES: Final = {"ok": Outcome.PASS, "breach": Outcome.FAIL, "blind": Outcome.INCONCLUSIVE}
_DECISIONS: Final = {"release": Outcome.PASS, "rejected": Outcome.FAIL, "held": Outcome.INCONCLUSIVE}
_BADGES: Final = {f"{page.SIGNS[o]} {name}": o for name, o in (_STATES | _DECISIONS).items()}
LATEST: Final = 200
"""Rows of a table: the latest; the JSON holds all."""


class Table(NamedTuple):
    """A part of the report, as text that is not yet markup."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def render(chronicle: Chronicle) -> Rendered:
    """Render the report of a chronicle, in a second or two; most of it are the plots."""
    figures = picture.figures(chronicle)
    files = {f"{f.name}.svg": f.svg.encode() for f in figures}
    return Rendered(_markdown(chronicle, figures), _html(chronicle, figures), files)


# What both forms say


def headline(chronicle: Chronicle) -> str:
    """Who answers, since when, and how it came to be."""
    if not chronicle.champion or chronicle.since is None:
        return "Nobody answers yet."
    why = f": {chronicle.spans[-1].why}" if chronicle.spans else ""
    return f"{chronicle.champion} answers since {_when(chronicle.since)}{why}."


def summary(chronicle: Chronicle) -> list[str]:
    """What else a person must know first: a pause, who is on the way, what fell and why, what is in breach."""
    said = [f"Paused: {chronicle.paused}."] if chronicle.paused else []
    said += [_on_its_way(way) for way in chronicle.ways if not way.ended]
    said += [f"{s.version} fell as champion at {_when(s.end)}: {s.fell}." for s in chronicle.spans if s.fell and s.end]
    said += [
        f"{w.version} fell on its way at {_when(w.end)}{_overridden(w)}: {w.why}."
        for w in chronicle.ways
        if w.ended == "aborted" and w.end is not None
    ]
    for series in chronicle.monitors:
        last = series.points[-1]
        if last.state != "ok":
            said.append(f"{series.monitor} is {_state(last.state)}{': ' + last.reason if last.reason else ''}.")
    t = chronicle.totals
    if t.questions:
        said.append(
            f"{t.questions:,} questions: {t.answered:,} answered, {t.failed:,} failed; {t.settled:,} settled, "
            f"{t.void:,} void, {t.pending:,} not known yet."
        )
    return said


def _on_its_way(way: Way) -> str:
    stage = way.stages[-1]
    share = f" with {stage.share:.0%} of the traffic" if stage.share else ""
    return f"{way.version} is on its way{_overridden(way)}: in {stage.name}{share} since {_when(stage.start)}."


def _overridden(way: Way) -> str:
    return " (its gates overridden)" if way.overridden else ""


def tables(chronicle: Chronicle) -> list[Table]:
    """Everything behind the pictures; parts that have nothing to say are left out."""
    made = [
        _decisions(chronicle),
        _ways(chronicle),
        _trainings(chronicle),
        _monitors(chronicle),
        _quality(chronicle),
        _versions(chronicle.days),
        _totals(chronicle),
    ]
    return [t for t in made if t.rows]


def _decisions(chronicle: Chronicle) -> Table:
    rows = [
        [_when(e.at), e.kind.replace("_", " "), e.words, "; ".join(_verdict(v) for v in e.verdicts)]
        for e in chronicle.events
    ]
    return _latest("Decisions", ("when (UTC)", "what", "in words", "judged by"), rows)


def _verdict(verdict: Verdict) -> str:
    m = verdict.measurement
    found = f" {page.number(m.estimate)} ({page.span(m)}, n = {m.n:,})" if m else ""
    return f"{page.SIGNS[verdict.outcome]} {verdict.condition}{found}"


def _ways(chronicle: Chronicle) -> Table:
    rows = []
    for way in chronicle.ways:
        through = ", ".join(f"{s.name}{f' {s.share:.0%}' if s.share else ''}" for s in way.stages)
        took = _took((way.end or chronicle.at) - way.start)
        both = f"{way.both:,} of {way.questions:,}" + (f" ({way.both / way.questions:.1%})" if way.questions else "")
        rows.append([way.version, _when(way.start), through, took, way.ended or "on its way", both])
    head = ("version", "began (UTC)", "stages", "took", "ended", "computed by both")
    return _latest(
        "Ways to be champion", head, rows, "Questions asked meanwhile that the candidate and another computed."
    )


def _trainings(chronicle: Chronicle) -> Table:
    rows = [
        [_when(t.began), t.why, t.version, _mark(t.decision) or t.failed or ("" if t.ended else "runs")]
        for t in chronicle.trainings
    ]
    return _latest("Trainings", ("when (UTC)", "why", "version", "came of it"), rows)


def _monitors(chronicle: Chronicle) -> Table:
    rows = []
    for series in chronicle.monitors:
        last, n = series.points[-1], len(series.points)
        since = next(
            (p for k, p in enumerate(series.points) if all(q.state == last.state for q in series.points[k:])), last
        )
        states = [sum(p.state == state for p in series.points) for state in _STATES]
        estimate = "" if last.estimate is None else page.number(last.estimate)
        limit = "" if last.threshold is None else page.number(last.threshold)
        found = f"{estimate} against {limit}" if limit and estimate else estimate
        counted = ", ".join(f"{k} {state}" for k, state in zip(states, _STATES, strict=True) if k)
        rows.append([series.monitor, _mark(last.state), _when(since.at), found, f"{n} times: {counted}", last.reason])
    return Table("Monitors", ("monitor", "now", "since (UTC)", "found", "written down", "remark"), rows)


def _quality(chronicle: Chronicle) -> Table:
    rows = [
        [
            c.metric,
            f"{p.start:%Y-%m-%d}",
            p.version,
            page.number(m.estimate),
            page.span(m),
            f"{m.n:,}",
            f"{p.answered:,}",
        ]
        for c in chronicle.quality
        for p in c.points
        for m in (p.measured,)
    ]
    missed = max((c.unmeasured for c in chronicle.quality), default=0)
    note = f"{missed:,} settled answers lie in periods that have too few of them." if missed else ""
    head = ("metric", "from (UTC)", "version", "estimate", "95 % interval", "settled", "answered by it")
    return _latest("Live quality", head, rows, note)


def _versions(days: Iterable[Count]) -> Table:
    counted: dict[tuple[str, str], list[int]] = {}
    for day in days:
        each = counted.setdefault((day.version, day.role), [0, 0])
        each[0] += day.attempts
        each[1] += day.failed
    rows = [[version, role, f"{a:,}", f"{a - f:,}", f"{f:,}"] for (version, role), (a, f) in sorted(counted.items())]
    return Table("Attempts by version and role", ("version", "role", "attempts", "gave an answer", "failed"), rows)


def _totals(chronicle: Chronicle) -> Table:
    t = chronicle.totals
    if not (t.attempts or t.unmatched):
        return Table("Counts", (), ())
    codes = ", ".join(f"{code} {n:,}" for code, n in t.codes.items())
    rows = [
        ["questions", f"{t.questions:,}", f"{t.answered:,} answered + {t.failed:,} failed"],
        ["attempts", f"{t.attempts:,}", f"{t.answered:,} answered + {t.shadows:,} beside + {t.failures:,} failed"],
        ["failed attempts", f"{t.failures:,}", codes],
        ["answers", f"{t.answered:,}", f"{t.settled:,} settled + {t.void:,} void + {t.pending:,} not known yet"],
        ["outcomes that reach no question", f"{t.unmatched:,}", ""],
    ]
    rows += [["not looked at", f"{t.dropped:,}", "attempts and outcomes: too many"]] if t.dropped else []
    return Table("Counts", ("", "", ""), rows)


def _latest(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    left = f"The latest {LATEST} of {len(rows):,}; --json gives all." if len(rows) > LATEST else ""
    return Table(title, head, rows[-LATEST:], " ".join(filter(None, (left, note))))


def _mark(state: str) -> str:
    outcome = (_STATES | _DECISIONS).get(state)
    return f"{page.SIGNS[outcome]} {state}" if outcome is not None else state


def _state(state: str) -> str:
    return "in breach" if state == "breach" else state


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else ""


def _took(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def _tone(chronicle: Chronicle) -> Outcome:
    states = {s.points[-1].state for s in chronicle.monitors}
    if not chronicle.champion or "breach" in states:
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE if chronicle.paused or "blind" in states else Outcome.PASS


def _over(chronicle: Chronicle) -> str:
    return f"{chronicle.app} · {chronicle.model} · epoch {chronicle.epoch} · as of {_when(chronicle.at)} UTC"


_METHOD: Final = (
    "Times are UTC. Quality is measured on settled questions, by the version that computed them; intervals are 95 % bootstrap "
    "intervals from redrawn hours. Which version gave one answer, the journal names exactly: flyball why."
)

# Markdown


def _markdown(chronicle: Chronicle, figures: Sequence[Figure]) -> str:
    parts = [
        f"# {page.md(chronicle.model)}: who answered, and why",
        page.md(_over(chronicle)),
        f"**{page.md(headline(chronicle))}**",
        "\n".join(f"- {page.md(line)}" for line in summary(chronicle)),
        *(f"![{page.md(f.caption)}]({f.name}.svg)\n\n*{page.md(f.caption)}*" for f in figures),
    ]
    for table in tables(chronicle):
        parts.append(f"## {page.md(table.title)}")
        parts += [page.md(table.note)] if table.note else []
        parts.append(page.md_table([page.md(h) for h in table.head], ([page.md(c) for c in row] for row in table.rows)))
    return "\n\n".join(filter(None, [*parts, page.md(_METHOD)])) + "\n"


# HTML


def _html(chronicle: Chronicle, figures: Sequence[Figure]) -> str:
    drawn = {f.name: page.el("figure", page.Markup(f.svg), page.el("figcaption", f.caption)) for f in figures}
    wide = [name for name in drawn if name.startswith("quality-")]
    monitors = [drawn[name] for name in drawn if name.startswith("monitor-")]
    header = page.el(
        "header",
        page.el("p", _over(chronicle), class_="over"),
        page.el("h1", "Who answered, and why"),
        page.el("p", headline(chronicle), class_=f"decision {_tone(chronicle)}"),
        page.el("ul", *(page.el("li", line) for line in summary(chronicle)), class_="first"),
    )
    body = [
        header,
        page.section("Releases", drawn.get("releases")),
        page.section("Live quality", *(drawn[name] for name in wide)),
        page.section("Monitors", page.el("div", *monitors, class_="grid") if monitors else None),
        page.section("Answers", drawn.get("answers")),
        *(_part(table) for table in tables(chronicle)),
        page.el("footer", _METHOD),
    ]
    return page.document(f"{chronicle.model}: who answered, and why", body)


def _part(table: Table) -> page.Markup | None:
    rows = ([_cell(text) for text in row] for row in table.rows)
    note = page.el("p", table.note, class_="over") if table.note else None
    made = page.table(table.head, rows, table.title.split()[0].lower())
    return page.section(table.title, note, made)


def _cell(text: str) -> str:
    return page.el("span", text, class_=f"badge {_BADGES[text]}") if text in _BADGES else text
