"""Small files with one commit leave what they leave one after the other: accounts, batches, rows, quarantine, positions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.errors import DataError
from flyball._kernel.place import Place
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset, ingest, quarantine, together
from flyball.data.contract import Contract
from flyball.data.ingest import Ingested
from flyball.data.source import LINE, File, Files, Source
from flyball.data.tables import BATCH, Tables
from flyball.data.together import Small

START = datetime(2013, 1, 1, tzinfo=UTC)


class Parcel(Contract):
    """With a key of two columns."""

    depot = dy.Enum(["N", "S"], primary_key=True)
    number = dy.Int64(primary_key=True)
    sent = contract.event_time(dy.Datetime(time_zone="UTC"))
    weight = dy.Float64(nullable=True, min=0, max=30)
    settled = contract.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    lost = contract.outcome(dy.Bool(nullable=True))


class Weighed(Parcel):
    """With a rule that looks at the other rows of its file."""

    @dy.rule()
    def not_all_weigh_nothing(cls) -> pl.Expr:
        return (pl.col("weight") > 0).any().over("depot")


CELLS: dict[str, list[Any]] = {
    "depot": ["N", "S", "X", None],
    "number": ["1", "01", "2", "3", "4", "5", "6", "one", None],
    "sent": [(START + timedelta(hours=n)).isoformat() for n in range(3)] + ["2013", None],
    "weight": ["0", "1.5", "31", "-1", "heavy", None],
    "settled": [START.isoformat(), None],
    "lost": ["true", "0", "perhaps", None],
}
rows = st.lists(
    st.fixed_dictionaries({c: st.sampled_from(v) | st.sampled_from(v[:3]) for c, v in CELLS.items()}), max_size=6
)
# Some lack a column of no importance, have one more, or cannot be prepared at all.
files = st.lists(st.tuples(rows, st.sampled_from(["", "", "", "more", "broken"])), min_size=1, max_size=8)


def prepared(raw: pl.LazyFrame) -> pl.LazyFrame:
    if "broken" in raw.collect_schema():
        raise ValueError
    return raw


def content(tables: Tables, source: Source, reader: MemoryReader) -> tuple[Any, ...]:
    """All that the tables say."""
    name = contract.spec(source.contract).name
    table = dataset.read(tables, source.contract, dataset.latest(tables, source.contract))
    bad = quarantine.read(tables, name, 99).with_columns(pl.col("rules").list.sort())
    return (
        table.sort(BATCH, "depot", "number").collect().rows(),
        bad.sort(BATCH, LINE, "row").collect().rows(),
        ingest.repair(tables, name),
        [tables.position(name, ingest.position(source, file, "r")) for file in reader.files(source)],
        tables.head(name).batch,
        tables.head(quarantine.table(name)).batch,
    )


@settings(max_examples=40, deadline=None)
@given(
    files=files,
    group=st.integers(1, 8),
    known=st.lists(st.sampled_from([None, 5, 9]), min_size=8, max_size=8),
    observed=st.sampled_from([Parcel, Parcel, Weighed]),
)
def test_together_or_one_after_the_other_is_the_same(
    files: list[tuple[list[dict[str, Any]], str]], group: int, known: list[int | None], observed: type[Contract]
) -> None:
    source = Source("x.Parcel", Files("*"), prepared, observed, place=Place(__file__, 1))
    frames = {}
    for n, (found, kind) in enumerate(files):
        frame = pl.DataFrame(found, schema=dict.fromkeys(CELLS, pl.String()))
        frames[f"{n}.csv"] = frame.with_columns(pl.lit("x").alias(kind)) if kind else frame
    reader = MemoryReader(frames, {"0.csv": [(99, "no row")], "1.csv": [(98, "nor this"), (99, "nor this")]})
    listed = [
        Small(file, None if n is None else START + timedelta(days=n))
        for file, n in zip(reader.files(source), known, strict=False)
    ]
    alone, joint = MemoryTables(), MemoryTables()
    expected: dict[File, Ingested | str] = {}
    for each in listed:
        try:
            found_alone = ingest.ingest(
                source, alone, reader, recipe="r", known_from=each.known_from, file=each.file
            ).said
        except DataError as problem:
            expected[each.file] = problem.code
        else:
            expected[each.file] = found_alone
    for _ in range(2):  # the second time, all that could be read is there
        got: dict[File, Ingested | str] = {}
        for start in range(0, len(listed), group):
            came = together.ingest_together(source, joint, reader, recipe="r", files=listed[start : start + group])
            got |= {file: r.said if isinstance(r, ingest.Result) else r.code for file, r in came.items()}
        assert got == expected
        assert content(joint, source, reader) == content(alone, source, reader)


def test_a_group_is_bounded() -> None:
    sizes = [1] * (together.FILES + 3) + [together.BYTES - 1, 2, together.BYTES * 2, 1]
    listed = [File(str(n), "", size) for n, size in enumerate(sizes)]
    found = list(together.groups(listed))
    assert [each for group in found for each in group] == listed
    assert [len(group) for group in found] == [together.FILES, 3, 1, 1, 1, 1]
    assert list(together.groups([])) == []
