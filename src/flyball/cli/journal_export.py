"""`flyball journal export`: answers as one Parquet file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def run(
    app: options.App,
    to: Annotated[Path, typer.Argument(help="The file; replaced where it exists.", metavar="FILE.parquet")],
    model: Annotated[str, typer.Option("--model", help="Answers of this model only.")] = "",
    since: Annotated[
        datetime | None, typer.Option("--since", formats=FORMATS, help="Asked from then on, UTC; the moment included.")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--until", formats=FORMATS, help="Asked before then, UTC.")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Write recorded answers of a span and a model to a Parquet file, streaming. Personal values are keyed hashes in it."""
    from flyball._kernel.clock import in_utc
    from flyball.adapters.embedded import journal_shown

    say.parquet(to, "FILE.parquet")
    session = opening.session(app, home, clock, create=False)
    if model:
        session.app.model(model)
    first, end = (in_utc(moment) if moment is not None else None for moment in (since, until))
    with say.err.status("exporting …"):
        written = journal_shown.export(session.home / "journal", session.clock, to, model=model, since=first, until=end)
    if as_json:
        say.result({"answers": written, "file": str(to)})
        return 0
    say.line(f"{say.MARKS['done']} {written:,} answers in {escape(str(to))}")
    return 0
