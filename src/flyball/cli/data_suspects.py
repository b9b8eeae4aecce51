"""`flyball data suspects`: columns that seem to hold personal data, and are not declared so."""

from __future__ import annotations

from flyball.cli import opening, options, say


def run(
    app: options.App,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """What was found in a sample of every batch that came: a column, what it looks like, and the share; never a value."""
    from flyball.cycle import suspected

    found = suspected.standing(opening.session(app, home, clock, create=False))
    if as_json:
        say.result({"suspects": found})
        return 0
    if not found:
        say.line("No column that is not declared personal looks like personal data, as far as rows were looked at.")
        return 0
    say.table(
        ("table", "column", "looks like", "share", "of rows"),
        [(each.table, each.column, each.kind, f"{each.share:.0%}", f"{each.rows:,}") for each in found],
    )
    say.line("[dim]Declare them fb.personal(...), or take them out; see docs/howto/personal-data.md.[/]")
    return 0
