"""The same application with a mistake that happens: somewhere the labels were swapped, so it is sure of itself, and wrong.

Its gates would refuse it. The demo overrides them, as people in a hurry do, to show what catches it then.
"""

from typing import Any

from lightgbm import LGBMClassifier

import flyball as fb
from examples.flights import app as flights
from examples.flights.app import Flight, Knobs, features
from flyball import average_precision, days, hours, minutes


class Swapped(LGBMClassifier):
    """Learns the opposite of what it is shown."""

    def fit(self, X: Any, y: Any, *rest: Any, **more: Any) -> "Swapped":  # noqa: N803 - as LightGBM names it
        """As LightGBM's, with late and punctual swapped."""
        super().fit(X, ~y, *rest, **more)
        return self


@fb.model(features, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2), tolerance=minutes(30)))
def lateness(knobs: Knobs) -> Swapped:
    """Boosted trees that got it backwards."""
    return Swapped(num_leaves=knobs.leaves, learning_rate=knobs.rate, min_child_samples=200, verbosity=-1)


app = fb.App(
    "flights",
    sources=flights.app.sources,
    model=lateness,
    search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(30))),
    gates=flights.app.gates,
    release=flights.app.release,
    monitors=flights.app.monitors,
    false_alarms=flights.app.false_alarms,
    retrain=flights.app.retrain,
)
