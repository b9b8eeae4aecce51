"""`flyball data compact`: fewer files, and nothing on disk that no version needs."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, options, say


def run(
    app: options.App,
    table: Annotated[str | None, typer.Argument(help="One table; by default all.", metavar="[TABLE]")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Join small files, then remove what no version reads. Every version reads the same; nothing is ingested again."""
    from flyball.cli import operating
    from flyball.cycle import audit, versions

    session = opening.session(app, home, clock)
    audit.record(session, "data compact", table, by=operating.who(session))
    with say.err.status("compacting …"):
        done = versions.compact(session, table)
    if as_json:
        say.result(done)
        return 0
    say.table(
        ("table", "files", "", "bytes", ""),
        [
            (n, f"{d.files_before:,}", f"→ {d.files_after:,}", f"{d.bytes_before:,}", f"→ {d.bytes_after:,}")
            for n, d in done.items()
        ],
    )
    return 0
