"""A contract: one class that is the table, the quarantine rule, the request schema and the reference of the monitors.

It is a dataframely schema whose columns carry **roles**: which time a row is about, when it was known, what its outcome is
and when that settles, whose data it is. Roles live in the column's metadata, so every dataframely feature still works.

Time, in one paragraph. A row is *about* its `event_time`. It was *known* at that time, or earlier by `known=before(...)`.
Its outcomes were known at `outcome_time`; where that stays null for `void_after`, the row is void: counted, never learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import dataframely as dy
import polars as pl
from dataframely._base_schema import SchemaMeta

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place

_ROLES = "flyball.roles"

Migration = Callable[[pl.LazyFrame], pl.LazyFrame]
"""From rows of an earlier version of a contract to rows of this one."""

C = TypeVar("C", bound=dy.Column)

Stored = Literal["plain", "hash", "token"]


class _ContractMeta(SchemaMeta):
    """Remembers where a contract stands, and tells a column which contract it was taken from."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **declared: Any) -> SchemaMeta:
        namespace["__flyball_place__"] = place.here()
        return super().__new__(mcs, name, bases, namespace, **declared)

    if not TYPE_CHECKING:
        # Hidden from the type checker, which would believe that every name is a column.
        def __getattribute__(cls, name: str) -> Any:
            value = super().__getattribute__(name)
            if isinstance(value, dy.Column):
                # A column object is shared between a contract and its subclasses; a copy belongs to one of them.
                value = copy.copy(value)
                value._flyball_contract = cls
            return value


class Contract(dy.Schema, metaclass=_ContractMeta):
    """Subclass this with dataframely columns; wrap columns that have a role in `event_time`, `outcome`, `personal`, ...

    A contract that changed so that stored rows no longer fit has a higher `version`, and says with `migrate` how rows of an
    earlier one become rows of this one: `class Flight(fb.Contract, version=2, migrate=miles_to_kilometres)`.
    """

    __flyball_place__: ClassVar[Place]
    __flyball_version__: ClassVar[int] = 1
    __flyball_migrate__: ClassVar[Mapping[int, Migration]] = {}

    def __init_subclass__(
        cls, *, version: int = 1, migrate: Migration | Mapping[int, Migration] | None = None, **rest: Any
    ) -> None:
        """Note the version, and how rows become rows of it: from the version before, or of each earlier one by its number.

        Raises:
            DeclarationError: `migration-out-of-range`.
        """
        super().__init_subclass__(**rest)
        steps = migrate if isinstance(migrate, Mapping) else {version - 1: migrate} if migrate is not None else {}
        if version < 1 or not all(1 <= step < version for step in steps):
            raise DeclarationError(
                "migration-out-of-range",
                f"{cls.__name__} has version {version}, and migrates from {', '.join(map(str, steps)) or 'none'}.",
                where=cls.__flyball_place__,
                why="Versions count from 1, and rows come from an earlier one.",
                next="Write class Name(fb.Contract, version=2, migrate=function).",
            )
        cls.__flyball_version__, cls.__flyball_migrate__ = version, dict(steps)


@dataclass(frozen=True, slots=True)
class EventTime:
    """The time that the row is about; the row is known `known` before it."""

    known: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class OutcomeTime:
    """When all outcomes of the row were known; null for `void_after` past the event time means void."""

    void_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Known only at the outcome time; never part of a request."""


@dataclass(frozen=True, slots=True)
class Personal:
    """Identifies a person: recorded as a keyed hash."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Whom or what a question is about, where that is not its key: one entity is answered by one version."""


@dataclass(frozen=True, slots=True)
class Protected:
    """A group whose treatment is watched; a slice of every evaluation."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """Personal, and stored as a keyed hash."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Personal, and stored as a token."""


Role = EventTime | OutcomeTime | Outcome | Personal | Protected | Entity | Hashed | Tokenised


@dataclass(frozen=True, slots=True)
class Lead:
    """A span before the event time of the same row."""

    span: timedelta


