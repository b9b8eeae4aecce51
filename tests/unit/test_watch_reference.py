"""The reference of a version: by the day, of what each feature means, bounded, and the same bytes from the same examples."""

from __future__ import annotations

from datetime import datetime

import dataframely as dy
import numpy as np
import polars as pl

import flyball as fb
from flyball import days, hours
from flyball._kernel import facts
from flyball._kernel.clock import EPOCH
from flyball.data import profile
from flyball.learn import reference as references
from flyball.learn.examples import Counts, Examples
from flyball.learn.features.declare import FeatureSet
from flyball.learn.model import Model
from flyball.learn.reference import PREDICTION


class Visit(fb.Contract):
    """A question."""

    key = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    page = dy.String()
    depth = dy.Int32()
    known = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))


def model(features: FeatureSet) -> Model:
    @fb.model(features, predicts=Visit.bought, asked=fb.before(Visit.came, hours(1), tolerance=hours(1)))
    def buys() -> object:
        """Whether it is bought."""

    found: Model = buys
    return found


bought = Visit.bought.col.mean()
FEATURES = fb.features(
    Visit.page,
    Visit.depth,
    deep=Visit.depth.col > 3,
    rate=fb.window(Visit, bought, by=Visit.page, over=[hours(1), days(1)]),
)
START = datetime(2026, 1, 1, tzinfo=EPOCH.tzinfo)


def examples(n_days: int, a_day: int = 20) -> Examples:
    n = n_days * a_day
    rng = np.random.default_rng(0)
    asked = [START + k * days(1) / a_day for k in range(n)]
    frame = pl.DataFrame(
        {
            "_asked": pl.Series(asked, dtype=pl.Datetime("us", "UTC")),
            "_label": rng.random(n) < 0.5,
            "page": rng.choice(["home", "cart"], n),
            "depth": rng.integers(0, 9, n),
            "deep": rng.random(n) < 0.5,
            "rate_1h": pl.Series(rng.random(n)).set(pl.Series(rng.random(n) < 0.25), None),
            "rate_1d": rng.random(n),
        }
    )
    return Examples(
        frame, ("page", "depth", "deep", "rate_1h", "rate_1d"), Counts(learned=n, void=0, unsettled=0, unaskable=0)
    )


def made(n_days: int = 10, features: FeatureSet = FEATURES) -> references.Reference:
    given = examples(n_days)
    held_out = (given.asked >= START + days(n_days - 3)).to_numpy()
    return references.reference(model(features), given, held_out, np.linspace(0, 1, int(held_out.sum())))


def test_every_day_of_every_feature_is_there_and_they_add_up() -> None:
    found, given = made(), examples(10)
    assert [c.name for c in found.features] == ["page", "depth", "deep", "rate_1h", "rate_1d"]
    for column in found.features:
        assert [p.n for p in column.profiles] == [20] * 10
        assert column.days[0] == (START - EPOCH).days
        assert column.whole == profile.profile(given.frame[column.name], column.edges)
    rate = found.column("rate_1h")
    assert rate is not None
    assert (rate.whole.missing, rate.whole.n) == (given.frame["rate_1h"].null_count(), 200)
    assert found.column("page").edges.categories == ("cart", "home")  # type: ignore[union-attr]
    assert found.predictions.whole.n == 60
    assert len(found.predictions.days) == 3


def test_a_feature_of_several_columns_is_found_by_its_name_and_by_no_other() -> None:
    found = made()
    assert [c.name for c in found.of(("rate",))] == ["rate_1h", "rate_1d"]
    assert [c.name for c in found.of(("deep", "page"))] == ["page", "deep"]
    assert found.of(("rat", "depth_")) == ()
    assert [c.name for c in found.of((PREDICTION,))] == [PREDICTION]


def test_the_same_examples_are_the_same_bytes_and_another_declaration_another_meaning() -> None:
    assert facts.encode(made()) == facts.encode(made())
    other = fb.features(
        Visit.page,
        Visit.depth,
        deep=Visit.depth.col > 4,
        rate=fb.window(Visit, bought, by=Visit.page, over=[hours(1), days(1)]),
    )
    changed = {
        c.name for c, d in zip(made().features, made(features=other).features, strict=True) if c.meaning != d.meaning
    }
    assert changed == {"deep"}


def test_it_stays_small_whatever_the_history() -> None:
    found = made(references.DAYS + 100)
    assert all(len(c.days) <= references.DAYS for c in found.features)
    assert found.features[0].days[-1] == (START - EPOCH).days + references.DAYS + 99
    assert found.features[1].whole.n == references.DAYS * 20
    assert len(facts.encode(found)) < 400_000
    assert found.features[0].counts().shape == (references.DAYS, found.features[0].edges.width)
