"""`flyball journal compact`: move what is over into the archive now."""

from __future__ import annotations

from flyball.cli import opening, options, say


def run(
    app: options.App,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Move segments that are over into the archive, and join its small files. A loop does it by itself. Needs `operate`."""
    from flyball.cli import operating
    from flyball.cycle import archiving, audit

    session = opening.session(app, home, clock)
    audit.record(session, "journal compact", None, by=operating.who(session))
    with opening.progress() as tell:
        done = archiving.compact(session, tell)
    if as_json:
        say.result({"done": done})
        return 0
    moved = [each for each in done if each.segment]
    say.line(
        f"{say.MARKS['done']} {sum(each.answers for each in moved):,} answers of {len(moved):,} segments are archived; "
        f"{sum(each.files for each in done if not each.segment):,} small files joined"
    )
    return 0
