"""`flyball journal show`: how many answers lie where."""

from __future__ import annotations

from flyball.cli import opening, options, say


def run(
    app: options.App,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """How many answers lie in segments and in the archive, what is unknown, and how long answers are kept."""
    from flyball.adapters.embedded import journal_shown
    from flyball.cycle import archiving

    session = opening.session(app, home, clock, create=False)
    found = journal_shown.look(session.home / "journal", session.clock)
    rule = archiving.kept(session)
    if as_json:
        say.result({"journal": found, "kept": rule})
        return 0
    span = f"{found.days} days, {found.first} to {found.last}" if found.days else ""
    say.table(
        ("", "answers", "files", "bytes", ""),
        [
            ("segments", "", f"{found.segments:,}", f"{found.segment_bytes:,}", f"{found.waiting:,} of them are over"),
            ("archive", f"{found.answers:,}", f"{found.files:,}", f"{found.archive_bytes:,}", span),
        ],
    )
    say.line(
        f"\nOf segments that are over: {found.recorded:,} recorded, {found.refused:,} refused, {found.unlogged:,} unlogged, "
        f"{found.unknown:,} unknown; {found.erased:,} erased and {found.dropped:,} dropped since."
    )
    say.line(f"[dim]Answers are kept {f'for {rule.days} days' if rule is not None else 'for ever'}.[/]")
    return 0
