"""`flyball restore`: a backup as a new home, proved from end to end before it is one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import backup, opening, options, say


def run(
    source: Annotated[
        Path, typer.Argument(help="A folder of backups (its newest one), or one document in it.", metavar="BACKUP")
    ],
    home: Annotated[
        Path | None, typer.Option("--home", help="The new home: a folder that is empty, or not there.")
    ] = None,
    app: Annotated[str | None, typer.Option("--app", help="Restore to .flyball beside this app's file.")] = None,
    as_json: options.Json = False,
) -> int:
    """Make a home of a backup. Nothing is written over; what does not hold together is refused and leaves nothing behind."""
    if (home is None) == (app is None):
        raise typer.BadParameter("Say where to: either --home FOLDER or --app APP.")
    from flyball.adapters.embedded import restore
    from flyball.adapters.embedded.backup import FACTS
    from flyball.adapters.embedded.clock import SystemClock
    from flyball.adapters.embedded.facts import SqlFacts
    from flyball.cycle import audit
    from flyball.runtime import places

    place = home if home is not None else opening.folder(str(app)) / ".flyball"
    signer = restore.key(places.signing_key())
    with say.err.status("restoring, and checking every byte …"):
        found = restore.choose(source, signer)
        proof = restore.restore(found, place, signer, SystemClock(), places.PROJECTIONS)
        with closing(SqlFacts(place / FACTS, SystemClock(), signer, places.PROJECTIONS)) as facts:
            audit.restored(facts, found.document.name)
    if as_json:
        said = {"home": str(place), "backup": str(found.document), "taken": found.backup.taken, "proof": proof}
        say.result(said)
        return 0
    say.line(
        f"{say.MARKS['done']} {escape(str(place))} is what was backed up at {found.backup.taken:%Y-%m-%d %H:%M:%S} UTC"
    )
    backup.show(proof)
    say.line("  [dim]Keys and token are made anew when it is first opened; processes have to be started.[/]")
    say.line("  [yellow]What was erased after that time is here again: erase it again.[/]")
    return 0
