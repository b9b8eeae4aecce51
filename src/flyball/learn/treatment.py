"""How a model learns, beyond its estimator: which rows weigh more, what its score means, what is decided by it, and how fair.

    weights    "balanced", or an expression over the request: what a row counts in fitting
    calibrate  "sigmoid" or "isotonic": the score becomes a probability that holds
    decide     the threshold at which a metric is best, or mistakes cost least
    mitigate   what is tried where a fairness condition does not hold

Everything but the weights is learned on the validation span, which no estimator has seen (`finishing`), and stored with the
version as data (`finish`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import polars as pl

from flyball._kernel import place
from flyball._kernel.conditions import Condition, Metric
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn.features.declare import Expression
from flyball.learn.quality import metrics
from flyball.learn.task import Task

Method = Literal["reweighing", "thresholds"]
METHODS: tuple[Method, ...] = ("reweighing", "thresholds")
EQUAL = ("selection_rate", "recall", "false_positive_rate")
"""The rates that thresholds of groups can make equal."""


@dataclass(frozen=True, slots=True)
class Best:
    """Decide at the threshold at which a metric is best."""

    metric: Metric


@dataclass(frozen=True, slots=True)
class Costs:
    """What a mistake costs, in any unit; decide at the threshold at which mistakes cost least."""

    false_positive: float
    false_negative: float


Decide = Best | Costs


@dataclass(frozen=True, slots=True)
class Mitigate:
    """Candidates beside the plain model, tried where `until` does not hold on the validation span."""

    until: Condition
    methods: tuple[Method, ...]

    @property
    def by(self) -> str:
        """The column whose groups are treated."""
        return self.until.metric.by or ""

    @property
    def rate(self) -> str:
        """The metric that is compared between groups."""
        return self.until.metric.name.removesuffix(".gap")


@dataclass(frozen=True, slots=True)
class Treatment:
    """All of it; by default nothing."""

    weights: Literal["balanced"] | Expression | None = None
    calibrate: Literal["sigmoid", "isotonic"] | None = None
    decide: Decide | None = None
    mitigate: Mitigate | None = None

    @property
    def finishes(self) -> bool:
        """Whether something is learned on the validation span."""
        return self.calibrate is not None or self.decide is not None or self.mitigate is not None


NONE = Treatment()


BALANCED = ("f1", "balanced_accuracy", "matthews", "accuracy")
"""Metrics of decisions that are best at neither end: deciding true always, or never, makes the others perfect."""


def best(metric: Metric) -> Best:
    """Decide at the threshold at which `metric`, such as `metrics.f1`, is best on validation rows.

    Raises:
        DeclarationError: `decides-by-other-metric`.
    """
    if getattr(metric, "name", "") not in BALANCED or metric.by is not None:
        raise DeclarationError(
            "decides-by-other-metric",
            f"No threshold is best for {metric}.",
            where=place.here(),
            why="Of a ranking or a probability no threshold is best; recall is where all, and precision where one is selected.",
            next=f"Name {', '.join(f'metrics.{name}' for name in BALANCED)}, or write fb.costs(...).",
        )
    return Best(metric)


def costs(*, false_positive: float, false_negative: float) -> Costs:
    """What a mistake costs: the threshold is where they cost least on validation rows, and `metrics.cost` is their mean.

    Raises:
        DeclarationError: `costs-not-positive`.
    """
    if not all(math.isfinite(c) and c > 0 for c in (false_positive, false_negative)):
        raise DeclarationError(
            "costs-not-positive",
            f"Mistakes cost {false_positive} and {false_negative}.",
            where=place.here(),
            why="With a mistake that costs nothing, the best decision is always the other one.",
            next="Write fb.costs(false_positive=1, false_negative=5).",
        )
    return Costs(float(false_positive), float(false_negative))


def mitigate(until: Condition, *methods: Method) -> Mitigate:
    """Try to make a model fair: what is tried where `until` does not hold on validation rows, and the best that does is taken.

    Args:
        until: a gap between groups, such as `metrics.selection_rate.gap(by=Adult.sex) <= 0.1`; usually a gate as well.
        methods: "reweighing": rows weigh so that group and outcome are independent (Kamiran and Calders 2012);
            "thresholds": each group has a threshold of its own, at which the rate is equal (Hardt, Price and Srebro 2016).
            Both by default.

    Raises:
        DeclarationError: `mitigation-without-groups`.
    """
    metric, known = until.metric, not (set(methods) - set(METHODS))
    shown = metric.over is None and metric.name.removesuffix(".gap") in {m.name for m in metrics.measurable("binary")}
    if metric.by is None or not shown or until.op != "<=" or until.whom is not None or not known:
        raise DeclarationError(
            "mitigation-without-groups",
            f"{until} cannot be mitigated by {', '.join(map(str, methods)) or 'anything'}.",
            where=place.here(),
            why="A mitigation makes a gap between groups small, by reweighing or by thresholds of groups.",
            next="Write fb.mitigate(metrics.selection_rate.gap(by=Table.column) <= 0.1).",
        )
    return Mitigate(until, methods or METHODS)


def check(treatment: Treatment, task: Task, question: type[Contract], where: Place) -> None:
    """Refuse what does not suit the task.

    Raises:
        DeclarationError: `treatment-of-other-task`, `mitigation-of-other-rate`, `mitigation-without-groups`,
            `weights-do-not-fit`.
    """
    for name in ("calibrate", "decide", "mitigate"):
        given = getattr(treatment, name) is not None
        if given and (task.kind != "binary" and not (task.kind == "anomaly" and name == "decide")):
            raise DeclarationError(
                "treatment-of-other-task",
                f"{name}= is said of a model whose task is {task.kind}.",
                where=where,
                why="A probability is calibrated, and a threshold decides, where the outcome is true or false.",
                next=f"Leave {name}= out.",
            )
    if treatment.mitigate is not None:
        _check_mitigation(treatment.mitigate, question, where)
    if isinstance(treatment.weights, Expression):
        _check_weights(treatment.weights, question, where)
    elif treatment.weights is not None and not task.classifies:
        raise DeclarationError(
            "treatment-of-other-task",
            f'weights="balanced" is said of a model whose task is {task.kind}.',
            where=where,
            why="Only classes can be made to weigh alike.",
            next="Give an expression over the request: weights=Table.column.col.",
        )


def _check_mitigation(chosen: Mitigate, question: type[Contract], where: Place) -> None:
    spec = contract.spec(question)
    if chosen.by not in {c.name for c in spec.request} or chosen.by in spec.with_role(contract.Personal):
        raise DeclarationError(
            "mitigation-without-groups",
            f"Groups of {chosen.by!r} cannot be treated alike.",
            where=where,
            why=f"Their column is in every request to {spec.name}, and names no person.",
            next=f"Name another: {', '.join(c.name for c in spec.request)}.",
        )
    dtype = spec.dtypes[chosen.by]
    if dtype.is_numeric() or dtype.is_temporal():
        raise DeclarationError(
            "mitigation-without-groups",
            f"{spec.name}.{chosen.by} is {dtype}: its values are no groups.",
            where=where,
            why="A gap between numbers is one between their fifths, and a threshold of a group is found by its name.",
            next="Give the contract a column of bands, such as dy.Enum(['under 25', '25 and older']).",
        )
    if "thresholds" in chosen.methods and chosen.rate not in EQUAL:
        raise DeclarationError(
            "mitigation-of-other-rate",
            f"Thresholds of groups cannot make {chosen.rate} equal.",
            where=where,
            why=f"They make {', '.join(EQUAL)} equal.",
            next=f'Compare one of these, or write fb.mitigate({chosen.until}, "reweighing").',
        )


def _check_weights(weights: Expression, question: type[Contract], where: Place) -> None:
    spec = contract.spec(question)
    allowed = {c.name: spec.dtypes[c.name] for c in spec.request if c.name not in spec.with_role(contract.Personal)}
    try:
        (dtype,) = pl.LazyFrame(schema=allowed).select(weights.polars).collect_schema().dtypes()
        problem = "" if dtype.is_numeric() else f"It is {dtype}."
    except (pl.exceptions.PolarsError, ValueError) as error:
        problem = str(error)
    if problem:
        raise DeclarationError(
            "weights-do-not-fit",
            f"{weights} is no weight of a question of {spec.name}.",
            where=where,
            why=problem,
            next='Write an expression over the request that is a number above zero, or weights="balanced".',
        )
