"""`flyball key rotate`: another token for a key."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from flyball.cli import keeping, opening, operating, options, say


def run(
    app: options.App,
    name: keeping.Name,
    grace: Annotated[
        str, typer.Option("--grace", help="For how long former tokens still hold; 0s where one leaked.", metavar="SPAN")
    ] = "24h",
    expires: keeping.Expires = None,
    until: keeping.Until = None,
    rate: keeping.Often = None,
    reason: keeping.Reason = "",
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Give a key another token and print it; that of `local` goes into its file. Needs the scope `admin`; is recorded."""
    allowed = keeping.rate(rate)
    from flyball.adapters.embedded import tokens
    from flyball.cycle import keyring

    session = opening.session(app, home, clock)
    by = operating.who(session, "admin")
    owner = name == tokens.LOCAL
    wanted = keyring.Rotation(
        name,
        keeping.span(grace, "--grace"),
        keeping.end(expires, until, session.clock.now()),
        reason,
        partial(tokens.place_token, session.home) if owner else None,
        allowed,
    )
    done = keyring.rotate(session, keeping.store(session), wanted, by=by)
    if not owner:
        keeping.issued(done, as_json=as_json)
    elif as_json:
        say.result(keeping.told(done.key))
    else:
        say.line(f"{say.MARKS['done']} the token of the home's owner is another one")
    return 0
