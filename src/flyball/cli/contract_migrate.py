"""`flyball contract migrate`: carry stored rows over to a new version of their contract now; an apply does the same."""

from __future__ import annotations

from flyball.cli import opening, operating, options, say


def run(app: options.App, home: options.Home = None, as_json: options.Json = False) -> int:
    """Record the declared contracts, and carry rows over where one has a new version. Ingests nothing. Needs `operate`."""
    from flyball.cycle import apply, audit, contracts
    from flyball.cycle.session import held

    session = opening.session(app, home)
    by = operating.who(session)
    with opening.progress() as tell, held(session, apply.LEASE):
        audit.record(session, "contract migrate", "", by=by)
        done = contracts.settle(session, tell)
    if as_json:
        say.result({"contracts": [{"table": d.table, "from": d.source, "changes": d.changes} for d in done]})
        return 0
    for each in done:
        came = f"rows of {each.source} carried over" if each.source else "recorded"
        say.line(f"{say.MARKS['done']} {each.table}  [dim]{came}[/]")
    if not done:
        say.line("Nothing to do.")
    return 0
