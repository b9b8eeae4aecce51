"""`flyball data replay`: judge refused rows by what is declared now."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, options, say


def run(
    app: options.App,
    table: Annotated[str | None, typer.Option("--table", help="One table; by default all.", metavar="TABLE")] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", help="Only files with open rows that broke this rule.", metavar="RULE")
    ] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Judge refused rows by what is declared now: of files that are still there read again, of others as they were kept.

    Needs the scope `operate`.
    """
    from flyball.cli import operating
    from flyball.cycle import audit, quarantined

    session = opening.session(app, home, clock)
    audit.record(session, "data replay", table, by=operating.who(session))
    with opening.progress() as tell:
        done = quarantined.replay_open(session, table, rule, tell)
    if as_json:
        say.result({"replayed": done})
        return 0
    if not done:
        say.line("Nothing to replay: every open row was judged by the contract and the preparation that are declared.")
        return 0
    columns = ("table", "file", "of batch", "became batch", "", "read", "accepted", "still refused", "repeats")
    say.table(
        columns,
        [
            (
                *(d.table, d.file, d.of, d.batch, "file read again" if d.read_again else "file gone, rows as kept"),
                *(f"{n:,}" for n in (d.read, d.accepted, d.still, d.duplicates)),
            )
            for d in done
        ],
    )
    if any(d.still and not d.read_again for d in done):
        say.line(
            "[dim]Kept rows are as the preparation of their time left them, and a line that is no row stays one. To have them "
            "prepared anew, put their files back, as they were or mended, and run flyball apply.[/]"
        )
    return 0
