"""A Condition is the one idea for quality: `metric >= threshold`, as a value that can be printed, compared and stored.

The same value is a gate (judged on held-out data), an abort guard (judged on live traffic during a release) and a monitor
(judged on a window). Metrics and Conditions are syntax; the room that can measure a metric evaluates it and passes the
measurement to `judge`, which is the one verdict rule.

**pass**: the 95 % interval lies wholly on the good side of the threshold. **fail**: wholly on the bad side.
**inconclusive**: anything else, too little data included. Every verdict carries estimate, interval and sample size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Literal, NoReturn

import msgspec

from flyball._kernel import place
from flyball._kernel.durations import short
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place


class Outcome(StrEnum):
    """What a judge says."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A metric, measured: the estimate, its 95 % interval, and the number of rows behind it.

    For a condition that is relative to another version, this is the *paired* difference to the threshold's metric.
    """

    estimate: float
    low: float
    high: float
    n: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One condition, judged."""

    condition: str
    outcome: Outcome
    measurement: Measurement | None
    threshold: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Whom:
    """Another version that a metric can be measured on, such as the one that answers now."""

    name: str


champion = Whom("champion")


class _NoTruth:
    """`0.6 <= m <= 0.9` means `(0.6 <= m) and (m <= 0.9)`: Python would silently drop the first half."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise DeclarationError(
            "condition-as-bool",
            f"{self} has no truth value before it is measured.",
            where=place.here(),
            why="A chained comparison or an `and` would silently lose one half.",
            next="Write two conditions: [m >= 0.6, m <= 0.9].",
        )


@dataclass(frozen=True, slots=True)
class Metric(_NoTruth):
    """The name of something measurable; compare it with a number to get a Condition.

    Attributes:
        name: what is measured.
        better: which direction is good.
        unit: "" or "s": thresholds that are durations are held in seconds.
        by: the column whose groups are compared (`gap`).
        over: the window of live traffic (`live`).
        subject: free parameters, such as the features that a drift metric watches.
    """

    name: str
    better: Literal["higher", "lower"]
    unit: str = ""
    by: str | None = None
    over: timedelta | None = None
    subject: tuple[str, ...] = ()

    def gap(self, *, by: object) -> Metric:
        """The greatest difference of this metric between two groups of a column."""
        return replace(self, name=f"{self.name}.gap", better="lower", by=str(getattr(by, "name", by)))

    def live(self, *, over: timedelta) -> Metric:
        """This metric on answered questions whose outcome is known, over a window."""
        return replace(self, name=f"{self.name}.live", over=over)

    def on(self, whom: Whom) -> Relative:
        """This metric on another version, as a threshold: `m >= m.on(champion) - 0.01` is judged on pairs."""
        return Relative(self, whom)

    def __ge__(self, threshold: float | timedelta | Relative) -> Condition:
        return Condition(self, ">=", _number(self, threshold), _whom(self, threshold), place.here())

    def __le__(self, threshold: float | timedelta | Relative) -> Condition:
        return Condition(self, "<=", _number(self, threshold), _whom(self, threshold), place.here())

    def __str__(self) -> str:
        inner = [f"by={self.by}"] if self.by else []
        inner += [f"over={short(self.over)}"] if self.over else []
        return f"{self.name}({', '.join(inner)})" if inner else self.name


@dataclass(frozen=True, slots=True)
class Relative(_NoTruth):
    """A threshold that moves with another version: its metric plus an offset."""

    metric: Metric
    whom: Whom
    plus: float = 0.0

    def __add__(self, offset: float | timedelta) -> Relative:
        return replace(self, plus=self.plus + _plain_number(self.metric, offset))

    def __sub__(self, offset: float | timedelta) -> Relative:
        return replace(self, plus=self.plus - _plain_number(self.metric, offset))

    def __str__(self) -> str:
        sign = f" {'-' if self.plus < 0 else '+'} {abs(self.plus):g}" if self.plus else ""
        return f"{self.metric}.on({self.whom.name}){sign}"


@dataclass(frozen=True, slots=True)
class Condition(_NoTruth):
    """`metric op threshold`; `whom` names the version that the threshold is relative to, if any."""

    metric: Metric
    op: Literal[">=", "<="]
    threshold: float
    whom: Whom | None = None
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.whom is not None:
            return f"{self.metric} {self.op} {Relative(self.metric, self.whom, self.threshold)}"
        return f"{self.metric} {self.op} {self.threshold:g}{self.metric.unit}"


def judge(condition: Condition, measurement: Measurement | None, *, reason: str = "") -> Verdict:
    """The one verdict rule.

    Args:
        condition: what was promised.
        measurement: what was found; for a relative condition the paired difference (this minus the other version).
            None, or NaN anywhere, or no rows: inconclusive.
        reason: said in the verdict, such as why nothing could be measured.
    """
    outcome = Outcome.INCONCLUSIVE
    if measurement is not None and _has_nan(measurement):
        # JSON has no NaN: what is written down must be readable again.
        measurement, reason = None, reason or "the measurement is not a number"
    if measurement is not None and measurement.n > 0:
        sign = 1.0 if condition.op == ">=" else -1.0
        low, high = sorted(
            (sign * (measurement.low - condition.threshold), sign * (measurement.high - condition.threshold))
        )
        if low >= 0:
            outcome = Outcome.PASS
        elif high < 0:
            outcome = Outcome.FAIL
    return Verdict(
        condition=str(condition),
        outcome=outcome,
        measurement=measurement,
        threshold=condition.threshold,
        reason=reason,
    )


def _has_nan(m: Measurement) -> bool:
    return any(math.isnan(x) for x in (m.estimate, m.low, m.high))


def _number(metric: Metric, threshold: float | timedelta | Relative) -> float:
    return threshold.plus if isinstance(threshold, Relative) else _plain_number(metric, threshold)


def _plain_number(metric: Metric, threshold: float | timedelta) -> float:
    if isinstance(threshold, timedelta) and metric.unit == "s":
        return threshold.total_seconds()
    plain = metric.unit == "" and not isinstance(threshold, bool)
    if plain and isinstance(threshold, int | float) and math.isfinite(threshold):
        return float(threshold)
    raise DeclarationError(
        "threshold-of-wrong-kind",
        f"{metric} is compared with {threshold!r}.",
        where=place.here(),
        why=f"{metric.name} is a {'duration' if metric.unit == 's' else 'number'}.",
        next="Compare it with " + ("ms(2) or seconds(1)." if metric.unit == "s" else "a finite number."),
    )


def _whom(metric: Metric, threshold: float | timedelta | Relative) -> Whom | None:
    if not isinstance(threshold, Relative):
        return None
    if threshold.metric != metric:
        raise DeclarationError(
            "threshold-of-other-metric",
            f"{metric} is compared with {threshold}.",
            where=place.here(),
            why="Pairs can only be formed of one metric measured on two versions.",
            next=f"Write {metric}.on({threshold.whom.name}).",
        )
    return threshold.whom


roc_auc = Metric("roc_auc", "higher")
average_precision = Metric("average_precision", "higher")
accuracy = Metric("accuracy", "higher")
log_loss = Metric("log_loss", "lower")
brier = Metric("brier", "lower")
calibration_error = Metric("calibration_error", "lower")
mean_absolute_error = Metric("mean_absolute_error", "lower")
root_mean_squared_error = Metric("root_mean_squared_error", "lower")
r2 = Metric("r2", "higher")
model_latency = Metric("model_latency", "lower", unit="s")
p99_latency = Metric("p99_latency", "lower", unit="s")
error_rate = Metric("error_rate", "lower")
