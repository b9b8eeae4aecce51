"""`flyball rehearse`: history once more through the whole loop, on a virtual clock."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.rehearse import Rehearsed


def run(
    app: options.App,
    start: Annotated[datetime, typer.Option("--from", help="The first questions (UTC); learned is from before.")],
    end: Annotated[datetime, typer.Option("--to", help="Questions asked before this (UTC).")],
    seed: Annotated[int, typer.Option("--seed", help="Draws the durations: one seed, one trace.")] = 0,
    sample: Annotated[float, typer.Option("--sample", help="The share of the questions that are asked.")] = 1.0,
    every: Annotated[float, typer.Option("--every", help="Hours between two looks of the loop.")] = 6.0,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Ask history's questions again, let the loop retrain and release as declared, and say what it would have done."""
    from datetime import timedelta

    from flyball import runtime
    from flyball._kernel.clock import in_utc
    from flyball.cycle import rehearse

    with opening.progress() as tell:
        loaded = opening.loaded(app)
        placement = runtime.Placement(root=loaded.root, home=home)
        span = rehearse.Span(in_utc(start), in_utc(end), timedelta(hours=every), sample)
        session, clock = runtime.rehearsal(loaded.app, placement, span.start, seed)
        done = rehearse.rehearse(session, clock, span, tell)
    if as_json:
        say.result(done)
    else:
        show(done)
    return 0


def show(done: Rehearsed) -> None:
    """What the loop did, and what came of it."""
    say.table(("when", "what"), [(f"{each.at:%Y-%m-%d %H:%M}", each.what) for each in done.decided])
    left = sum(n for name, n in done.answered.items() if not name.endswith(" shadow"))
    say.line(f"\n{done.asked:,} asked, {left:,} answered, {done.refused:,} refused; {done.trainings} trainings")
    say.table(("answers by", "attempts"), [(name, f"{n:,}") for name, n in done.answered.items()])
    for model, champion in done.champions.items():
        say.line(f"{escape(model)}: {champion} answers at the end")
    say.line(f"[dim]trace {done.trace}  ({done.transactions} transactions)[/]")
