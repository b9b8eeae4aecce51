"""`flyball approve`: say yes or no to a version that waits for a person."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, operating, options, say


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-2.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded with the name of your key.")],
    refuse: Annotated[bool, typer.Option("--refuse", help="Say no: the gate fails.")] = False,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Say yes (or no) to a version whose gates wait for it (fb.approval). Needs a key with the scope `operate`."""
    from flyball.cycle import operate

    session = opening.session(app, home)
    done = operate.approve(session, version, by=operating.who(session), reason=reason, yes=not refuse)
    if as_json:
        say.result(done)
    else:
        word = "approved" if done.yes else "refused"
        say.line(
            f"{say.MARKS['done']} {version} is {word} by {escape(done.by)}; flyball apply judges its gates with that."
        )
    return 0
