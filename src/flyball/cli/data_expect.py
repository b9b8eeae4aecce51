"""`flyball data expect`: what is expected of each table, and what was found; or what could be expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.expectations import Belief, Look
    from flyball.cycle.session import Session


def run(
    app: options.App,
    propose: Annotated[
        bool, typer.Option("--propose", help="Write expectations that the data keeps, and columns that may leak.")
    ] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Judge every table by what is expected of it; exit code 3 where one fails. Records nothing."""
    from flyball import app as apps
    from flyball.cycle import expectations

    session = opening.session(app, home, clock, create=False)
    apps.check(session.app)
    if propose:
        _propose(session, as_json=as_json)
        return 0
    looks = expectations.look(session)
    if as_json:
        say.result(looks)
    elif not looks:
        say.line("Nothing is expected of any table that has rows. --propose writes expectations that the data keeps.")
    else:
        for look in looks:
            _show(look)
    return 3 if any(look.judged.failed for look in looks) else 0


def _show(look: Look) -> None:
    judged, belief = look.judged, look.belief
    say.line(f"\n[bold]{escape(judged.table)}[/]  batch {judged.batch}, {_believed(belief)}")
    say.verdicts("expectation", judged.verdicts)


def _believed(belief: Belief) -> str:
    if belief.judged is None:
        return "not judged by an apply yet"
    return f"believed up to batch {belief.until}" if belief.until else "not believed"


def _propose(session: Session, *, as_json: bool) -> None:
    from flyball.cycle import expectations

    proposed = expectations.propose(session)
    if as_json:
        say.result(proposed)
        return
    # As plain lines, so that they can be put into a file.
    for each in proposed:
        say.line(escape(f"# {each.table}"))
        for line in each.code:
            say.line(escape(f"{line},"))
        for column, score in each.leaks:
            say.line(
                escape(f"# {each.table}.{column} alone ranks the outcome by {score:.3f}: is it known when it is asked?")
            )
