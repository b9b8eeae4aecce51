"""What a feature is, as a value. Five kinds, told by where the value comes from:

    Given      a column of the request
    Computed   a Polars expression over columns of the request; a Text is one that is read word by word
    Called     a Python function over columns of the request
    Latest     columns of the latest row of a table, as known when asked
    Window     an aggregate over the rows of a table that became known during a span before the question

A declaration knows its outputs: the names and kinds of the columns that it yields. Nothing here reads data. Owner and reason
are for people: they are no part of what a feature is, so that mending a sentence trains nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, NoReturn

import polars as pl

from flyball._kernel import durations
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Ref
from flyball.learn.encoding.texts import Recipe
from flyball.learn.features.aggregate import Aggregate

Kind = Literal["category", "number", "text"]


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
    """One column that a feature yields; a text says how it is cut and weighed."""

    name: str
    kind: Kind
    text: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """Which rows of a table belong to a question: each of the question's columns equals the table's."""

    question: tuple[str, ...]
    table: tuple[str, ...]

    def __str__(self) -> str:
        pairs = zip(self.question, self.table, strict=True)
        return ", ".join(ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in pairs)


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
    owner: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

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
    owner: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column, of the type that the expression yields."""
        return (_output(self.name, self.dtype(question), self.place),)

    def dtype(self, question: type[Contract]) -> pl.DataType:
        """What the expression yields.

        Raises:
            DeclarationError: `expression-does-not-fit`.
        """
        empty = pl.DataFrame(schema=contract.spec(question).dtypes)
        try:
            return empty.select(self.expression.polars.alias(self.name)).schema[self.name]
        except pl.exceptions.PolarsError as problem:
            raise DeclarationError(
                "expression-does-not-fit",
                f"The feature {self.name!r} cannot be computed from {question.__name__}.",
                where=self.place,
                why=str(problem),
                next="Mend the expression; it may read the request's columns only.",
            ) from problem


@dataclass(frozen=True, slots=True)
class Text(Computed):
    """A text of the request, or computed from it, that a model reads by its terms instead of as one category."""

    recipe: Recipe = Recipe()  # noqa: RUF009 - frozen

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column, which becomes one of the matrix for each term."""
        dtype = self.dtype(question)
        if not (dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)):
            raise DeclarationError(
                "feature-of-unusable-type",
                f"The feature {self.name!r} is {dtype}, and declared as a text.",
                where=self.place,
                why="A text is cut into words, or into characters.",
                next="Give fb.text a column, or an expression, of text.",
            )
        return (Output(self.name, "text", self.recipe),)


@dataclass(frozen=True, slots=True)
class Called:
    """What a Python function makes of columns of the request: a frame of them in, a series of as many values out."""

    name: str
    call: Callable[[pl.DataFrame], pl.Series]
    columns: tuple[Ref, ...]
    dtype: pl.DataType
    place: Place = field(compare=False)
    owner: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

    def __fingerprint__(self) -> object:
        reads = [depends(c.contract, frozenset({c.name})) for c in self.columns]
        return ("called", self.name, self.call, [c.name for c in self.columns], reads, str(self.dtype))

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(c.name for c in self.columns)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column, of the type that the function promises."""
        return (_output(self.name, self.dtype, self.place),)


@dataclass(frozen=True, slots=True)
class Latest:
    """Columns of the row with the greatest event time among those known when asked, at most `max_age` old."""

    name: str
    table: type[Contract]
    by: Entity
    max_age: timedelta | None
    columns: tuple[str, ...]
    place: Place = field(compare=False)
    owner: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

    def __fingerprint__(self) -> object:
        reads = depends(self.table, frozenset({*self.columns, *self.by.table}))
        return ("latest", self.name, reads, self.columns, self.by, self.max_age)

    def outputs(self, question: type[Contract]) -> tuple[Output, ...]:
        """One column per column of the table, named feature_column."""
        dtypes = contract.spec(self.table).dtypes
        return tuple(_output(f"{self.name}_{c}", dtypes[c], self.place) for c in self.columns)


@dataclass(frozen=True, slots=True)
class Window:
    """An aggregate of `value` over the rows that became known in [asked - gap - over, asked - gap).

    A row that reads an outcome became known when its outcome settled; any other when the row itself was known.
    """

    name: str
    table: type[Contract]
    value: Expression
    aggregate: Aggregate
    by: Entity
    over: tuple[timedelta, ...]
    gap: timedelta
    place: Place = field(compare=False)
    owner: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

    def __fingerprint__(self) -> object:
        reads = depends(self.table, self.value.columns | {*self.by.table})
        return ("window", self.name, reads, self.value, self.aggregate, self.by, self.over, self.gap)

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


Feature = Given | Computed | Called | Latest | Window
Looked = Latest | Window
"""What looks into a table; `isinstance` takes it as it is."""


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
                case Called():
                    names |= {*f.reads}
                case Latest() | Window():
                    names |= {*f.by.question}
        return frozenset(names)

    def tables(self) -> tuple[type[Contract], ...]:
        """The tables that are looked up, each once."""
        return tuple(dict.fromkeys(f.table for f in self.features if isinstance(f, Latest | Window)))


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
