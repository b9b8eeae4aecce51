"""The subject of an erasure: which rows a condition means, and how what is derived from them is told.

Meant are the rows that match, in any batch, corrected and withdrawn ones too; and of a key whose last row matches every
earlier row as well, since they are about the same subject, and would come to light again once the last is gone. Tables are
those of the contracts, of their earlier versions, and of contracts that are declared no longer. An answer or an outcome is
the subject's if its request says so itself, or if it is about a key of which any row matched. In quarantine a row is the
subject's if its cell says so, if its key does, or (for `=`) if the literal stands anywhere in its text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import polars as pl

from flyball._kernel import facts, ids
from flyball._kernel.errors import DataError
from flyball.cycle import answering, contracts
from flyball.cycle.contracts import Contracted
from flyball.cycle.session import Session
from flyball.data import coerce, contract, dataset, quarantine, where, withdrawal
from flyball.data.contract import Column, Contract, Hashed, Personal, Role, Spec, Tokenised
from flyball.data.evolution import evolve
from flyball.data.tables import BATCH, KNOWN
from flyball.data.where import Where

_OPS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PLAIN = re.compile(r"\w+")
"""Names of columns that a JSON path can say."""
_ROLES: Mapping[str, type[Role]] = {"personal": Personal, "hashed": Hashed, "tokenised": Tokenised}
_ROW, _TEXT = "\0row", "\0text"  # no column of a contract has such a name
_ANYBODY = ""
"""The model whose answers are told as those of any model that is declared no longer."""


@dataclass(frozen=True)
class Target:
    """The subject in one table.

    Attributes:
        spec: of the table.
        table: the contract, if it is declared now.
        where: as it was said.
        stored: as rows hold it; the same, but where the column is sealed.
        keys: the keys of which any row matches.
        rows: true for the rows that are meant.
        found: `_batch`, `rows` and the least `_known` of them, by batch.
    """

    spec: Spec
    table: type[Contract] | None
    where: Where
    stored: Where
    keys: pl.DataFrame
    rows: pl.Expr
    found: pl.DataFrame

    @property
    def count(self) -> int:
        """How many rows are meant."""
        return int(self.found["rows"].sum())

    def learned(self, session: Session, batches: Mapping[str, int], cutoff: datetime) -> bool:
        """Whether a snapshot held any of the rows."""
        name = self.spec.name
        if self.found.is_empty() or name not in batches:
            return False
        held = withdrawal.rows(self.found.lazy(), withdrawal.held(session.tables, name, batches[name]))
        return bool(held.filter(pl.col(KNOWN) < cutoff).collect().height)


def targets(session: Session, text: str, only: str = "") -> list[Target]:
    """The subject in every table that has the column; or in `only`, the name of one.

    Raises:
        DataError: `where-not-understood`, `where-on-sealed-column`; `erase-no-such-table`, `erase-no-such-column`.
    """
    tables = _tables(session)
    if only and only not in tables:
        raise DataError(
            "erase-no-such-table",
            f"{session.app.name!r} has no table {only!r}.",
            where=session.app.place,
            why=f"It has {', '.join(sorted(tables))}.",
            next="Name one of them with --table, or leave it out: then every table that has the column is meant.",
        )
    named = re.match(r"\s*([^\W\d]\w*)", text)
    chosen = [only] if only else list(tables)
    if not only and named is not None:
        chosen = [name for name in chosen if named.group(1) in tables[name][0].names]
        if not chosen:
            raise DataError(
                "erase-no-such-column",
                f"No table of {session.app.name!r} has a column {named.group(1)!r}.",
                where=session.app.place,
                why=f"There are {', '.join(sorted(tables))}; `flyball status` counts their rows.",
                next="Name a column of a contract, as the contract does.",
            )
    return [_target(session, *tables[name], where.parse(text, tables[name][0])) for name in chosen]


def _tables(session: Session) -> dict[str, tuple[Spec, type[Contract] | None]]:
    """Every table that may hold rows, those of the declared contracts first."""
    found: dict[str, tuple[Spec, type[Contract] | None]] = {}
    for table in session.app.tables():
        spec = contract.spec(table)
        found[spec.name] = spec, table
    for _, row in session.facts.scan(contracts.CONTRACTED.name, f"{session.app.name}//"):
        said = msgspec.json.decode(row, type=Contracted)
        found.setdefault(said.table, (_recorded(session, said), None))
    return found


def _recorded(session: Session, said: Contracted) -> Spec:
    """A contract that is declared no longer, as far as its rows are to be read."""
    shape, types = said.shape, evolve.stored_as(said.shape)
    return Spec(
        name=said.table,
        columns=tuple(
            Column(
                name=c.name,
                dtype=types[c.name],
                nullable=c.nullable,
                key=c.name in shape.key,
                roles=tuple(role() for name, role in _ROLES.items() if name in c.roles),
                description=None,
            )
            for c in shape.columns
        ),
        key=shape.key,
        event_time=shape.event_time,
        known_before=timedelta(seconds=shape.known),
        outcome_time=None,
        void_after=None,
        outcomes=(),
        place=session.app.place,
        title=shape.name,
        version=shape.version,
    )


def _target(session: Session, spec: Spec, table: type[Contract] | None, said: Where) -> Target:
    condition = _stored(session, spec, said)
    matches, key = where.expr(condition), list(spec.key)
    batch = session.tables.head(spec.name).batch
    stored = session.tables.scan(spec.name, batch, dataset.schema(spec))
    keys = stored.filter(matches).select(key).unique().collect(engine="streaming")
    rows = matches
    if keys.height:
        # The last that is held: what was withdrawn says nothing about whose the others are.
        own = dataset.scan(session.tables, spec, batch).filter(_is_in(keys))
        rows = matches | _is_in(dataset.last(own, spec).filter(matches).select(key).collect())
    counted = pl.len().cast(pl.Int64).alias("rows"), pl.col(KNOWN).min()
    found = stored.filter(rows).group_by(BATCH).agg(*counted).sort(BATCH).collect(engine="streaming")
    return Target(spec, table, said, condition, keys, rows, found)


def _stored(session: Session, spec: Spec, said: Where) -> Where:
    """The condition on rows as they are stored."""
    how = spec.sealed.get(said.column)
    if how is None:
        return said
    if said.op not in ("=", "!="):
        raise DataError(
            "where-on-sealed-column",
            f"{spec.name}.{said.column} is stored as a {how}, and cannot be compared by {said.op}.",
            where=spec.place,
            why="What is sealed has no order: it is only known to be equal or not.",
            next="Say column = 'literal'; or name the rows by another column.",
        )
    # A value that no token was ever made of is in no row: no cell is empty.
    return Where(said.column, said.op, session.seal.find(how, str(said.value)) or "")


def tokens(session: Session, found: Sequence[Target]) -> list[str]:
    """By what the vault knows the subject, of conditions on a tokenised column that name one value; but for values that stand
    in other columns as well, for without their token nobody could ever name those.
    """
    meant = {(target.spec.name, target.where.column) for target in found}
    others = [
        session.tables.scan(spec.name, session.tables.head(spec.name).batch, {name: pl.String()}).rename({name: _ROW})
        for spec, _ in _tables(session).values()
        for name, how in spec.sealed.items()
        if how == "token" and (spec.name, name) not in meant
    ]
    said = {
        target.stored.value: str(target.where.value)
        for target in found
        if target.where.op == "=" and target.spec.sealed.get(target.where.column) == "token"
    }
    if said and others:
        stay = pl.concat(others).filter(pl.col(_ROW).is_in(list(said))).unique().collect(engine="streaming")
        said = {token: value for token, value in said.items() if token not in stay[_ROW]}
    return sorted(session.seal.digest("token", value) for value in said.values())


def _is_in(keys: pl.DataFrame) -> pl.Expr:
    names = keys.columns
    if len(names) == 1:
        return pl.col(names[0]).is_in(keys[names[0]].implode())
    return pl.struct(names).is_in(keys.to_struct("keys").implode())


def quarantined(session: Session, target: Target) -> pl.Series:
    """The texts of the rows of the table's quarantine that are the subject's."""
    spec, condition = target.spec, target.stored
    head = session.tables.head(quarantine.table(spec.name))
    read = {c.name: c.dtype for c in spec.columns if _PLAIN.fullmatch(c.name)}
    cells = (pl.col("row").str.json_path_match(f"$['{name}']").alias(name) for name in read)
    # A line that is no row is an object of its text alone, whatever rule it broke.
    line = pl.col("row").str.starts_with('{"text":')
    stood = quarantine.read(session.tables, spec.name, head.batch).select(
        pl.col("row").alias(_ROW), pl.when(line).then(pl.col("row")).alias(_TEXT), *cells
    )
    rows = stood.with_columns(coerce.cell(name, pl.String(), dtype) for name, dtype in read.items())
    chosen = where.expr(condition)
    if target.keys.height and read.keys() >= set(spec.key):
        chosen = chosen | _is_in(target.keys).fill_null(value=False)
    if condition.op == "=" and target.where.value != "":
        stands = _stands({str(target.where.value), str(condition.value)})
        chosen = chosen | pl.col(_ROW if isinstance(condition.value, str) else _TEXT).str.contains(stands)
    return rows.filter(chosen).select(_ROW).collect(engine="streaming")[_ROW]


def _stands(said: set[str]) -> str:
    """A pattern of texts that each stand as a word in JSON, where other characters may stand around it escaped, and in it
    quotes doubled, as in a line of a CSV file.
    """
    forms = {msgspec.json.encode(form).decode()[1:-1] for each in said for form in (each, each.replace('"', '""'))}
    return rf"(^|\W|\\[bfnrt]|\\u[0-9a-f]{{4}})({'|'.join(re.escape(form) for form in sorted(forms - {''}))})(\W|$)"


@dataclass(frozen=True)
class Answers:
    """How the answers and outcomes of one model tell that they are the subject's.

    Attributes:
        about: the contract that the model is asked about, or the model's own name where none is known.
        keys: of the questions, as the journal has them.
        says: whether a request, or a key, as it was recorded names the subject.
    """

    about: str
    keys: frozenset[str]
    says: Callable[[Mapping[str, Any]], bool]


def answers(session: Session, found: Sequence[Target]) -> dict[str, Answers]:
    """By model; see `of_model`."""
    titles = {model.name: contract.spec(model.question).title for model in session.app.models}
    told = {
        name: _answers(session, title, [target for target in found if target.spec.title == title])
        for name, title in titles.items()
    }
    return {**told, _ANYBODY: _answers(session, _ANYBODY, found)}


def of_model(answers: Mapping[str, Answers], model: str) -> Answers:
    """How those of a model tell; a model that is declared no longer may have been asked about any table."""
    return answers[model if model in answers else _ANYBODY]


def _answers(session: Session, about: str, found: Sequence[Target]) -> Answers:
    secret = session.signer.secret(answering.SUBJECTS)
    keys: set[str] = set()
    for target in found:
        personal = set(target.spec.with_role(Personal))
        for row in target.keys.iter_rows(named=True):
            recorded = {n: _hashed(secret, value) if n in personal else value for n, value in row.items()}
            keys.add(facts.encode(recorded).decode())
    ways = [_saying(secret, target) for target in found]
    return Answers(about, frozenset(keys), lambda given: any(says(given) for says in ways))


def _hashed(secret: bytes, value: object) -> str:
    return ids.keyed_hash(secret, str(value))


def _saying(secret: bytes, target: Target) -> Callable[[Mapping[str, Any]], bool]:
    column, op, value = target.stored.column, target.stored.op, target.stored.value
    if column in target.spec.with_role(Personal):
        # A hash has no order: what the table does not tell of such a condition, its answers do not either.
        hashed = _hashed(secret, value)
        return (lambda given: given.get(column) == hashed) if op == "=" else (lambda _: False)
    read, holds = _reader(target.spec.column(column).dtype), _OPS[op]
    wanted = read(value)

    def says(given: Mapping[str, Any]) -> bool:
        said = given.get(column)
        try:
            return said is not None and holds(read(said), wanted)
        except (TypeError, ValueError, ArithmeticError):
            return False

    return says


def _reader(dtype: pl.DataType) -> Callable[[Any], Any]:
    """From a recorded value, of a request or of a key in JSON, to one that compares as the column's do."""
    kinds: dict[type[pl.DataType], Callable[[str], Any]] = {
        pl.Datetime: datetime.fromisoformat,
        pl.Date: date.fromisoformat,
        pl.Time: time.fromisoformat,
    }
    match dtype:
        case pl.Enum():
            return dtype.categories.to_list().index
        case pl.Decimal():
            return lambda value: Decimal(str(value))
        case pl.Float32():
            return lambda value: pl.Series([value], dtype=pl.Float32).item()
    parse = kinds.get(type(dtype))
    return (lambda value: parse(value) if isinstance(value, str) else value) if parse else lambda value: value


def key_says(given: Answers, key: str) -> bool:
    """Whether a question's key, as the journal has it, is the subject's."""
    return key in given.keys or (bool(key) and given.says(msgspec.json.decode(key)))
