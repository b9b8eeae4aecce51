"""What must not type-check: each line that ends in an announced code is wrong, and no other line is."""

# ruff: noqa: B015, B018

from __future__ import annotations

from datetime import timedelta

import dataframely as dy
import polars as pl

import flyball as fb
from flyball import average_precision, champion, days, hours, ms, roc_auc


class Flight(fb.Contract):
    """One departure."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=timedelta(days=30))  # E: arg-type
    origin = dy.Enum(["EWR", "JFK", "LGA"])
    carrier = fb.protected("B6")  # E: type-var
    distance = dy.Int32(min="1")  # E: arg-type
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=2)  # E: arg-type
    late = fb.outcome(dy.Bool(nullable=True))


class Weather(fb.Contract):
    """A second table."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))


# A misspelt column is found by the checker, wherever it is written.
fb.features(Flight.orgin)  # E: attr-defined
fb.features(x=Flight.distnace.col + 1)  # E: attr-defined
fb.latest(Weather, by=Flight.station)  # E: attr-defined
fb.window(Flight, Flight.latte.col.mean(), by=Flight.origin, over=days(7))  # E: attr-defined

# Features: columns first, then named expressions.
fb.features("origin")  # E: arg-type
fb.features(pl.col("origin"))  # E: arg-type
fb.features(x="origin")  # E: arg-type
fb.features(x=3)  # E: arg-type
fb.features(x=Flight.distance)  # E: arg-type
fb.latest(Weather)  # E: call-arg
fb.latest(Weather, by="origin")  # E: arg-type
fb.latest("Weather", by=Flight.origin)  # E: arg-type
fb.latest(Weather, by=Flight.origin, max_age=3)  # E: arg-type
fb.window(Flight, Flight.late.col.mean(), by=Flight.origin)  # E: call-arg
fb.window(Flight, Flight.late.col.mean(), over=days(7))  # E: call-arg
fb.window(Flight, "late", by=Flight.origin, over=days(7))  # E: arg-type
fb.window(Flight, Flight.late, by=Flight.origin, over=days(7))  # E: arg-type
fb.window(Flight, Flight.late.col.mean(), by=Flight.origin, over=7)  # E: arg-type
fb.window(Flight, Flight.late.col.mean(), by=Flight.origin, over=[7])  # E: list-item

features = fb.features(Flight.distance)

# Moments and spans.
fb.before(7)  # E: call-overload
fb.before("scheduled", hours(2))  # E: call-overload
fb.before(Flight.scheduled)  # E: call-overload
fb.before(Flight.scheduled, 2)  # E: call-overload
fb.before(days(30), tolerance=hours(1))  # E: call-overload
fb.days("7")  # E: arg-type

# Metrics are compared with numbers, durations and themselves elsewhere; with nothing else.
roc_auc >= "0.65"  # E: operator
roc_auc >= None  # E: operator
roc_auc > 0.65  # E: operator
roc_auc == 0.65  # E: comparison-overlap
average_precision.on(champion) - "0.01"  # E: operator
average_precision.on("champion")  # E: arg-type
roc_auc.live(over=30)  # E: arg-type
roc_auc.live()  # E: call-arg
fb.model_latency <= ms("2")  # E: arg-type


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(7, 255)  # E: call-arg
    rate: float = fb.between("0.01", 0.3, start=0.1)  # E: arg-type


Knobs(leafs=3)  # E: call-arg
Knobs(leaves="3")  # E: arg-type
Knobs().leaves = 3  # E: misc
Knobs().leafs  # E: attr-defined


@fb.model(features, predicts=Flight.late)  # E: call-arg
def without_a_moment(knobs: Knobs) -> object:
    """Nothing says when it is asked."""
    return knobs


@fb.model(features, predicts=Flight.late, asked=hours(2))  # E: arg-type
def without_a_column(knobs: Knobs) -> object:
    """Two hours before what?"""
    return knobs


@fb.model(features, predicts=Flight.late, asked=fb.before(hours(2)))  # E: arg-type
def with_a_span(knobs: Knobs) -> object:
    """A span is no moment."""
    return knobs


@fb.model(features, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2)))
def without_knobs() -> object:
    """As it should be: there may be none to turn."""
    return None


@fb.model(features, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2)))
def model(knobs: Knobs) -> object:
    """As it should be."""
    return knobs


def prepare(rows: pl.LazyFrame) -> pl.LazyFrame:
    """As it should be."""
    return rows


def eager(rows: pl.DataFrame) -> pl.DataFrame:
    """Not lazy."""
    return rows


# Sources, releases, monitors and the app.
fb.files("flights.csv", prepare=prepare)  # E: call-arg
fb.files("flights.csv", yields=Flight)  # E: call-arg
fb.files("flights.csv", prepare=eager, yields=Flight)  # E: arg-type
fb.files("flights.csv", prepare=prepare, yields="Flight")  # E: arg-type
fb.search(trials=1, optimize="roc_auc", split=fb.by_time(days(30)))  # E: arg-type
fb.search(trials=1, optimize=roc_auc >= 0.5, split=fb.by_time(days(30)))  # E: arg-type
fb.search(trials=1, optimize=roc_auc, split=days(30))  # E: arg-type
fb.by_time(30)  # E: arg-type
fb.shadow(24)  # E: arg-type
fb.canary(hours(6))  # E: call-arg, arg-type
fb.Release(hours(6))  # E: arg-type
fb.Release(abort_unless=[fb.error_rate])  # E: list-item
fb.Monitor("drift", fb.psi("features", over=days(7)))  # E: arg-type
fb.Monitor("drift", 0.6)  # E: arg-type
fb.at_most(1)  # E: call-arg
fb.breach("drift")  # E: arg-type
fb.breach(fb.Monitor("q", roc_auc)) or fb.every(days(7))  # E: truthy-bool
fb.every(7)  # E: arg-type

source = fb.files("flights.csv", prepare=prepare, yields=Flight)
search = fb.search(trials=1, optimize=roc_auc, split=fb.by_time(days(30)))
fb.App(sources=[source], model=model, search=search)  # E: call-arg
fb.App("flights", sources=source, model=model, search=search)  # E: arg-type
fb.App("flights", sources=[source], model=without_knobs, search=search, gate=[roc_auc >= 0.5])  # E: call-arg
fb.App("flights", sources=[source], model=model, search=search, gates=[roc_auc])  # E: list-item
fb.App("flights", sources=[source], model=model, search=search, retrain=fb.Monitor("q", roc_auc))  # E: arg-type
fb.App("flights", sources=[source], model=model, search=search).name = "trains"  # E: misc
fb.open(model, fb.Placement())  # E: arg-type, call-arg
fb.nothing  # E: attr-defined
