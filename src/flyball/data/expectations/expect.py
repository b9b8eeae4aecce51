"""Expectations: what must hold of a table's rows together before they are believed.

    fb.column(Flight.tailnum).completeness >= 0.98        fb.table(Flight).rows_per_day >= 500

`column` and `table` are namespaces of Metrics. Compared with a number each is a Condition like any other: it can be printed,
compared and fingerprinted, and is judged by the one rule, with an interval. A contract says what a row may be; this says
what many rows must be. What could never be measured (the mean of a text, say) is refused where it is declared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import dataframely as dy
import polars as pl

from flyball._kernel import place
from flyball._kernel.conditions import Condition, Metric
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract, Personal, Ref

Value = bool | int | str

_SHARES = frozenset({"completeness", "share", "outliers", "leakage", "matches", "duplicates"})
_EITHER = frozenset({"mean", "quantile", "minimum", "maximum", "distinct", "share", "rows", "rows_per_day", "volume"})
"""What may be asked to be no less, or no more."""


@dataclass(frozen=True, slots=True)
class Expected(Metric):
    """A Metric of one table.

    Attributes:
        table: whose rows are measured.
        column: of the table; "" for what concerns whole rows.
        level: of a quantile, between 0 and 1.
        value: whose share is measured.
        other: the column that is to know the values.
    """

    # A dataclass cannot follow defaults with fields that have none, unless they are named.
    table: type[Contract] = Contract
    column: str = ""
    level: float = 0.5
    value: Value | None = None
    other: Ref | None = None

    def __str__(self) -> str:
        inside = {
            "quantile": f"({self.level:g})",
            "share": f"({self.value!r})",
            "matches": f"({self.other})",
        }.get(self.name, "")
        return ".".join(part for part in (self.table.__name__, self.column, self.name + inside) if part)

    def gap(self, *, by: object) -> Metric:
        """Refused: groups are compared by gates."""
        raise _unmeasurable(self, "A gap between groups is measured on a version, not on a table.")

    def live(self, *, over: object) -> Metric:
        """Refused: a table has no traffic."""
        raise _unmeasurable(self, "Live is what was answered, and a table answers nothing.")

    def on(self, whom: object) -> NoReturn:
        """Refused: a table has no champion."""
        raise _unmeasurable(
            self, "Versions of a model share their tables; `drift` compares rows with those believed before."
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """What can be expected of one column."""

    of: Ref

    @property
    def completeness(self) -> Metric:
        """The share of the rows that have a value; a number that is not finite is none."""
        return self._metric("completeness", "higher")

    @property
    def mean(self) -> Metric:
        """Of a number."""
        return self._number("mean")

    @property
    def minimum(self) -> Metric:
        """The least value of a number."""
        return self._number("minimum")

    @property
    def maximum(self) -> Metric:
        """The greatest value of a number."""
        return self._number("maximum")

    @property
    def distinct(self) -> Metric:
        """How many different values there are."""
        return self._metric("distinct", "lower")

    @property
    def outliers(self) -> Metric:
        """The share of a number's values whose robust z-score is beyond 3.5 (Iglewicz and Hoaglin 1993).

        0.6745 |x - median| / MAD; where more than half of the values are equal, by the mean absolute deviation instead.
        """
        return self._number("outliers", "lower")

    @property
    def drift(self) -> Metric:
        """The population stability index of the rows that came since the last believed version, against that version."""
        if not _counted(self._dtype):
            raise _unmeasurable(self.of, f"A spread is one of numbers or of categories; {self.of} is {self._dtype}.")
        return self._metric("drift", "lower")

    @property
    def leakage(self) -> Metric:
        """How well the column alone ranks the outcome: an area under the ROC curve, 0.5 (not at all) to 1 (it says it).

        Of a number as outcome: whether it is above its median. The greatest where there are several outcomes.
        """
        spec = contract.spec(self.of.contract)
        if not spec.outcomes:
            raise _unmeasurable(self.of, f"{spec.name} has no outcome that the column could give away.")
        if self.of.name in spec.late:
            raise _unmeasurable(self.of, f"{self.of} is itself not known when a question is asked.")
        if not _counted(self._dtype):
            raise _unmeasurable(self.of, f"Only numbers and categories are looked at; {self.of} is {self._dtype}.")
        return self._metric("leakage", "lower")

    def quantile(self, level: float) -> Metric:
        """The value below which the share `level` of a number's values lies."""
        if isinstance(level, bool) or not 0 < level < 1:
            raise _unmeasurable(self.of, f"A quantile lies between 0 and 1; {level!r} does not.")
        return self._number("quantile", level=float(level))

    def share(self, value: Value) -> Metric:
        """The share of the values that are this one: balance of classes and groups."""
        self._not_personal("The value would be written down.")
        if not _fits(value, self._dtype):
            raise _unmeasurable(self.of, f"{value!r} is no value of {self.of}, which is {self._dtype}.")
        return self._metric("share", "higher", value=value)

    def matches(self, other: dy.Column) -> Metric:
        """The share of the values that the other table knows; a relation with tolerance."""
        known = contract.ref(other)
        if not _comparable(self._dtype, _dtype(known)):
            raise _unmeasurable(self.of, f"{self.of} is {self._dtype}, and {known} is {_dtype(known)}.")
        return self._metric("matches", "higher", other=known)

    @property
    def _dtype(self) -> pl.DataType:
        return _dtype(self.of)

    def _number(self, name: str, better: Literal["higher", "lower"] = "higher", *, level: float = 0.5) -> Metric:
        if not self._dtype.is_numeric():
            told = "; a share(True) says how often it is true" if self._dtype == pl.Boolean else ""
            raise _unmeasurable(self.of, f"The {name} is one of numbers; {self.of} is {self._dtype}{told}.")
        if name != "outliers":
            self._not_personal("What is found would be written down, and may be one person's value.")
        return self._metric(name, better, level=level)

    def _not_personal(self, why: str) -> None:
        if self.of.name in contract.spec(self.of.contract).with_role(Personal):
            raise _unmeasurable(self.of, f"{self.of} is personal. {why}")

    def _metric(
        self,
        name: str,
        better: Literal["higher", "lower"],
        *,
        level: float = 0.5,
        value: Value | None = None,
        other: Ref | None = None,
    ) -> Metric:
        return Expected(
            name, better, table=self.of.contract, column=self.of.name, level=level, value=value, other=other
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """What can be expected of the rows of a table."""

    of: type[Contract]

    @property
    def rows(self) -> Metric:
        """How many there are, one a key."""
        return Expected("rows", "higher", table=self.of)

    @property
    def rows_per_day(self) -> Metric:
        """Rows by event time on the worst whole day (UTC) between the first and the last; a day without any counts."""
        return Expected("rows_per_day", "higher", table=self.of)

    @property
    def volume(self) -> Metric:
        """Rows on the worst whole day, as a multiple of the median day."""
        return Expected("volume", "higher", table=self.of)

    @property
    def freshness(self) -> Metric:
        """How long ago the newest row was known when the version was judged."""
        return Expected("freshness", "lower", unit="s", table=self.of)

    @property
    def duplicates(self) -> Metric:
        """The share of the rows that equal another one in all but the key."""
        spec = contract.spec(self.of)
        if len(spec.key) == len(spec.columns):
            raise _unmeasurable(spec.name, "All of its columns are the key.")
        return Expected("duplicates", "lower", table=self.of)


def column(of: dy.Column) -> Columns:
    """What is expected of a column: `fb.column(Flight.tailnum).completeness >= 0.98`.

    Raises:
        DeclarationError: `column-without-contract`; from its metrics `expectation-not-measurable`.
    """
    return Columns(contract.ref(of))


def table(of: type[Contract]) -> Rows:
    """What is expected of a table: `fb.table(Flight).rows_per_day >= 500`.

    Raises:
        DeclarationError: `expectation-not-measurable`, when it is no contract.
    """
    declared: object = of
    if not (isinstance(declared, type) and issubclass(declared, Contract)):
        raise _unmeasurable(repr(of), "A table is named by its contract.")
    return Rows(of)


def check(expects: Sequence[Condition], fed: Collection[type[Contract]], where: Place) -> None:
    """Refuse what could never be judged, or never fail.

    Args:
        fed: the tables that sources fill.
        where: of the app, for what has no line of its own.

    Raises:
        DeclarationError: `expectation-not-measurable`, `expectation-out-of-range`, `condition-upside-down`,
            `table-without-source`.
    """
    for each in expects:
        if not isinstance(each, Condition):
            raise _unmeasurable(each, "An expectation is a metric and a threshold, such as ... >= 0.98.", where)
        metric = each.metric
        if not isinstance(metric, Expected) or each.whom is not None:
            raise _unmeasurable(each, "It is none of fb.column(...) or fb.table(...).", each.place)
        for read in tables_of(each):
            if read not in fed:
                raise DeclarationError(
                    "table-without-source",
                    f"No source yields {read.__name__}, of which {each} expects something.",
                    where=each.place,
                    why="A table that nothing fills has no rows that could keep an expectation.",
                    next=f"Add a source that yields {read.__name__} to the app, or drop the expectation.",
                )
        if metric.name not in _EITHER and (each.op == ">=") != (metric.better == "higher"):
            raise DeclarationError(
                "condition-upside-down",
                f"The expectation {each} asks for the worse direction.",
                where=each.place,
                why=f"{metric.name} is better when it is {metric.better}.",
                next=f"Turn it round: {metric} {'>=' if each.op == '<=' else '<='} {each.threshold:g}{metric.unit}.",
            )
        if metric.name in _SHARES and not 0 <= each.threshold <= 1:
            raise DeclarationError(
                "expectation-out-of-range",
                f"{each} can never be judged otherwise.",
                where=each.place,
                why=f"{metric.name} lies between 0 and 1: 98 % is 0.98.",
                next="Give a threshold between 0 and 1.",
            )


def of_table(expects: Sequence[Condition], of: type[Contract]) -> tuple[Condition, ...]:
    """The expectations of one table."""
    return tuple(each for each in expects if metric_of(each).table is of)


def tables_of(expected: Condition) -> tuple[type[Contract], ...]:
    """The tables that an expectation reads: its own first."""
    metric = metric_of(expected)
    return (metric.table, metric.other.contract) if metric.other is not None else (metric.table,)


def metric_of(expected: Condition) -> Expected:
    """The metric of an expectation that was checked."""
    assert isinstance(expected.metric, Expected)  # noqa: S101 - `check` refuses any other
    return expected.metric


def _dtype(of: Ref) -> pl.DataType:
    return contract.spec(of.contract).column(of.name).dtype


def _counted(dtype: pl.DataType) -> bool:
    """Whether `profile` can cut it."""
    return dtype.is_numeric() or dtype == pl.Boolean or dtype in (pl.String, pl.Enum, pl.Categorical)


def _comparable(one: pl.DataType, other: pl.DataType) -> bool:
    texts = (pl.String, pl.Enum, pl.Categorical)
    return one == other or (one in texts and other in texts) or (one.is_integer() and other.is_integer())


def _fits(value: object, dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Enum):
        return value in dtype.categories.to_list()
    if dtype == pl.Boolean:
        return isinstance(value, bool)
    if dtype in (pl.String, pl.Categorical):
        return isinstance(value, str)
    return dtype.is_integer() and isinstance(value, int) and not isinstance(value, bool)


def _unmeasurable(what: object, why: str, where: Place | None = None) -> DeclarationError:
    return DeclarationError(
        "expectation-not-measurable",
        f"What is expected of {what} cannot be measured.",
        where=where or place.here(),
        why=why,
        next="flyball data expect APP --propose writes expectations that can be.",
    )
