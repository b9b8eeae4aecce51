"""What a feature is, as a value. Four kinds, told by where the value comes from:

    Given      a column of the request
    Computed   a Polars expression over columns of the request
    Latest     columns of the latest row of a table, as known when asked
    Window     an aggregate over the rows of a table that became known during a span before the question

A declaration knows its outputs: the names and kinds of the columns that it yields. Nothing here reads data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, NoReturn

import dataframely as dy
import polars as pl

from flyball._kernel import durations, place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Ref

Kind = Literal["category", "number"]
How = Literal["mean", "sum", "count"]


class Expression:
    """A Polars expression as a value: equal if it says the same, and without a truth value."""

    __slots__ = ("polars",)

    def __init__(self, polars: pl.Expr) -> None:
        self.polars = polars

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.polars.meta.eq(other.polars)

    def __hash__(self) -> int:
        return hash(str(self.polars))

    def __bool__(self) -> NoReturn:
        raise TypeError("An expression has no truth value: combine expressions with & and |.")

    def __repr__(self) -> str:
        return str(self.polars)

    def __fingerprint__(self) -> object:
        return self.polars

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(self.polars.meta.root_names())


@dataclass(frozen=True, slots=True)
class Output:
    """One column that a feature yields."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Entity:
    """Which rows of a table belong to a question: the question's column equals the table's."""

    question: str
    table: str


def depends(table: type[Contract], columns: frozenset[str]) -> object:
    """What a feature depends on in a table: its times and key, and the types of the columns that are read; no more, so that
    a column which nobody reads changes no feature.
    """
    spec = contract.spec(table)
    times = (spec.event_time, spec.known_before, spec.outcome_time, tuple(sorted(columns & spec.late)))
    known = {name: dtype for name, dtype in spec.dtypes.items() if name in columns or name in spec.key}
    return (spec.name, spec.key, times, known)


@dataclass(frozen=True, slots=True)
class Given:
    """A column of the request."""

    column: Ref
    place: Place = field(compare=False)

    @property
    def name(self) -> str:
        """The column's own name."""
        return self.column.name

    def __fingerprint__(self) -> object:
        return ("given", depends(self.column.contract, frozenset({self.name})))

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """The column itself."""
        return (_output(self.name, contract.spec(question).column(self.name).dtype, self.place),)


@dataclass(frozen=True, slots=True)
class Computed:
    """An expression over columns of the request."""

    name: str
    expression: Expression
    place: Place = field(compare=False)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column, of the type that the expression yields."""
        empty = pl.DataFrame(schema=contract.spec(question).dtypes)
        try:
            dtype = empty.select(self.expression.polars.alias(self.name)).schema[self.name]
        except pl.exceptions.PolarsError as problem:
            raise DeclarationError(
                "expression-does-not-fit",
                f"The feature {self.name!r} cannot be computed from {question.__name__}.",
                where=self.place,
                why=str(problem),
                next="Mend the expression; it may read the request's columns only.",
            ) from problem
        return (_output(self.name, dtype, self.place),)


@dataclass(frozen=True, slots=True)
class Latest:
    """Columns of the row with the greatest event time among those known when asked, at most `max_age` old."""

    name: str
    table: type[Contract]
    by: Entity
    max_age: timedelta | None
    columns: tuple[str, ...]
    place: Place = field(compare=False)

    def __fingerprint__(self) -> object:
        reads = depends(self.table, frozenset({*self.columns, self.by.table}))
        return ("latest", self.name, reads, self.columns, self.by, self.max_age)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column per column of the table, named feature_column."""
        dtypes = contract.spec(self.table).dtypes
        return tuple(_output(f"{self.name}_{c}", dtypes[c], self.place) for c in self.columns)


@dataclass(frozen=True, slots=True)
class Window:
    """`how` of `value` over the rows that became known in [asked - over, asked).

    A row that reads an outcome became known when its outcome settled; any other when the row itself was known.
    """

    name: str
    table: type[Contract]
    value: Expression
    how: How
    by: Entity
    over: tuple[timedelta, ...]
    place: Place = field(compare=False)

    def __fingerprint__(self) -> object:
        reads = depends(self.table, self.value.columns | {self.by.table})
        return ("window", self.name, reads, self.value, self.how, self.by, self.over)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One number per span: feature_6h, feature_7d; only the feature's name where there is one span."""
        return tuple(Output(self.column(span), "number") for span in self.over)

    def column(self, span: timedelta) -> str:
        """The output of one span."""
        return self.name if len(self.over) == 1 else f"{self.name}_{durations.short(span)}"

    @property
    def on_outcome(self) -> bool:
        """Whether it counts rows by when their outcome was known."""
        return bool(self.value.columns & contract.spec(self.table).late)


Feature = Given | Computed | Latest | Window
Definition = dy.Column | pl.Expr | Latest | Window


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """An ordered, named set of features."""

    features: tuple[Feature, ...]
    place: Place = field(compare=False)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """All columns, in order."""
        return tuple(o for f in self.features for o in f.outputs(question))

    def reads(self, question: type[Contract]) -> frozenset[str]:
        """The columns that a request must carry: given, computed from, and entities."""
        names: set[str] = set()
        for f in self.features:
            match f:
                case Given():
                    names.add(f.name)
                case Computed():
                    names |= f.expression.columns
                case Latest() | Window():
                    names.add(f.by.question)
        return frozenset(names)

    def tables(self) -> tuple[type[Contract], ...]:
        """The tables that are looked up, each once."""
        return tuple(dict.fromkeys(f.table for f in self.features if isinstance(f, Latest | Window)))


