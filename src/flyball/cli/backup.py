"""`flyball backup`: a consistent copy of a home, taken while everything runs; and the check of one that was taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.backup import Proof


def run(
    app: Annotated[
        str | None, typer.Argument(help="The app: a folder with app.py, a file, or a module.", metavar="APP")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder of backups; what is in it already is not copied again.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Keep so many backups, this one included; else all.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", help="Check a backup instead: a folder (its newest one), or one document in it."),
    ] = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Take a backup of an app's home while it runs (APP --to FOLDER), or check one that was taken (--verify FOLDER)."""
    if verify is not None:
        if app is not None or to is not None or keep is not None:
            raise typer.BadParameter("--verify checks a backup that is there: it takes no APP, --to or --keep.")
        _verify(verify, as_json=as_json)
        return 0
    if app is None or to is None:
        raise typer.BadParameter("Say which app, and where its backups lie: flyball backup APP --to FOLDER")
    from flyball.adapters.embedded import backup

    with opening.progress() as tell:
        taken = backup.take(opening.session(app, home, create=False), to, keep, tell)
    if as_json:
        say.result(taken)
        return 0
    say.line(
        f"{say.MARKS['done']} {escape(taken.backup)}  [dim]{taken.transactions} transactions, {taken.head[:12]}[/]"
    )
    say.line(
        f"  {taken.files:,} files, {taken.bytes:,} bytes; copied {taken.copied:,} with {taken.copied_bytes:,} bytes"
    )
    if taken.left_out:
        say.line(f"  [dim]left out: {escape(', '.join(taken.left_out)[:500])}[/]")
    if taken.removed:
        say.line(f"  [dim]no longer kept: {len(taken.removed)} earlier backups[/]")
    say.line("  [dim]The signing key is not in it: back it up apart, and not to the same place.[/]")
    return 0


def _verify(source: Path, *, as_json: bool) -> None:
    from flyball.adapters.embedded import restore
    from flyball.adapters.embedded.clock import SystemClock
    from flyball.runtime import places

    signer = restore.key(places.signing_key())
    with say.err.status("checking every byte …"):
        found = restore.choose(source, signer)
        proof = restore.verify(found, signer, SystemClock(), places.PROJECTIONS)
    if as_json:
        say.result({"backup": str(found.document), "taken": found.backup.taken, "proof": proof})
        return
    say.line(f"{say.MARKS['done']} {escape(str(found.document))} holds")
    show(proof)


def show(proof: Proof) -> None:
    """What was found to hold."""
    rows = ", ".join(f"{table} {n:,}" for table, n in proof.rows.items() if not table.endswith("__quarantine"))
    say.line(f"  {proof.head.tx} transactions to {proof.head.hash[:12]}, {proof.versions} versions")
    say.line(f"  {proof.artifacts} artifacts, rows: {escape(rows) or 'none'}")
    say.line(
        f"  {proof.answers:,} answers in {proof.segments} segments, {proof.refused:,} refused, {proof.unknown:,} unknown"
    )
    if proof.removed:
        say.line(f"  [dim]{proof.removed} artifacts and batches are fewer by what the facts record as removed[/]")
