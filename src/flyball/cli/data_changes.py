"""`flyball data changes`: what a preparation did to the cells of a file."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    source: Annotated[
        str, typer.Argument(help="The source, such as flights.Flight, or its contract.", metavar="SOURCE")
    ],
    file: Annotated[str, typer.Option("--file", help="Which file of it; by default the last.", metavar="FILE")] = "",
    sample: Annotated[int, typer.Option("--sample", min=0, help="Examples a column.")] = 3,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Read a file again, prepare it, and count the cells that changed. Nothing is ingested."""
    from flyball.cycle import changes

    session = opening.session(app, home, create=False)
    with say.err.status("reading and preparing …"):
        found = changes.changes(session, source, file, sample=sample)
    if as_json:
        say.result(found)
        return 0
    say.line(f"[bold]{escape(found.source)}[/]  [dim]{escape(found.file)}[/]")
    for line in changes.lines(found):
        say.line(escape(line))
    if found.columns:
        columns = ("column", *changes.KINDS, "unread")
        say.table(columns, [(c.column, *(f"{getattr(c, k):,}" for k in columns[1:])) for c in found.columns])
    if found.values:
        say.table(
            ("column", "values gone", "values come"), [(v.column, f"{v.gone:,}", f"{v.come:,}") for v in found.values]
        )
    examples = [
        (c.column, e.kind, _cell(e.before), _cell(e.after), f"{e.cells:,}") for c in found.columns for e in c.examples
    ]
    if examples:
        say.line()
        say.table(("column", "", "before", "after", "cells"), examples)
    withheld = [c.column for c in found.columns if c.personal and c.kept < (found.matched or 0)]
    if withheld:
        say.line(f"[dim]no examples of personal columns: {escape(', '.join(withheld))}[/]")
    return 0


def _cell(text: str | None) -> str:
    return "null" if text is None else repr(text)
