"""`flyball journal retain`: how long answers are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.runtime import Session


def run(
    app: options.App,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Answers asked longer ago, such as 400d; 'never' with --standing.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; is recorded.")] = "",
    standing: Annotated[
        bool, typer.Option("--standing", help="From now on: the loop drops them day by day. Without, once.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it is only said what would go.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Drop archived answers that are older, by whole days and from the disk; once, or from now on. Needs `operate`."""
    from flyball.cli import operating
    from flyball.cycle import archiving

    days = _days(older_than, never=standing)
    if yes and not reason:
        raise typer.BadParameter("say why: it is recorded", param_hint="--reason")
    session = opening.session(app, home, clock, create=yes)
    if not yes:
        return _look(session, days, as_json=as_json)
    by = operating.who(session)
    result: object
    if standing:
        said = archiving.keep(session, days, reason=reason, by=by)
        kept = f"for {said.days} days" if said.days is not None else "for ever"
        text, result = f"Answers are kept {kept} from now on; the loop sees to it.", said
    else:
        gone = archiving.drop(session, days or 0, reason=reason, by=by)
        text, result = f"{gone.answers:,} answers from before {gone.before} are gone", gone
    if as_json:
        say.result({"kept" if standing else "dropped": result})
    else:
        say.line(f"{say.MARKS['done']} {text}")
    return 0


def _look(session: Session, days: int | None, *, as_json: bool) -> int:
    from flyball.cycle import archiving

    if days is None:
        raise typer.BadParameter("nothing is older than that", param_hint="--older-than")
    before, found = archiving.look(session, days)
    if as_json:
        say.result({"before": before, "would_drop": found})
    else:
        span = f" of {found.days} days, {found.first} to {found.last}" if found.days else ""
        say.line(
            f"{found.answers:,} archived answers{span} were asked before {before}. Nothing was dropped: --yes does it."
        )
    return 0


def _days(text: str, *, never: bool) -> int | None:
    if never and text == "never":
        return None
    number = text.removesuffix("d")
    if not text.endswith("d") or not number.isdecimal() or len(number) > 5:
        raise typer.BadParameter(f"{text!r} is no span of days: write 400d", param_hint="--older-than")
    return int(number)
