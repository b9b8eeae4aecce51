"""The shipped examples, from their sources to a verdict: on some of their data, with one trial of few trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from flyball import runtime
from flyball.app import App
from flyball.cycle import apply
from flyball.cycle.apply import ModelApplied
from flyball.cycle.session import silent
from flyball.learn.algorithms import Algorithms, Forest, OfText
from flyball.learn.knobs import Params, between

Cut = Callable[[pl.LazyFrame], pl.LazyFrame]
ROOT = Path(__file__).parents[2]


class FewCuts(Forest):
    """A smaller forest."""

    trees: int = between(5, 20, start=10)


class Few(Algorithms):
    """Trees that grow while one waits."""

    trees: int = between(10, 40, start=20)
    rate: float = between(0.1, 0.3, start=0.2)
    leaves: int = between(3, 15, start=7)


def applied(example: str, cut: Cut, knobs: type[Params], home: Path) -> ModelApplied:
    """What comes of an example whose sources give only what `cut` leaves, searched once."""
    declared: App = import_module(f"examples.{example}.app").app
    first, *others = declared.sources
    prepare = first.prepare
    small = App(
        declared.name,
        sources=[replace(first, prepare=lambda rows: prepare(cut(rows))), *others],
        model=replace(declared.models[0], knobs=knobs),
        search=replace(declared.search, trials=1, prune=False),
        gates=declared.gates,
    )
    session = runtime.open(small, runtime.Placement(root=ROOT / "examples" / example, home=home, key=home / "key.pem"))
    return apply.apply(session, tell=silent).models[0]


def estimate(found: ModelApplied, metric: str) -> float:
    """What a gate measured."""
    (verdict,) = [v for v in found.verdicts if str(v.condition).startswith(metric)]
    assert verdict.measurement is not None
    return verdict.measurement.estimate


def test_a_regression_is_better_than_saying_that_it_stays_as_it_is(tmp_path: Path) -> None:
    found = applied("weather", lambda rows: rows.filter(pl.col("origin") == "JFK"), Few, tmp_path)
    assert estimate(found, "mean_absolute_error") < 4.0  # 4.25 if nothing changed in six hours


def test_ten_digits_are_told_apart(tmp_path: Path) -> None:
    found = applied("digits", lambda rows: rows.filter(pl.col("digit") < 900), Few, tmp_path)
    assert estimate(found, "accuracy") > 0.85  # one in ten by chance


def test_a_text_tells_where_it_is_from(tmp_path: Path) -> None:
    found = applied("docstrings", lambda rows: rows.gather_every(2), OfText, tmp_path)
    assert estimate(found, "accuracy") > 0.55  # 0.18 for the commonest part


def test_what_is_strange_is_found_without_labels(tmp_path: Path) -> None:
    found = applied("storms", lambda rows: rows.filter(pl.col("origin") == "LGA"), FewCuts, tmp_path)
    assert estimate(found, "roc_auc") > 0.6


@pytest.mark.parametrize("example", ["digits", "dirty", "docstrings", "storms", "weather"])
def test_an_example_is_one_short_file(example: str) -> None:
    lines = (ROOT / "examples" / example / "app.py").read_text().splitlines()
    assert len(lines) < 100
