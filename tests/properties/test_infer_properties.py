"""Whatever a file holds, the contract that is inferred from it is Python that runs, and accepts every row of it."""

from __future__ import annotations

import importlib.util
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.place import Place
from flyball.adapters.embedded.sources import FileReader
from flyball.data import contract, sift
from flyball.data.contract import Contract
from flyball.data.drafts import draft, infer
from flyball.data.source import Files, Source

NAMES = st.sampled_from(
    ["id", "_id", "class", "a-b", "a b", "a_b", "dy", "columns", "primary_key", "x|min", "größe", "1st", "date", "name"]
) | st.text("abc_ -|é1", min_size=1, max_size=4).filter(lambda n: n.strip() and n != "_line")
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1))
SMALL = st.integers(-30, 30)
KINDS: list[st.SearchStrategy[Any]] = [
    st.integers(-(2**63), 2**63 - 1).map(str),
    SMALL.map(str),
    st.integers(0, 99_999).map("{:05}".format),
    st.floats(allow_nan=True).map(str),
    SMALL.map(lambda n: f" {n}"),
    st.sampled_from(["red", "blue", "?", 'a"b', "back\\slash", "line\u2028sign"]),
    st.booleans().map(lambda b: str(b).lower()),
    TIMES.map(lambda t: t.date().isoformat()),
    TIMES.map(lambda t: t.isoformat(" ")),
    TIMES.map(lambda t: t.replace(tzinfo=UTC).isoformat()),
    TIMES.map("{:%d.%m.%Y}".format),
    TIMES.map("{:%m/%d/%Y %H:%M}".format),
    SMALL.map(lambda n: f"AB-{abs(n)}"),
    st.text("ab 'é0", max_size=8),
    st.sampled_from(["ann@example.com", "4111 1111 1111 1111", "192.168.0.1"]),
]
TYPED: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Int8(), st.integers(-128, 127)),
    (pl.UInt64(), st.integers(0, 2**64 - 1)),
    (pl.Float32(), st.floats(width=32)),
    (pl.Date(), st.dates(date(1990, 1, 1), date(2030, 1, 1))),
    (pl.Datetime("ms"), TIMES.map(lambda t: t.replace(microsecond=0))),
    (pl.Datetime("us", "Europe/Berlin"), TIMES.map(lambda t: t.replace(tzinfo=UTC))),
    (pl.Duration("us"), st.integers(-(10**9), 10**9).map(lambda n: timedelta(microseconds=n))),
    (pl.Boolean(), st.booleans()),
    (pl.Categorical(), st.sampled_from(["x", "y"])),
    (pl.List(pl.Float64()), st.lists(st.none() | st.floats(), max_size=2)),
    (pl.Struct({"a": pl.Int32(), "b": pl.String()}), st.fixed_dictionaries({"a": SMALL, "b": st.text("ab")})),
    (pl.Decimal(9, 2), st.decimals(-1000, 1000, places=2)),
    (pl.Null(), st.none()),
    (pl.Binary(), st.binary(max_size=3)),
]


@st.composite
def tables(draw: st.DrawFn, *, typed: bool) -> pl.DataFrame:
    names, height = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)), draw(st.integers(1, 12))
    columns = []
    for name in names:
        dtype, cells = draw(st.sampled_from(TYPED)) if typed else (pl.String(), draw(st.sampled_from(KINDS)))
        maybe = st.none() | cells if draw(st.booleans()) else cells
        values = draw(st.lists(maybe, min_size=height, max_size=height))
        repeated = values * draw(st.sampled_from([1, 1, 6]))
        columns.append((name, dtype, repeated))
    height = min(len(values) for _, _, values in columns)
    return pl.DataFrame([pl.Series(n, v[:height], dtype=t, strict=False) for n, t, v in columns])


@settings(max_examples=40, deadline=None)
@given(tables(typed=False))
def test_a_text_file_keeps_the_contract_inferred_from_it(rows: pl.DataFrame) -> None:
    accepted(rows, "rows.csv")


@settings(max_examples=40, deadline=None)
@given(tables(typed=True))
def test_a_typed_file_keeps_the_contract_inferred_from_it(rows: pl.DataFrame) -> None:
    accepted(rows, "rows.parquet")


def accepted(rows: pl.DataFrame, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        rows.write_csv(path) if path.suffix == ".csv" else rows.write_parquet(path)
        reader = FileReader()
        raw = Source("x", Files(name), lambda r: r, Contract, place=Place(str(path), 1))
        (file,) = reader.files(raw)
        with reader.open(raw, file) as reading:
            found = infer.infer(reading.rows)
        module = Path(folder) / "inferred.py"
        module.write_text(draft.code(found, path=name), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("inferred", module)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        source: Source = made.source
        contract.spec(source.contract)
        with reader.open(source, reader.files(source)[0]) as reading:
            prepared = source.prepare(reading.rows).collect()
        sifted = sift.sift(prepared, source.contract)
        assert sifted.bad.is_empty(), (module.read_text(), sifted.bad["rows"].to_list())
        assert sifted.good.height == prepared.height == found.rows
