"""`flyball data rollback`: have a table hold what it held before."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    table: Annotated[str, typer.Argument(help="The table.", metavar="TABLE")],
    to: Annotated[int, typer.Option("--to", min=0, help="The version to return to.", metavar="BATCH")],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")],
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Withdraw the batches after a version; older versions and models keep theirs. Needs a key with the scope `operate`.

    A later rollback to the version before this one takes it back.
    """
    from flyball.cli import operating
    from flyball.cycle import versions

    session = opening.session(app, home, clock)
    said = versions.roll_back(session, table, to=to, reason=reason, by=operating.who(session))
    if as_json:
        say.result({"withdrawn": said})
        return 0
    if said is None:
        say.line(f"Nothing to do: {escape(table)} holds what it held as of version {to}.")
        return 0
    say.line(f"{say.MARKS['done']} {escape(table)} holds again what it held as of version {to}")
    for what, batches in (("withdrawn", said.batches), ("held again", said.restored)):
        if batches:
            say.line(
                f"  {what}: {len(batches):,} batch{'es' if len(batches) > 1 else ''}, {batches[0]} to {batches[-1]}"
            )
    say.line(f"[dim]to take it back: flyball data rollback APP {escape(table)} --to {said.batch - 1} --reason …[/]")
    say.line(
        "[dim]models keep what they learned from; flyball apply APP --until TIME trains on the table as it is now[/]"
    )
    return 0