@dataclass(frozen=True, slots=True)
class Ref:
    """One column of one contract, as a value."""

    contract: type[Contract]
    name: str

    def __str__(self) -> str:
        return f"{self.contract.__name__}.{self.name}"


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment a question is asked: `lead` before a time column, give or take `tolerance`."""

    column: Ref
    lead: timedelta
    tolerance: timedelta


@overload
def before(first: timedelta) -> Lead: ...
@overload
def before(first: dy.Column, lead: timedelta, *, tolerance: timedelta = ...) -> Moment: ...
def before(
    first: timedelta | dy.Column, lead: timedelta | None = None, *, tolerance: timedelta = timedelta(0)
) -> Lead | Moment:
    """`before(days(30))`: a span before the row's own event time. `before(Flight.scheduled, hours(2))`: a moment."""
    span = first if isinstance(first, timedelta) else lead or timedelta(0)
    if min(span, tolerance) < timedelta(0):
        raise DeclarationError(
            "span-not-positive",
            f"before({span}) with a tolerance of {tolerance} lies after.",
            where=place.here(),
            why="A lead and a tolerance are spans of time, which are not negative.",
            next="Turn the sign round, or name the column that the moment really follows.",
        )
    return Lead(span) if isinstance(first, timedelta) else Moment(ref(first), span, tolerance)


def event_time(column: C, *, known: Lead | None = None) -> C:
    """The time that the row is about. It is known then, or earlier by `known=before(...)`."""
    return _with_role(column, EventTime(known.span if known is not None else timedelta(0)))


def outcome_time(column: C, *, void_after: timedelta | None = None) -> C:
    """When the outcomes of the row were known. Still null `void_after` past the event time: the row is void."""
    return _with_role(column, OutcomeTime(void_after))


def entity(column: C) -> C:
    """Whom or what the row is about: who is handed a candidate of a release is drawn by it, instead of by the row's key."""
    return _with_role(column, Entity())


def outcome(column: C) -> C:
    """A value that is known only at the outcome time."""
    return _with_role(column, Outcome())


def personal(column: C, *, stored: Stored = "plain") -> C:
    """A value that identifies a person: recorded as a keyed hash, and lying in tables as `stored` says; see `data.seal`.

    Raises:
        DeclarationError: `personal-not-text`, when it is not of texts and not stored plain.
    """
    role = Hashed() if stored == "hash" else Tokenised() if stored == "token" else None
    if stored != "plain" and (role is None or not isinstance(column, dy.String)):
        raise DeclarationError(
            "personal-not-text",
            f"A column that is {type(column).__name__} cannot be stored as {stored!r}.",
            where=place.here(),
            why="It is stored plain, or as a hash or a token, which are texts: declare it as dy.String(...).",
        )
    return _with_role(column, Personal(), *([role] if role else []))


def protected(column: C) -> C:
    """A group whose treatment is watched."""
    return _with_role(column, Protected())


def ref(column: dy.Column) -> Ref:
    """The contract and name of a column that was taken from a contract, such as `Flight.origin`."""
    owner = getattr(column, "_flyball_contract", None)
    if owner is None:
        raise DeclarationError(
            "column-without-contract",
            f"This {type(column).__name__} is no column of a flyball contract.",
            where=place.here(),
            why="A column is named as Contract.column, such as Flight.origin, so that its table is known.",
            next="Name it as it stands in its contract: no text, and without .col; an expression takes a name: hour=...",
        )
    return Ref(owner, column.name)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract, read once."""

    name: str
    dtype: pl.DataType
    nullable: bool
    key: bool
    roles: tuple[Role, ...]
    description: str | None


@dataclass(frozen=True, slots=True)
class Spec:
    """A contract as plain data, checked: what every stage reads.

    Attributes:
        name: the table's name; that of the contract, and from its second version on, with the number of the version.
        title: the contract's name, whatever its version.
        version: counts from 1.
        known_before: the row is known this long before its event time.
        outcomes: names of outcome columns; empty when the contract has none, and then `outcome_time` is None.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str
    known_before: timedelta
    outcome_time: str | None
    void_after: timedelta | None
    outcomes: tuple[str, ...]
    place: Place = field(compare=False)
    title: str = ""
    version: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """All contract columns, in order."""
        return tuple(c.name for c in self.columns)

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Column -> Polars type."""
        return {c.name: c.dtype for c in self.columns}

    @property
    def late(self) -> frozenset[str]:
        """What is not known when a question is asked: the outcomes and their time."""
        return frozenset(self.outcomes) | ({self.outcome_time} if self.outcome_time else set())

    @property
    def request(self) -> tuple[Column, ...]:
        """The columns that a question may carry: all but the outcomes."""
        return tuple(c for c in self.columns if c.name not in self.late)

    @property
    def entity(self) -> tuple[str, ...]:
        """The columns by which a question's entity is told: those that are declared so, else its key."""
        return self.with_role(Entity) or self.key

    def with_role(self, role: type[Role]) -> tuple[str, ...]:
        """Names of the columns that have a role."""
        return tuple(c.name for c in self.columns if any(isinstance(r, role) for r in c.roles))

    @property
    def sealed(self) -> dict[str, Stored]:
        """Personal column -> how it is stored, of those that are not stored plain."""
        hashed: dict[str, Stored] = dict.fromkeys(self.with_role(Hashed), "hash")
        return hashed | dict.fromkeys(self.with_role(Tokenised), "token")

    def column(self, name: str) -> Column:
        """One column by name."""
        return next(c for c in self.columns if c.name == name)


