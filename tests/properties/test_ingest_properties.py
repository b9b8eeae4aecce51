"""Random files through the whole of ingest: no line is lost, each fault is found by its rule, and twice is once."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.place import Place
from flyball.adapters.embedded import lines, records
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset, ingest, quarantine, source
from flyball.data.contract import Contract
from flyball.data.ingest import Ingested
from flyball.data.source import LINE, TEXT, Files, Reading, Source
from flyball.data.tables import BATCH, KNOWN

START = datetime(2013, 1, 1, tzinfo=UTC)
QUICK = settings(max_examples=50, deadline=None)


class Flight(Contract):
    flight = dy.String(primary_key=True, regex="^[A-Z]+[0-9]+$")
    scheduled = contract.event_time(dy.Datetime(time_zone="UTC"), known=contract.before(timedelta(days=1)))
    origin = dy.Enum(["EWR", "JFK", "LGA"])
    distance = dy.Int32(min=1, max=6000)
    delay = dy.Float64(nullable=True, max=2000)
    settled = contract.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = contract.outcome(dy.Bool(nullable=True))


FAULTS = {
    "flight": [("UA {}", "flight|regex"), ("", "flight|nullability")],
    "scheduled": [("2013-01-01", "scheduled|dtype"), ("NA", "scheduled|nullability")],
    "origin": [("SFO", "origin|dtype"), ("", "origin|nullability")],
    "distance": [
        ("0", "distance|min"),
        ("6001", "distance|max"),
        ("1.5", "distance|dtype"),
        ("NA", "distance|nullability"),
    ],
    "delay": [("2001", "delay|max"), ("late", "delay|dtype")],
    "settled": [("yesterday", "settled|dtype")],
    "late": [("perhaps", "late|dtype")],
}
"""Column -> cells that break it (with the line for {}), and the rule that each breaks."""


@st.composite
def good_rows(draw: st.DrawFn) -> list[dict[str, str]]:
    rows = []
    for n in range(draw(st.integers(0, 12))):
        settled = draw(st.booleans())
        rows.append(
            {
                "flight": f"UA{n}",
                "scheduled": (START + timedelta(minutes=draw(st.integers(0, 500_000)))).isoformat(),
                "origin": draw(st.sampled_from(["EWR", "JFK", "LGA"])),
                "distance": str(draw(st.integers(1, 6000))),
                "delay": draw(st.sampled_from(["", "NA", "1.5", "-20", "2000"])),
                "settled": START.isoformat() if settled else "",
                "late": draw(st.sampled_from(["true", "0", "FALSE"])) if settled else "",
            }
        )
    return rows


def declare(folder: Path) -> Source:
    return Source("x.Flight", Files("x.csv"), lambda raw: raw, Flight, place=Place(str(folder / "app.py"), 1))


def ingested(folder: Path, tables: MemoryTables) -> ingest.Result:
    reader = FileReader()
    (file,) = reader.files(declare(folder))
    result = ingest.ingest(declare(folder), tables, reader, recipe="r", known_from=None, file=file)
    said = result.said
    assert said.read == said.accepted + said.quarantined + said.duplicates
    return result


@QUICK
@given(rows=good_rows(), data=st.data())
def test_each_violated_cell_is_found_by_its_rule(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    expected: dict[int, list[str]] = {}
    repeated = 0
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FAULTS)
    line = 2
    for row in rows:
        columns = data.draw(st.lists(st.sampled_from(sorted(FAULTS)), unique=True, max_size=3))
        faults = {column: data.draw(st.sampled_from(FAULTS[column])) for column in columns}
        cells = [*({**row, **{column: cell.format(line) for column, (cell, _) in faults.items()}}).values()]
        if faults:
            expected[line] = sorted(rule for _, rule in faults.values())
        writer.writerow(cells)
        line += 1
        match data.draw(st.integers(0, 5)):
            case 0 if not faults:
                writer.writerow(cells)  # says the same again
                repeated, line = repeated + 1, line + 1
            case 1:
                writer.writerow(cells[:-1] if data.draw(st.booleans()) else [*cells, "x"])
                expected[line], line = ["ragged"], line + 1
    (folder / "x.csv").write_text(out.getvalue())

    tables = MemoryTables()
    first = ingested(folder, tables)
    kept = quarantine.read(tables, "Flight", 1).select(LINE, "rules").sort(LINE).collect()
    assert dict(kept.iter_rows()) == expected
    assert first.said.by_rule == Counter(rule for rules in expected.values() for rule in rules)
    assert first.said.duplicates == repeated
    assert first.said.read == line - 2

    before = dataset.read(tables, Flight, dataset.latest(tables, Flight)).collect()
    again = ingested(folder, tables)
    assert (again.fresh, again.said) == (False, first.said)
    assert dataset.read(tables, Flight, dataset.latest(tables, Flight)).collect().equals(before)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 30), seed=st.integers(0, 2**31))
def test_what_the_contract_samples_is_accepted_whole(rows: int, seed: int) -> None:
    frames = {"x.csv": Flight.sample(rows, generator=dy.random.Generator(seed))}
    reader, tables = MemoryReader(frames), MemoryTables()
    declared = declare(Path())
    (file,) = reader.files(declared)
    said = ingest.ingest(declared, tables, reader, recipe="r", known_from=None, file=file).said
    assert (said.read, said.accepted) == (rows, rows)


HISTORY = st.lists(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 2), st.integers(1, 2)), max_size=5), max_size=6
)


@QUICK
@given(files=HISTORY)
def test_a_table_says_what_its_files_said_last(files: list[list[tuple[str, int, int]]]) -> None:
    """Against an oracle that keeps the last content of each key; the third file on is life."""
    tables = MemoryTables()
    current: dict[str, tuple[int, int]] = {}
    for n, rows in enumerate(files):
        content = dict.fromkeys(rows)
        clash = {key for key in "ABC" if sum(k == key for k, _, _ in content) > 1}
        news = {k: (s, d) for k, s, d in content if k not in clash}
        said = said_of(tables, f"{n}.csv", rows, START + timedelta(days=n) if n > 1 else None)
        assert said.quarantined == sum(k in clash for k, _, _ in content)
        assert said.accepted == sum(current.get(k) != v for k, v in news.items())
        assert said.corrections == sum(k in current and current[k] != v for k, v in news.items())
        assert said.read == said.accepted + said.quarantined + said.duplicates
        current |= news
    observations = dataset.read(tables, Flight, dataset.latest(tables, Flight))
    last = dataset.as_of(observations, contract.spec(Flight), START + timedelta(days=99)).collect()
    hours = {
        k: (int((s - START) / timedelta(hours=1)), d)
        for k, s, d in last.select("flight", "scheduled", "distance").rows()
    }
    assert hours == {f"{k}1": v for k, v in current.items()}
    known = observations.sort(BATCH).group_by("flight", maintain_order=True).agg(KNOWN).collect()[KNOWN]
    assert all(times.is_sorted() for times in known)


def said_of(tables: MemoryTables, name: str, rows: list[Any], known_from: datetime | None) -> Ingested:
    cells = [(f"{k}1", START + timedelta(hours=s), "JFK", d, None, None, None) for k, s, d in rows]
    reader = MemoryReader({name: pl.DataFrame(cells, schema=contract.spec(Flight).dtypes, orient="row")})
    declared = source.files("*.csv", prepare=lambda raw: raw, yields=Flight)
    (file,) = reader.files(declared)
    return ingest.ingest(declared, tables, reader, recipe="r", known_from=known_from, file=file).said


TEXTS = st.lists(
    st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"\r", b" ", "é".encode(), b"\xff", b"NA", b"x,y\n"]),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(parts=TEXTS, width=st.integers(1, 3))
def test_no_line_of_a_text_is_lost(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], width: int) -> None:
    """Rows and ragged lines are the lines of the file; and where Polars may read it alone, it reads what we read."""
    names = tuple(f"c{n}" for n in range(width))
    folder = tmp_path_factory.mktemp("text")
    path = folder / "x.csv"
    body = b"".join(parts)
    path.write_bytes(",".join(names).encode() + b"\n" + body)

    texts = [text for _, _, text in records._records(path, ",")][1:]
    physical = [line.rstrip("\r\n") for line in lines.lines(path)][1:]
    assert [part.rstrip("\r") for text in texts for part in text.split("\n")] == [p.rstrip("\r") for p in physical]

    (folder / "exact").mkdir()
    fields = records._fields(path, names, frozenset(("", "NA")), ",")
    exact = rows_of(records._read_exactly(fields, names, folder / "exact"))
    (folder / "any").mkdir()
    assert rows_of(records.read_csv(path, ("", "NA"), ",", folder / "any")) == exact
    blank = sum(text == "" for text in texts) if width > 1 else 0
    assert len(exact[0]) + len(exact[1]) == len(texts) - blank


def rows_of(reading: Reading) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    rows = reading.rows.collect()
    return rows.select(LINE, pl.exclude(LINE)).rows(), reading.ragged.select(LINE, TEXT).collect().rows()
