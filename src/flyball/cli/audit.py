"""`flyball audit`: who did what."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import typer

from flyball.cli import keeping, opening, options, say


def run(
    app: options.App,
    since: Annotated[
        str | None, typer.Option("--since", help="What was done since: a span such as 7d, or a date.", metavar="WHEN")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="By this key alone.", metavar="NAME")] = "",
    last: Annotated[int, typer.Option("--last", min=0, help="So many of the newest; 0 is all.")] = 50,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """What persons did, newest first: when, by which key, what and why. Checks the signed history it is read from."""
    from flyball.cycle import audit

    session = opening.session(app, home, clock, create=False)
    found = audit.deeds(session, _since(since, session.clock.now()), by)
    shown = found[:last] if last else found
    if as_json:
        say.result({"deeds": shown, "found": len(found)})
        return 0
    if not found:
        say.line("Nobody did anything that is recorded.")
        return 0
    rows = [(f"{d.at:%Y-%m-%d %H:%M:%S}", d.by, d.what, d.reason, d.seq) for d in shown]
    say.table(("when (UTC)", "who", "what", "why", "fact"), rows, whole=("when (UTC)",))
    if len(shown) < len(found):
        say.line(f"[dim]{len(found) - len(shown):,} earlier ones: --last 0[/]")
    return 0


def _since(text: str | None, now: datetime) -> datetime | None:
    from flyball._kernel.clock import in_utc

    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,6}[dhms]", text):
        return now - keeping.span(text, "--since")
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text[:40]!r} is neither a span (7d) nor a date (2026-11-01)", param_hint="--since"
        ) from None
