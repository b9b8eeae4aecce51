"""A model, declared: what it predicts, when it is asked, from which features, and the function that builds the estimator.

The function gets the knobs and returns an unfitted estimator; flyball fits it. What kind of thing is predicted (`task`) follows
from the outcome's type: a Boolean is classified, an Enum of classes too, a number is estimated.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict, Unpack, get_type_hints

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import DECLARED
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Moment, Ref
from flyball.learn import algorithms, treatment
from flyball.learn.features import meaning
from flyball.learn.features.declare import (
    Called,
    Computed,
    Expression,
    Feature,
    FeatureSet,
    Given,
    Latest,
    Looked,
    Text,
    Window,
)
from flyball.learn.knobs import Params
from flyball.learn.task import Task
from flyball.learn.treatment import Decide, Mitigate, Treatment


@dataclass(frozen=True, slots=True)
class Model:
    """A declared model; see `model`. The default is part of the app, and of no step: nothing is learned from it.

    Attributes:
        build: knobs -> an unfitted estimator; None for `auto`, whose algorithms are ours.
        quantiles: of a number, where they are what is predicted.
        unsupervised: whether the estimator never sees the outcome, which then only judges it.
        treatment: how it learns beyond its estimator.
    """

    name: str
    features: FeatureSet
    predicts: Ref
    asked: Moment
    knobs: type[Params]
    build: Callable[..., Any] | None
    place: Place = field(compare=False)
    default: float | None = None
    quantiles: tuple[float, ...] = ()
    unsupervised: bool = False
    treatment: Treatment = treatment.NONE

    @property
    def question(self) -> type[Contract]:
        """The contract whose rows are asked about."""
        return self.predicts.contract


class Declared(TypedDict, total=False):
    """What else may be said of a model, and is read by `model` and `auto` alike.

    Attributes:
        default: what a server answers when the champion, the one before and the baseline all fail; else an error.
            A probability for a classifier.
        quantiles: predict these quantiles of a number, such as (0.1, 0.5, 0.9), instead of its mean.
        unsupervised: learn what is usual from the features alone; the outcome, where there is one, only judges.
        weights: what a row counts in fitting: "balanced", or an expression over the request, such as `Sale.amount.col`.
        calibrate: "sigmoid" (few rows) or "isotonic" (a thousand and more): make the score a probability that holds.
        decide: the threshold of a decision: `fb.best(metrics.f1)`, or `fb.costs(false_positive=1, false_negative=5)`.
        mitigate: what is tried where a fairness condition does not hold: `fb.mitigate(gap <= 0.1)`.
    """

    default: float | None
    quantiles: tuple[float, ...]
    unsupervised: bool
    weights: Literal["balanced"] | pl.Expr | None
    calibrate: Literal["sigmoid", "isotonic"] | None
    decide: Decide | None
    mitigate: Mitigate | None


def model(
    features: FeatureSet, *, predicts: Any, asked: Moment, **declared: Unpack[Declared]
) -> Callable[[Callable[..., Any]], Model]:
    """Declare a model by decorating the function that builds its estimator.

    Args:
        features: what it reads.
        predicts: an outcome column: Boolean or an Enum for a classifier, a number for a regressor.
        asked: the moment at which each question is asked, relative to a column of the question.
        declared: see `Declared`.
    """
    where = place.here()

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
        plain = Model(build.__name__, features, contract.ref(predicts), asked, knobs, build, where)
        return _with(plain, declared)

    return declare


def _with(plain: Model, declared: Declared) -> Model:
    unknown = sorted(set(declared) - set(Declared.__annotations__))
    if unknown:  # As Python says it of any function; a TypedDict is checked by mypy alone.
        raise TypeError(f"a model has no {unknown[0]!r}; it may have {', '.join(Declared.__annotations__)}")
    default: Any = declared.get("default")
    weights = declared.get("weights")
    return replace(
        plain,
        # One number has one fingerprint, however it is spelt; what is none is left for `check` to refuse.
        default=float(default) if type(default) is int else default,
        quantiles=tuple(sorted(declared.get("quantiles", ()))),
        unsupervised=declared.get("unsupervised", False),
        treatment=Treatment(
            Expression(weights) if isinstance(weights, pl.Expr) else weights,
            declared.get("calibrate"),
            declared.get("decide"),
            declared.get("mitigate"),
        ),
    )


def auto(name: str, features: FeatureSet, *, predicts: Any, asked: Moment, **declared: Unpack[Declared]) -> Model:
    """Declare a model without a function: which algorithm, and with which knobs, the search finds out (`algorithms`).

    Args:
        name: of the model.
        features: as in `model`; and so are the rest.
    """
    plain = _with(Model(name, features, contract.ref(predicts), asked, Params, None, place.here()), declared)
    reads = any(isinstance(f, Text) for f in features.features)
    return replace(plain, knobs=algorithms.knobs(task(plain), text=reads))


def task(model: Model) -> Task:
    """What kind of thing a model predicts.

    Raises:
        DeclarationError: `outcome-of-unknown-kind`, `quantiles-out-of-range`.
    """
    kind = contract.spec(model.question).column(model.predicts.name).dtype
    given: tuple[object, ...] = model.quantiles
    able = all(isinstance(q, float) and 0 < q < 1 for q in given)
    if model.quantiles and not (kind.is_numeric() and able and len(set(model.quantiles)) == len(model.quantiles)):
        raise DeclarationError(
            "quantiles-out-of-range",
            f"The model {model.name!r} predicts the quantiles {model.quantiles} of {model.predicts}, which is {kind}.",
            where=model.place,
            why="A quantile lies between 0 and 1, is named once, and only numbers have any.",
            next="Write quantiles=(0.1, 0.5, 0.9) for a number, or leave it out.",
        )
    if kind == pl.Boolean:
        return Task(kind="anomaly" if model.unsupervised else "binary")
    if isinstance(kind, pl.Enum) and len(kind.categories) > 1 and not model.unsupervised:
        return Task(kind="multiclass", classes=tuple(kind.categories))
    if kind.is_numeric() and not model.unsupervised:
        return Task(kind="quantile", quantiles=model.quantiles) if model.quantiles else Task(kind="regression")
    raise DeclarationError(
        "outcome-of-unknown-kind",
        f"The model {model.name!r} predicts {model.predicts}, which is {kind}.",
        where=model.place,
        why="A Boolean or an Enum is classified, a number is estimated; what is unsupervised is judged by a Boolean.",
        next="Declare the outcome as dy.Bool(), as dy.Enum([...]) of two classes or more, or as a number.",
    )


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
    _check_treatment(model)
    _check_moment(model, spec)
    _check_default(model)
    for feature in model.features.features:
        _check_reads(feature, _reads(feature, model), model, spec)
        _check_personal(feature, model)
        _check_sealed(feature, spec)
    meaning.check(model.features, model.question)


def _check_treatment(model: Model) -> None:
    """Also what a type checker would find: taken for something else, it would be obeyed without a word."""
    given = model.treatment
    for name, value, good, example in (
        (
            "weights",
            given.weights,
            _known(given.weights, "balanced") or isinstance(given.weights, Expression),
            '"balanced"',
        ),
        ("calibrate", given.calibrate, _known(given.calibrate, "sigmoid", "isotonic"), '"sigmoid"'),
        ("decide", given.decide, isinstance(given.decide, Decide | None), "fb.best(metrics.f1)"),
        ("mitigate", given.mitigate, isinstance(given.mitigate, Mitigate | None), "fb.mitigate(gap <= 0.1)"),
    ):
        if not good:
            raise DeclarationError(
                "treatment-unknown",
                f"The model {model.name!r} declares {name}={value!r:.80}.",
                where=model.place,
                why="Nothing is known by that name.",
                next=f"Write {name}={example}, or leave it out.",
            )
    treatment.check(given, task(model), model.question, model.place)


def _known(value: object, *names: str) -> bool:
    return value is None or (isinstance(value, str) and value in names)


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


def _check_default(model: Model) -> None:
    default: object = model.default
    if default is None:
        return
    said = task(model)
    number = default if isinstance(default, float) and said.width == 1 else math.nan
    if not math.isfinite(number) or (said.truth and not 0 <= number <= 1):
        raise DeclarationError(
            "default-out-of-range",
            f"The model {model.name!r} answers {default!r} by default.",
            where=model.place,
            why="A default is a probability from 0 to 1, as every answer of a classifier."
            if said.truth
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
