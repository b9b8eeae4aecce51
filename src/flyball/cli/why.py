"""`flyball why`: everything that led to one prediction."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    prediction: Annotated[
        str, typer.Argument(help="The prediction id, as the server returned it.", metavar="PREDICTION")
    ],
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Why this answer: version, asked time, inputs, features, training snapshot, code."""
    from flyball.cycle import why
    from flyball.learn import knobs

    found = why.why(opening.session(app, home, clock, create=False), prediction)
    if as_json:
        say.result(found)
        return 0
    output = f"no answer: {found.failed}" if found.output is None else f"{found.output:.6g}"
    if isinstance(found.decision, str):
        output = f"{escape(found.decision)} {output}"
    elif found.decision is not None:
        limit = f" (true from {found.threshold:.6g} on)" if found.threshold is not None else ""
        output += f", so {str(found.decision).lower()}{limit}"
    say.line(f"[bold]{output}[/]  from {found.version} [dim]as {found.role}, epoch {found.epoch}, via {found.via}[/]")
    say.line(f"asked {found.asked}{'' if found.within_tolerance else '  [yellow]outside the declared moment[/]'}")
    say.line(f"[dim]{escape(found.because)}[/]")
    if found.outputs:
        say.table(("answer", ""), [(name, f"{value:.6g}") for name, value in found.outputs.items()])
        say.line()
    say.table(("input", "value"), sorted(found.inputs.items()))
    say.line()
    say.table(("feature", "value as known when asked"), list(found.features.items()))
    say.line()
    rows = []
    if found.snapshot is not None:
        rows += [("learned from", ", ".join(f"{t} up to batch {n}" for t, n in found.snapshot.batches.items()))]
        rows += [("known before", str(found.snapshot.cutoff))]
        rows += [("knobs", knobs.said(found.knobs))]
        rows += [("code", found.commit or "not in a git repository"), ("manifest", found.manifest)]
    say.table(("", ""), [*rows, ("proof", found.proof)])
    return 0
