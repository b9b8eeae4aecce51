"""A large file is taken in streaming, by buckets of keys; what comes of it is what comes of the same file taken in whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars import selectors

from flyball._kernel.place import Place
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset, ingest, intake, quarantine, sift
from flyball.data.contract import Contract
from flyball.data.source import LINE, Files, Source
from flyball.data.tables import BATCH

START = datetime(2013, 1, 1, tzinfo=UTC)


class Parcel(Contract):
    """With a key of two columns, and a rule that looks at other rows."""

    depot = dy.Enum(["N", "S"], primary_key=True)
    number = dy.Int64(primary_key=True)
    sent = contract.event_time(dy.Datetime(time_zone="UTC"))
    weight = dy.Float64(nullable=True, min=0, max=30)
    settled = contract.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    lost = contract.outcome(dy.Bool(nullable=True))

    @dy.rule()
    def not_all_weigh_nothing(cls) -> pl.Expr:
        return (pl.col("weight") > 0).any().over("depot")


CELLS: dict[str, list[Any]] = {
    "depot": ["N", "S", "X", None],
    "number": ["1", "2", "3", "4", "5", "6", "7", "one", None],
    "sent": [(START + timedelta(hours=n)).isoformat() for n in range(3)] + ["2013", None],
    "weight": ["0", "1.5", "31", "-1", "heavy", None],
    "settled": [START.isoformat(), None],
    "lost": ["true", "0", "perhaps", None],
}

rows = st.lists(
    st.fixed_dictionaries({c: st.sampled_from(v) | st.sampled_from(v[:2]) for c, v in CELLS.items()}), max_size=30
)


def taken(
    frames: list[pl.DataFrame], observed: type[Contract] = Parcel
) -> tuple[list[ingest.Ingested], list[Any], list[Any]]:
    """What each file became, the table, and the quarantine."""
    declared = Source("x.Parcel", Files("*"), lambda raw: raw, observed, place=Place(__file__, 1))
    tables = MemoryTables()
    reader = MemoryReader({f"{n}.csv": frame for n, frame in enumerate(frames)}, {"0.csv": [(99, "no row")]})
    said = [
        ingest.ingest(declared, tables, reader, recipe="r", known_from=known, file=file).said
        for file, known in zip(reader.files(declared), (None, START + timedelta(days=9)), strict=False)
    ]
    for each in said:
        assert each.read == each.accepted + each.quarantined + each.duplicates
    table = dataset.read(tables, observed, dataset.latest(tables, observed)).sort(BATCH, "depot", "number").collect()
    bad = (
        quarantine.read(tables, observed.__name__, 9)
        .with_columns(pl.col("rules").list.sort())
        .sort(BATCH, LINE, "row")
        .collect()
    )
    return said, table.rows(), bad.rows()


@settings(max_examples=60, deadline=None)
@given(files=st.lists(rows, min_size=2, max_size=2), bucket=st.sampled_from([0, 1, 7]))
def test_in_buckets_or_whole_is_the_same(files: list[list[dict[str, Any]]], bucket: int) -> None:
    frames = [pl.DataFrame(each, schema=dict.fromkeys(CELLS, pl.String())) for each in files]
    whole = taken(frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "WHOLE", max(bucket, 1) if bucket else 1)
        patch.setattr(sift, "_SEED", bucket)
        assert taken(frames) == whole


@settings(max_examples=20, deadline=None)
@given(files=st.lists(rows, min_size=2, max_size=2))
def test_keys_whose_hashes_collide_are_told_apart(files: list[list[dict[str, Any]]]) -> None:
    """All keys of a depot share one hash: every row takes the longer way."""
    frames = [pl.DataFrame(each, schema=dict.fromkeys(CELLS, pl.String())) for each in files]
    whole = taken(frames)
    real = sift._hash
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "WHOLE", 2)
        patch.setattr(sift, "_hash", lambda spec, schema: real(spec, schema) % 2)
        assert taken(frames) == whole


@pytest.mark.parametrize(
    "rule",
    [
        pl.sum_horizontal(selectors.numeric()) <= 8,
        pl.sum_horizontal(pl.all().is_null()) <= 1,
        ~pl.all_horizontal(selectors.boolean()),
        ~pl.struct(pl.all().exclude("number")).is_duplicated(),
        pl.first() != "S",
    ],
    ids=["numbers", "all", "truths", "struct", "first"],
)
def test_rules_over_whatever_columns_there_are_see_those_of_the_contract_alone(rule: pl.Expr) -> None:
    class Wide(Parcel):
        @dy.rule()
        def over_all(cls) -> pl.Expr:
            return rule

    every = [
        {
            "depot": d,
            "number": str(n),
            "sent": CELLS["sent"][0],
            "weight": w,
            "settled": START.isoformat(),
            "lost": lost,
        }
        for n, (d, w, lost) in enumerate(product("NS", ["0", "1.5", "heavy", None], ["true", "false", None]))
    ]
    frames = [pl.DataFrame(every, schema=dict.fromkeys(CELLS, pl.String()))]
    whole = taken(frames, Wide)
    assert whole[0][0].by_rule["over_all"]
    assert whole[0][0].accepted or "struct" in str(rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "WHOLE", 1)
        assert taken(frames, Wide) == whole


def test_hashes_are_counted_and_shared() -> None:
    numbers = [5, 1, 5, 9, 1, 5, 2**64 - 1]
    keys = sift.hashes(pl.LazyFrame({"k": pl.Series([*numbers, None], dtype=pl.UInt64)}), 2)
    assert keys.tolist() == sorted(numbers)
    assert sift.shared(keys).tolist() == [1, 5]
    assert sift.count(keys, sift.shared(keys)) == 5
    assert sift.shared(keys[:0]).tolist() == sift.shared(keys[:1]).tolist() == []


@pytest.mark.parametrize(
    ("prepare", "replays"),
    [
        (lambda raw: raw, True),
        (lambda raw: raw.filter(pl.col("n") > 1).select("n", x=pl.col("n") * 2), True),
        (lambda raw: raw.sort("n"), False),
        (lambda raw: raw.unique(), False),
        (lambda raw: raw.collect().lazy(), False),
        (lambda raw: raw.map_batches(lambda frame: frame), False),
        (lambda raw: raw.with_columns(pl.col("n").map_elements(lambda n: n, return_dtype=pl.Int64)), False),
        (lambda raw: raw.join(raw, on="n"), False),
        (lambda raw: raw.group_by("n").agg(pl.len()), False),
        (lambda raw: pl.concat([raw, raw]), False),
        (lambda raw: raw.with_columns(pl.col("n").shuffle()), False),
        (lambda raw: raw.with_columns(pl.col("n").rank("random")), False),
        (lambda raw: raw.with_columns(pl.col("n").sample(fraction=1, shuffle=True)), False),
    ],
)
def test_a_preparation_runs_twice_only_where_it_chooses_columns_and_rows(
    tmp_path_factory: pytest.TempPathFactory, prepare: Any, replays: bool
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.parquet"
    pl.DataFrame({"n": [1, 2, 3]}).write_parquet(path)
    raw = pl.scan_parquet(path, glob=False).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})
    assert intake._replays(prepare(raw)) is replays
    csv = path.with_suffix(".csv")
    pl.DataFrame({"n": [1]}).write_csv(csv)
    assert not intake._replays(prepare(pl.scan_csv(csv)))


def test_products_of_cells_are_sifted_alike() -> None:
    """Every pair of cells of two columns, whole and in buckets."""
    every = [
        {"depot": d, "number": n, "sent": s, "weight": w, "settled": None, "lost": None}
        for d, n, s, w in product(CELLS["depot"], CELLS["number"], CELLS["sent"][1:], CELLS["weight"])
    ]
    frames = [pl.DataFrame(every, schema=dict.fromkeys(CELLS, pl.String())).with_row_index(LINE, 2)] * 2
    whole = taken(frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "WHOLE", 100)
        assert taken(frames) == whole
    assert sum(said.quarantined for said in whole[0]) > 1000
