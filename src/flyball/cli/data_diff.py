"""`flyball data diff`: what became different between two versions of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.data.difference import Difference


def run(
    app: options.App,
    table: Annotated[str, typer.Argument(help="The table.", metavar="TABLE")],
    then: Annotated[int, typer.Option("--from", min=0, help="The version compared with.", metavar="BATCH")],
    now: Annotated[
        int | None, typer.Option("--to", min=0, help="The version compared; by default the last.", metavar="BATCH")
    ] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Batches, counts, how columns are spread, and rows by key: added, gone, and corrected in which columns."""
    from flyball.cycle import versions

    session = opening.session(app, home, clock, create=False)
    with say.err.status("comparing …"):
        found = versions.compare(session, table, then, now)
    if as_json:
        say.result(found)
        return 0
    _show(found)
    return 0


def _show(found: Difference) -> None:
    say.line(f"[bold]{escape(found.table)}[/]  from version {found.then} to {found.now}")
    for what, batches in (("added", found.batches_added), ("gone", found.batches_gone)):
        if batches:
            say.line(f"batches {what}: {_ranges(batches)}")
    was, is_now = found.observations
    say.line(f"observations: {was:,} → {is_now:,} ({is_now - was:+,})")
    say.line(f"keys: {found.added:,} added, {found.gone:,} gone, {found.corrected:,} corrected")
    for what, columns in (("has values now", found.columns_new), ("has no values any more", found.columns_empty)):
        for column in columns:
            say.line(f"column {escape(column)} {what}")
    if found.by_column:
        ranked = sorted(found.by_column.items(), key=lambda each: -each[1])
        say.table(("column", "corrected rows"), [(name, f"{n:,}") for name, n in ranked])
    for example in found.examples:
        key = ", ".join(f"{name} {value}" for name, value in example.key.items())
        cells = "; ".join(f"{name}: {a or 'null'} → {b or 'null'}" for name, (a, b) in example.cells.items())
        say.line(f"  [dim]{escape(key)}[/]  {escape(cells)}")
    say.line()
    rows = [
        (
            s.column,
            s.dtype if len(s.dtype) <= 40 else f"{s.dtype[:40]}…",
            _pair(s.nulls, ".2%"),
            _pair(s.mean, ".6g"),
            "" if s.psi is None else f"{s.psi:.3f}",
        )
        for s in found.spreads
    ]
    say.table(("column", "type", "missing", "mean", "psi"), rows)


def _pair(values: tuple[float | None, float | None], form: str) -> str:
    said = ["–" if value is None else format(value, form) for value in values]
    return said[0] if said[0] == said[1] else f"{said[0]} → {said[1]}"


def _ranges(batches: list[int]) -> str:
    """Ascending numbers as ranges: 1 to 3, 7."""
    spans: list[list[int]] = []
    for batch in batches:
        if spans and spans[-1][1] == batch - 1:
            spans[-1][1] = batch
        else:
            spans.append([batch, batch])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)
