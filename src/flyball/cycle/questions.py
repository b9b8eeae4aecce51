"""Questions in files: found, read a piece at a time, and judged as if they had been read at once.

    files -> pieces of so many rows -> sifted: good rows, bad ones with the rules that they break

Only two things of a row depend on rows far away: whether its key stands elsewhere too (then it repeats or contradicts), and
rules over groups. Both are settled before the first piece, by the rows' **positions**: keys are compared by 64-bit hashes, a
share of them at a time, and only rows whose hash is not alone are looked at whole (`data.sift` does the judging).
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import coerce, contract, masked, quarantine, rules, sift
from flyball.data.contract import Spec
from flyball.data.sift import POSITION, Sifted
from flyball.data.source import LINE
from flyball.learn.model import Model

FILE = "_file"
"""The column of a refused row that names its file."""
HASHES = 1 << 26
"""Hashes of keys that are held at once: 512 MB."""
DISPUTED = 1 << 18
"""Rows in dispute that are looked at together, about."""
_ELSEWHERE = "primary_key elsewhere"
_SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson", ".json")
_HASH = "\0hash"
_SEED = 0x5EED


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions of one model in some files.

    Attributes:
        by: columns by which is decided, and which a question therefore carries too.
        rows: in each file.
        digest: of all that the files hold.
    """

    model: Model
    files: tuple[Path, ...]
    by: frozenset[str]
    rows: tuple[int, ...]
    digest: str

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows)


