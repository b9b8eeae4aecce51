"""`flyball shadow`: let a version compute beside the champion, or stop it."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, operating, options


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-2.")],
    stop: Annotated[bool, typer.Option("--stop", help="It computes beside nobody any more.")] = False,
    share: Annotated[float, typer.Option("--share", help="Of the entities; always the same ones.")] = 1.0,
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")] = "asked for",
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Compute a version's answers beside the champion's; they are recorded and returned to nobody. Needs `operate`."""
    from flyball.cycle import shadowing

    session = opening.session(app, home, clock)
    by = operating.who(session)
    if stop:
        done = shadowing.end(session, version, by=by, reason=reason)
    else:
        done = shadowing.begin(session, version, share=share, by=by, reason=reason)
    operating.show(done, as_json=as_json)
    return 0
