"""`flyball apply`: carry the plan out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, operating, options, say

if TYPE_CHECKING:
    from flyball.cycle.apply import Applied


NEXT = {
    "held": "More data would settle it (a longer span, more history), or a lower gate.",
    "rejected": "A better model, or a lower gate.",
}
"""What to do about a version that does not answer."""


def run(
    app: options.App,
    home: options.Home = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"],
            help="Learn from what was known before this moment (UTC); pins the data anew.",
        ),
    ] = None,
    model: options.Model = None,
    clock: options.ClockFile = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write a report of each version; flyball card makes one later.")
    ] = True,
    as_json: options.Json = False,
) -> int:
    """Ingest, train, evaluate, register, judge, release. Resumable; a second apply does nothing. Needs `operate`."""
    from flyball._kernel.clock import in_utc
    from flyball.adapters.embedded.process import PARENT
    from flyball.cycle import apply, audit
    from flyball.learn import adopted

    with opening.progress() as tell:
        session = opening.session(app, home, clock)
        # A child of the loop acts for the loop, which has recorded why.
        by = "" if PARENT in os.environ else operating.who(session)
        before = session.facts.head().tx
        try:
            done = apply.apply(session, until=in_utc(until) if until else None, only=model or "", tell=tell)
        finally:
            if by and session.facts.head().tx != before:
                audit.record(session, "apply", model, by=by)
    learned = [model for model in done.models if adopted.of(session.app.model(model.model)) is None]
    reports = {model.version: apply.write_report(session, model) for model in learned} if report else {}
    if as_json:
        say.result(done)
    else:
        show(done, reports)
    return 0 if all(model.decision == "release" for model in done.models) else 3


def show(done: Applied, reports: Mapping[str, Path]) -> None:
    """What came of it."""
    if not done.ran:
        say.line("Nothing to do.")
    for file in done.changed:
        say.line(
            f"[yellow]changed[/] {escape(file)}, which was ingested before; rows that say something new are corrections"
        )
    for model in done.models:
        say.line(f"\n[bold]{model.version}[/]  {model.decision}; answering: {model.champion or 'nobody'}")
        say.verdicts("gate", model.verdicts)
        if model.version in reports:
            say.line(f"[dim]report: {escape(str(reports[model.version]))}[/]")
        if model.decision != "release":
            say.line(f"[dim]next:   {NEXT[model.decision]} flyball plan says which gates stand in its way.[/]")
