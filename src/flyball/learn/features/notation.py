"""How features are written: columns of the request, Polars expressions over it, `text`, `latest`, `window`, `function`.

    features = fb.features(
        Flight.origin,                                                       # taken from the request
        hour=Flight.scheduled.col.dt.hour(),                                 # computed from it
        weather=fb.latest(Weather, by=Flight.origin, max_age=hours(3)),      # looked up, as known when asked
        late=fb.window(Flight, Flight.late.col.mean(), by=Flight.carrier, over=[hours(6), days(7)]),
    )

What several models share, or what deserves a reason, is a function of its own under `@fb.feature(owner=...)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import dataframely as dy
import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn.encoding.texts import Recipe, Split
from flyball.learn.features import aggregate
from flyball.learn.features.aggregate import Aggregate
from flyball.learn.features.declare import (
    Called,
    Computed,
    Entity,
    Expression,
    Feature,
    FeatureSet,
    Given,
    Latest,
    Text,
    Window,
)

Definition = pl.Expr | Feature
"""What a name is given to."""
One = dy.Column | tuple[dy.Column, dy.Column]
By = One | list[One]
"""One column that both sides have; a pair (the question's, the table's); or a list of these, which must all be equal."""


def features(*given: dy.Column | Feature, **named: Definition) -> FeatureSet:
    """Declare features: columns of the request and shared features first, then named definitions.

    Args:
        given: columns of the request, and what `@feature` made.
        named: Polars expressions over the request, `text`, `latest`, `window` and `function`.

    Raises:
        DeclarationError: `feature-name-taken`, `feature-of-unknown-kind`, `column-without-contract`.
    """
    where = place.here()
    found = [_unnamed(each, where) for each in given]
    found += [_named(name, definition, where) for name, definition in named.items()]
    names = [f.name for f in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DeclarationError(
            "feature-name-taken",
            f"Two features are named {twice[0]!r}.",
            where=where,
            why="Features are told by their names.",
            next="Rename one of them.",
        )
    return FeatureSet(tuple(found), where)


def feature(*, owner: str = "") -> Callable[[Callable[[], Definition]], Feature]:
    """Declare a feature by a function that returns its definition: the function's name is its name, the docstring its reason.

    Several models may share it: `features(late_lately, Flight.origin)`.

    Args:
        owner: who answers for it; a team, not a person's address.

    Raises:
        DeclarationError: `feature-of-unknown-kind`.
    """
    where = place.here()

    def declare(build: Callable[[], Definition]) -> Feature:
        if inspect.signature(build).parameters:
            raise DeclarationError(
                "feature-of-unknown-kind",
                f"The feature {build.__name__!r} takes {', '.join(inspect.signature(build).parameters)}.",
                where=where,
                why="A shared feature is one definition; the function only gives it a name and a reason.",
                next=f"Write def {build.__name__}(): return fb.window(...).",
            )
        return replace(_named(build.__name__, build(), where), owner=owner, reason=inspect.getdoc(build) or "")

    return declare


def latest(
    table: type[Contract],
    *,
    by: By,
    max_age: timedelta | None = None,
    columns: Sequence[dy.Column] | None = None,
) -> Latest:
    """The latest known row of `table` for the question's entity; null where there is none, or none young enough.

    Args:
        table: where to look.
        by: the entity: a column, (the question's, the table's) where the names differ, or a list of these.
        max_age: the greatest age of the row's event time when asked.
        columns: what to take; by default all columns but key, times, outcomes and personal ones.

    Raises:
        DeclarationError: `no-such-column`, `column-without-contract`, `span-not-positive` (an age that is no duration).
    """
    spec = contract.spec(table)
    if columns is None:
        skip = {*spec.key, spec.event_time, *spec.late, *spec.with_role(contract.Personal)}
        taken = tuple(n for n in spec.names if n not in skip)
    else:
        taken = tuple(contract.ref(c).name for c in ([columns] if isinstance(columns, dy.Column) else columns))
    _spans(max_age=max_age)
    return Latest("", table, _entity(table, by), max_age, taken, place.here())


def window(
    table: type[Contract],
    value: pl.Expr | Aggregated,
    *,
    by: By,
    over: timedelta | Sequence[timedelta],
    where: pl.Expr | None = None,
    gap: timedelta | None = None,
) -> Window:
    """An aggregate over the rows of `table` that became known in [asked - gap - over, asked - gap), never the question's own.

    Args:
        table: where to look.
        value: an aggregate of a row-wise expression: `.mean()` (of a Boolean: a rate), `.sum()`, `.count()`, `.std()`,
            `.var()`, `.min()`, `.max()`, `.median()`, `.quantile(q)`, `.n_unique()`; `pl.len()`, `trend(expression)` or
            `since_last()`. Nulls, NaN and infinities are no values.
        by: the entity: a column, (the question's, the table's) where the names differ, or a list of these.
        over: one span or several.
        where: only rows for which this is true.
        gap: how long before the question the window ends: a week, where what is younger is not to be relied upon yet.

    Raises:
        DeclarationError: `window-of-unknown-aggregate`, `no-such-column`, `column-without-contract`, `span-not-positive` (a
            span that is no duration).
    """
    spans = tuple(over) if isinstance(over, list | tuple) else (over,)
    _spans(*spans, gap=gap)
    inner, how = value.split if isinstance(value, Aggregated) else _split(value)
    if where is not None:
        inner = pl.when(where).then(inner)
    return Window("", table, Expression(inner), how, _entity(table, by), spans, gap or timedelta(), place.here())


class Aggregated:
    """An aggregate that Polars has no name for, of a row-wise expression; for `window`."""

    __slots__ = ("split",)

    def __init__(self, inner: pl.Expr, how: Aggregate) -> None:
        self.split = inner, how


def trend(value: pl.Expr) -> Aggregated:
    """The least-squares slope of a row-wise expression over the time at which its rows were known, per day."""
    return Aggregated(_expression(value), Aggregate("trend"))


def since_last() -> Aggregated:
    """Seconds since the last row of a window became known: `fb.window(Visit, fb.since_last(), by=..., over=days(365))`.

    A gap leaves younger rows out, and does not make the others younger: with gap=days(7) there is no value below a week.
    """
    return Aggregated(pl.lit(value=True), Aggregate("since"))


def text(
    value: dy.Column | pl.Expr,
    *,
    by: Split = "word",
    grams: tuple[int, int] = (1, 2),
    terms: int = 5000,
    min_rows: int = 3,
    sublinear: bool = False,
) -> Text:
    """A text of the request, read by its terms (tf-idf, see `learn.encoding.texts`); without this a text is one category.

    A column needs no name, and with one can be read twice: `features(words=text(Sms.message), parts=text(Sms.message,
    by="char", grams=(2, 5)))`.

    Args:
        value: a column of the request, or a Polars expression over it.
        by: terms of words, or of characters within words.
        grams: the shortest and the longest term, in words or characters.
        terms: how many are kept, the most frequent ones, at most; each is a column of the matrix.
        min_rows: training rows that must hold a term. What only one person writes must not enter a version, and one person
            may write twice: raise it where terms may be names or numbers of persons.
        sublinear: a term that is there n times counts 1 + ln(n).

    Raises:
        DeclarationError: `text-recipe`, `column-without-contract`, `feature-of-unknown-kind` (neither column nor expression).
    """
    where, recipe = place.here(), Recipe(by=by, grams=grams, terms=terms, min_rows=min_rows, sublinear=sublinear)
    if recipe.wrong:
        raise DeclarationError(
            "text-recipe",
            "A text cannot be read like this.",
            where=where,
            why=recipe.wrong + ".",
            next="Write fb.text(Table.column), and change one setting at a time.",
        )
    if isinstance(value, pl.Expr):
        return Text("", Expression(value), where, recipe=recipe)
    name = contract.ref(value).name
    return Text(name, Expression(pl.col(name)), where, reason=value.description or "", recipe=recipe)


def function(
    call: Callable[[pl.DataFrame], pl.Series], *columns: dy.Column, returns: type[pl.DataType] | pl.DataType
) -> Called:
    """What a Python function makes of columns of the request: the way out, where no Polars expression says it.

    Slower than an expression (a frame is made for each question), and checked: training calls it for all questions at once
    and for some of them one by one, and refuses it where these differ.

    Args:
        call: takes a frame of `columns`, returns a series of as many values, each following from its own row. It, and all
            of ours that it reaches, is part of the feature's version. A frame may hold a row twice.
        columns: of the request; at least one.
        returns: the Polars type of its values, such as `pl.Float64` or `pl.Enum(["low", "high"])`.

    Raises:
        DeclarationError: `column-without-contract`, `feature-of-unknown-kind`.
    """
    reads, where = tuple(dict.fromkeys(contract.ref(c) for c in columns)), place.here()
    try:
        # Polars converts a type that needs nothing more said of it, and refuses the rest.
        dtype = pl.Series(dtype=returns).dtype
    except (TypeError, pl.exceptions.PolarsError):
        dtype = None
    if not reads or dtype is None:
        raise DeclarationError(
            "feature-of-unknown-kind",
            f"A function of {len(reads)} columns returns {returns!s:.100}.",
            where=where,
            why="A function takes columns of the request, at least one, and says the whole Polars type of what it returns.",
            next='Write fb.function(call, Table.column, returns=pl.Float64), or returns=pl.Enum(["low", "high"]).',
        )
    return Called("", call, reads, dtype, where)


def _unnamed(given: dy.Column | Feature, where: Place) -> Feature:
    if isinstance(given, Feature) and not given.name:
        raise DeclarationError(
            "feature-of-unknown-kind",
            f"A feature of the kind {type(given).__name__} has no name.",
            where=where,
            why="Only columns of the request, and features under @fb.feature, bring one of their own.",
            next="Name it: features(Flight.origin, hour=...).",
        )
    return given if isinstance(given, Feature) else Given(contract.ref(given), where, reason=given.description or "")


def _named(name: str, definition: Definition, where: Place) -> Feature:
    match definition:
        case pl.Expr():
            return Computed(name, Expression(definition), where)
        case Latest() | Window() | Called() | Text():
            return replace(definition, name=name)
        case _:
            raise DeclarationError(
                "feature-of-unknown-kind",
                f"The feature {name!r} is {type(definition).__name__}.",
                where=where,
                why="A named feature is a Polars expression, text(...), latest(...), window(...) or function(...).",
                next="Give request columns first and without a name: features(Flight.origin, hour=...); a function under "
                "@fb.feature returns its definition.",
            )


def _spans(*over: object, **named: object) -> None:
    for name, span in [*(("over", each) for each in over), *named.items()]:
        if span is not None and not isinstance(span, timedelta):
            raise DeclarationError(
                "span-not-positive",
                f"{name}={span!r:.100} is no duration.",
                where=place.here(),
                why="A number alone does not say of what.",
                next=f"Write {name}=days(7), hours(6) or minutes(30).",
            )


def _expression(value: object) -> pl.Expr:
    if not isinstance(value, pl.Expr):
        raise DeclarationError(
            "window-of-unknown-aggregate",
            f"A window cannot keep a {type(value).__name__}.",
            where=place.here(),
            why="It keeps an aggregate of a Polars expression over a row.",
            next="Write Table.column.col.mean(), pl.len(), fb.trend(Table.column.col) or fb.since_last().",
        )
    return value


def _split(value: object) -> tuple[pl.Expr, Aggregate]:
    found = aggregate.of(_expression(value))
    if found is None:
        raise DeclarationError(
            "window-of-unknown-aggregate",
            f"A window cannot keep {value!s:.200}.",
            where=place.here(),
            why="It is mean, sum, count, std, var, min, max, median, quantile (of one level from 0 to 1) or n_unique of a "
            "row-wise expression, pl.len(), trend(...) or since_last().",
            next="Write the aggregate last: (expression).mean(); and choose rows by where=.",
        )
    return found


def _entity(table: type[Contract], by: By) -> Entity:
    pairs = [each if isinstance(each, tuple) else (each, each) for each in (by if isinstance(by, list) else [by])]
    pairs = [] if any(len(pair) != 2 for pair in pairs) else pairs
    entity = Entity(
        tuple(contract.ref(ours).name for ours, _ in pairs), tuple(contract.ref(theirs).name for _, theirs in pairs)
    )
    lacking = [name for name in entity.table if name not in contract.spec(table).names]
    if lacking or not pairs:
        raise DeclarationError(
            "no-such-column",
            f"{table.__name__} has no column {lacking[0]!r}."
            if lacking
            else f"{table.__name__} is looked up by no column, or by no pair of them.",
            where=place.here(),
            why="`by` names columns of the question and columns of the table that must be equal.",
            next=f"Write by=(Question.column, {table.__name__}.column), or a list of such pairs and of columns of both.",
        )
    return entity
