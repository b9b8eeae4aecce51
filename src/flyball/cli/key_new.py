"""`flyball key new`: a key for somebody, and its token, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flyball.cli import keeping, opening, operating, options

if TYPE_CHECKING:
    from flyball.serve.auth import Scope


def run(
    app: options.App,
    name: keeping.Name,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it may do; once for each: predict, label, ingest, read, operate, admin."),
    ] = None,
    expires: keeping.Expires = None,
    until: keeping.Until = None,
    rate: keeping.Often = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Make a key and print its token, which is kept nowhere. Needs a key with the scope `admin`; is recorded."""
    scopes, allowed = _scopes(scope or []), keeping.rate(rate)
    from flyball.cycle import keyring

    session = opening.session(app, home, clock)
    by = operating.who(session, "admin")
    wanted = keyring.Wanted(name, scopes, keeping.end(expires, until, session.clock.now()), allowed)
    try:
        done = keyring.make(session, keeping.store(session), wanted, by=by)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="NAME") from None
    keeping.issued(done, as_json=as_json)
    return 0


def _scopes(given: list[str]) -> frozenset[Scope]:
    from flyball.serve.auth import SCOPES

    found = frozenset(scope for scope in SCOPES if scope in given)
    if not found or len(found) != len(set(given)):
        raise typer.BadParameter(f"say what it may do, of {', '.join(sorted(SCOPES))}", param_hint="--scope")
    return found
