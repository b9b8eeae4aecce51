"""`flyball report`: the story of a model, with pictures: who answered, what was decided and why, and what came of it."""

from __future__ import annotations

from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    model: options.Model = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Releases, quality, monitors and answers over time, as Markdown and as one HTML file that needs nothing else."""
    from flyball.cycle import chronicle
    from flyball.watch import report

    session = opening.session(app, home, clock, create=False)
    found = chronicle.chronicle(session, session.app.model(model))
    if as_json:
        say.result(found)
        return 0
    with say.err.status("drawing …"):
        page = chronicle.write(session, found)
    say.line(f"[bold]{escape(report.headline(found))}[/]")
    for line in report.summary(found):
        say.line(f"  {escape(line)}")
    say.line(f"[dim]report: {page}[/]")
    return 0