def table(title: str, version: int) -> str:
    """The name of the table of a version of a contract."""
    return title if version == 1 else f"{title}__{version}"


@lru_cache(maxsize=256)
def spec(contract: type[Contract]) -> Spec:
    """Read a contract and check that its roles fit together.

    Raises:
        DeclarationError: `contract-contradicts-itself`, with the line of the class.
    """
    where: Place = contract.__flyball_place__
    columns = tuple(
        Column(name, c.dtype, c.nullable, c.primary_key, _roles(c), c.description)
        for name, c in contract.columns().items()
    )
    problem = next(_problems(columns), None)
    if problem is not None:
        raise DeclarationError(
            "contract-contradicts-itself",
            f"The contract {contract.__name__} contradicts itself: {problem[0]}",
            where=where,
            why=problem[1],
            next="Mend the contract, then run `flyball plan` again.",
        )
    roles = {name: {type(r): r for r in c.roles} for c in columns for name in [c.name]}
    (event,) = (n for n, r in roles.items() if EventTime in r)
    settled = next((n for n, r in roles.items() if OutcomeTime in r), None)
    about, ends = roles[event][EventTime], roles[settled][OutcomeTime] if settled else None
    return Spec(
        name=table(contract.__name__, contract.__flyball_version__),
        title=contract.__name__,
        version=contract.__flyball_version__,
        columns=columns,
        key=tuple(c.name for c in columns if c.key),
        event_time=event,
        known_before=about.known if isinstance(about, EventTime) else timedelta(0),
        outcome_time=settled,
        void_after=ends.void_after if isinstance(ends, OutcomeTime) else None,
        outcomes=tuple(n for n, r in roles.items() if Outcome in r),
        place=where,
    )


def _problems(columns: tuple[Column, ...]) -> Iterator[tuple[str, str]]:
    """(what, why) of each contradiction."""
    by_role = {role: [c for c in columns if any(isinstance(r, role) for r in c.roles)] for role in _TIMES}
    for column in columns:
        if column.name.startswith("_"):
            yield f"column {column.name!r} starts with an underscore.", "Such names are kept for _batch and _known."
    for role in (EventTime, OutcomeTime):
        for column in by_role[role]:
            if column.dtype != pl.Datetime("us", "UTC"):
                yield (
                    f"{column.name!r} is {column.dtype}, not a UTC time.",
                    'All times are instants: declare dy.Datetime(time_zone="UTC"), and convert in the preparation.',
                )
    if len(by_role[EventTime]) != 1:
        yield f"it has {len(by_role[EventTime])} event times.", "A row is about exactly one time: mark it event_time."
    elif by_role[EventTime][0].nullable:
        yield f"its event time {by_role[EventTime][0].name!r} is nullable.", "A row without a time can never be placed."
    if not any(c.key for c in columns):
        yield "it has no key.", "Repeated and corrected rows are told by their key: mark it primary_key=True."
    if len(by_role[OutcomeTime]) > 1:
        yield (
            "it has two outcome times.",
            "A contract has at most two known times: the row's, and that of all outcomes.",
        )
    if bool(by_role[Outcome]) != bool(by_role[OutcomeTime]):
        yield "outcomes and outcome_time come together.", "An outcome without a time would leak; one alone is idle."
    for column in (*by_role[Outcome], *by_role[OutcomeTime]):
        if column.key or not column.nullable:
            yield f"{column.name!r} is not nullable.", "An outcome is unknown until it settles, or for good."
        if any(isinstance(role, Entity) for role in column.roles):
            yield f"{column.name!r} is an outcome and an entity.", "Whom a question is about is known when it is asked."


_TIMES = (EventTime, OutcomeTime, Outcome)


def _with_role(column: C, *roles: Role) -> C:
    column.metadata = {**(column.metadata or {}), _ROLES: (*_roles(column), *roles)}
    return column


def _roles(column: dy.Column) -> tuple[Role, ...]:
    return tuple((column.metadata or {}).get(_ROLES, ()))
