"""`flyball card`: all that is recorded of a version, on one sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-1.", metavar="VERSION")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it; by default reports/VERSION in the home.")
    ] = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """The model card of a version, from recorded facts and signed artifacts: Markdown, and HTML with plots."""
    from flyball.cycle import card

    session = opening.session(app, home, create=False)
    if as_json and out is None:
        say.result(card.card(session, version))
        return 0
    with say.err.status("drawing …"):
        found = card.card(session, version)
        page = card.write(card.drawn(found), out or session.home / "reports" / version, "card")
    if as_json:
        say.result(found)
        return 0
    say.line(f"[bold]{version}[/]  {escape(found.stands)}")
    say.verdicts("gate", found.verdicts)
    say.line(escape(found.looked))
    for said in found.missing:
        say.line(f"[dim]{escape(said)}[/]")
    say.line(f"[dim]card: {escape(str(page))}[/]")
    return 0
