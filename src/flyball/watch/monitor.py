"""What is watched, and what follows from a breach, declared.

A monitor is a Condition on a window of live traffic. One without a threshold is calibrated from `false_alarms`; one with a
threshold stands outside that budget. Triggers say when a model is trained anew; `|` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from flyball._kernel import place
from flyball._kernel.conditions import Condition, Metric
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


@dataclass(frozen=True, slots=True)
class Breach:
    """A monitor failed."""

    monitors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Every:
    """So much time has passed since the last training."""

    span: timedelta


@dataclass(frozen=True, slots=True)
class Retrain:
    """Train anew when any of the triggers fires."""

    triggers: tuple[Breach | Every, ...]

    def __or__(self, other: Retrain) -> Retrain:
        return Retrain(self.triggers + other.triggers)


def breach(*monitors: Monitor) -> Retrain:
    """Train anew when one of these monitors fails."""
    return Retrain((Breach(tuple(m.name for m in monitors)),))


def every(span: timedelta) -> Retrain:
    """Train anew when the champion's data is this much older than now."""
    return Retrain((Every(span),))
