"""An evaluation as something to read: one Markdown file with figures, and one HTML file that needs nothing else.

First what was promised and how it turned out, then the models side by side, how the version ranks and how its
probabilities hold, where it is weak, and what it was made from.

The page has no script and loads nothing (its policy forbids both); it follows the reader's light or dark setting.
Text from outside cannot act: `_el` makes plain and escapes whatever is no `_Markup` of its own, and `_md` all it is given.
Same input, same bytes: nothing here holds a time, a random id or a counter. Heavy, as `charts` is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball.learn import charts, gates
from flyball.learn.charts import Figure
from flyball.learn.evaluate import Compared, Evaluation

DECISIONS: Final[Mapping[str, tuple[Outcome, str]]] = {
    "release": (Outcome.PASS, "Every gate passed."),
    "held": (Outcome.INCONCLUSIVE, "Held: the data cannot settle every gate."),
    "rejected": (Outcome.FAIL, "Rejected: a gate failed."),
}
SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "~"}


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


def _number(x: float, *, signed: bool = False) -> str:
    size = abs(x) if abs(x) > 1e-9 else 0.0  # below that it is the rounding of the sum
    text = f"{size:,.1f}" if size >= 10 else f"{size:.3f}" if size >= 1e-3 or not size else f"{size:.1e}"
    return ("−" if x < 0 < size else "+" if signed else "") + text


def _span(m: Measurement, *, signed: bool = False) -> str:
    return f"{_number(m.low, signed=signed)} to {_number(m.high, signed=signed)}"


def _names(evaluation: Evaluation) -> list[str]:
    suited = gates.measurable(classifies=evaluation.classifies)
    return [m.name for m in suited if any(m.name in c.measurements for c in evaluation.models)]


def _verdict_row(verdict: Verdict, measured: Mapping[str, float]) -> tuple[str, str, str, str]:
    """(estimate, interval, rows, remark) as text; a latency's numbers come from what was measured."""
    m, name = verdict.measurement, verdict.condition.split(" ")[0]
    if m is not None:
        signed = ".on(" in verdict.condition
        return _number(m.estimate, signed=signed), _span(m, signed=signed), f"{m.n:,}", verdict.reason
    if f"{name}.estimate" in measured:
        mid, low, high = (f"{measured[f'{name}.{k}'] * 1e3:.3g}" for k in ("estimate", "low", "high"))
        return f"{mid} ms", f"{low} to {high} ms", f"{measured[f'{name}.n']:,.0f}", verdict.reason
    return "", "", "", verdict.reason


def _lineage(subject: Subject) -> list[tuple[str, str]]:
    e = subject.evaluation
    kind = f"{e.base_rate:.1%} of them true" if e.classifies else f"mean outcome {_number(e.base_rate)}"
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

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#!$&{}])")


