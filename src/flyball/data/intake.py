"""Intake: what one file brings to its table and to its quarantine, staged and counted, and not yet committed.

    rows of the file -> preparation -> sift -> news -> staged

The preparation runs once: what it yields is kept on disk while the file is taken in, unless it is no more than a choice of
columns and rows of a Parquet or Arrow file, which can be read twice for less. A small file is taken in whole. Of a large one
the rows whose key nobody shares, in the file or in the table, stream by; the others come in buckets of keys. Either way the
memory does not grow with the file, but for 8 bytes a row.
"""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from pathlib import Path

import polars as pl

from flyball._kernel.errors import DataError, FlyballError
from flyball._kernel.place import Place
from flyball.data import contract, dataset, masked, quarantine, rules, seal, sift, spool
from flyball.data.contract import Spec
from flyball.data.sift import BUCKET, POSITION, Hashes, Survey
from flyball.data.source import LINE, File, Reading, Source
from flyball.data.tables import BATCH, KNOWN, MOMENT, OUTCOME_KNOWN, Staged, Tables

WHOLE = 250_000
"""Rows of a file that is taken in whole, in memory; also of a bucket, about."""
SMALL = 1 << 20
"""Bytes of a file whose prepared rows are held in memory instead of on disk."""

_FAILS = (Exception, pl.exceptions.PanicException)
"""What reading rows may raise: the user's Python runs in it, and Polars panics over a file that shrinks meanwhile."""
BEFORE = "\0before\0"  # no column of a contract starts like this
"""Datetime: when the table knew the key of a row before."""
_READS = ("Parquet SCAN", "IPC SCAN")
_PASSES = (
    "SELECT",
    "WITH_COLUMNS",
    "[",
    "FILTER",
    "FROM",
    "ROW INDEX",
    "ROW_INDEX",
    "simple π",
    "PROJECT",
    "ESTIMATED",
)
_CHANCE = ("python", ".shuffle(", ".sample(", ".rank(")


@dataclass(frozen=True, slots=True)
class Intake:
    """One file for one table.

    Attributes:
        stored: the observations that the table has.
        batch: the number of the batch that the file is to become.
        known_from: rows were known no earlier than this; None for history.
    """

    source: Source
    file: File
    tables: Tables
    stored: pl.LazyFrame
    batch: int
    known_from: datetime | None

    @property
    def spec(self) -> Spec:
        """The contract that the rows must keep."""
        return contract.spec(self.source.contract)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a file, or a part of one, brings; read = accepted + quarantined + repeats.

    Attributes:
        good, bad: staged for the table and for its quarantine.
        accepted, quarantined: how many rows they are.
        repeats: rows that say what an earlier row of the file, or the table, already says.
        corrections: those of the good rows that say something new about a key that the table had.
        unsettled: those of the good rows whose outcome is not known yet.
        by_rule: rule -> rows that broke it.
        ignored: columns that the preparation yielded and the contract does not have.
    """

    good: tuple[Staged, ...] = ()
    bad: tuple[Staged, ...] = ()
    repeats: int = 0
    corrections: int = 0
    unsettled: int = 0
    by_rule: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def accepted(self) -> int:
        """Rows for the table."""
        return sum(staged.rows for staged in self.good)

    @property
    def quarantined(self) -> int:
        """Rows for the quarantine."""
        return sum(staged.rows for staged in self.bad)


def take(intake: Intake, reading: Reading) -> Taken:
    """Prepare, sift and stage the rows of an open file.

    Raises:
        DataError: `column-missing`, `preparation-failed`, `file-unreadable`; DeclarationError: `rule-does-not-run`;
            RetryableError: `disk-full`.
    """
    spec = intake.spec
    with spool.room(), spool.folder() as folder:
        rows = _prepared(intake, reading, folder)
        columns = rows.collect_schema().names()
        sift.complete(columns, spec, intake.file.name)
        try:
            if rows.select(pl.len()).collect(engine="streaming").item() <= WHOLE:
                parts = [_whole(intake, rows.collect(engine="streaming"), intake.stored)]
            else:
                parts = list(_streamed(intake, rows, folder))
        except FlyballError:
            raise
        except _FAILS as problem:
            _at_fault(intake, reading, rows, problem)
            raise
        parts.append(_ragged(intake, reading.ragged))
        return reduce(_and, parts, Taken(ignored=ignored(columns, spec)))


def held(intake: Intake, reading: Reading) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What a small file brings, in memory: its prepared rows, and its ragged lines as refused ones.

    Raises:
        DataError: as `take`.
    """
    with ExitStack() as spooled:
        folder = Path()
        if intake.file.size > SMALL:
            spooled.enter_context(spool.room())
            folder = spooled.enter_context(spool.folder())
        rows = _prepared(intake, reading, folder)
        sift.complete(rows.collect_schema().names(), intake.spec, intake.file.name)
        try:
            return rows.collect(), quarantine.ragged(reading.ragged).collect()
        except _FAILS as problem:
            _at_fault(intake, reading, rows, problem)
            raise


