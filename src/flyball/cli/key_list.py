"""`flyball key list`: which keys there are."""

from __future__ import annotations

from datetime import datetime

from flyball.cli import keeping, opening, options, say


def run(
    app: options.App,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Every key: what it may do, how often, until when, and when its token was made. Never a token, never a hash."""
    session = opening.session(app, home, clock, create=False)
    now, keys = session.clock.now(), session.keys.all()
    if as_json:
        say.result({"keys": [{**keeping.told(k), "holds": k.expires is None or k.expires > now} for k in keys]})
        return 0
    say.table(
        ("name", "scopes", "rate", "holds until", "token of", "former token until"),
        [
            (
                key.name,
                ", ".join(sorted(key.scopes)),
                key.rate or "",
                _until(key.expires, now),
                f"{key.changed:%Y-%m-%d}" if key.changed is not None else "",
                ", ".join(f"{former.until:%Y-%m-%d %H:%M}" for former in key.former if former.until > now),
            )
            for key in keys
        ],
    )
    return 0


def _until(expires: datetime | None, now: datetime) -> str:
    if expires is None:
        return "for good"
    return f"{expires:%Y-%m-%d %H:%M}" + (" (expired)" if expires <= now else "")
