"""`flyball rollback`: take the last release back."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, operating, options


def run(
    app: options.App,
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")] = "asked for",
    model: options.Model = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Abort the candidate, or return to who answered before. Needs a key with the scope `operate`."""
    from flyball.cycle import operate

    session = opening.session(app, home, clock)
    by, name = operating.who(session), session.app.model(model).name
    operating.show(operate.roll_back(session, name, by=by, reason=reason), as_json=as_json)
    return 0
