"""`flyball data versions`: the batches of each table, and who reads them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    table: Annotated[str | None, typer.Argument(help="One table; by default all.", metavar="[TABLE]")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Every batch is a version: what it brought, when, whether the table still holds it, and which models read it."""
    from flyball.cycle import versions

    found = versions.versions(opening.session(app, home, clock, create=False), table)
    if as_json:
        say.result({"tables": found})
        return 0
    for each in found:
        say.line(f"[bold]{escape(each.table)}[/]  {len(each.batches):,} batches")
        columns = ("batch", "", "what", "recorded", "rows", "refused", "corrections", "state", "read by")
        rows = [
            (
                b.batch,
                b.kind,
                b.said,
                f"{b.at:%Y-%m-%d %H:%M}" if b.at is not None else "not yet",
                f"{b.accepted:,}",
                f"{b.quarantined:,}",
                f"{b.corrections:,}",
                _state(b.held, b.withdrawn_by, b.believed),
                ", ".join(b.read_by),
            )
            for b in each.batches
        ]
        if rows:
            say.table(columns, rows)
        if not all(b.held for b in each.batches):
            say.line(
                "[dim]Withdrawn: files are read again only if they, their preparation or their contract change.[/]"
            )
        say.line()
    return 0


def _state(held: bool, withdrawn_by: list[int], believed: bool | None) -> str:
    if not held:
        return f"withdrawn by {withdrawn_by[-1]}"
    return {None: "held", True: "held, believed", False: "held, not believed"}[believed]
