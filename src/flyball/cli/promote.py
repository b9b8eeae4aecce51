"""`flyball promote`: send a version on its way, or make it champion at once."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, operating, options


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-2.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded. Needed to override a gate.")] = "",
    override: Annotated[
        bool, typer.Option("--override-gates", help="Although its gates did not release it; is recorded.")
    ] = False,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Past all stages; else through shadow and canaries, as declared.")
    ] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Send a version through the declared stages (or make it champion at once). Needs a key with the scope `operate`."""
    from flyball.cycle import operate

    session = opening.session(app, home, clock)
    by = operating.who(session)
    done = operate.promote(session, version, by=by, reason=reason, override=override, at_once=at_once)
    operating.show(done, as_json=as_json)
    return 0
