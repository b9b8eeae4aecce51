"""`flyball key revoke`: take a key away."""

from __future__ import annotations

from rich.markup import escape

from flyball.cli import keeping, opening, operating, options, say


def run(
    app: options.App,
    name: keeping.Name,
    reason: keeping.Reason = "",
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Take a key away, from the next request on. Needs a key with the scope `admin`; is recorded."""
    from flyball.cycle import keyring

    session = opening.session(app, home, clock)
    by = operating.who(session, "admin")
    gone = keyring.revoke(session, keeping.store(session), name, by=by, reason=reason)
    if as_json:
        say.result({"revoked": gone.name, "by": by})
    else:
        say.line(f"{say.MARKS['done']} {escape(gone.name)} is no key any more")
    return 0
