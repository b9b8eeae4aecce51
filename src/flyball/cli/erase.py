"""`flyball erase`: take a person, or whatever a condition names, out of everything that is kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, operating, options, say

if TYPE_CHECKING:
    from flyball.cycle.erase import Report


def run(
    app: options.App,
    where: Annotated[
        str, typer.Option("--where", help="A column, an operator and a literal; - reads it from standard input.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded, so it names nobody.")] = "",
    table: Annotated[
        str, typer.Option("--table", help="Only this table; by default every one that has the column.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Carry it out. Without it nothing moves.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Count what is there of a subject; with --yes erase it, for good. Needs a key with the scope `operate`."""
    from flyball.cycle import erase

    if yes and not reason:
        raise typer.BadParameter("an erasure is recorded with its reason: --reason TEXT")
    condition = sys.stdin.readline().strip() if where == "-" else where
    session = opening.session(app, home, clock, create=False)
    if yes:
        by = operating.who(session)
        with opening.progress() as tell:
            found = erase.erase(session, condition, by=by, reason=reason, table=table, tell=tell)
    else:
        found = erase.look(session, condition, table)
    if as_json:
        say.result(found)
    else:
        _show(found)
    return 0


def _show(found: Report) -> None:
    if not found.places:
        say.line("Nothing is there." if not found.resumed else "An erasure that had not ended is over now.")
    if found.places:
        heads = ("erased from" if found.erased else "found in", "count")
        say.table(heads, [(place, f"{n:,}") for place, n in found.places.items()])
    if found.versions:
        say.line(f"learned from it: {escape(', '.join(found.versions))}")
    if found.answering:
        say.line(
            f"[yellow]{escape(', '.join(found.answering))} answers on[/]: what a model learned is not taken out of it. "
            "Train a version without these rows: flyball apply --until TIME, or let the loop."
        )
    if found.erased:
        resumed = " An earlier erasure that died in the middle is ended with it." if found.resumed else ""
        say.line(f"{say.MARKS['done']} erased, and certified as {found.subject[:16]}…{resumed}")
    elif found.places:
        say.line("[dim]Nothing was moved. Add --reason TEXT --yes to erase it, for good.[/]")
