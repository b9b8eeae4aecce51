"""`flyball data quarantine`: the rows that were refused, and how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.quarantined import Quarantine, Row


def run(
    app: options.App,
    table: Annotated[str | None, typer.Argument(help="One table; by default all.", metavar="[TABLE]")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Rows that broke this rule.", metavar="RULE")] = None,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Show so many open rows of each table.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write all rows of TABLE: .parquet, .csv or .jsonl.", metavar="FILE")
    ] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show and write personal columns.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Count refused rows by table, rule, file and batch; show some of them, or write all of them to a file."""
    from flyball.cycle import quarantined

    if out is not None and table is None:
        raise typer.BadParameter("--out needs TABLE", param_hint="--out")
    session = opening.session(app, home, clock, create=False)
    found = quarantined.count(session, table)
    some = sample or (5 if rule else 0)
    rows = quarantined.sample(session, table, rule, some, reveal=reveal) if some else {}
    if out is not None and table is not None:
        quarantined.write(quarantined.rows(session, table, rule, reveal=reveal), out)
    if as_json:
        say.result({"tables": found, "rows": rows, "out": str(out) if out is not None else None})
        return 0
    for each in found:
        _show(each)
        if some:
            _show_rows(rows.get(each.table, []))
    if out is not None:
        say.line(f"[dim]written: {escape(str(out))}[/]")
    return 0


def _show(found: Quarantine) -> None:
    said = ", ".join(f"{n:,} {standing}" for standing, n in found.rows.items())
    say.line(f"[bold]{escape(found.table)}[/]  {said or 'nothing in quarantine'}")
    if found.by_rule:
        ranked = sorted(found.by_rule.items(), key=lambda each: -each[1])
        say.table(("rule", "open rows"), [(rule, f"{n:,}") for rule, n in ranked])
    if found.batches:
        columns = ("batch", "file", "source", "rows", "open", "rules of the open rows")
        say.table(
            columns,
            [
                (
                    b.batch,
                    b.file,
                    b.source,
                    f"{sum(b.rows.values()):,}",
                    f"{b.rows.get('open', 0):,}",
                    ", ".join(f"{r} {n:,}" for r, n in b.by_rule.items()) or _settled(b.rows),
                )
                for b in found.batches
            ],
        )
    say.line()


def _settled(rows: dict[str, int]) -> str:
    return ", ".join(f"{standing} {n:,}" for standing, n in rows.items())


def _show_rows(rows: list[Row]) -> None:
    for row in rows:
        line = f":{row.line}" if row.line is not None else ""
        say.line(f"[bold]{escape(row.file)}{line}[/]  [red]{escape(', '.join(row.rules))}[/] [dim]batch {row.batch}[/]")
        say.line(
            "  "
            + "  ".join(f"[dim]{escape(name)}[/] {escape(cell) or '[dim]null[/]'}" for name, cell in row.cells.items())
        )
