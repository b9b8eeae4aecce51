"""`flyball diff`: what two versions differ in, and whether it made a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.diff import Difference, Sides

FEATURES = 10
"""Features that are shown, those whose worth moved most; `--json` has all of them."""


def run(
    app: options.App,
    then: Annotated[str, typer.Argument(help="The earlier version, such as lateness-1.", metavar="V1")],
    now: Annotated[str, typer.Argument(help="The later one.", metavar="V2")],
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Two versions side by side: causes by name, quality on the same rows, features, decisions, size, artifacts."""
    from flyball.cycle import diff

    with say.err.status("comparing …"):
        found = diff.diff(opening.session(app, home, create=False), then, now)
    if as_json:
        say.result(found)
    else:
        _show(found)
    return 0


def _show(found: Difference) -> None:
    from flyball.learn.drawing import page
    from flyball.learn.reports.shown import measured

    say.line(f"[bold]{escape(found.says)}[/]")
    say.table(("of", "cause", ""), [(c.of, c.name, c.what) for c in found.causes], whole=("of",))
    if found.rows is not None:
        fit, test = found.rows.fit, found.rows.test
        say.line(
            f"[dim]rows that train: {fit[0]:,} and {fit[1]:,}; held out: {test[0]:,} and {test[1]:,}, "
            f"{found.rows.common:,} of them the same[/]"
        )
    say.line()
    head = ("each on its own held-out rows", found.then, found.now)
    say.table(head, [(name, measured(a) or "-", measured(b) or "-") for name, (a, b) in found.metrics.items()])
    paired = found.paired
    if paired.difference is not None:
        rows: list[tuple[str, ...]] = [(paired.loss, measured(paired.difference, signed=True), "")]
        if (auc := paired.roc_auc) is not None:
            rows.append(("roc_auc", measured(auc.difference, signed=True), f"DeLong p {auc.p:.3f}"))
        if (d := paired.decisions) is not None:
            told = f"McNemar mid-p {d.mid:.3f}: {d.ours:,} rows only now, {d.theirs:,} only then"
            rows.append(("right decisions", measured(d.difference, signed=True), told))
        say.line()
        say.table((f"on the same {paired.n:,} rows", "now less then", ""), rows)
    say.line()
    moved = sorted(found.worth.items(), key=lambda each: -_moved(each[1]))[:FEATURES]
    tables = {
        "worth of a feature": moved,
        "decided from": found.thresholds.items(),
        "what it takes": found.sizes.items(),
    }
    for title, sides in tables.items():
        cells = [(name, *("-" if x is None else page.number(x) for x in (s.then, s.now))) for name, s in sides]
        if cells:
            say.table((title, found.then, found.now), cells)
    say.line(f"[dim]same bytes: {', '.join(found.same) or 'no artifact'}[/]")
    say.line(f"[dim]other bytes: {', '.join((*found.other, *found.only)) or 'none'}[/]")


def _moved(sides: Sides) -> float:
    return abs((sides.now or 0.0) - (sides.then or 0.0))