def ignored(columns: Iterable[str], spec: Spec) -> tuple[str, ...]:
    """Those of the columns that a preparation yielded that the contract does not have."""
    return tuple(c for c in columns if c not in (*spec.names, LINE) and not seal.is_beside(c))


def observed(news: pl.LazyFrame, spec: Spec, known_from: datetime | None) -> pl.LazyFrame:
    """Rows with the times at which they were known; and with the batch of each, where they say it.

    A correction is never known before what it corrects: a history row whose event time moved back would otherwise stay
    hidden behind the wrong one for good.
    """
    least = pl.lit(known_from, dtype=MOMENT)
    declared = pl.col(spec.event_time) - spec.known_before
    before = [BEFORE] if BEFORE in news.collect_schema() else []
    times = {KNOWN: pl.max_horizontal(declared, least, *before)}
    if spec.outcome_time is not None:
        settled = pl.col(spec.outcome_time)
        times[OUTCOME_KNOWN] = pl.when(settled.is_not_null()).then(pl.max_horizontal(settled, least))
    of = [BATCH] if BATCH in news.collect_schema() else []
    return news.select(*of, **times, **{c: pl.col(c) for c in spec.names})


def _whole(
    intake: Intake, frame: pl.DataFrame, stored: pl.LazyFrame, grouped: Mapping[str, pl.Series] | None = None
) -> Taken:
    """Rows that are held in memory, with all rows of the file and of the table that share a key with one of them."""
    spec = intake.spec
    sifted = sift.sift(frame, intake.source.contract, grouped)
    news = anew(stored, spec, sifted.good)
    return Taken(
        good=_good(intake, news.lazy()) if news.height else (),
        bad=_bad(intake, sifted.bad.lazy()) if sifted.bad.height else (),
        repeats=sifted.repeats + sifted.good.height - news.height,
        corrections=news.height - news[BEFORE].null_count(),
        unsettled=news[spec.outcome_time].null_count() if spec.outcome_time else 0,
        by_rule=quarantine.by_rule(sifted.bad.lazy()),
    )


def _streamed(intake: Intake, rows: pl.LazyFrame, folder: Path) -> Iterator[Taken]:
    """The parts of a large file: the rows whose key nobody shares, then the others by buckets of keys."""
    spec, declared = intake.spec, intake.source.contract
    seen = sift.survey(rows, declared)
    again = sift.among(intake.stored, spec, seen.keys)
    contended = sift.union(sift.shared(seen.keys), again)
    disputes = sift.count(seen.keys, contended)
    good = sift.uncontended(rows, declared, seen, contended)
    unsettled = pl.col(spec.outcome_time or spec.event_time).null_count()
    bad = _spooled(sift.faulty(rows, declared, seen, contended), folder / "bad.parquet") if seen.broken else None
    yield Taken(
        good=_good(intake, good),
        bad=_bad(intake, bad) if bad is not None else (),
        unsettled=good.select(unsettled).collect(engine="streaming").item() if spec.outcome_time else 0,
        by_rule=quarantine.by_rule(bad) if bad is not None else {},
    )
    if disputes:
        yield from _disputed(intake, rows, seen, contended, folder)


def _disputed(intake: Intake, rows: pl.LazyFrame, seen: Survey, contended: Hashes, folder: Path) -> Iterator[Taken]:
    buckets = 1 + sift.count(seen.keys, contended) // WHOLE
    ours = sift.in_dispute(rows, intake.source.contract, contended, buckets)
    theirs = sift.stored_in_dispute(intake.stored, intake.spec, contended, buckets)
    for name, each in (("ours", ours), ("theirs", theirs)):
        each.sink_parquet(pl.PartitionBy(folder / name, key=BUCKET, include_key=False), mkdir=True)
    for bucket in range(buckets):
        there = [sorted((folder / name / f"{BUCKET}={bucket}").glob("*.parquet")) for name in ("ours", "theirs")]
        if there[0]:
            frame = pl.read_parquet(there[0], glob=False).sort(POSITION)
            stored = pl.scan_parquet(there[1], glob=False) if there[1] else intake.stored.head(0)
            yield _whole(intake, frame, stored, seen.grouped)


def _ragged(intake: Intake, lines: pl.LazyFrame) -> Taken:
    bad = quarantine.ragged(lines)
    if lines.select(pl.len()).collect(engine="streaming").item() == 0:
        return Taken()
    return Taken(bad=_bad(intake, bad), by_rule=quarantine.by_rule(bad))


def _and(a: Taken, b: Taken) -> Taken:
    """Both parts of a file."""
    return Taken(
        good=(*a.good, *b.good),
        bad=(*a.bad, *b.bad),
        repeats=a.repeats + b.repeats,
        corrections=a.corrections + b.corrections,
        unsettled=a.unsettled + b.unsettled,
        by_rule={rule: a.by_rule.get(rule, 0) + b.by_rule.get(rule, 0) for rule in sorted({*a.by_rule, *b.by_rule})},
        ignored=a.ignored or b.ignored,
    )


def _good(intake: Intake, news: pl.LazyFrame) -> tuple[Staged, ...]:
    rows = observed(news, intake.spec, intake.known_from)
    return (intake.tables.stage(intake.spec.name, rows, intake.batch),)


