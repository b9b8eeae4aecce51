"""Evolving: a contract as plain data that can be kept, and what became of it since.

A **shape** is what a contract says of its rows, without code: types, nulls, roles, and every rule by name with the digest of
its expression. Two shapes differ by **changes**. A change is *compatible* (what is stored, asked and read goes on as it was),
*breaking* (it does not, and only a migration helps), or *narrowing*: what may still be said is less, so the stored rows
decide. `judged` settles those: a narrowing that every stored row keeps is compatible.

Expressions are compared by digest and never read back: a stored expression could run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec
import polars as pl

from flyball._kernel import fingerprint
from flyball._kernel.errors import Bug, bounded
from flyball.data import coerce, contract, rules
from flyball.data.contract import Contract

Kind = Literal["compatible", "narrowing", "breaking"]
ROWS, REQUESTS, READERS = "stored rows", "requests", "features and models"


class ColumnShape(msgspec.Struct, frozen=True, kw_only=True):
    """A column: its type as `written` says it, and the roles that it has, by name."""

    name: str
    type: Any
    nullable: bool
    roles: tuple[str, ...]


class RuleShape(msgspec.Struct, frozen=True, kw_only=True):
    """A rule: its expression for a person and as a digest, and its bound where it is one of least or greatest."""

    said: str
    digest: str
    bound: str = ""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a contract says of its rows.

    Attributes:
        name: the contract's name.
        version: of the contract.
        key: the key columns, in order.
        event_time: the column; `known` seconds before it, the row was known.
        outcome_time: the column, or ""; the row is void `void_after` seconds past the event time, None for never.
        rules: name -> rule, without those on nulls and keys, which the columns say.
    """

    name: str
    version: int
    columns: tuple[ColumnShape, ...]
    key: tuple[str, ...]
    event_time: str
    known: float
    outcome_time: str
    void_after: float | None
    rules: dict[str, RuleShape]

    def column(self, name: str) -> ColumnShape | None:
        """One column by name."""
        return next((c for c in self.columns if c.name == name), None)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    Attributes:
        column: what changed: a column, or the name of a rule over several.
        what: the change, in words.
        kind: whether things go on as they were.
        whom: for whom they do not.
        why: the reason.
        rule: for a narrowing, the rule that stored rows must keep, as quarantine names it.
        rows: of a narrowing that was judged, how many stored rows break it.
    """

    column: str
    what: str
    kind: Kind
    whom: tuple[str, ...] = ()
    why: str
    rule: str = ""
    rows: int | None = None


def shape(observed: type[Contract]) -> Shape:
    """What a contract says of its rows."""
    spec = contract.spec(observed)
    bounds = {
        f"{name}|{limit}": _bound(getattr(column, limit))
        for name, column in observed.columns().items()
        for limit in (*_LOWER, *_UPPER)
        if getattr(column, limit, None) is not None
    }
    return Shape(
        name=spec.title,
        version=spec.version,
        columns=tuple(
            ColumnShape(
                name=c.name,
                type=written(c.dtype),
                nullable=c.nullable,
                roles=tuple(sorted(_role(type(r).__name__) for r in c.roles)),
            )
            for c in spec.columns
        ),
        key=spec.key,
        event_time=spec.event_time,
        known=spec.known_before.total_seconds(),
        outcome_time=spec.outcome_time or "",
        void_after=spec.void_after.total_seconds() if spec.void_after is not None else None,
        rules={
            name: RuleShape(said=bounded(str(expr), 200), digest=fingerprint.of(expr), bound=bounds.get(name, ""))
            for name, expr in _expressions(observed).items()
            if not name.endswith("|nullability")
        },
    )


def _bound(limit: object) -> str:
    """A bound as it compares, see `_wider`: spans of time in seconds."""
    return str(limit.total_seconds() if isinstance(limit, timedelta) else limit)


def _expressions(observed: type[Contract]) -> dict[str, pl.Expr]:
    declared = rules.of(observed)
    return {**declared.single, **declared.grouped}


_LOWER, _UPPER = ("min", "min_exclusive", "min_length"), ("max", "max_exclusive", "max_length")


def _role(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def diff(old: Shape, new: Shape) -> tuple[Change, ...]:
    """What changed from one shape to another; narrowings are for the stored rows to decide, see `judged`."""
    return (*_columns(old, new), *_times(old, new), *_rules(old, new))


def judged(changes: tuple[Change, ...], broken: Mapping[str, int]) -> tuple[Change, ...]:
    """The changes with their narrowings settled.

    Args:
        changes: from `diff`.
        broken: rule -> how many stored rows break it; a rule that is not named here stays undecided.
    """
    return tuple(_settled(c, broken[c.rule]) if c.kind == "narrowing" and c.rule in broken else c for c in changes)


def _settled(change: Change, rows: int) -> Change:
    if not rows:
        return msgspec.structs.replace(change, kind="compatible", why="every stored row keeps it", rows=0)
    why = f"{rows:,} stored row{'s' if rows > 1 else ''} {'break' if rows > 1 else 'breaks'} it"
    return msgspec.structs.replace(change, kind="breaking", why=why, rows=rows)


def breaks(rows: pl.LazyFrame, old: Shape, observed: type[Contract], changes: tuple[Change, ...]) -> dict[str, int]:
    """Rule -> how many stored rows break it, for the narrowings; one streaming query.

    Args:
        rows: stored rows, with the columns and types of `stored_as(old)`.
        old: the shape that they were stored by.
        observed: the contract that they should keep.
    """
    spec, schema = contract.spec(observed), stored_as(old)
    asked = {c.rule for c in changes if c.kind == "narrowing"}
    # Only columns whose type is still a type that these cells may have; any other is a breaking change of its own.
    able = {
        c.name: c.dtype
        for c in spec.columns
        if c.name not in schema or _texts(written(c.dtype), written(schema[c.name])) or c.dtype == schema[c.name]
    }
    cells = {n: coerce.cell(n, schema[n], t) if n in schema else pl.lit(None, dtype=t) for n, t in able.items()}
    unfit = {
        n: pl.col(n).is_not_null() & cell.is_null() for n, cell in cells.items() if n in schema and schema[n] != able[n]
    }
    typed = rows.with_columns(**{f"{n}|dtype": expr for n, expr in unfit.items()}).with_columns(**cells)
    counts = {f"{n}|dtype": pl.col(f"{n}|dtype").sum() for n in unfit}
    for name, expr in _expressions(observed).items():
        if set(expr.meta.root_names()) <= able.keys():
            counts[name] = (~expr.fill_null(value=True)).sum()
    wanted = {name: expr.alias(name) for name, expr in counts.items() if name in asked}
    if not wanted:
        return {}
    return dict(typed.select(wanted.values()).collect(engine="streaming").row(0, named=True))


def stored_as(old: Shape) -> dict[str, pl.DataType]:
    """The columns and types to scan rows with that were stored by a shape; what may be said is not checked again."""
    types = {c.name: read_type(c.type) for c in old.columns}
    return {name: pl.String() if isinstance(t, pl.Enum | pl.Categorical) else t for name, t in types.items()}


def _columns(old: Shape, new: Shape) -> Iterator[Change]:
    for column in old.columns:
        if new.column(column.name) is None:
            yield Change(
                column=column.name,
                what="removed",
                kind="breaking",
                whom=(ROWS, REQUESTS, READERS),
                why="stored rows have it, requests may carry it, and what reads it would find nothing",
            )
    for column in new.columns:
        before = old.column(column.name)
        if before is not None:
            yield from _column(before, column)
        elif column.nullable:
            yield Change(
                column=column.name, what="added, nullable", kind="compatible", why="stored rows have null there"
            )
        else:
            yield Change(
                column=column.name,
                what="added, not nullable",
                kind="breaking",
                whom=(ROWS, REQUESTS),
                why="stored rows and requests of today do not have it",
            )


def _column(old: ColumnShape, new: ColumnShape) -> Iterator[Change]:
    name = old.name
    if old.type != new.type:
        yield _type(name, old.type, new.type)
    if old.nullable and not new.nullable:
        why = "a stored row may have null there"
        yield Change(
            column=name,
            what="no longer nullable",
            kind="narrowing",
            whom=(ROWS, REQUESTS),
            why=why,
            rule=f"{name}|nullability",
        )
    if new.nullable and not old.nullable:
        yield Change(column=name, what="nullable now", kind="compatible", why="what reads it may find null from now on")
    for role in sorted({*old.roles} ^ {*new.roles}):
        yield _said_role(name, role, added=role in new.roles)


def _said_role(name: str, role: str, *, added: bool) -> Change:
    what = f"{'now' if added else 'no longer'} {role}"
    if role == "personal":
        why = "what was written before stays as it was written" if added else "its values will be written in plain"
        return Change(column=name, what=what, kind="compatible", why=why)
    if role in ("hashed", "tokenised"):
        why = "stored cells are otherwise, and nothing gives back what was said: the files must be read again"
        return Change(column=name, what=what, kind="breaking", whom=(ROWS,), why=why)
    if role == "protected":
        why = "evaluations slice by it from now on" if added else "no evaluation slices by it from now on"
        return Change(column=name, what=what, kind="compatible", why=why)
    if role == "entity":
        return Change(column=name, what=what, kind="compatible", why="who is handed a candidate is drawn otherwise")
    why = "when stored rows were known, and what a request carries, was decided by it"
    return Change(column=name, what=what, kind="breaking", whom=(ROWS, REQUESTS), why=why)


def _type(name: str, old: Any, new: Any) -> Change:
    what = f"{_short(old)} -> {_short(new)}"
    if not _texts(old, new):
        why = f"its cells are stored as {_short(old)}"
        return Change(column=name, what=what, kind="breaking", whom=(ROWS, REQUESTS, READERS), why=why)
    left = sorted(set(_values(old)) - set(_values(new)))
    if _values(new) and (left or not _values(old)):
        why = "a stored cell may say something else"
        what = f"values narrowed: without {', '.join(left[:5])}" + (" …" if len(left) > 5 else "") if left else what
        return Change(column=name, what=what, kind="narrowing", whom=(ROWS, REQUESTS), why=why, rule=f"{name}|dtype")
    more = sorted(set(_values(new)) - set(_values(old)))
    what = f"values widened: also {', '.join(more[:5])}" + (" …" if len(more) > 5 else "") if more else what
    return Change(column=name, what=what, kind="compatible", why="every stored cell is still one of its values")


def _times(old: Shape, new: Shape) -> Iterator[Change]:
    if old.key != new.key:
        what = f"key {', '.join(old.key)} -> {', '.join(new.key)}"
        why = "which rows are corrections of one another was decided by it"
        yield Change(column="key", what=what, kind="breaking", whom=(ROWS, REQUESTS, READERS), why=why)
    if old.known != new.known:
        what = f"known {_span(old.known)} -> {_span(new.known)} before the event"
        yield Change(column=new.event_time, what=what, kind="compatible", why="stored rows keep when they were known")
    if old.void_after != new.void_after:
        what = f"void after {_span(old.void_after)} -> {_span(new.void_after)}"
        yield Change(
            column=new.outcome_time, what=what, kind="compatible", why="it is counted anew from what is stored"
        )


def _span(seconds: float | None) -> str:
    return "never" if seconds is None else str(timedelta(seconds=seconds))


def _rules(old: Shape, new: Shape) -> Iterator[Change]:
    for name in sorted(old.rules.keys() | new.rules.keys()):
        before, after = old.rules.get(name), new.rules.get(name)
        column, _, rule = name.rpartition("|")
        if new.column(column) is None and "|" in name:
            continue  # the column itself is gone
        if after is None:
            yield Change(column=column or name, what=f"rule {rule} dropped", kind="compatible", why="more may be said")
        elif before is None:
            if column and old.column(column) is None:
                continue  # the column itself is new, and stored rows have null there
            what = f"rule {rule} {after.bound}".rstrip() + " added"
            yield _narrowed(column or name, what, name)
        elif before.digest != after.digest:
            what = f"{rule} {before.bound} -> {after.bound}" if before.bound and after.bound else f"rule {rule} changed"
            wider = _wider(rule, before.bound, after.bound)
            if wider:
                yield Change(column=column or name, what=what, kind="compatible", why="more may be said")
            else:
                yield _narrowed(column or name, what, name)


def _narrowed(column: str, what: str, rule: str) -> Change:
    why = "a stored row may break it"
    return Change(column=column, what=what, kind="narrowing", whom=(ROWS, REQUESTS), why=why, rule=rule)


def _wider(rule: str, old: str, new: str) -> bool:
    """Whether a bound moved outwards; what cannot be compared did not."""
    try:
        before, after = Decimal(old), Decimal(new)
    except InvalidOperation:
        before, after = old, new  # type: ignore[assignment]  # days and times compare as they are written
    if not (old and new) or "nan" in (old.lower(), new.lower()):
        return False
    return (rule in _LOWER and after <= before) or (rule in _UPPER and after >= before)


def written(dtype: pl.DataType) -> Any:
    """A Polars type as plain JSON: its name, or a list of its name and its parameters."""
    name = type(dtype).__name__
    match dtype:
        case pl.Datetime(time_unit=unit, time_zone=zone):
            return [name, unit, zone]
        case pl.Duration(time_unit=unit):
            return [name, unit]
        case pl.Decimal(precision=precision, scale=scale):
            return [name, precision, scale]
        case pl.Enum(categories=categories):
            return [name, list(categories)]
        case pl.List(inner=inner):
            return [name, written(_instance(inner))]
        case pl.Array(inner=inner, size=size):
            return [name, written(_instance(inner)), size]
        case pl.Struct(fields=fields):
            return [name, [[f.name, written(_instance(f.dtype))] for f in fields]]
    return name


def read_type(said: Any) -> pl.DataType:
    """The Polars type that `written` says.

    Raises:
        Bug: `type-unknown`.
    """
    parts: list[Any] = [said] if isinstance(said, str) else said
    name, *rest = parts
    match name:
        case "List":
            return pl.List(read_type(rest[0]))
        case "Array":
            return pl.Array(read_type(rest[0]), rest[1])
        case "Struct":
            return pl.Struct({field: read_type(of) for field, of in rest[0]})
    found = getattr(pl, name, None)
    if not (isinstance(found, type) and issubclass(found, pl.DataType)):
        raise Bug("type-unknown", f"A recorded contract has a column of type {name!r}, which Polars does not have.")
    return found(*rest)


def _instance(dtype: object) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]


def _texts(old: Any, new: Any) -> bool:
    """Whether two types are both stored as text."""
    return all((t if isinstance(t, str) else t[0]) in ("String", "Enum", "Categorical") for t in (old, new))


def _values(said: Any) -> list[str]:
    return said[1] if isinstance(said, list) and said[0] == "Enum" else []


def _short(said: Any) -> str:
    return bounded(str(read_type(said)), 80)
