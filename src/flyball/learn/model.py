"""A model, declared: what it predicts, when it is asked, from which features, and the function that builds the estimator.

The function gets the knobs and returns an unfitted estimator; flyball fits it. Knobs are a class of typed ranges, so that
the search, the defaults and the record of what was chosen all come from one place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, dataclass_transform, get_type_hints

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Moment, Ref
from flyball.learn.features.declare import Computed, FeatureSet, Given, Latest, Window


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a knob may take, and the one that is tried first."""

    low: float
    high: float
    start: float
    log: bool = False


def between(low: float, high: float, *, start: float, log: bool = False) -> Any:
    """A knob between two numbers, both included; `start` is tried first and used when nothing is searched."""
    if not low <= start <= high:
        raise DeclarationError(
            "knob-out-of-range",
            f"start={start} is not between {low} and {high}.",
            where=place.here(),
            why="The first trial uses `start`.",
            next="Choose a start within the range.",
        )
    return Range(low, high, start, log)


@dataclass_transform(frozen_default=True, field_specifiers=(between,))
class Params:
    """Knobs: annotate each with its type and give it a range, `leaves: int = between(7, 255, start=31, log=True)`."""

    ranges: ClassVar[Mapping[str, tuple[type, Range]]] = {}

    def __init_subclass__(cls) -> None:
        own = {n: v for n, v in vars(cls).items() if isinstance(v, Range)}
        hints = get_type_hints(cls)
        cls.ranges = {**cls.ranges, **{n: (hints[n], v) for n, v in own.items()}}

    def __init__(self, **chosen: float) -> None:
        for name, (type_, range_) in self.ranges.items():
            object.__setattr__(self, name, type_(chosen.pop(name, range_.start)))
        if chosen:
            raise TypeError(f"{type(self).__name__} has no knob {sorted(chosen)[0]!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    @classmethod
    def __fingerprint__(cls) -> object:
        return {n: (t.__name__, r) for n, (t, r) in cls.ranges.items()}


@dataclass(frozen=True, slots=True)
class Model:
    """A declared model; see `model`."""

    name: str
    features: FeatureSet
    predicts: Ref
    asked: Moment
    knobs: type[Params]
    build: Callable[[Any], Any]
    place: Place = field(compare=False)

    @property
    def question(self) -> type[Contract]:
        """The contract whose rows are asked about."""
        return self.predicts.contract


def model(features: FeatureSet, *, predicts: Any, asked: Moment) -> Callable[[Callable[[Any], Any]], Model]:
    """Declare a model by decorating the function that builds its estimator.

    Args:
        features: what it reads.
        predicts: an outcome column; Boolean for a classifier, a number for a regressor.
        asked: the moment at which each question is asked, relative to a column of the question.
    """
    where = place.here()

    def declare(build: Callable[[Any], Any]) -> Model:
        hints = (
            [h for h in get_type_hints(build).items() if h[0] != "return"]
            if inspect.signature(build).parameters
            else []
        )
        knobs = hints[0][1] if hints else Params
        return Model(build.__name__, features, contract.ref(predicts), asked, knobs, build, where)

    return declare


def check(model: Model) -> None:
    """Refuse a model that would see the future.

    Raises:
        DeclarationError: `leaks-outcome` (a feature reads what settles later), `asked-too-early` (the row itself is not
            known when asked), `predicts-no-outcome`, `no-such-column`.
    """
    spec = contract.spec(model.question)
    if model.predicts.name not in spec.outcomes:
        raise DeclarationError(
            "predicts-no-outcome",
            f"The model {model.name!r} predicts {model.predicts}, which is not an outcome.",
            where=model.place,
            why="Only an outcome has a time at which it becomes known, which training and monitoring need.",
            next=f"Wrap the column: {model.predicts.name} = fb.outcome(...), beside an outcome_time.",
        )
    _check_moment(model, spec)
    for feature in model.features.features:
        reads: frozenset[str] = frozenset()
        match feature:
            case Given():
                reads = frozenset({feature.name})
            case Computed():
                reads = feature.expression.columns
            case Latest() | Window():
                reads = frozenset({feature.by.question})
        _check_reads(feature, reads, model, spec)
    model.features.outputs(model.question)


def _check_reads(
    feature: Given | Computed | Latest | Window, reads: frozenset[str], model: Model, spec: contract.Spec
) -> None:
    future = sorted(reads & spec.late)
    if future:
        raise DeclarationError(
            "leaks-outcome",
            f"The feature {feature.name!r} of the model {model.name!r} reads {spec.name}.{future[0]}.",
            where=feature.place,
            why=f"{future[0]} is known only when the outcome settles, and the question is asked before that.",
            next="Use what past rows have shown instead: window(Table, column.mean(), by=..., over=...).",
        )
    unknown = sorted(reads - set(spec.names))
    if unknown:
        raise DeclarationError(
            "no-such-column",
            f"The feature {feature.name!r} reads {unknown[0]!r}, and {spec.name} has no such column.",
            where=feature.place,
            why=f"A request carries {', '.join(c.name for c in spec.request)}.",
            next="Mend the name.",
        )


def _check_moment(model: Model, spec: contract.Spec) -> None:
    moment = model.asked
    if moment.column.contract is not model.question or moment.column.name in spec.late:
        raise DeclarationError(
            "leaks-outcome" if moment.column.name in spec.late else "no-such-column",
            f"The model {model.name!r} is asked before {moment.column}.",
            where=model.place,
            why=f"The moment must follow from a column of the request of {spec.name}.",
            next=f"Write asked=fb.before({spec.name}.{spec.event_time}, ...).",
        )
    if moment.column.name == spec.event_time and moment.lead >= spec.known_before and moment.lead.total_seconds() > 0:
        raise DeclarationError(
            "asked-too-early",
            f"The model {model.name!r} is asked {moment.lead} before {moment.column}, when the row is not known yet.",
            where=model.place,
            why=f"{spec.name} says that its rows are known {spec.known_before} before the event time.",
            next=f"Declare since when: fb.event_time(..., known=fb.before(...)) in {spec.name} ({spec.place}).",
        )
