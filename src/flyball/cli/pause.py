"""`flyball pause`: let the loop take no step, or go on."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, operating, options


def run(
    app: options.App,
    resume: Annotated[bool, typer.Option("--resume", help="Go on.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")] = "asked for",
    model: options.Model = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Release and train nothing until --resume; a candidate that fails is aborted all the same. Needs the scope `operate`."""
    from flyball.cycle import operate

    session = opening.session(app, home, clock)
    by, name = operating.who(session), session.app.model(model).name
    done = operate.resume(session, name, by=by) if resume else operate.pause(session, name, by=by, reason=reason)
    operating.show(done, as_json=as_json)
    return 0
