"""`flyball data show`: the rows of a table as of a version or a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    table: Annotated[str, typer.Argument(help="The table.", metavar="TABLE")],
    batch: Annotated[
        int | None, typer.Option("--batch", min=0, help="As of this version; by default the last.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="What was known before this ISO 8601 time.", metavar="TIME")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Every observation, corrected ones too.")] = False,
    head: Annotated[int, typer.Option("--head", min=0, help="Rows to show.")] = 20,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write all of it: .parquet, .csv or .jsonl.", metavar="FILE")
    ] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show and write personal columns.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """One row a key as it is said last, or as it was known at a time; personal columns are masked."""
    from flyball.cycle import quarantined, versions
    from flyball.data import masked

    moment = _moment(as_of)
    session = opening.session(app, home, clock, create=False)
    found = versions.show(session, table, batch=batch, as_of=moment, history=history)
    if out is not None:
        masked.may_leave(found.spec, reveal=reveal)
        quarantined.write(found.rows, out)
    shown = masked.columns(found.rows.head(head), found.spec, reveal=reveal).collect(engine="streaming")
    rows = [
        {name: None if value is None else masked.cell(value) for name, value in row.items()}
        for row in shown.iter_rows(named=True)
    ]
    if as_json:
        say.result({"table": table, "batch": found.batch, "rows": rows, "out": str(out) if out is not None else None})
        return 0
    say.line(f"[bold]{escape(table)}[/]  version {found.batch}{f', known before {as_of}' if as_of else ''}")
    say.table(shown.columns, [tuple(cell or "" for cell in row.values()) for row in rows])
    if out is not None:
        say.line(f"[dim]written: {escape(str(out))}[/]")
    return 0


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no ISO 8601 time", param_hint="--as-of") from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone: write {text}Z for UTC", param_hint="--as-of")
    return moment
