"""Boosted trees over 3 categories and 12 numbers of the request: nothing to look up, so that the edge itself is measured."""

import dataframely as dy
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, days, hours, roc_auc


class Score(fb.Contract):
    """One thing to score, settled a day later."""

    row_id = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    c0 = dy.Enum(["a", "b", "c", "d"])
    c1 = dy.Enum(["p", "q", "r", "s", "t", "u"])
    c2 = dy.String(max_length=8)
    n0 = dy.Float64(min=-100, max=100)
    n1 = dy.Float64(min=-100, max=100)
    n2 = dy.Float64(min=-100, max=100)
    n3 = dy.Float64(min=-100, max=100)
    n4 = dy.Float64(min=-100, max=100)
    n5 = dy.Float64(min=-100, max=100)
    n6 = dy.Float64(min=-100, max=100)
    n7 = dy.Float64(min=-100, max=100)
    n8 = dy.Float64(min=-100, max=100)
    n9 = dy.Float64(min=-100, max=100)
    n10 = dy.Float64(min=-100, max=100)
    n11 = dy.Float64(min=-100, max=100)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(3))
    hit = fb.outcome(dy.Bool(nullable=True))


features = fb.features(
    Score.c0,
    Score.c1,
    Score.c2,
    Score.n0,
    Score.n1,
    Score.n2,
    Score.n3,
    Score.n4,
    Score.n5,
    Score.n6,
    Score.n7,
    Score.n8,
    Score.n9,
    Score.n10,
    Score.n11,
)


class Knobs(fb.Params):
    """Nothing is searched for."""

    leaves: int = fb.between(30, 32, start=31)


@fb.model(features, predicts=Score.hit, asked=fb.before(Score.at, hours(0), tolerance=hours(1)))
def scoring(knobs: Knobs) -> LGBMClassifier:
    """A hundred trees of up to 31 leaves."""
    return LGBMClassifier(num_leaves=knobs.leaves, n_estimators=100, n_jobs=1, verbosity=-1)


def rows(raw: pl.LazyFrame) -> pl.LazyFrame:
    """The cells as they are: the contract parses them."""
    return raw


app = fb.App(
    "scoring",
    sources=[fb.files("data/rows.csv", prepare=rows, yields=Score)],
    model=scoring,
    search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(20))),
    gates=[roc_auc >= 0.55],
)
