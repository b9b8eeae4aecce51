"""`flyball exposures`: who was answered by whom in each canary and A/B stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    model: options.Model = None,
    out: Annotated[Path | None, typer.Option("--out", help="A Parquet file that gets every exposure.")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Who was answered by which version while one was on its way, and that the assignment stuck."""
    from flyball.cycle import exposed

    if out is not None:
        say.parquet(out, "--out")
    found = exposed.exposed(opening.session(app, home, clock, create=False), model, out)
    if as_json:
        say.result(found)
        return 0 if found.sticky else 3
    rows = [
        (
            f"{each.candidate} against {each.champion}",
            f"{each.stage} {each.share:.0%}",
            each.epoch,
            f"{each.entities:,}",
            f"{each.candidates:,}",
            f"{each.champions:,}",
            f"{each.both:,}",
            f"{each.mended:,}",
            f"{each.astray:,}",
            "" if each.z is None else f"{each.z:+.1f}",
        )
        for each in found.stages
    ]
    columns = ("who", "stage", "epoch", "entities", "candidate", "champion", "both", "mended", "astray", "z")
    if rows:
        say.table(columns, rows, whole=("who", "stage"))
    else:
        say.line("No canary and no A/B test has begun here.")
    for each in found.moved:
        say.line(f"  {escape(each.entity)} in {escape(each.stage)} of {escape(each.candidate)}: {escape(each.why)}")
    if out is not None:
        say.line(f"{say.MARKS['done']} {found.exposures:,} exposures in {escape(str(out))}")
    if not found.sticky:
        say.line(f"{say.MARKS['fail']} entities were answered against their lot: the assignment did not stick")
    return 0 if found.sticky else 3
