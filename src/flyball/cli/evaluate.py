"""`flyball evaluate`: how good would a model be, trained until one moment and tested until another."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from flyball.cli import opening, options, say


def run(
    app: options.App,
    train_until: Annotated[datetime, typer.Option("--train-until", help="Train on outcomes known before this (UTC).")],
    test_until: Annotated[datetime, typer.Option("--test-until", help="Test on questions asked before this (UTC).")],
    home: options.Home = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, where the app has several.")] = None,
    report: Annotated[str | None, typer.Option("--report", help="Write the report into this folder.")] = None,
    as_json: options.Json = False,
) -> int:
    """Train until one moment, test until another, release nothing."""
    from flyball._kernel.clock import in_utc
    from flyball.cycle import evaluate

    with opening.progress() as tell:
        session = opening.session(app, home)
        found = evaluate.evaluate(session, model, in_utc(train_until), in_utc(test_until), tell)
    if report is not None:
        evaluate.write(found, report)
    if as_json:
        say.result(found.evaluation)
        return 0
    evaluation = found.evaluation
    rate = "base rate" if evaluation.shares else "mean outcome"
    say.line(f"[bold]{evaluation.model}[/]  {evaluation.n:,} test questions, {rate} {evaluation.base_rate:.3f}")
    say.table(
        ("model", *(name for name in evaluation.measurements)),
        [
            (
                each.name,
                *(
                    f"{m.estimate:.4f} [{m.low:.4f}, {m.high:.4f}]" if (m := each.measurements.get(name)) else ""
                    for name in evaluation.measurements
                ),
            )
            for each in evaluation.models
        ],
    )
    return 0