def _bad(intake: Intake, refused: pl.LazyFrame) -> tuple[Staged, ...]:
    named = quarantine.of_file(refused, intake.source.name, intake.file.name)
    return (intake.tables.stage(quarantine.table(intake.spec.name), named, intake.batch),)


def anew(stored: pl.LazyFrame, spec: Spec, good: pl.DataFrame) -> pl.DataFrame:
    """The rows that say something new, each with when the table knew its key before, if it did (`BEFORE`)."""
    first = good.with_columns(pl.lit(None, dtype=MOMENT).alias(BEFORE))
    if good.is_empty():
        return first
    touched = stored.join(good.lazy().select(spec.key), on=spec.key, how="semi")
    current = dataset.last(touched, spec).collect()
    if current.is_empty():
        return first
    others = [c for c in spec.names if c not in spec.key]
    renamed = current.select(*spec.key, pl.col(KNOWN).alias(BEFORE), *(pl.col(c).alias(BEFORE + c) for c in others))
    both = good.join(renamed, on=spec.key, how="left", maintain_order="left")
    same = pl.all_horizontal(pl.col(BEFORE).is_not_null(), *(pl.col(c).eq_missing(pl.col(BEFORE + c)) for c in others))
    return both.filter(~same).select(first.columns)


def _spooled(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    rows.sink_parquet(path, compression="lz4")
    return pl.scan_parquet(path, glob=False)


def _prepared(intake: Intake, reading: Reading, folder: Path) -> pl.LazyFrame:
    """The rows that the preparation yields, as a frame that can be read several times."""
    source = intake.source
    try:
        rows = source.prepare(reading.rows).lazy()
        rows.collect_schema()
        if _replays(rows):
            return rows
        if intake.file.size <= SMALL:
            return rows.collect().lazy()
        rows.sink_ipc(folder / "prepared.arrow", compression="lz4")
        return pl.scan_ipc(folder / "prepared.arrow", glob=False)
    except _FAILS as problem:  # the preparation is the user's code: whatever it raises, it is told where
        spool.refuse_full(problem)
        _readable(intake, reading)
        raise _preparation_failed(intake, problem) from problem


def _replays(rows: pl.LazyFrame) -> bool:
    """Whether to read the file again is cheaper than to keep what was read: no more than columns and rows of it are chosen."""
    lines = [line.strip() for line in rows.explain(optimized=False).splitlines()]
    simple = all(line.startswith((*_READS, *_PASSES)) for line in lines if line)
    reads = any(line.startswith(_READS) for line in lines)
    return simple and reads and not any(word in line for word in _CHANCE for line in lines)


def _at_fault(intake: Intake, reading: Reading, rows: pl.LazyFrame, problem: BaseException) -> None:
    """Raises what tells who failed, after the fact, if it was the disk, the file, the preparation, or a rule."""
    spool.refuse_full(problem)
    _readable(intake, reading)
    try:
        _through(rows)
    except _FAILS as failed:
        raise _preparation_failed(intake, failed) from failed
    if isinstance(problem, pl.exceptions.PolarsError):
        raise rules.does_not_run(problem, intake.spec) from problem
    try:
        sift.survey(rows, intake.source.contract)
    except _FAILS as failed:
        raise rules.does_not_run(failed, intake.spec) from failed


def _through(rows: pl.LazyFrame) -> None:
    for _ in rows.collect_batches(maintain_order=False):
        pass


def _readable(intake: Intake, reading: Reading) -> None:
    """A lazy reader fails only when the preparation pulls: read the file alone, to tell who is at fault."""
    try:
        _through(reading.rows)
    except _FAILS as problem:
        raise DataError(
            "file-unreadable",
            f"{intake.file.name} cannot be read: {masked.raised(problem, intake.spec)}",
            where=intake.source.place,
            why="Nothing of this file was ingested.",
            next="Replace the file, then run `flyball apply` again.",
        ) from problem


def _preparation_failed(intake: Intake, problem: BaseException) -> DataError:
    source = intake.source
    return DataError(
        "preparation-failed",
        f"{intake.file.name}: the preparation of {source.name} raised {masked.raised(problem, intake.spec)}",
        where=_user_line(problem, source),
        why="Nothing of this file was ingested.",
        next="Mend the preparation, then run `flyball apply` again.",
    )


def _user_line(problem: BaseException, source: Source) -> Place:
    """The deepest line of the traceback that is neither ours nor a library's; else where the preparation is defined."""
    ours = Path(__file__).resolve().parent.parent
    libraries = [ours, *(Path(p) for n, p in sysconfig.get_paths().items() if n in ("stdlib", "purelib", "platlib"))]
    for frame, line in reversed(list(traceback.walk_tb(problem.__traceback__))):
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not any(file.is_relative_to(library) for library in libraries):
            return Place(str(file), line)
    code = getattr(inspect.unwrap(source.prepare), "__code__", None)
    if code is None or Path(code.co_filename).is_relative_to(ours):
        return source.place
    return Place(code.co_filename, code.co_firstlineno)