def features(*given: dy.Column, **named: pl.Expr | Latest | Window) -> FeatureSet:
    """Declare features: columns of the request first, then named expressions, `latest` and `window`.

    Raises:
        DeclarationError: `feature-name-taken`, `feature-of-unknown-kind`, `column-without-contract`.
    """
    where = place.here()
    found: list[Feature] = [Given(contract.ref(column), where) for column in given]
    for name, definition in named.items():
        match definition:
            case pl.Expr():
                found.append(Computed(name, Expression(definition), where))
            case Latest():
                found.append(
                    Latest(name, definition.table, definition.by, definition.max_age, definition.columns, where)
                )
            case Window():
                found.append(
                    Window(
                        name, definition.table, definition.value, definition.how, definition.by, definition.over, where
                    )
                )
            case _:
                raise DeclarationError(
                    "feature-of-unknown-kind",
                    f"The feature {name!r} is {type(definition).__name__}.",
                    where=where,
                    why="A named feature is a Polars expression, latest(...) or window(...).",
                    next="Give request columns first and without a name: features(Flight.origin, hour=...).",
                )
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


def latest(
    table: type[Contract],
    *,
    by: dy.Column | tuple[dy.Column, dy.Column],
    max_age: timedelta | None = None,
    columns: Sequence[dy.Column] | None = None,
) -> Latest:
    """The latest known row of `table` for the question's entity; null where there is none, or none young enough.

    Args:
        table: where to look.
        by: the entity column, or (question's, table's) when the names differ.
        max_age: the greatest age of the row's event time when asked.
        columns: what to take; by default all columns but key, times, outcomes and personal ones.
    """
    spec = contract.spec(table)
    if columns is None:
        skip = {*spec.key, spec.event_time, *spec.late, *spec.with_role(contract.Personal)}
        taken = tuple(n for n in spec.names if n not in skip)
    else:
        taken = tuple(contract.ref(c).name for c in columns)
    return Latest("", table, _entity(table, by), max_age, taken, place.here())


def window(
    table: type[Contract],
    value: pl.Expr,
    *,
    by: dy.Column | tuple[dy.Column, dy.Column],
    over: timedelta | Sequence[timedelta],
    where: pl.Expr | None = None,
) -> Window:
    """An aggregate over the rows of `table` that became known in [asked - over, asked), never the question's own row.

    Args:
        table: where to look.
        value: `.mean()`, `.sum()` or `.count()` of a row-wise expression, or `pl.len()`. Nulls are not counted.
        by: the entity column, or (question's, table's) when the names differ.
        over: one span or several.
        where: only rows for which this is true.

    Raises:
        DeclarationError: `window-of-unknown-aggregate`.
    """
    inner, how = _aggregate(value)
    if where is not None:
        inner = pl.when(where).then(inner)
    spans = (over,) if isinstance(over, timedelta) else tuple(over)
    return Window("", table, Expression(inner), how, _entity(table, by), spans, place.here())


def _aggregate(value: pl.Expr) -> tuple[pl.Expr, How]:
    """Split `col.mean()` into the row-wise part and the aggregate."""
    # Polars has no public way to ask for the kind of the root node; its JSON form is documented as readable.
    node = json.loads(value.meta.serialize(format="json"))
    if node == "Len":
        return pl.lit(value=True), "count"
    kind = next(iter(node["Agg"])) if isinstance(node, dict) and "Agg" in node else None
    how: How | None = {"Mean": "mean", "Sum": "sum", "Count": "count"}.get(str(kind))  # type: ignore[assignment]
    if how is None:
        raise DeclarationError(
            "window-of-unknown-aggregate",
            f"A window cannot keep {value} up to date.",
            where=place.here(),
            why="It keeps running totals, so its aggregate is mean(), sum(), count() or pl.len().",
            next="Write the aggregate last: (expression).mean().",
        )
    (inner,) = value.meta.pop()
    return inner, how


def _entity(table: type[Contract], by: dy.Column | tuple[dy.Column, dy.Column]) -> Entity:
    pair = by if isinstance(by, tuple) else (by, by)
    entity = Entity(contract.ref(pair[0]).name, pair[1].name)
    if entity.table not in contract.spec(table).names:
        raise DeclarationError(
            "no-such-column",
            f"{table.__name__} has no column {entity.table!r}.",
            where=place.here(),
            why="`by` names a column of the question and a column of the table that must be equal.",
            next=f"Write by=(Question.{entity.question}, {table.__name__}.<column>).",
        )
    return entity


def _output(name: str, dtype: pl.DataType, where: Place) -> Output:
    if dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return Output(name, "category")
    if dtype.is_numeric() or dtype == pl.Boolean:
        return Output(name, "number")
    raise DeclarationError(
        "feature-of-unusable-type",
        f"The feature {name!r} is {dtype}.",
        where=where,
        why="A model reads numbers and categories; a time as a number would only count the days since 1970.",
        next="Compute what matters of it: .dt.hour(), .dt.weekday(), a difference in minutes.",
    )
