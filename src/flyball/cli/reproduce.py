"""`flyball reproduce`: make a version again, and compare every byte."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli import opening, options, say


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-1.", metavar="VERSION")],
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Train a version again from its recorded data, code and knobs: identical bytes, or the step that differs."""
    from flyball.cycle import reproduce

    with opening.progress() as tell:
        found = reproduce.reproduce(opening.session(app, home, create=False), version, tell)
    if as_json:
        say.result(found)
    elif found.identical:
        say.line(f"{say.MARKS['done']} {version}: identical bytes ({len(found.compared)} artifacts)")
    else:
        say.line(f"{say.MARKS['fail']} {version}: {found.step} differs: {found.why}")
    return 0 if found.identical else 1