def _md(text: object) -> str:
    """Text from outside as Markdown that shows it literally, in a table cell too."""
    return (
        _SPECIAL.sub(r"\\\1", charts.plain(text)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    )


def _md_table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines: list[Iterable[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_models(evaluation: Evaluation) -> str:
    def cell(c: Compared, name: str) -> str:
        m, d = c.measurements.get(name), c.differences.get(name)
        return (
            ""
            if m is None
            else f"{_number(m.estimate)} ({_span(m)})"
            + (f"<br>{_number(d.estimate, signed=True)} ({_span(d, signed=True)})" if d else "")
        )

    names = _names(evaluation)
    return _md_table(
        ["model", *map(_md, names)], ([_md(c.name), *(cell(c, n) for n in names)] for c in evaluation.models)
    )


def _markdown(subject: Subject, figures: Sequence[Figure]) -> str:
    e = subject.evaluation
    rows = [
        [f"{SIGNS[v.outcome]} {v.outcome}", _md(v.condition), *map(_md, _verdict_row(v, subject.measured))]
        for v in subject.verdicts
    ]
    parts = [
        f"# {_md(subject.title)}",
        f"{_md(subject.app)} · {_md(subject.model)} · {_md(subject.version)}",
        *([f"**{DECISIONS[gates.decision(subject.verdicts)][1]}**"] if rows else []),
        *(["## What was promised", _md_table(_HEAD, rows)] if rows else []),
        *(["## Models compared", _md_models(e)] if e.models else []),
        "## Pictures",
        *(f"![{f.caption}]({f.name}.svg)\n\n*{_md(f.caption)}*" for f in figures),
        *(["## Not measured", "\n".join(f"- {_md(text)}" for text in _left_out(e))] if e.left_out else []),
        "## What it was made from",
        _md_table(["", ""], (map(_md, row) for row in _lineage(subject))),
        _md(_method(e)),
    ]
    return "\n\n".join(parts) + "\n"


_HEAD: Final = ("outcome", "promise", "estimate", "95 % interval", "rows", "remark")


# HTML


class _Markup(str):
    """Markup that was built here, and may stand as it is."""

    __slots__ = ()


def _el(tag: str, *children: str | None, **attributes: str) -> _Markup:
    """An element; every child that is no `_Markup`, and every attribute, is made plain and escaped."""
    said = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{html.escape(charts.plain(v))}"' for k, v in attributes.items()
    )
    inner = "".join(c if isinstance(c, _Markup) else html.escape(charts.plain(c)) for c in children if c is not None)
    return _Markup(f"<{tag}{said}>{inner}</{tag}>")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> _Markup:
    body = (_el("tr", *(_el("td", cell) for cell in row)) for row in rows)
    head_row = _el("tr", *(_el("th", h, scope="col") for h in head))
    table = _el("table", _el("thead", head_row), _el("tbody", *body), class_=kind)
    return _el("div", table, class_="wide")


def _badge(outcome: Outcome) -> _Markup:
    return _el("span", f"{SIGNS[outcome]} {outcome}", class_=f"badge {outcome}")


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
    good = _el("rect", x=at if above else "0", y="2", width=f"{140 - float(at):.1f}" if above else at, height="14")
    shapes = (
        _el("g", good, class_="good"),
        _el("line", x1=at, x2=at, y1="2", y2="16", class_="at"),
        _el("line", x1=low, x2=high, y1="9", y2="9", class_="bar"),
        _el("circle", cx=mid, cy="9", r="3.5", class_="dot"),
    )
    return _el("svg", *shapes, viewBox="0 0 140 18", width="140", height="18", class_="glyph", aria_hidden="true")


def _models(evaluation: Evaluation) -> _Markup:
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
            text = f"{_number(d.estimate, signed=True)} ({_span(d, signed=True)})"
            apart = _el("small", text, class_=f"apart {kind}")
        return _Markup("".join(filter(None, (_el("b", _number(m.estimate)), _el("small", _span(m)), apart))))

    rows = ([_el("b", c.name), *(cell(c, n) for n in names)] for c in evaluation.models)
    return _table(["model", *names], rows, "models")


def _groups(evaluation: Evaluation) -> _Markup:
    names = _names(evaluation)
    rows = (
        [g.slice, g.group, f"{g.n:,}"]
        + [f"{_number(m.estimate)} ({_span(m)})" if (m := g.measurements.get(n)) else "" for n in names]
        for g in evaluation.slices
    )
    return _el(
        "details", _el("summary", "The same as numbers"), _table(["slice", "group", "rows", *names], rows, "groups")
    )


def _page(subject: Subject, figures: Sequence[Figure]) -> str:
    e = subject.evaluation
    outcome, sentence = DECISIONS[gates.decision(subject.verdicts)]
    rows = []
    for v in subject.verdicts:
        estimate, interval, n, remark = _verdict_row(v, subject.measured)
        rows.append([_badge(v.outcome), _el("code", v.condition), estimate, interval, _glyph(v), n, remark])
    drawn = {f.name: _el("figure", _Markup(f.svg), _el("figcaption", f.caption)) for f in figures}
    slices = drawn.pop("slices", None)
    lineage = [part for k, v in _lineage(subject) for part in (_el("dt", k), _el("dd", v))]
    body = [
        _el(
            "header",
            _el("p", f"{subject.app} · {subject.model} · {subject.version[:12]}", class_="over"),
            _el("h1", subject.title),
            _el("p", sentence, class_=f"decision {outcome}") if rows else None,
        ),
        _section("What was promised", _table([*_HEAD[:4], "", *_HEAD[4:]], rows, "verdicts") if rows else None),
        _section("Models compared", _models(e) if e.models else None),
        _section("How it answers", _el("div", *drawn.values(), class_="grid")),
        _section("Where it is strong, where weak", slices, _groups(e) if e.slices else None),
        _section("Not measured", _el("ul", *(_el("li", t) for t in _left_out(e))) if e.left_out else None),
        _section("What it was made from", _el("dl", *lineage)),
        _el("footer", _method(e)),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"{_el('title', subject.title)}<style>{_CSS}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{_el("main", *body)}</body></html>\n'


def _section(title: str, *parts: str | None) -> _Markup | None:
    return _el("section", _el("h2", title), *parts) if any(parts) else None


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


_CSS: Final = f"""
:root{{{_variables(charts.LIGHT)}--paper:#fff;--strong:#111827;--pass:#15803d;--fail:#b91c1c;--inconclusive:#a16207}}
@media (prefers-color-scheme:dark){{:root{{{_variables(charts.DARK)}--paper:#14171c;--strong:#f3f4f6;--pass:#4ade80;
--fail:#f87171;--inconclusive:#facc15}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 {charts.FONT};-webkit-font-smoothing:antialiased}}
main{{max-width:1120px;margin:0 auto;padding:64px 24px 96px}}
h1{{font-size:2.1rem;line-height:1.2;letter-spacing:-.02em;margin:.2rem 0 1.2rem;color:var(--strong);text-wrap:balance}}
h2{{font-size:1.15rem;letter-spacing:-.01em;margin:0 0 1rem;color:var(--strong)}}
section{{margin-top:56px}}
.over{{margin:0;color:var(--muted);font-size:.9rem}}
.decision{{display:inline-block;margin:0;padding:.45rem .9rem;border-left:3px solid currentColor;font-weight:600;
background:color-mix(in srgb,currentColor 8%,transparent);border-radius:0 6px 6px 0}}
.pass{{color:var(--pass)}}.fail{{color:var(--fail)}}.inconclusive{{color:var(--inconclusive)}}
.badge{{display:inline-block;padding:.05rem .55rem;border-radius:99px;font-size:.85rem;font-weight:600;white-space:nowrap;
background:color-mix(in srgb,currentColor 10%,transparent)}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}}
th{{text-align:left;font-weight:500;font-size:.8rem;color:var(--muted);padding:0 16px 8px 0;white-space:nowrap}}
td{{padding:10px 16px 10px 0;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}}
code{{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--strong)}}
.verdicts td:nth-child(n+3):nth-child(-n+6),.models td,.groups td:nth-child(n+3){{white-space:nowrap}}
.verdicts td:nth-child(2){{min-width:15rem}}.verdicts td:last-child,small{{color:var(--muted);font-size:.82rem}}
.models small{{display:block}}.models b{{color:var(--strong);font-weight:600}}
.models .apart.up{{color:var(--pass)}}.models .apart.down{{color:var(--fail)}}
.glyph{{vertical-align:middle}}.good{{fill:var(--pass);opacity:.12}}
.glyph .at{{stroke:var(--ink)}}.glyph .bar{{stroke:var(--accent);stroke-width:2}}.glyph .dot{{fill:var(--accent)}}
.grid{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:40px 32px}}
figure{{margin:0}}figure svg{{display:block;max-width:100%;height:auto}}
figcaption{{margin-top:10px;color:var(--muted);font-size:.86rem}}
details{{margin-top:24px}}summary{{cursor:pointer;color:var(--muted);font-size:.9rem;margin-bottom:16px}}
ul{{margin:0;padding-left:1.1rem;font-size:.92rem}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:8px 24px;margin:0;font-size:.92rem}}
dt{{color:var(--muted)}}dd{{margin:0;overflow-wrap:anywhere}}
footer{{margin-top:64px;padding-top:16px;border-top:1px solid var(--line);color:var(--muted);font-size:.82rem}}
@media print{{main{{padding:0}}section{{break-inside:avoid}}}}
"""
