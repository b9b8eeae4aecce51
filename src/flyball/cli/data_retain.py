"""`flyball data retain`: delete old rows that nobody needs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

_UNITS = {"d": "days", "h": "hours"}


def run(
    app: options.App,
    table: Annotated[str, typer.Argument(help="The table.", metavar="TABLE")],
    older_than: Annotated[
        str, typer.Option("--older-than", help="Rows whose event time is older, such as 400d.", metavar="SPAN")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it is only said what would go.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Delete old rows, unless a version that may still answer, or a pin, has them in its snapshot. Needs `operate`."""
    from flyball.cli import operating
    from flyball.cycle import retention

    span = _span(older_than)
    if yes and not reason:
        raise typer.BadParameter("say why: it is recorded", param_hint="--reason")
    session = opening.session(app, home, clock, create=yes)
    if yes:
        done = retention.retain(session, table, span, reason=reason, by=operating.who(session))
        if as_json:
            say.result({"retained": done})
        else:
            say.line(
                f"{say.MARKS['done']} {done.rows:,} rows of {escape(table)} from before {done.before:%Y-%m-%d} are gone"
            )
        return 0
    found = retention.look(session, table, span)
    if as_json:
        say.result(found)
        return 0
    say.line(f"{found.rows:,} rows of {escape(table)} are from before {found.before:%Y-%m-%d %H:%M} UTC.")
    rows = [(who, f"{n:,}", "needs them") for who, n in found.needed.items()]
    rows += [(who, f"{n:,}", "retired: it could not be reproduced any more") for who, n in found.retired.items()]
    if rows:
        say.table(("who", "rows", ""), rows)
    say.line(
        "Nothing would be deleted, for they are needed." if found.needed else "Nothing was deleted: --yes does it."
    )
    return 0


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([dh])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span: write 400d or 36h", param_hint="--older-than")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
