"""A sheet: a document of parts, each said once and shown in two forms, Markdown and one HTML page that needs nothing else.

A **block** is one thing in both forms: a sentence, a list, a table, a figure. A **part** is a heading with blocks; one without
any is left out. Text from outside is escaped by each form in its own way, here and nowhere else. Same blocks, same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flyball._kernel.conditions import Outcome
from flyball.learn.drawing import page
from flyball.learn.drawing.charts import Figure


@dataclass(frozen=True, slots=True)
class Block:
    """One thing in both forms, with the figures (file name -> SVG) that its Markdown shows from beside itself."""

    markdown: str
    html: page.Markup
    figures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A heading and what stands under it."""

    title: str
    blocks: Iterable[Block | None]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A document.

    Attributes:
        over: what stands above the title, small.
        lead: the one sentence that matters and how it turned out; None for none.
        foot: how to read the numbers.
    """

    title: str
    over: str
    lead: tuple[Outcome, str] | None
    parts: Sequence[Part]
    foot: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The document: Markdown, which shows `figures` (file name -> SVG) from beside itself, and self-contained HTML."""

    markdown: str
    html: str
    figures: Mapping[str, bytes]

    def files(self, name: str) -> dict[str, bytes]:
        """File name -> bytes: NAME.md, NAME.html and the figures."""
        return {f"{name}.md": self.markdown.encode(), f"{name}.html": self.html.encode(), **self.figures}


def render(sheet: Sheet) -> Rendered:
    """Both forms."""
    kept = [(part.title, [block for block in part.blocks if block is not None]) for part in sheet.parts]
    kept = [(title, blocks) for title, blocks in kept if blocks]
    markdown = [f"# {page.md(sheet.title)}", page.md(sheet.over)]
    markdown += [f"**{page.md(sheet.lead[1])}**"] if sheet.lead else []
    for title, blocks in kept:
        markdown += [f"## {page.md(title)}", *(block.markdown for block in blocks)]
    markdown += [page.md(sheet.foot)] if sheet.foot else []
    header = page.el(
        "header",
        page.el("p", sheet.over, class_="over"),
        page.el("h1", sheet.title),
        page.el("p", sheet.lead[1], class_=f"decision {sheet.lead[0]}") if sheet.lead else None,
    )
    sections = [page.section(title, *(block.html for block in blocks)) for title, blocks in kept]
    html = page.document(sheet.title, [header, *sections, page.el("footer", sheet.foot) if sheet.foot else None])
    figures = {name: svg for _, blocks in kept for block in blocks for name, svg in block.figures.items()}
    return Rendered("\n\n".join(markdown) + "\n", html, figures)


# Blocks


def text(said: str) -> Block | None:
    """A paragraph; None where nothing is said."""
    return Block(page.md(said), page.el("p", said)) if said else None


def items(said: Iterable[str]) -> Block | None:
    """A list of sentences; None where it is empty."""
    kept = list(said)
    if not kept:
        return None
    return Block("\n".join(f"- {page.md(each)}" for each in kept), page.el("ul", *(page.el("li", t) for t in kept)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "plain") -> Block | None:
    """A table of text; None where it has no row.

    Args:
        kind: how the page sets it (a class of its style).
    """
    kept = [tuple(row) for row in rows]
    if not kept:
        return None
    markdown = page.md_table([page.md(h) for h in head], ([page.md(cell) for cell in row] for row in kept))
    return Block(markdown, page.table(head, kept, kind))


def folded(summary: str, block: Block | None) -> Block | None:
    """A block that the page shows when it is asked for."""
    if block is None:
        return None
    html = page.el("details", page.el("summary", summary), block.html)
    return Block(f"{page.md(summary)}:\n\n{block.markdown}", html, block.figures)


def pairs(rows: Iterable[tuple[str, str]]) -> Block | None:
    """Names and what they stand for; those that stand for nothing are left out."""
    kept = [(name, said) for name, said in rows if said]
    if not kept:
        return None
    listed = [part for name, said in kept for part in (page.el("dt", name), page.el("dd", said))]
    return Block(page.md_table(["", ""], (map(page.md, row) for row in kept)), page.el("dl", *listed))


def pictures(figures: Sequence[Figure]) -> Block | None:
    """Figures side by side, as many as fit."""
    if not figures:
        return None
    drawn = [page.el("figure", page.Markup(f.svg), page.el("figcaption", f.caption)) for f in figures]
    # A caption stands in brackets in one place and as text in the other, and is escaped in both.
    markdown = "\n\n".join(f"![{page.md(f.caption)}]({f.name}.svg)\n\n*{page.md(f.caption)}*" for f in figures)
    html = page.el("div", *drawn, class_="grid") if len(drawn) > 1 else drawn[0]
    return Block(markdown, html, {f"{f.name}.svg": f.svg.encode() for f in figures})
