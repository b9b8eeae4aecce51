"""`flyball skew`: whether answers were made of the very features that training would see."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.skew import Skew

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]
_LEFT = {
    "failed": "gave no answer",
    "no features": "answered by the baseline or the declared default, which look nothing up",
    "outside tolerance": "asked too far from the declared moment",
    "other features": "answered by versions that were trained on other features than are declared now",
    "unreadable": "whose request does not fit the contract as it is now",
    "erased": "were erased from the journal, at whatever time they were asked",
}


def run(
    app: options.App,
    model: options.Model = None,
    since: Annotated[
        datetime | None, typer.Option("--since", formats=_FORMATS, help="Only what was asked from then on (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=_FORMATS, help="Only what was asked before then (UTC).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=100_000, help="Differing values shown one by one.")] = 20,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Build the features of recorded answers again, as of when they were asked; name every value that differs, and why."""
    from flyball._kernel.clock import in_utc
    from flyball.cycle import skew

    session = opening.session(app, home, clock, create=False)
    span = (in_utc(since) if since else None, in_utc(until) if until else None)
    with opening.progress() as tell:
        found = skew.skew(session, model, span, limit, tell)
    if as_json:
        say.result(found)
    else:
        _show(found)
    return 0 if found.holds else 1


def _show(found: Skew) -> None:
    said = found.found
    say.line(f"[bold]{escape(found.model)}[/]  {said.compared:,} of {said.answers:,} recorded answers were compared")
    for reason, n in said.left_out.items():
        if n:
            say.line(f"  [dim]{n:,} {_LEFT[reason]}[/]")
    causes = ("behind", "mended", "gone", "unexplained")
    rows = [
        (
            name,
            f"{c.compared:,}",
            f"{c.differing:,}",
            f"{c.differing / c.compared:.4%}" if c.compared else "–",
            *(f"{getattr(c, cause):,}" for cause in causes),
        )
        for name, c in said.features.items()
    ]
    say.table(("feature", "compared", "differing", "share", *causes), rows)
    if found.rows:
        say.line()
        shown = [
            (row.prediction, row.asked.isoformat(), row.column, row.logged, row.recomputed, row.cause, row.detail)
            for row in found.rows
        ]
        say.table(
            ("prediction", "asked", "feature", "answered by", "built again", "cause", ""), shown, whole={"prediction"}
        )
    differing = sum(c.differing for c in said.features.values())
    if len(found.rows) < differing:
        say.line(f"[dim]{len(found.rows):,} of {differing:,} values that differ; --limit shows more[/]")
    say.line()
    say.line(_verdict(found))


def _verdict(found: Skew) -> str:
    values = found.found.features.values()
    differing, unexplained = sum(c.differing for c in values), sum(c.unexplained for c in values)
    compared = sum(c.compared for c in values)
    if not compared:
        return (
            "Nothing was compared."
            if found.found.answers
            else "Nothing was compared: no answer of that time is recorded."
        )
    if not differing:
        return f"{say.MARKS['done']} no skew: all {compared:,} values are the same, bit for bit"
    if not unexplained:
        return f"{say.MARKS['done']} {differing:,} of {compared:,} values differ, and each of them is explained"
    return f"{say.MARKS['fail']} {unexplained:,} of {compared:,} values differ, and nothing explains it"
