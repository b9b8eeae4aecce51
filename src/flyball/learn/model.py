"""A model, declared: what it predicts, when it is asked, from which features, and the function that builds the estimator.

The function gets the knobs and returns an unfitted estimator; flyball fits it. Knobs are a class of typed ranges, so that
the search, the defaults and the record of what was chosen all come from one place.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, dataclass_transform, get_type_hints

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import DECLARED
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Moment, Ref
from flyball.learn.features import meaning
from flyball.learn.features.declare import Called, Computed, Feature, FeatureSet, Given, Latest, Looked, Window


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a knob may take, and the one that is tried first."""

    low: float
    high: float
    start: float
    log: bool = False


def between(low: float, high: float, *, start: float, log: bool = False) -> Any:
    """A knob between two numbers, both included; `start` is tried first and used when nothing is searched."""
    if not low <= start <= high or (log and low <= 0):
        raise DeclarationError(
            "knob-out-of-range",
            f"start={start} is not between {low} and {high}" + (" on a logarithmic scale." if log else "."),
            where=place.here(),
            why="The first trial uses `start`, and a logarithm begins above zero.",
            next="Choose a range that holds the start, above zero where log=True.",
        )
    return Range(low, high, start, log)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Params:
    """Knobs: annotate each with its type and give it a range, `leaves: int = between(7, 255, start=31, log=True)`."""

    ranges: ClassVar[Mapping[str, tuple[type, Range]]] = {}

    def __init_subclass__(cls) -> None:
        own = {n: v for n, v in vars(cls).items() if isinstance(v, Range)}
        hints = get_type_hints(cls)
        cls.ranges = {**cls.ranges, **{n: (hints[n], v) for n, v in own.items()}}
        for name, range_ in own.items():
            if hints[name] is int and not (float(range_.low).is_integer() and float(range_.high).is_integer()):
                raise DeclarationError(
                    "knob-out-of-range",
                    f"The whole number {cls.__name__}.{name} lies between {range_.low} and {range_.high}.",
                    where=place.here(),
                    why="The limits of a whole number are whole: both are tried.",
                    next=f"Write whole limits, or declare {name}: float.",
                )

    def __init__(self, **chosen: float) -> None:
        for name, (type_, range_) in self.ranges.items():
            object.__setattr__(self, name, type_(chosen.pop(name, range_.start)))
        if chosen:
            raise TypeError(f"{type(self).__name__} has no knob {sorted(chosen)[0]!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @classmethod
    def __fingerprint__(cls) -> object:
        return {n: (t.__name__, r) for n, (t, r) in cls.ranges.items()}


@dataclass(frozen=True, slots=True)
class Model:
    """A declared model; see `model`. The default is part of the app, and of no step: nothing is learned from it."""

    name: str
    features: FeatureSet
    predicts: Ref
    asked: Moment
    knobs: type[Params]
    build: Callable[..., Any]
    place: Place = field(compare=False)
    default: float | None = None

    @property
    def question(self) -> type[Contract]:
        """The contract whose rows are asked about."""
        return self.predicts.contract


def model(
    features: FeatureSet, *, predicts: Any, asked: Moment, default: float | None = None
) -> Callable[[Callable[..., Any]], Model]:
    """Declare a model by decorating the function that builds its estimator.

    Args:
        features: what it reads.
        predicts: an outcome column; Boolean for a classifier, a number for a regressor.
        asked: the moment at which each question is asked, relative to a column of the question.
        default: what a server answers when the champion, the one before and the baseline all fail; None: an error.
            A probability for a classifier.
    """
    where = place.here()
    # One number has one fingerprint, however it is spelt; what is none is left for `check` to refuse.
    given: object = default
    plain = float(given) if type(given) is int else default

    def declare(build: Callable[..., Any]) -> Model:
        names = list(inspect.signature(build).parameters)
        knobs = get_type_hints(build).get(names[0]) if names else Params
        if len(names) > 1 or not (isinstance(knobs, type) and issubclass(knobs, Params)):
            raise DeclarationError(
                "knobs-not-declared",
                f"The model function {build.__name__!r} takes {', '.join(names)}, which are no knobs.",
                where=where,
                why="It takes nothing, or one value of a class that derives from fb.Params; the search chooses its fields.",
                next=f"Write def {build.__name__}(knobs: Knobs) -> ..., with class Knobs(fb.Params).",
            )
        vars(build)[DECLARED] = True
        return Model(build.__name__, features, contract.ref(predicts), asked, knobs, build, where, plain)

    return declare


def check(model: Model) -> None:
    """Refuse a model that would see the future, or remember a person.

    Raises:
        DeclarationError: `leaks-outcome` (a feature reads what settles later), `asked-too-early` (the row itself is not
            known when asked), `predicts-no-outcome`, `outcome-of-unknown-kind`, `no-features`, `personal-as-feature`,
            `sealed-differently`, `no-such-column`, `default-out-of-range`, and what `meaning.check` refuses.
    """
    spec = contract.spec(model.question)
    if not model.features.features:
        raise DeclarationError(
            "no-features",
            f"The model {model.name!r} reads no feature.",
            where=model.place,
            why="It could only ever answer the same.",
            next="Declare features: fb.features(Table.column, ...).",
        )
    if model.predicts.name not in spec.outcomes:
        raise DeclarationError(
            "predicts-no-outcome",
            f"The model {model.name!r} predicts {model.predicts}, which is not an outcome.",
            where=model.place,
            why="Only an outcome has a time at which it becomes known, which training and monitoring need.",
            next=f"Wrap the column: {model.predicts.name} = fb.outcome(...), beside an outcome_time.",
        )
    kind = spec.column(model.predicts.name).dtype
    if kind != pl.Boolean and not kind.is_numeric():
        raise DeclarationError(
            "outcome-of-unknown-kind",
            f"The model {model.name!r} predicts {model.predicts}, which is {kind}.",
            where=model.place,
            why="A Boolean outcome is classified, a number is estimated; nothing else is learned yet.",
            next="Declare the outcome as dy.Bool() or as a number.",
        )
    _check_moment(model, spec)
    _check_default(model)
    for feature in model.features.features:
        _check_reads(feature, _reads(feature, model), model, spec)
        _check_personal(feature, model)
        _check_sealed(feature, spec)
    meaning.check(model.features, model.question)


def _reads(feature: Feature, model: Model) -> frozenset[str]:
    """The columns of the request that a feature reads; one of another contract with its contract's name."""
    match feature:
        case Given():
            return frozenset({feature.name if _asks(model, feature.column) else str(feature.column)})
        case Computed():
            return feature.expression.columns
        case Called():
            return frozenset(c.name if _asks(model, c) else str(c) for c in feature.columns)
        case Latest() | Window():
            return frozenset(feature.by.question)


def classifies(model: Model) -> bool:
    """Whether the model predicts a Boolean."""
    return bool(contract.spec(model.question).column(model.predicts.name).dtype == pl.Boolean)


def _check_default(model: Model) -> None:
    default: object = model.default
    if default is None:
        return
    binary = classifies(model)
    number = default if isinstance(default, float) else math.nan
    if not math.isfinite(number) or (binary and not 0 <= number <= 1):
        raise DeclarationError(
            "default-out-of-range",
            f"The model {model.name!r} answers {default!r} by default.",
            where=model.place,
            why="A default is a probability from 0 to 1, as every answer of a classifier."
            if binary
            else "A default is a finite number, as every answer.",
            next="Write default=0.2, or leave it out: then a question that nothing can answer is an error.",
        )


def _check_personal(feature: Feature, model: Model) -> None:
    """What a model reads is written into encoders, examples and the journal, so no personal value may be a feature.

    A window that is kept by a personal column is none: its value is a rate, and its entity stays in the online store.
    """
    table, reads = model.question, frozenset[str]()
    match feature:
        case Given():
            reads = frozenset({feature.name})
        case Computed():
            reads = feature.expression.columns
        case Called():
            reads = frozenset(feature.reads)
        case Latest():
            table, reads = feature.table, frozenset(feature.columns)
    personal = sorted(reads & set(contract.spec(table).with_role(contract.Personal)))
    if personal:
        raise DeclarationError(
            "personal-as-feature",
            f"The feature {feature.name!r} of the model {model.name!r} is made of {table.__name__}.{personal[0]}.",
            where=feature.place,
            why="Personal values never appear in artifacts, journals or reports, and features do.",
            next=f"Use what is known of the person instead: window(Table, ..., by={table.__name__}.{personal[0]}, over=...).",
        )


def _check_sealed(feature: Feature, spec: contract.Spec) -> None:
    """The same person must be said in the same way on both sides."""
    if not isinstance(feature, Looked):
        return
    table = contract.spec(feature.table)
    for asked, looked in zip(feature.by.question, feature.by.table, strict=True):
        ours, theirs = spec.sealed.get(asked, "plain"), table.sealed.get(looked, "plain")
        if ours != theirs:
            raise DeclarationError(
                "sealed-differently",
                f"The feature {feature.name!r} looks for {spec.title}.{asked} in {table.title}.{looked}.",
                where=feature.place,
                why=f"One is stored as {ours}, the other as {theirs}, so no row would ever be found.",
                next="Declare both with the same fb.personal(..., stored=...).",
            )


def _asks(model: Model, column: Ref) -> bool:
    """Whether a column is the question's own, or a base contract's that the question derives from."""
    return issubclass(model.question, column.contract)


def _check_reads(feature: Feature, reads: frozenset[str], model: Model, spec: contract.Spec) -> None:
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
    if moment.column.contract is model.question and spec.dtypes[moment.column.name] != pl.Datetime("us", "UTC"):
        raise DeclarationError(
            "asked-of-no-time",
            f"The model {model.name!r} is asked before {moment.column}, which is {spec.dtypes[moment.column.name]}.",
            where=model.place,
            why="A question is asked at a moment.",
            next=f"Write asked=fb.before({spec.name}.{spec.event_time}, ...).",
        )
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
