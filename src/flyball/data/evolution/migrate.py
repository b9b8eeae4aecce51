"""Migrating: the stored rows of an earlier version of a contract, carried into the table of the version that is declared now.

Batch by batch, each under its own number: what became of its rows goes to quarantine with the batch's account, then the rows
to the table, committed with the positions of the files that they came from. So no file is read again, every row keeps when it
was known, and a crash between any two writes leaves a state that the next run goes on from. The earlier table stays as it is,
for the versions of models that learned from it.

A row that breaks the new contract is quarantined, and counted. A half-made table of another migration is emptied first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import polars as pl

from flyball._kernel import facts, fingerprint
from flyball._kernel.errors import DataError
from flyball.data import coerce, contract, dataset, ingest, masked, quarantine, rules, sift, withdrawal
from flyball.data.contract import Contract, Migration, Spec
from flyball.data.evolution import evolve
from flyball.data.evolution.evolve import Shape
from flyball.data.ingest import Account, Ingested
from flyball.data.seal import Seal
from flyball.data.source import LINE
from flyball.data.tables import BATCH, KNOWN, MOMENT, OUTCOME_KNOWN, Staged, Tables

_MADE_BY = "flyball/migration"
"""The position that tells by which migration a table was begun."""

_AT_ONCE = 2_000_000
"""Rows that are held in memory."""

_SEED = 0xF1B

Moved = Callable[[int, int], None]
"""Is told how many batches were moved, of how many."""


@dataclass(frozen=True, slots=True)
class Step:
    """How to come from one version of a contract to another.

    Attributes:
        old: the shape by which the rows were stored.
        observed: the contract that they must keep.
        migrate: from rows of the one to rows of the other.
        recipes: source -> the recipe under which its files now count as ingested.
        seal: how personal cells are sealed.
    """

    old: Shape
    observed: type[Contract]
    migrate: Migration
    recipes: Mapping[str, str]
    seal: Seal


def migrate(tables: Tables, step: Step, moved: Moved) -> None:
    """Carry over all batches of the earlier version that are not there yet.

    Raises:
        DataError: `migration-failed`; what was moved stays, and the next run goes on there.
        RetryableError: `concurrent-ingest`; run again.
    """
    spec, before = contract.spec(step.observed), source(step.old)
    mark = int(fingerprint.of(step.migrate, step.observed, before, dict(step.recipes))[:13], 16)
    head, _ = ingest.settle(tables, spec)
    if head.batch and tables.position(spec.name, _MADE_BY) != mark:
        # The table first: quarantine that runs ahead of its table was never believed.
        schema = {BATCH: pl.Int64()}
        tables.delete(spec.name, pl.col(BATCH) > 0, schema, 0, expect=head)
        head, _ = ingest.settle(tables, spec)
    accounts = ingest.repair(tables, before, head.batch)
    for account in accounts:
        _move(tables, step, account, mark)
        moved(account.batch, accounts[-1].batch)


def source(old: Shape) -> str:
    """The table that holds the rows of a shape."""
    return contract.table(old.name, old.version)


def _move(tables: Tables, step: Step, account: Account, mark: int) -> None:
    """Carry over one batch."""
    spec = contract.spec(step.observed)
    head, aside = ingest.settle(tables, spec)
    bad, staged, marks = pl.DataFrame(schema=_BAD), _nothing(tables, spec, account.batch), {_MADE_BY: mark}
    said: Account
    if isinstance(account, Ingested):
        found, bad, repeats, unsettled, ignored = _carried(tables, step, account)
        staged = _joined([staged, *found])
        said = msgspec.structs.replace(
            account,
            table=spec.name,
            recipe=step.recipes.get(account.source, account.recipe),
            read=staged.rows + bad.height + repeats,
            accepted=staged.rows,
            quarantined=bad.height,
            duplicates=repeats,
            corrections=min(account.corrections, staged.rows),
            unsettled=unsettled,
            by_rule=quarantine.by_rule(bad.lazy()),
            ignored=ignored,
        )
        marks["|".join((said.source, said.file, said.digest, said.recipe))] = said.batch
    else:
        said = msgspec.structs.replace(account, table=spec.name)
        marks |= withdrawal.positions(tables, spec.name, said.batch, account.to)
    tables.append(quarantine.table(spec.name), _aside(bad, said), said.batch, {}, expect=aside)
    tables.append(spec.name, staged, said.batch, marks, expect=head)


_BAD = {LINE: pl.Int64(), "rules": pl.List(pl.String()), "row": pl.String()}


def _carried(
    tables: Tables, step: Step, account: Ingested
) -> tuple[list[Staged], pl.DataFrame, int, int, tuple[str, ...]]:
    """(what is staged, bad rows, repeats, unsettled ones, ignored columns) of one batch.

    A large batch is moved a bucket of keys at a time, so that rows of one key are seen together.
    """
    spec = contract.spec(step.observed)
    rows, sealed = _migrated(tables, step, account.batch), _sealed(step)
    ignored = tuple(c for c in rows.collect_schema() if c not in (*spec.names, KNOWN, OUTCOME_KNOWN))
    buckets = 1 if rules.of(step.observed).grouped else 1 + account.accepted // _AT_ONCE
    staged, bad, repeats, unsettled = [], [pl.DataFrame(schema=_BAD)], 0, 0
    for bucket in range(buckets):
        chunk = _collected(rows.filter(_bucket(spec, rows, buckets) == bucket) if buckets > 1 else rows, step)
        numbered = chunk.drop(LINE, strict=False).with_row_index(LINE).cast({LINE: pl.Int64})
        told = step.seal.beside(numbered.drop(KNOWN, OUTCOME_KNOWN, strict=False).lazy(), spec, but=sealed).collect()
        sifted = sift.sift(told, step.observed, unjudged=sealed)
        kept = numbered.join(sifted.bad.select(LINE), on=LINE, how="anti", maintain_order="left")
        times = kept.filter(_first(kept, spec)).select(_times(kept, step))
        good = pl.concat([times, sifted.good], how="horizontal")
        staged.append(tables.stage(spec.name, good.lazy(), account.batch))
        # The row's number in a batch means nothing to a person.
        bad.append(sifted.bad.with_columns(pl.lit(None, dtype=pl.Int64).alias(LINE)))
        repeats += sifted.repeats
        unsettled += good[spec.outcome_time].null_count() if spec.outcome_time else 0
    return staged, pl.concat(bad), repeats, unsettled, ignored


def _sealed(step: Step) -> tuple[str, ...]:
    """The columns whose stored cells are sealed already: no rule can judge them, and nothing gives back what was said."""
    names = {"hashed": "hash", "tokenised": "token"}
    before = {c.name: names[role] for c in step.old.columns for role in c.roles if role in names}
    spec = contract.spec(step.observed)
    left = before.keys() & set(spec.names)
    other = sorted(name for name in left if spec.sealed.get(name) != before[name])
    if other:
        raise _failed(
            step, f"would have to give back what was said in {other[0]}, of which a {before[other[0]]} is stored"
        )
    new = sorted(spec.sealed.keys() - {c.name for c in step.old.columns})
    if new and before.keys() - left:
        raise _failed(step, f"may not rename a sealed column: {new[0]} would be sealed twice")
    return tuple(left)


def _migrated(tables: Tables, step: Step, batch: int) -> pl.LazyFrame:
    """The rows of one batch as the migration yields them, checked for what no row may lose."""
    old, times = step.old, {KNOWN: MOMENT} | ({OUTCOME_KNOWN: MOMENT} if step.old.outcome_time else {})
    stored = tables.scan(source(old), batch, {BATCH: pl.Int64(), **times, **evolve.stored_as(old)})
    rows = stored.filter(pl.col(BATCH) == batch).drop(BATCH)
    spec = contract.spec(step.observed)
    try:
        made = step.migrate(rows).lazy()
        schema = made.collect_schema()
    except Exception as problem:  # the migration is the user's code: whatever it raises, it is told where
        raise _failed(step, f"raised {masked.raised(problem, contract.spec(step.observed))}") from problem
    kept = (KNOWN, OUTCOME_KNOWN) if spec.outcomes and step.old.outcome_time else (KNOWN,)
    lost = [name for name in (*spec.names, *kept) if name not in schema]
    if lost or any(schema[name] != MOMENT for name in kept):
        raise _failed(step, f"does not yield {', '.join(lost or kept)}")
    return made


def _collected(rows: pl.LazyFrame, step: Step) -> pl.DataFrame:
    try:
        return rows.collect(engine="streaming")
    except pl.exceptions.PolarsError as problem:
        raise _failed(step, f"raised {masked.raised(problem, contract.spec(step.observed))}") from problem


def _failed(step: Step, what: str) -> DataError:
    spec = contract.spec(step.observed)
    return DataError(
        "migration-failed",
        f"The migration of {spec.title} from version {step.old.version} to {spec.version} {what}",
        where=spec.place,
        why=f"It gets the rows of version {step.old.version} with {KNOWN}, and yields every column of version "
        f"{spec.version}, with {KNOWN} (and {OUTCOME_KNOWN}) as they are: with_columns and drop keep them, select does not.",
        next="Mend the migration, then run it again: what was moved by another one is moved anew.",
    )


def _bucket(spec: Spec, rows: pl.LazyFrame, buckets: int) -> pl.Expr:
    schema = rows.collect_schema()
    key = (coerce.cell(name, schema[name], spec.dtypes[name]).alias(name) for name in spec.key)
    return pl.struct(key).hash(_SEED) % buckets


def _first(kept: pl.DataFrame, spec: Spec) -> pl.Series:
    """Which of the rows that break nothing are the first of their key: the others repeat them."""
    key = kept.select(coerce.cell(name, kept.schema[name], spec.dtypes[name]).alias(name) for name in spec.key)
    return key.to_struct().is_first_distinct()


def _times(kept: pl.DataFrame, step: Step) -> list[pl.Expr]:
    """When the rows were known: as it was; of outcomes that the earlier contract did not have, when they settled."""
    spec = contract.spec(step.observed)
    times = [pl.col(KNOWN)]
    if spec.outcome_time is not None and step.old.outcome_time:
        times.append(pl.col(OUTCOME_KNOWN))
    elif spec.outcome_time is not None:
        name = spec.outcome_time
        settled = coerce.cell(name, kept.schema[name], MOMENT)
        times.append(pl.when(settled.is_not_null()).then(pl.max_horizontal(settled, KNOWN)).alias(OUTCOME_KNOWN))
    return times


def _nothing(tables: Tables, spec: Spec, batch: int) -> Staged:
    """No rows, of the right columns."""
    schema = {name: dtype for name, dtype in dataset.schema(spec).items() if name != BATCH}
    return tables.stage(spec.name, pl.LazyFrame(schema=schema), batch)


def _joined(staged: list[Staged]) -> Staged:
    """Several stagings of one batch as one."""
    return Staged(sum(s.rows for s in staged), staged[0].types, tuple(part for s in staged for part in s.parts))


def _aside(bad: pl.DataFrame, said: Account) -> pl.DataFrame:
    """The batch's rows of the quarantine table: its account, and its bad rows."""
    account = pl.DataFrame({LINE: [None], "rules": [None], "row": [facts.encode(said).decode()]}, schema=_BAD)
    where = {"_source": said.source, "_file": said.file} if isinstance(said, Ingested) else {"_source": "", "_file": ""}
    named = pl.concat([account, bad]).with_columns(**{name: pl.lit(text) for name, text in where.items()})
    return named.select("_source", "_file", LINE, "rules", "row")
