"""Will this flight land late?  Learned from files that nobody took care of; `make_files.py` makes them."""

import dataframely as dy
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, days, hours, minutes, prepare, roc_auc

NEW_YORK = "America/New_York"


class Departure(fb.Contract):
    """One departure: in the timetable a month ahead, settled at landing, or void."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=fb.before(days(30)))
    origin = dy.Enum(["EWR", "JFK", "LGA"])
    carrier = dy.String(regex=r"^[0-9A-Z]{2}$")
    distance = dy.Float64(min=1, max=6000, description="miles")
    tailnum = fb.personal(dy.String(nullable=True, regex=r"^[A-Z0-9]{5,6}$"))
    agent = fb.personal(dy.String(nullable=True, max_length=40, regex=r"^[\p{L} .'-]+$"))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(2))
    late = fb.outcome(dy.Bool(nullable=True))  # void: cancelled or diverted

    @dy.rule()
    def lands_after_leaving(cls) -> pl.Expr:
        """A flight settles after its time of departure."""
        return cls.settled.col > cls.scheduled.col


times = prepare.chain(
    prepare.hhmm("dep"),
    prepare.unite("scheduled", "date", "dep"),
    prepare.moment("scheduled", formats=["%Y-%m-%d %H:%M"], zone=NEW_YORK),
    prepare.moment("settled", formats=["%d.%m.%Y %H:%M"], zone=NEW_YORK),
)
"""What the first look at the files told: where the times are, and whose clock they are read on."""

departures = prepare.chain(
    # irrelevant rows
    prepare.keep(pl.col("flight_id") != "TEST"),
    # structural faults
    prepare.trim(),
    prepare.mojibake("agent"),
    times,
    prepare.categories("origin", spellings={"newark": "EWR", "laguardia": "LGA", "kennedy": "JFK", "N.Y. JFK": "JFK"}),
    prepare.cases("carrier", to="upper"),
    prepare.number("distance", thousands=",", units={"mi": 1, "km": 1 / 1.609344, "": 1}),
    prepare.truth("late"),
    # outliers: none are repaired; the contract refuses what cannot be
    # missing values
    prepare.nulls("n/a", "-", "unknown"),
)
"""What the quarantine told after it."""

features = fb.features(
    Departure.origin,
    Departure.carrier,
    Departure.distance,
    hour=Departure.scheduled.col.dt.convert_time_zone(NEW_YORK).dt.hour(),
    airport_late=fb.window(Departure, Departure.late.col.mean(), by=Departure.origin, over=[hours(3), hours(12)]),
)


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(7, 31, start=15, log=True)


@fb.model(features, predicts=Departure.late, asked=fb.before(Departure.scheduled, hours(2), tolerance=minutes(30)))
def lateness(knobs: Knobs) -> LGBMClassifier:
    """Boosted trees over the timetable and how late others have been."""
    return LGBMClassifier(num_leaves=knobs.leaves, n_estimators=60, min_child_samples=100)


app = fb.App(
    "dirty",
    sources=[
        fb.files(".flyball/inbox/departures-*", prepare=departures, yields=Departure, name="desk"),
        fb.files(".flyball/inbox/branch-*", prepare=departures, yields=Departure, name="branch", separator=";"),
    ],
    model=lateness,
    search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(4))),
    gates=[roc_auc >= 0.52],  # three weeks teach little: more than a coin knows
)
