"""Changes: what a preparation did to the cells of one file, counted; nothing is ingested, and nothing is written.

Rows are matched by `_line`, and each cell of a column that is there before and after falls under exactly one of six words:
**kept**, **spelt** otherwise (`1.0` and `1` are one integer), **changed**, **mended** (the contract could not read it, and
now can), **filled** (null before) and **emptied** (null after). A preparation that lets go of `_line` leaves less to say:
how often each value stood there before and after.

Memory is bounded: both sides go to disk, and are compared a block of lines at a time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from flyball._kernel.errors import DataError, DeclarationError
from flyball.cycle.session import Session
from flyball.data import coerce, contract, masked
from flyball.data.contract import Personal, Spec
from flyball.data.source import LINE, File, Reader, Source

KINDS = ("kept", "spelt", "changed", "mended", "filled", "emptied")
BLOCK = 100_000
"""Lines that are compared at a time."""
_PAIRS = 10_000
"""Different changes of one column that are remembered for examples."""
_CUT = 60
"""Characters of a cell that are shown."""
_AFTER, _KIND = "\0after", "\0kind"  # no column of a file or a contract has such a name


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One change, and how often it was made; a cell is cut to 60 characters."""

    kind: str
    before: str | None
    after: str | None
    cells: int


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the cells of one column. The six kinds add up to the matched rows.

    Attributes:
        unread: cells that the contract still cannot read afterwards, of whatever kind; their rows go to quarantine.
        personal: whether examples are withheld.
        examples: the most frequent changes; of columns of the contract alone.
    """

    column: str
    kept: int
    spelt: int
    changed: int
    mended: int
    filled: int
    emptied: int
    unread: int
    personal: bool
    examples: list[Example]


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """One column, without lines to match rows by: how many cells hold values that stood there more or less often before."""

    column: str
    gone: int
    come: int


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What the preparation of a source did to one of its files.

    Attributes:
        read: rows before; `ragged` lines, which no preparation sees, are not among them.
        prepared: rows after.
        matched: rows that are on both sides; None where the preparation drops `_line`, and then `dropped` and `added` are
            None too, `columns` is empty and `values` says what can be said.
        gone: columns that are only there before.
        new: columns that are only there after -> their cells that are not null.
    """

    source: str
    file: str
    read: int
    ragged: int
    prepared: int
    matched: int | None
    dropped: int | None
    added: int | None
    columns: list[Cells]
    values: list[Values]
    gone: list[str]
    new: dict[str, int]


@dataclass
class _Count:
    """The sums so far."""

    matched: int = 0
    dropped: int = 0
    added: int = 0
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    pairs: dict[str, Counter[tuple[str, str | None, str | None]]] = field(default_factory=dict)


def changes(session: Session, source: str, file: str = "", *, sample: int = 5) -> Changes:
    """Read a file of a source again, prepare it, and count what changed.

    Args:
        source: its name, or that of its contract where no other source yields it.
        file: as the source names it; by default its last.
        sample: examples a column.

    Raises:
        DeclarationError: `no-such-source`.
        DataError: `no-such-file`, `preparation-failed`; see `source.Reader`.
    """
    declared = _source(session, source)
    return compare(session.reader, declared, _file(session, declared, file), sample=sample)


def compare(reader: Reader, source: Source, file: File, *, sample: int = 5) -> Changes:
    """As `changes`, of one file."""
    # Never in the home: what a crash left there would be backed up, and outlive an erasure.
    with reader.open(source, file) as reading, tempfile.TemporaryDirectory(prefix="flyball-") as folder:
        raw = _spooled(reading.rows, Path(folder) / "before.parquet")
        ragged = reading.ragged.select(pl.len()).collect().item()
        prepared = _prepared(source, reading.rows, file, Path(folder) / "after.parquet")
        return _compared(source, file, raw, prepared, ragged, sample)


def _source(session: Session, name: str) -> Source:
    sources = session.app.sources
    found = [s for s in sources if s.name == name] or [s for s in sources if contract.spec(s.contract).name == name]
    if len(found) != 1:
        raise DeclarationError(
            "no-such-source",
            f"The app {session.app.name!r} has no single source {name!r}.",
            where=session.app.place,
            why=f"It declares {', '.join(s.name for s in sources)}.",
            next="Name one of them.",
        )
    return found[0]


