"""What the verbs of keys share: spans, ends and rates, and how a key is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flyball.cycle.keyring import Issued
    from flyball.runtime import Session
    from flyball.serve.auth import Key
    from flyball.serve.rates import Rate

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

Name = Annotated[str, typer.Argument(help="The name of the key, under which its deeds are recorded.", metavar="NAME")]
Expires = Annotated[
    str | None, typer.Option("--expires", help="It holds for so long from now on, such as 90d.", metavar="SPAN")
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="It holds until this moment (UTC)."),
]
Often = Annotated[
    str | None,
    typer.Option("--rate", help="Requests that each server process takes: 100/s, 30/min, 100/s:500.", metavar="RATE"),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; is recorded.")]


def span(text: str, option: str) -> timedelta:
    """`90d`, `36h`, `15m` or `30s`."""
    found = re.fullmatch(r"([0-9]{1,6})([dhms])", text)
    if found is None:
        raise typer.BadParameter(f"{text[:40]!r} is no span: write 90d, 36h, 15m or 30s", param_hint=option)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def rate(text: str | None) -> Rate | None:
    """`100/s`, `30/min` or `100/s:500`, if one is said."""
    from flyball.serve import rates

    try:
        return rates.parse(text) if text is not None else None
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--rate") from None


def end(expires: str | None, until: datetime | None, now: datetime) -> datetime | None:
    """The moment from which on a key does not hold, if one is said; it is to come."""
    from flyball._kernel.clock import in_utc

    if expires is not None and until is not None:
        raise typer.BadParameter("Say either for how long (--expires) or until when (--until).")
    found = in_utc(until) if until is not None else None
    if expires is not None:
        found = now + span(expires, "--expires")
    if found is not None and found <= now:
        raise typer.BadParameter("It would hold for no moment.", param_hint="--until")
    return found


def store(session: Session) -> Callable[[tuple[Key, ...]], None]:
    """Where the keys of a home are kept."""
    from flyball.adapters.embedded import tokens

    return partial(tokens.store, session.home)


def told(key: Key) -> dict[str, Any]:
    """A key without anything by which one could be it."""
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "expires": key.expires,
        "rate": str(key.rate) if key.rate is not None else None,
        "changed": key.changed,
        "former_until": max((former.until for former in key.former), default=None),
    }


def issued(done: Issued, *, as_json: bool) -> None:
    """A key and its token, the one time that it is told: alone on standard output, so that it can be put somewhere."""
    from rich.markup import escape

    from flyball.cli import say

    if as_json:
        say.result({**told(done.key), "token": done.token})
        return
    until = f", until {done.key.expires:%Y-%m-%d %H:%M} UTC" if done.key.expires is not None else ""
    say.err.print(f"{say.MARKS['done']} {escape(done.key.name)}: {', '.join(sorted(done.key.scopes))}{until}")
    say.err.print("[dim]Its token, which is kept nowhere and not shown again:[/]")
    say.line(done.token)