@dataclass(frozen=True, slots=True)
class Disputes:
    """What rows owe to other rows.

    Attributes:
        repeats: positions of rows that say what an earlier one says, ascending.
        rules: rule that looks at other rows -> positions of those that break it.
    """

    repeats: npt.NDArray[np.int64]
    rules: Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one file, as they stand there.

    Attributes:
        number: of the piece, from 0 on, over all files.
    """

    number: int
    file: Path
    rows: pl.DataFrame


def find(model: Model, path: Path) -> Questions:
    """The questions of a file, of the files of a folder, or of those that a pattern such as `in/*.csv` matches.

    Raises:
        DataError: `file-unreadable`, `column-missing`.
    """
    spec = contract.spec(model.question)
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if each.suffix in _SUFFIXES and each.name[0] not in "._"]
    elif not path.exists() and glob.has_magic(str(path)):
        files = [Path(each) for each in sorted(glob.glob(str(path)))]
    else:
        files = [path]
    with _readable(path, spec):
        if not files:
            raise FileNotFoundError(f"{path} matches no file")
        asked = Questions(model, tuple(files), frozenset(), (), "")
        rows = tuple(scan(asked, file).select(pl.len()).collect(engine="streaming").item() for file in files)
        return Questions(model, tuple(files), asked.by, rows, _digest(files))


def scan(questions: Questions, file: Path) -> pl.LazyFrame:
    """The rows of a file, with a null column for each outcome and for whatever else a request may leave out.

    Raises:
        DataError: `column-missing`.
    """
    model, spec = questions.model, contract.spec(questions.model.question)
    match file.suffix:
        case ".parquet":
            frame = pl.scan_parquet(file)
        case ".csv":
            frame = pl.scan_csv(file, infer_schema=False, null_values=["", "NA"])
        case _:
            frame = pl.scan_ndjson(file)
    columns = frame.collect_schema().names()
    needed = {c.name for c in spec.request if not c.nullable}
    required = needed | model.features.reads(model.question) | {model.asked.column.name} | questions.by
    missing = sorted(required - set(columns))
    if missing:
        raise DataError(
            "column-missing",
            f"{file} has no column {missing[0]!r}.",
            where=spec.place,
            why=f"A question to {model.name!r} carries {', '.join(sorted(required))}.",
            next="Add the column.",
        )
    given = [c for c in spec.names if c in columns and c not in spec.late]
    absent = [pl.lit(None, dtype=spec.dtypes[c]).alias(c) for c in spec.names if c not in given]
    return frame.select(*given, *absent)


def pieces(questions: Questions, size: int, first: int = 0) -> Iterator[Piece]:
    """The questions from the piece `first` on, `size` rows each, in order; none holds rows of two files.

    Raises:
        DataError: `file-unreadable`.
    """
    spec = contract.spec(questions.model.question)
    number = start = 0
    if not questions.total:
        empty = scan(questions, questions.files[0]).collect()
        yield Piece(0, questions.files[0], empty.with_columns(pl.lit(0, pl.Int64).alias(n) for n in (POSITION, LINE)))
    for file, rows in zip(questions.files, questions.rows, strict=True):
        count = -(-rows // size)
        skip = min(max(first - number, 0), count)
        with _readable(file, spec):
            for n, part in enumerate(_exactly(scan(questions, file).slice(skip * size), size), skip):
                line = pl.int_range(n * size + 1, n * size + part.height + 1, dtype=pl.Int64, eager=True)
                placed = part.with_columns((line - 1 + start).alias(POSITION), line.alias(LINE))
                yield Piece(number + n, file, placed)
        number, start = number + count, start + rows


def disputes(questions: Questions) -> Disputes:
    """Settle what rows owe to other rows; memory grows with the rows that share a key, and not with the others.

    Raises:
        DataError: `file-unreadable`.
    """
    model, spec = questions.model, contract.spec(questions.model.question)
    with _readable(questions.files[0], spec):
        broken: Mapping[str, pl.Series] = {}
        if rules.of(model.question).grouped:
            whole = pl.concat([scan(questions, file) for file in questions.files], how="vertical_relaxed")
            broken = sift.survey(whole, model.question).grouped
        found = {rule: np.sort(at.cast(pl.Int64).to_numpy()) for rule, at in broken.items()}
        repeats, clashes = _contended(questions, spec)
    return Disputes(repeats, found | ({_ELSEWHERE: clashes} if len(clashes) else {}))


def judge(questions: Questions, piece: Piece, settled: Disputes) -> tuple[Sifted, int]:
    """The rows of a piece that keep the contract and those that break it; and how many only repeat."""
    rows = piece.rows
    low, high = (rows[POSITION][0], rows[POSITION][-1]) if rows.height else (0, -1)
    repeats = _within(settled.repeats, low, high)
    if len(repeats):
        rows = rows.filter(~pl.col(POSITION).is_in(pl.Series(repeats).implode()))
    grouped = {rule: pl.Series(_within(at, low, high)) for rule, at in settled.rules.items()}
    return sift.sift(rows, questions.model.question, grouped), len(repeats)


def refused(piece: Piece, sifted: Sifted) -> pl.DataFrame:
    """`_file`, `_line`, `rules` and `row` of the bad rows of a piece."""
    named = pl.col("rules").list.eval(pl.element().replace(_ELSEWHERE, quarantine.KEY)).list.unique().list.sort()
    return sifted.bad.select(pl.lit(piece.file.name).alias(FILE), LINE, named, "row")


def _contended(questions: Questions, spec: Spec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the rows that repeat an earlier one, and of those whose key another row contradicts."""
    hashed, start = [], 0
    for file, rows in zip(questions.files, questions.rows, strict=True):
        frame = scan(questions, file)
        placed = frame.with_row_index(POSITION, offset=start).with_columns(pl.col(POSITION).cast(pl.Int64))
        hashed.append(placed.with_columns(_hash(spec, frame.collect_schema()).alias(_HASH)))
        start += rows
    keys = pl.concat([frame.select(_HASH) for frame in hashed])
    shares = -(-questions.total // HASHES) or 1
    picked = [keys if shares == 1 else keys.filter(pl.col(_HASH) % shares == n) for n in range(shares)]
    shared = np.concatenate([sift.shared(sift.hashes(each)) for each in picked])
    repeats, clashes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if not len(shared):
        return repeats[0], clashes[0]
    among = pl.col(_HASH).is_in(pl.Series(shared).implode())
    count = keys.filter(among).select(pl.len()).collect(engine="streaming").item()
    buckets = -(-count // DISPUTED)
    for n in range(buckets):
        own = [frame.filter(among & (pl.col(_HASH) % buckets == n)) for frame in hashed]
        alike = pl.concat(own, how="vertical_relaxed").collect(engine="streaming").sort(POSITION)
        sifted = sift.sift(alike, questions.model.question, {})
        repeats.append(alike.filter(~(sifted.kept | sifted.refused))[POSITION].to_numpy())
        clash = sifted.bad.select(pl.col("rules").list.contains(quarantine.KEY)).to_series()
        clashes.append(alike.filter(sifted.refused)[POSITION].filter(clash).to_numpy())
    return np.sort(np.concatenate(repeats)), np.sort(np.concatenate(clashes))


def _hash(spec: Spec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A hash of the key as the contract reads it; null where a part of it is."""
    cells = [coerce.cell(name, schema[name], spec.dtypes[name]) for name in spec.key]
    # The codes of categories depend on the order in which they were met.
    plain = [
        c.cast(pl.String) if isinstance(spec.dtypes[n], pl.Categorical | pl.Enum) else c
        for n, c in zip(spec.key, cells, strict=True)
    ]
    whole = plain[0] if len(plain) == 1 else pl.struct(each.alias(str(n)) for n, each in enumerate(plain))
    return pl.when(pl.all_horizontal(each.is_not_null() for each in plain)).then(whole.hash(_SEED))


def _exactly(rows: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    """Frames of `size` rows, the last of what is left."""
    held: list[pl.DataFrame] = []
    for batch in rows.collect_batches(chunk_size=size, maintain_order=True):
        held.append(batch)
        while sum(each.height for each in held) >= size:
            whole = pl.concat(held)
            yield whole.head(size)
            held = [whole.slice(size)]
    if any(each.height for each in held):
        yield pl.concat(held)


def _within(positions: npt.NDArray[np.int64], low: int, high: int) -> npt.NDArray[np.int64]:
    return positions[np.searchsorted(positions, low) : np.searchsorted(positions, high, side="right")]


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the one file; of several, that of their names and digests."""
    found = []
    for file in files:
        with file.open("rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(files) == 1:
        return found[0]
    listed = "\n".join(f"{digest} {file.name}" for digest, file in zip(found, files, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()


@contextmanager
def _readable(path: Path, spec: Spec) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            "file-unreadable",
            f"{path} {'cannot be read' if path.exists() else 'does not exist'}.",
            why=masked.raised(error, spec),
            next="Give a file that is there: Parquet, CSV or JSON lines; a folder of such, or a pattern in quotes.",
        ) from error
