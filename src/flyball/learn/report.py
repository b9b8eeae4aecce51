"""An evaluation as something to read: one Markdown file with figures, and one HTML file that needs nothing else.

First what was promised and how it turned out, then the models side by side, how the version ranks and how its
probabilities hold, where it is weak, and what it was made from.

How it looks, and that text from outside cannot act, is `page`'s. Same input, same bytes: nothing here holds a time, a random
id or a counter. Heavy, as `charts` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flyball._kernel.conditions import Outcome, Verdict
from flyball.learn import charts, gates, page
from flyball.learn.charts import Figure
from flyball.learn.evaluate import Compared, Evaluation

DECISIONS: Final[Mapping[str, tuple[Outcome, str]]] = {
    "release": (Outcome.PASS, "Every gate passed."),
    "held": (Outcome.INCONCLUSIVE, "Held: the data cannot settle every gate."),
    "rejected": (Outcome.FAIL, "Rejected: a gate failed."),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about, as its caller says it.

    Attributes:
        lineage: what the version was made from, in reading order: "trained on" -> "2013-01-01 to 2013-06-30", ...
        params: the chosen knobs.
        measured: `gates.Judged.measured`.
    """

    title: str
    app: str
    model: str
    version: str
    evaluation: Evaluation
    verdicts: Sequence[Verdict]
    lineage: Mapping[str, str] = field(default_factory=dict)
    features: Sequence[str] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The report: Markdown, which shows `figures` (file name -> SVG) from beside itself, and self-contained HTML."""

    markdown: str
    html: str
    figures: Mapping[str, bytes]


def files(rendered: Rendered) -> dict[str, bytes]:
    """File name -> bytes: `report.md`, `report.html` and the figures."""
    return {"report.md": rendered.markdown.encode(), "report.html": rendered.html.encode(), **rendered.figures}


def render(subject: Subject) -> Rendered:
    """Render a report, in about a second; most of it is the first plot."""
    figures = charts.figures(subject.evaluation)
    files = {f"{f.name}.svg": f.svg.encode() for f in figures}
    return Rendered(_markdown(subject, figures), _page(subject, figures), files)


# What both forms say


def _names(evaluation: Evaluation) -> list[str]:
    suited = gates.measurable(classifies=evaluation.classifies)
    return [m.name for m in suited if any(m.name in c.measurements for c in evaluation.models)]


def _verdict_row(verdict: Verdict, measured: Mapping[str, float]) -> tuple[str, str, str, str]:
    """(estimate, interval, rows, remark) as text; a latency's numbers come from what was measured."""
    m, name = verdict.measurement, verdict.condition.split(" ")[0]
    if m is not None:
        signed = ".on(" in verdict.condition
        return page.number(m.estimate, signed=signed), page.span(m, signed=signed), f"{m.n:,}", verdict.reason
    if f"{name}.estimate" in measured:
        mid, low, high = (f"{measured[f'{name}.{k}'] * 1e3:.3g}" for k in ("estimate", "low", "high"))
        return f"{mid} ms", f"{low} to {high} ms", f"{measured[f'{name}.n']:,.0f}", verdict.reason
    return "", "", "", verdict.reason


def _lineage(subject: Subject) -> list[tuple[str, str]]:
    e = subject.evaluation
    kind = f"{e.base_rate:.1%} of them true" if e.classifies else f"mean outcome {page.number(e.base_rate)}"
    rows = [("version", subject.version), *subject.lineage.items(), ("held-out rows", f"{e.n:,}, {kind}")]
    rows += [("features", ", ".join(subject.features))] if subject.features else []
    rows += [("knobs", ", ".join(f"{k} = {v}" for k, v in subject.params.items()))] if subject.params else []
    return rows


def _left_out(evaluation: Evaluation) -> list[str]:
    said = []
    for x in evaluation.left_out:
        what = " ".join(filter(None, (x.metric, f"{x.slice} {x.group}".strip()))) or "all metrics"
        said.append(f"{what}: {x.why} (n = {x.n:,})")
    return said


def _method(evaluation: Evaluation) -> str:
    blocks = evaluation.units < evaluation.n
    what = f"{evaluation.units:,} blocks of rows that share a cause" if blocks else "the held-out rows"
    return (
        f"Intervals are 95 % bootstrap intervals from {evaluation.replicates:,} draws of {what} (seed "
        f"{evaluation.seed}); differences are paired on the same draws, each model minus {evaluation.model}."
    )


# Markdown


def _md_models(evaluation: Evaluation) -> str:
    def cell(c: Compared, name: str) -> str:
        m, d = c.measurements.get(name), c.differences.get(name)
        return (
            ""
            if m is None
            else f"{page.number(m.estimate)} ({page.span(m)})"
            + (f"<br>{page.number(d.estimate, signed=True)} ({page.span(d, signed=True)})" if d else "")
        )

    names = _names(evaluation)
    return page.md_table(
        ["model", *map(page.md, names)], ([page.md(c.name), *(cell(c, n) for n in names)] for c in evaluation.models)
    )


