"""`flyball status`: what there is, and who answers."""

from __future__ import annotations

from flyball.cli import opening, options, say


def run(app: options.App, home: options.Home = None, as_json: options.Json = False) -> int:
    """What was ingested, which versions exist, who answers, and what the journal holds."""
    from flyball.cycle import status

    found = status.status(opening.session(app, home, create=False))
    if as_json:
        say.result(found)
        return 0
    say.line(f"[bold]{found.app}[/]  [dim]{found.transactions} transactions, head {found.head[:12]}[/]")
    say.table(
        ("table", "rows", "quarantined", "repeats", "corrections", "files"),
        [
            (t.table, f"{t.accepted:,}", f"{t.quarantined:,}", f"{t.duplicates:,}", f"{t.corrections:,}", t.files)
            for t in found.tables
        ],
    )
    for model in found.models:
        say.line(f"\n[bold]{model.model}[/]  answering: {model.champion or 'nobody'} [dim]epoch {model.epoch}[/]")
        say.table(
            ("version", "decision", "registered", "learned until"),
            [(v.version, v.decision or "not judged", v.registered[:19], v.cutoff[:19]) for v in model.versions],
        )
    journal = found.journal
    say.line(f"\n{journal.recorded:,} answers recorded, {journal.refused:,} refused, {journal.unknown:,} unknown")
    return 0
