"""`python -m examples.flights.ablation`: what each feature is worth, by leaving it out and training anew, on a split in time.

`flyball features` shuffles a feature under a version that was trained with it; here it is gone before anything is learned.
Trained on all outcomes known before November, tested on the questions of November and December. Every line is told on the same
questions, with the 95 % interval of its difference to all features (a paired bootstrap that redraws whole days; what another
training set would change is not in it). All have the starting knobs: a difference is the features', not the search's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from examples.flights.app import app, features
from examples.flights.preparation import Weather
from flyball import average_precision, roc_auc, runtime
from flyball.cycle import gather, snapshot
from flyball.learn import examples, split
from flyball.learn import model as models
from flyball.learn.examples import Examples
from flyball.learn.export import pack
from flyball.learn.features.declare import Feature, Latest, Window
from flyball.learn.fit import train
from flyball.learn.quality import evaluate

TRAINED_UNTIL, TESTED_UNTIL = datetime(2013, 11, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
METRICS = (roc_auc, average_precision)
ALL = "all features"


def main() -> int:
    """Train, compare, print; returns the exit code."""
    started, say = time.perf_counter(), Console(highlight=False, width=140)
    with tempfile.TemporaryDirectory(prefix="flyball-ablation-") as home:
        found = learned(Path(home))
    measured = compared(found)
    whole = measured.models[0]
    say.print(
        f"{found.frame.height:,} settled questions, {measured.n:,} of {measured.units} days held out; "
        f"{measured.base_rate:.1%} of them late"
    )
    table = Table("", "columns", *(head for metric in METRICS for head in (str(metric), "change, 95 %")))
    sets = dict(variants())
    for model in measured.models:
        cells = []
        for metric in METRICS:
            is_, change = model.measurements[str(metric)], model.differences.get(str(metric))
            cells += [f"{is_.estimate:.4f}"]
            cells += ["" if change is None else f"{change.estimate:+.4f}  ({change.low:+.4f} to {change.high:+.4f})"]
        columns = sum(len(f.outputs(app.model().question)) for f in sets[model.name])
        table.add_row(model.name, str(columns), *cells, end_section=model is whole)
    say.print(table)
    say.print(f"[dim]{len(sets)} trainings, {time.perf_counter() - started:.0f} s[/]")
    return 0


def learned(home: Path) -> Examples:
    """The examples of the whole year, ingested into `home`."""
    placement = runtime.Placement(root=Path(__file__).parent, home=home, key=home / "key.pem")
    session, model = runtime.open(app, placement), app.model()
    gather.gather(session)
    batches = snapshot.present(session, model)
    return examples.build(model, snapshot.read(session, model, batches), snapshot.greatest(session, model, batches))


def variants() -> Iterator[tuple[str, list[Feature]]]:
    """What is trained: all features, what is added step by step, and all but one, or but one kind."""
    every: list[Feature] = list(features.features)
    looked: list[Latest | Window] = [f for f in every if isinstance(f, Latest | Window)]
    requested = [f for f in every if f not in looked]
    weather: list[Feature] = [f for f in looked if f.table is Weather]
    plane: list[Feature] = [f for f in looked if f.by.question == ("tailnum",)]
    yield ALL, every
    yield "the request alone", requested
    yield "request and weather", requested + weather
    yield "request, weather, lateness", [f for f in every if f not in plane]
    yield "without the weather", [f for f in every if f not in weather]
    yield "without the lateness of others", requested + weather + plane
    for each in every:
        yield f"without {each.name}", [f for f in every if f is not each]


def compared(found: Examples) -> evaluate.Evaluation:
    """Every variant on the same held-out questions."""
    fit = (found.settled < TRAINED_UNTIL).to_numpy()
    test = found.asked.is_between(TRAINED_UNTIL, TESTED_UNTIL, closed="left").to_numpy()
    scores = {name: answers(found, chosen, fit, test) for name, chosen in variants()}
    labels = found.labels
    days = split.days(found.asked.filter(pl.Series(test)))
    return evaluate.evaluate(evaluate.HeldOut(labels[test], scores, blocks=days), METRICS)


def answers(found: Examples, chosen: list[Feature], fit: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What the app's estimator answers to the rows of `test` when it learns from these features of the rows of `fit`."""
    model = app.model()
    encoder = train.encoder(
        found.frame.filter(pl.Series(fit)), tuple(o for f in chosen for o in f.outputs(model.question))
    )
    task = models.task(model)
    rows, held_out = (encoder.encode(found.frame.filter(pl.Series(mask))) for mask in (fit, test))
    fitted = train.fit(train.declared(model, model.knobs.starts(), task, encoder), rows, found.labels[fit], task)
    return pack.answers(fitted, held_out, task)


if __name__ == "__main__":
    sys.exit(main())
