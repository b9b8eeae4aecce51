"""What is watched, and what follows from a breach, declared.

A monitor is a Condition on a window of live traffic. One without a threshold is calibrated from `false_alarms`; one with a
threshold stands outside that budget. Triggers say when a model is trained anew; `|` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from flyball._kernel import place
from flyball._kernel.conditions import Condition, Metric
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.learn.features.declare import FeatureSet


@dataclass(frozen=True, slots=True)
class Monitor:
    """One thing to watch: a metric (threshold calibrated) or a condition (threshold given)."""

    name: str
    watches: Metric | Condition
    place: Place = field(default_factory=place.here, compare=False)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """The budget of all calibrated monitors together: at most `count` false alarms in `per`."""

    count: int
    per: timedelta


def at_most(count: int, *, per: timedelta) -> FalseAlarms:
    """`at_most(1, per=days(30))`: how often the calibrated monitors together may cry wolf."""
    return FalseAlarms(count, per)


def psi(features: FeatureSet, *, over: timedelta) -> Metric:
    """The population stability index of each feature over a window against the version's reference."""
    return Metric("psi", "lower", over=over, subject=tuple(f.name for f in features.features))


def js(features: FeatureSet, *, over: timedelta) -> Metric:
    """The Jensen-Shannon distance (0 to 0.83) of each feature, as `psi`: bounded, and calmer about rare values."""
    return Metric("js", "lower", over=over, subject=tuple(f.name for f in features.features))


DRIFTS = ("psi", "js")
"""The metrics that `drift` measures, and that can be calibrated."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A monitor failed."""

    monitors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Every:
    """So much time has passed since the last training."""

    span: timedelta


@dataclass(frozen=True, slots=True)
class NewRows:
    """So many rows more than the last training read have come into the tables that the model reads."""

    rows: int


Trigger = Breach | Every | NewRows


@dataclass(frozen=True, slots=True)
class Retrain:
    """Train anew when any of the triggers fires, but not again before `rest` is over.

    Attributes:
        triggers: what asks for a training.
        rest: the cool-down: a training that was rejected, or failed, is not tried again before.
    """

    triggers: tuple[Trigger, ...]
    rest: timedelta = timedelta(days=1)

    def __or__(self, other: Retrain) -> Retrain:
        return Retrain(self.triggers + other.triggers, max(self.rest, other.rest))

    def resting(self, span: timedelta) -> Retrain:
        """The same triggers, heeded no more often than once in `span`.

        Raises:
            DeclarationError: `span-not-positive`.
        """
        return replace(self, rest=_positive(span, "A training cannot rest for", "resting"))


def breach(*monitors: Monitor) -> Retrain:
    """Train anew when one of these monitors fails."""
    return Retrain((Breach(tuple(m.name for m in monitors)),))


def every(span: timedelta) -> Retrain:
    """Train anew when what was last learned from is this much older than now, and something came after it.

    Raises:
        DeclarationError: `span-not-positive`.
    """
    return Retrain((Every(_positive(span, "A model cannot be trained every", "every")),))


def _positive(span: timedelta, what: str, verb: str) -> timedelta:
    if span <= timedelta():
        raise DeclarationError(
            "span-not-positive",
            f"{what} {span}.",
            where=place.here(),
            why="It would begin anew without end.",
            next=f"Give a span above zero: {verb}(days(7)).",
        )
    return span


def new_rows(rows: int) -> Retrain:
    """Train anew when so many rows have come in since the last training."""
    if rows < 1:
        raise DeclarationError(
            "rows-out-of-range",
            f"A training cannot wait for {rows} new rows.",
            where=place.here(),
            why="It would begin anew without end.",
            next="Write fb.new_rows(10_000).",
        )
    return Retrain((NewRows(rows),))