def _file(session: Session, source: Source, name: str) -> File:
    files = session.reader.files(source)
    found = [f for f in files if f.name == name] if name else list(files[-1:])
    if not found:
        raise DataError(
            "no-such-file",
            f"The source {source.name} has no file {name or 'now'!r}.",
            where=source.place,
            why=f"It has {', '.join(f.name for f in files[:20])}{', ...' if len(files) > 20 else ''}." if files else "",
            next="Name one of them with --file.",
        )
    return found[0]


def _spooled(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    rows.sink_parquet(path)
    return pl.scan_parquet(path, glob=False)


def _prepared(source: Source, rows: pl.LazyFrame, file: File, path: Path) -> pl.LazyFrame:
    try:
        return _spooled(source.prepare(rows).lazy(), path)
    except Exception as problem:  # the preparation is the user's code: whatever it raises is told
        raise DataError(
            "preparation-failed",
            f"{file.name}: the preparation of {source.name} raised {masked.raised(problem, contract.spec(source.contract))}",
            where=source.place,
            why="There is nothing to compare.",
            next="Mend the preparation.",
        ) from problem


def _compared(
    source: Source, file: File, raw: pl.LazyFrame, prepared: pl.LazyFrame, ragged: int, sample: int
) -> Changes:
    spec = contract.spec(source.contract)
    before, after = raw.collect_schema(), prepared.collect_schema()
    shared = [c for c in before if c in after and c != LINE]
    new = [c for c in after if c not in before and c != LINE]
    counted = LINE in after
    count = _by_line(raw, prepared, spec, shared) if counted else None
    there = prepared.select(pl.len().alias(LINE), *(pl.col(c).count() for c in new)).collect(engine="streaming")
    return Changes(
        source=source.name,
        file=file.name,
        read=raw.select(pl.len()).collect().item(),
        ragged=ragged,
        prepared=there[LINE].item(),
        matched=count.matched if count else None,
        dropped=count.dropped if count else None,
        added=count.added if count else None,
        columns=[_cells(count, spec, c, sample) for c in shared] if count else [],
        values=[] if count else [_values(raw, prepared, c) for c in shared],
        gone=[c for c in before if c not in after and c != LINE],
        new={c: there[c].item() for c in new},
    )


def _by_line(raw: pl.LazyFrame, prepared: pl.LazyFrame, spec: Spec, shared: list[str]) -> _Count:
    count = _Count(kinds={c: Counter() for c in shared}, pairs={c: Counter() for c in shared if _shown(spec, c)})
    prepared = prepared.with_columns(pl.col(LINE).cast(pl.Int64, strict=False))
    ends = raw.select(low=pl.col(LINE).min(), high=pl.col(LINE).max()).collect()
    low, high = ends.row(0) if ends["low"].item() is not None else (1, 0)
    outside = ~pl.col(LINE).is_between(low, high).fill_null(value=False)
    count.added = prepared.filter(outside).select(pl.len()).collect(engine="streaming").item()
    for begin in range(low, high + 1, BLOCK):
        block = pl.col(LINE).is_between(begin, begin + BLOCK, closed="left")
        left = raw.filter(block).collect(engine="streaming")
        right = prepared.filter(block & ~outside).collect(engine="streaming")
        first = right.unique(LINE, keep="first", maintain_order=True)
        both = left.join(first.select(LINE, pl.col(shared).name.prefix(_AFTER)), on=LINE, how="inner")
        count.matched += both.height
        count.dropped += left.height - both.height
        count.added += right.height - both.height
        for column in shared:
            _add(count, both, spec, column)
    return count


def _add(count: _Count, both: pl.DataFrame, spec: Spec, column: str) -> None:
    """Count the cells of one column in a block."""
    then = _AFTER + column
    had, has = both.schema[column], both.schema[then]
    want = spec.dtypes.get(column, has)
    cells = both.select(
        pl.col(column).is_null().alias("was_null"),
        pl.col(then).is_null().alias("is_null"),
        coerce.cell(column, had, want).alias("was"),
        coerce.cell(then, has, want).alias("is"),
        _text(column, had).alias("before"),
        _text(then, has).alias("after"),
    )
    same = pl.col("before") == pl.col("after")
    kind = (
        pl.when(pl.col("was_null") & pl.col("is_null"))
        .then(pl.lit("kept"))
        .when(pl.col("was_null"))
        .then(pl.lit("filled"))
        .when(pl.col("is_null"))
        .then(pl.lit("emptied"))
        .when(same)
        .then(pl.lit("kept"))
        .when(pl.col("was").is_null() & pl.col("is").is_not_null())
        .then(pl.lit("mended"))
        .when(pl.col("was").eq_missing(pl.col("is")) & pl.col("is").is_not_null())
        .then(pl.lit("spelt"))
        .otherwise(pl.lit("changed"))
    )
    judged = cells.with_columns(kind.alias(_KIND))
    count.kinds[column].update(dict(judged[_KIND].value_counts().iter_rows()))
    count.kinds[column]["unread"] += judged.select((pl.col("is").is_null() & ~pl.col("is_null")).sum()).item()
    if column in count.pairs:
        _remember(count.pairs[column], judged.filter(pl.col(_KIND) != "kept"))


def _remember(pairs: Counter[tuple[str, str | None, str | None]], changed: pl.DataFrame) -> None:
    cut = changed.select(_KIND, *(pl.col(c).str.slice(0, _CUT + 1) for c in ("before", "after")))
    found = cut.group_by(_KIND, "before", "after").len().sort("len", _KIND, "before", "after", descending=True)
    for kind, before, after, cells in found.head(_PAIRS).iter_rows():
        change = (kind, before, after)
        if change in pairs or len(pairs) < _PAIRS:
            pairs[change] += cells


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    """A cell as text, to be compared and shown."""
    if dtype == pl.Binary:
        return pl.col(column).bin.encode("base64")
    if dtype.is_nested():
        return pl.struct(pl.col(column).alias("cell")).struct.json_encode()
    return pl.col(column).cast(pl.String)


def _shown(spec: Spec, column: str) -> bool:
    return column in spec.names and column not in spec.with_role(Personal)


def _cells(count: _Count, spec: Spec, column: str, sample: int) -> Cells:
    kinds = count.kinds[column]
    pairs = sorted(count.pairs.get(column, {}).items(), key=lambda p: (-p[1], p[0][0], str(p[0])))
    return Cells(
        column=column,
        **{kind: kinds[kind] for kind in KINDS},
        unread=kinds["unread"],
        personal=column in spec.with_role(Personal),
        examples=[
            Example(kind=kind, before=_short(before), after=_short(after), cells=cells)
            for (kind, before, after), cells in pairs[:sample]
        ],
    )


def _short(cell: str | None) -> str | None:
    return cell if cell is None or len(cell) <= _CUT else f"{cell[:_CUT]} …"


def _values(raw: pl.LazyFrame, prepared: pl.LazyFrame, column: str) -> Values:
    """How many cells hold values that are rarer, or more frequent, afterwards."""
    sides = [
        side.select(_text(column, side.collect_schema()[column]).alias("value"))
        .group_by("value")
        .agg(pl.len().alias(n))
        for side, n in ((raw, "before"), (prepared, "after"))
    ]
    more = pl.col("after").cast(pl.Int64).fill_null(0) - pl.col("before").cast(pl.Int64).fill_null(0)
    both = sides[0].join(sides[1], on="value", how="full", nulls_equal=True).select(more.alias("more"))
    found = both.select(gone=-pl.col("more").clip(upper_bound=0).sum(), come=pl.col("more").clip(lower_bound=0).sum())
    gone, come = found.collect(engine="streaming").row(0)
    return Values(column=column, gone=gone, come=come)


def lines(found: Changes) -> Iterator[str]:
    """What the counts say of rows, in plain words."""
    yield f"{found.read:,} rows read, {found.prepared:,} prepared" + (
        f"; {found.ragged:,} ragged lines are no rows" if found.ragged else ""
    )
    if found.matched is None:
        yield "The preparation lets go of _line: rows cannot be matched, only the values of each column compared."
    else:
        yield f"{found.matched:,} matched by line, {found.dropped:,} dropped, {found.added:,} added"
    if found.gone:
        yield f"columns gone (or renamed): {', '.join(found.gone)}"
    if found.new:
        yield f"columns new (cells that are not null): {', '.join(f'{c} {n:,}' for c, n in found.new.items())}"
