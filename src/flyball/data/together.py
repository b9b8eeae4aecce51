"""Together: small files of one source, several with one commit, and each of them a batch of its own.

What comes of it is what `ingest.ingest` of one after the other leaves: the same batches, accounts, positions and rows, in the
same order, by the same rules. Only the quarantine and the table are written once, the table with all their positions in one
transaction; so a crash leaves all of them or none, and a file that cannot be read keeps none of the others out.

Files are judged in **runs**: as long as no key comes twice, rows of several files are told good, bad and new at once, for
then none of them can bear upon another. Where one comes again a new run begins, to which the runs before it stand in the
table already: so the later of two files is the correction of the earlier, though both come with one commit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError
from flyball.data import contract, dataset, ingest, intake, quarantine, rules, sift
from flyball.data.ingest import Ingested, Result
from flyball.data.intake import BEFORE, Intake
from flyball.data.sift import HASH
from flyball.data.source import LINE, File, Reader, Source
from flyball.data.tables import BATCH, Tables

FILES = 256
BYTES = 4 << 20
"""Files, and bytes of them, that one commit brings at most: what is held in memory, and lost to a crash before it."""


@dataclass(frozen=True, slots=True)
class Small:
    """A file, and when its rows were known at the earliest; None for history."""

    file: File
    known_from: datetime | None


@dataclass(frozen=True, slots=True)
class _Held:
    """A file in memory, as the batch that it becomes: prepared rows, their keys, and lines that are no rows."""

    small: Small
    batch: int
    rows: pl.DataFrame
    keys: pl.DataFrame
    ragged: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a run brings: `good` and `bad` say the batch of each row; the counts are by batch."""

    good: pl.DataFrame
    bad: pl.DataFrame
    repeats: Mapping[int, int]
    corrections: Mapping[int, int]


def groups(files: Sequence[File]) -> Iterator[tuple[File, ...]]:
    """Files in their order, as many at once as one commit brings."""
    group: list[File] = []
    for file in files:
        if group and (len(group) == FILES or sum(each.size for each in group) + file.size > BYTES):
            yield tuple(group)
            group = []
        group.append(file)
    if group:
        yield tuple(group)


def ingest_together(
    source: Source, tables: Tables, reader: Reader, *, recipe: str, files: Sequence[Small]
) -> dict[File, Result | DataError | AdapterError]:
    """Ingest files, those that are not ingested already; what keeps one of them from it stands in the place of its result.

    Raises:
        AdapterError: the tables cannot be read or written. DeclarationError: `rule-does-not-run`.
        RetryableError: `concurrent-ingest`; run again.
    """
    began = time.perf_counter()
    spec = contract.spec(source.contract)
    head, aside = ingest.settle(tables, spec)
    stored = dataset.scan(tables, spec, head.batch)
    found: dict[File, Result | DataError | AdapterError] = {}
    held: list[_Held] = []
    for small in files:
        done = tables.position(spec.name, ingest.position(source, small.file, recipe))
        if done is not None:
            found[small.file] = Result(ingest.account(tables, spec.name, done), fresh=False, measured={})
            continue
        batch = head.batch + 1 + len(held)
        take = Intake(source, small.file, tables, stored, batch, small.known_from)
        try:
            with reader.open(source, small.file) as reading:
                rows, ragged = intake.held(take, reading)
        except (DataError, AdapterError) as problem:
            if not isinstance(problem, DataError) and problem.where != source.place:
                raise
            found[small.file] = problem
        else:
            held.append(_Held(small, batch, rows, sift.keys(rows, spec), ragged))
    if not held:
        return found
    judged = _judge(source, held, stored)
    taking = time.perf_counter()
    said = _accounts(source, held, judged, recipe)
    last, names = held[-1].batch, {each.batch: each.small.file.name for each in held}
    bad = _aside(source, names, [*(j.bad for j in judged), *(_of(each.batch, each.ragged) for each in held)], said)
    tables.append(quarantine.table(spec.name), bad, last, {}, expect=aside)
    keys = {ingest.position(source, each.small.file, recipe): each.batch for each in held}
    tables.append(spec.name, pl.concat([j.good for j in judged]), last, keys, expect=head)
    shares = {"take": (taking - began) / len(held), "commit": (time.perf_counter() - taking) / len(held)}
    return found | {each.small.file: Result(said[each.batch], fresh=True, measured=shares) for each in held}


def _judge(source: Source, held: Sequence[_Held], stored: pl.LazyFrame) -> list[_Judged]:
    spec = contract.spec(source.contract)
    keys = pl.concat(each.keys for each in held).lazy()
    table = stored.join(keys.drop_nulls(HASH), on=spec.key, how="semi").collect()
    judged: list[_Judged] = []
    for run in _runs(held, alone=bool(rules.of(source.contract).grouped)):
        try:
            judged.append(_one_run(source, run, table))
        except pl.exceptions.PolarsError as problem:
            raise rules.does_not_run(problem, spec) from problem
        table = pl.concat([table, judged[-1].good.select(table.columns)])
    return judged


