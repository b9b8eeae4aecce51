"""`flyball plan`: what would run and why; moves nothing."""

from __future__ import annotations

from flyball.cli import opening, options, say


def run(app: options.App, home: options.Home = None, as_json: options.Json = False) -> int:
    """What would run, and which input changed. Moves nothing."""
    from flyball.cycle import plan

    found = plan.plan(opening.session(app, home, create=False))
    if as_json:
        say.result(found)
        return 0
    for file in found.files:
        say.line(f"{say.MARKS['run']} ingest {file.file}  [dim]{file.why}[/]")
    for model in found.models:
        say.line(f"[bold]{model.model}[/]  [dim]{model.state}[/]")
        for step in model.steps:
            mark = say.MARKS["run" if step.runs else "keep"]
            say.line(f"  {mark} {step.step:<10} [dim]{'; '.join(step.why) if step.runs else 'done'}[/]")
        say.line(f"  [dim]{model.served}[/]")
    for note in found.notes:
        say.line(f"[dim]note: {note}[/]")
    for n, ending in enumerate(found.ends):
        say.line(f"[dim]{'  ' if n else ''}{ending}[/]")
    work = found.work
    say.line(f"{work} to do: flyball apply {app}" if work else "Nothing to do.")
    return 0
