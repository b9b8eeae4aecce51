"""The same application on its first day: a preparation that knows where the times are, and nothing else yet."""

import flyball as fb
from examples.dirty import app as dirty
from flyball import prepare

departures = prepare.chain(dirty.times, prepare.number("distance", units={"mi": 1, "": 1}), prepare.truth("late"))

app = fb.App(
    "dirty",
    sources=[
        fb.files(".flyball/inbox/departures-*", prepare=departures, yields=dirty.Departure, name="desk"),
        fb.files(".flyball/inbox/branch-*", prepare=departures, yields=dirty.Departure, name="branch"),
    ],
    model=dirty.lateness,
    search=dirty.app.search,
    gates=dirty.app.gates,
)