def _runs(held: Sequence[_Held], *, alone: bool) -> Iterator[list[_Held]]:
    """Files that may be judged at once; `alone`: a rule looks at other rows of the file, so none may."""
    run: list[_Held] = []
    taken: set[int] = set()
    for each in held:
        hashes = each.keys[HASH].drop_nulls()
        own = set(hashes.to_list())
        closed = alone or len(own) < len(hashes)
        if run and (closed or not taken.isdisjoint(own) or not _alike(run[0], each)):
            yield run
            run, taken = [], set()
        run.append(each)
        taken |= own
        if closed:
            yield run
            run, taken = [], set()
    if run:
        yield run


def _alike(a: _Held, b: _Held) -> bool:
    return a.small.known_from == b.small.known_from and dict(a.rows.schema) == dict(b.rows.schema)


def _one_run(source: Source, run: Sequence[_Held], stored: pl.DataFrame) -> _Judged:
    spec = contract.spec(source.contract)
    rows = pl.concat([each.rows.select(run[0].rows.columns) for each in run])
    of = pl.concat([pl.Series(BATCH, [each.batch], dtype=pl.Int64).new_from_index(0, each.rows.height) for each in run])
    sifted = sift.sift(rows, source.contract)
    good = sifted.good.with_columns(of.filter(sifted.kept))
    news = intake.anew(stored.lazy(), spec, good)
    repeats, left = _by_batch(good), _by_batch(news)
    repeats = {batch: n - left.get(batch, 0) for batch, n in repeats.items()}
    if sifted.repeats:  # only a file that is alone has any
        repeats[run[0].batch] = repeats.get(run[0].batch, 0) + sifted.repeats
    return _Judged(
        good=intake.observed(news.lazy(), spec, run[0].small.known_from).collect(),
        bad=sifted.bad.with_columns(of.filter(sifted.refused)),
        repeats=repeats,
        corrections=_by_batch(news.filter(pl.col(BEFORE).is_not_null())),
    )


def _accounts(source: Source, held: Sequence[_Held], judged: Sequence[_Judged], recipe: str) -> dict[int, Ingested]:
    """Batch -> what it says."""
    spec = contract.spec(source.contract)
    good = pl.concat(j.good for j in judged)
    bad = pl.concat([*(j.bad for j in judged), *(_of(each.batch, each.ragged) for each in held)])
    accepted, refused = _by_batch(good), _by_batch(bad)
    unsettled = _by_batch(good.filter(pl.col(spec.outcome_time).is_null())) if spec.outcome_time else {}
    repeats = {batch: n for j in judged for batch, n in j.repeats.items()}
    corrections = {batch: n for j in judged for batch, n in j.corrections.items()}
    broken = bad.select(BATCH, "rules").explode("rules").group_by(BATCH, "rules").len().sort("rules")
    by_rule: dict[int, dict[str, int]] = {}
    for batch, rule, n in broken.iter_rows():
        by_rule.setdefault(batch, {})[rule] = n
    return {
        each.batch: Ingested(
            source=source.name,
            table=spec.name,
            file=each.small.file.name,
            digest=each.small.file.digest,
            recipe=recipe,
            batch=each.batch,
            read=sum(counts.get(each.batch, 0) for counts in (accepted, refused, repeats)),
            accepted=accepted.get(each.batch, 0),
            quarantined=refused.get(each.batch, 0),
            duplicates=repeats.get(each.batch, 0),
            corrections=corrections.get(each.batch, 0),
            unsettled=unsettled.get(each.batch, 0),
            by_rule=by_rule.get(each.batch, {}),
            ignored=intake.ignored(each.rows.columns, spec),
            known_from=each.small.known_from,
        )
        for each in held
    }


def _aside(
    source: Source, names: Mapping[int, str], bad: Sequence[pl.DataFrame], said: Mapping[int, Ingested]
) -> pl.DataFrame:
    """The rows for the quarantine: what was refused, and the account of each batch."""
    cells = [(batch, None, None, facts.encode(each).decode()) for batch, each in said.items()]
    kept = [BATCH, LINE, "rules", "row"]
    accounts = pl.DataFrame(cells, schema={name: quarantine.SCHEMA[name] for name in kept}, orient="row")
    rows = pl.concat([*(each.select(kept) for each in bad), accounts])
    file = pl.col(BATCH).replace_strict(names, return_dtype=pl.String)
    return rows.with_columns(_source=pl.lit(source.name), _file=file).select(list(quarantine.SCHEMA))


def _of(batch: int, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(batch, dtype=pl.Int64).alias(BATCH))


def _by_batch(rows: pl.DataFrame) -> dict[int, int]:
    return dict(rows.group_by(BATCH).len().iter_rows())
