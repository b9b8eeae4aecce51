"""A page to read: markup that text from outside cannot act in, Markdown that shows it literally, and one look.

A page has no script and loads nothing (its policy forbids both); it follows the reader's light or dark setting. `el` makes
plain and escapes whatever is no `Markup` of its own, and `md` all it is given. Same input, same bytes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from flyball._kernel.conditions import Measurement, Outcome
from flyball.learn.drawing import charts

SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "~"}


def number(x: float, *, signed: bool = False) -> str:
    """A number as a person reads it."""
    size = abs(x) if abs(x) > 1e-9 else 0.0  # below that it is the rounding of the sum
    text = f"{size:,.1f}" if size >= 10 else f"{size:.3f}" if size >= 1e-3 or not size else f"{size:.1e}"
    return ("−" if x < 0 < size else "+" if signed else "") + text


def span(m: Measurement, *, signed: bool = False) -> str:
    """The interval of a measurement."""
    return f"{number(m.low, signed=signed)} to {number(m.high, signed=signed)}"


_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#!$&{}])")


def md(text: object) -> str:
    """Text from outside as Markdown that shows it literally, in a table cell too."""
    return (
        _SPECIAL.sub(r"\\\1", charts.plain(text)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    )


def md_table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines: list[Iterable[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Markup(str):
    """Markup that was built here, and may stand as it is."""

    __slots__ = ()


def el(tag: str, *children: str | None, **attributes: str) -> Markup:
    """An element; every child that is no `Markup`, and every attribute, is made plain and escaped."""
    said = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{html.escape(charts.plain(v))}"' for k, v in attributes.items()
    )
    inner = "".join(c if isinstance(c, Markup) else html.escape(charts.plain(c)) for c in children if c is not None)
    return Markup(f"<{tag}{said}>{inner}</{tag}>")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> Markup:
    """A table that scrolls where it is too wide; cells that are text are escaped."""
    body = (el("tr", *(el("td", cell) for cell in row)) for row in rows)
    head_row = el("tr", *(el("th", h, scope="col") for h in head))
    made = el("table", el("thead", head_row), el("tbody", *body), class_=kind)
    return el("div", made, class_="wide")


def badge(outcome: Outcome) -> Markup:
    """What a judge says, as a mark."""
    return el("span", f"{SIGNS[outcome]} {outcome}", class_=f"badge {outcome}")


def section(title: str, *parts: str | None) -> Markup | None:
    """A part with its heading; None where it has nothing to say."""
    return el("section", el("h2", title), *parts) if any(parts) else None


def document(title: str, body: Iterable[str | None]) -> str:
    """A whole page that stands alone."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"{el('title', title)}<style>{_CSS}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{el("main", *body)}</body></html>\n'


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


_CSS: Final = f"""
:root{{{_variables(charts.LIGHT)}--paper:#fff;--strong:#111827;--pass:#15803d;--inconclusive:#a16207}}
@media (prefers-color-scheme:dark){{:root{{{_variables(charts.DARK)}--paper:#14171c;--strong:#f3f4f6;--pass:#4ade80;
--inconclusive:#facc15}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 {charts.FONT};-webkit-font-smoothing:antialiased}}
main{{max-width:1120px;margin:0 auto;padding:64px 24px 96px}}
h1{{font-size:2.1rem;line-height:1.2;letter-spacing:-.02em;margin:.2rem 0 1.2rem;color:var(--strong);text-wrap:balance}}
h2{{font-size:1.15rem;letter-spacing:-.01em;margin:0 0 1rem;color:var(--strong)}}
section{{margin-top:56px}}
.over{{margin:0;color:var(--muted);font-size:.9rem}}
.decision{{display:inline-block;margin:0;padding:.45rem .9rem;border-left:3px solid currentColor;font-weight:600;
background:color-mix(in srgb,currentColor 8%,transparent);border-radius:0 6px 6px 0}}
.pass{{color:var(--pass)}}.fail{{color:var(--bad)}}.inconclusive{{color:var(--inconclusive)}}
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
.models .apart.up{{color:var(--pass)}}.models .apart.down{{color:var(--bad)}}
.glyph{{vertical-align:middle}}.good{{fill:var(--pass);opacity:.12}}
.glyph .at{{stroke:var(--ink)}}.glyph .bar{{stroke:var(--accent);stroke-width:2}}.glyph .dot{{fill:var(--accent)}}
.grid{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:40px 32px}}
figure{{margin:0}}figure svg{{display:block;max-width:100%;height:auto}}
figcaption{{margin-top:10px;color:var(--muted);font-size:.86rem}}
details{{margin-top:24px}}summary{{cursor:pointer;color:var(--muted);font-size:.9rem;margin-bottom:16px}}
.decisions td:nth-child(-n+2),.ways td:nth-child(-n+2),.trainings td:nth-child(2n+1),.monitors td:nth-child(-n+4),
.live td{{white-space:nowrap}}
.decision+ul{{margin-top:1.2rem}}section>figure+figure{{margin-top:28px}}
ul{{margin:0;padding-left:1.1rem;font-size:.92rem}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:8px 24px;margin:0;font-size:.92rem}}
dt{{color:var(--muted)}}dd{{margin:0;overflow-wrap:anywhere}}
footer{{margin-top:64px;padding-top:16px;border-top:1px solid var(--line);color:var(--muted);font-size:.82rem}}
section>p{{max-width:70ch}}section>:is(.wide,ul,dl,p)+:is(.wide,ul,dl,p,.grid,figure),section>.grid+*{{margin-top:24px}}
.plain td{{overflow-wrap:break-word}}.sources td:last-child{{font:.8rem ui-monospace,monospace}}
@media print{{main{{padding:0}}section{{break-inside:avoid}}}}
"""