def _markdown(subject: Subject, figures: Sequence[Figure]) -> str:
    e = subject.evaluation
    rows = [
        [f"{page.SIGNS[v.outcome]} {v.outcome}", page.md(v.condition), *map(page.md, _verdict_row(v, subject.measured))]
        for v in subject.verdicts
    ]
    parts = [
        f"# {page.md(subject.title)}",
        f"{page.md(subject.app)} · {page.md(subject.model)} · {page.md(subject.version)}",
        *([f"**{DECISIONS[gates.decision(subject.verdicts)][1]}**"] if rows else []),
        *(["## What was promised", page.md_table(_HEAD, rows)] if rows else []),
        *(["## Models compared", _md_models(e)] if e.models else []),
        "## Pictures",
        *(f"![{f.caption}]({f.name}.svg)\n\n*{page.md(f.caption)}*" for f in figures),
        *(["## Not measured", "\n".join(f"- {page.md(text)}" for text in _left_out(e))] if e.left_out else []),
        "## What it was made from",
        page.md_table(["", ""], (map(page.md, row) for row in _lineage(subject))),
        page.md(_method(e)),
    ]
    return "\n\n".join(parts) + "\n"


_HEAD: Final = ("outcome", "promise", "estimate", "95 % interval", "rows", "remark")


# HTML


def _glyph(verdict: Verdict) -> str:
    """The interval as a bar, the estimate as a dot, the threshold as a line, and its good side shaded."""
    m = verdict.measurement
    if m is None:
        return ""
    points = (m.low, m.high, m.estimate, verdict.threshold)
    span = (max(points) - min(points)) or 1.0
    low, mid, high, at = (
        f"{10 + 120 * (x - min(points)) / span:.1f}" for x in (m.low, m.estimate, m.high, verdict.threshold)
    )
    above = " >= " in verdict.condition
    good = page.el("rect", x=at if above else "0", y="2", width=f"{140 - float(at):.1f}" if above else at, height="14")
    shapes = (
        page.el("g", good, class_="good"),
        page.el("line", x1=at, x2=at, y1="2", y2="16", class_="at"),
        page.el("line", x1=low, x2=high, y1="9", y2="9", class_="bar"),
        page.el("circle", cx=mid, cy="9", r="3.5", class_="dot"),
    )
    return page.el("svg", *shapes, viewBox="0 0 140 18", width="140", height="18", class_="glyph", aria_hidden="true")


def _models(evaluation: Evaluation) -> page.Markup:
    names = _names(evaluation)

    def cell(c: Compared, name: str) -> str:
        m, d = c.measurements.get(name), c.differences.get(name)
        if m is None:
            return ""
        better = next(x.better for x in gates.measurable(classifies=evaluation.classifies) if x.name == name)
        apart = None
        if d is not None:
            ends = (d.low, d.high) if better == "higher" else (-d.high, -d.low)
            kind = "up" if ends[0] > 0 else "down" if ends[1] < 0 else ""
            text = f"{page.number(d.estimate, signed=True)} ({page.span(d, signed=True)})"
            apart = page.el("small", text, class_=f"apart {kind}")
        return page.Markup(
            "".join(filter(None, (page.el("b", page.number(m.estimate)), page.el("small", page.span(m)), apart)))
        )

    rows = ([page.el("b", c.name), *(cell(c, n) for n in names)] for c in evaluation.models)
    return page.table(["model", *names], rows, "models")


def _groups(evaluation: Evaluation) -> page.Markup:
    names = _names(evaluation)
    rows = (
        [g.slice, g.group, f"{g.n:,}"]
        + [f"{page.number(m.estimate)} ({page.span(m)})" if (m := g.measurements.get(n)) else "" for n in names]
        for g in evaluation.slices
    )
    return page.el(
        "details",
        page.el("summary", "The same as numbers"),
        page.table(["slice", "group", "rows", *names], rows, "groups"),
    )


def _page(subject: Subject, figures: Sequence[Figure]) -> str:
    e = subject.evaluation
    outcome, sentence = DECISIONS[gates.decision(subject.verdicts)]
    rows = []
    for v in subject.verdicts:
        estimate, interval, n, remark = _verdict_row(v, subject.measured)
        rows.append([page.badge(v.outcome), page.el("code", v.condition), estimate, interval, _glyph(v), n, remark])
    drawn = {f.name: page.el("figure", page.Markup(f.svg), page.el("figcaption", f.caption)) for f in figures}
    slices = drawn.pop("slices", None)
    lineage = [part for k, v in _lineage(subject) for part in (page.el("dt", k), page.el("dd", v))]
    body = [
        page.el(
            "header",
            page.el("p", f"{subject.app} · {subject.model} · {subject.version[:12]}", class_="over"),
            page.el("h1", subject.title),
            page.el("p", sentence, class_=f"decision {outcome}") if rows else None,
        ),
        page.section("What was promised", page.table([*_HEAD[:4], "", *_HEAD[4:]], rows, "verdicts") if rows else None),
        page.section("Models compared", _models(e) if e.models else None),
        page.section("How it answers", page.el("div", *drawn.values(), class_="grid")),
        page.section("Where it is strong, where weak", slices, _groups(e) if e.slices else None),
        page.section("Not measured", page.el("ul", *(page.el("li", t) for t in _left_out(e))) if e.left_out else None),
        page.section("What it was made from", page.el("dl", *lineage)),
        page.el("footer", _method(e)),
    ]
    return page.document(subject.title, body)
