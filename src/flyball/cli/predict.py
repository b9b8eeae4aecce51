"""`flyball predict`: answer a whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    questions: Annotated[
        Path,
        typer.Argument(help="Parquet, CSV or JSON lines with the request's columns; a folder or a pattern of such."),
    ],
    answers: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    home: options.Home = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, where the app has several.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Who answers; by default who answers now.")] = None,
    as_json: options.Json = False,
) -> int:
    """Answer every question of a file as of its declared moment; a run that was stopped goes on."""
    from flyball.cycle import predict

    with opening.progress() as tell:
        found = predict.predict(opening.session(app, home, create=False), model, questions, answers, tell, version)
    if as_json:
        say.result(found)
    else:
        counts = f"{found.refused:,} refused, {found.repeats:,} repeats"
        say.line(f"{found.answered:,} answered by {found.version}, {counts}: {escape(str(answers))}")
        for rule, n in sorted(found.by_rule.items()):
            say.line(f"  {n:,} broke {escape(rule)}")
        if found.refused:
            say.line(f"  the refused rows: {escape(str(answers.with_name(f'{answers.stem}.refused.parquet')))}")
    return 0
