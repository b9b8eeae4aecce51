"""Counting what a preparation did: kinds of changes, rows, examples, and what can be said without lines."""

from __future__ import annotations

import json
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball._kernel.errors import DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.adapters.embedded.sources import FileReader
from flyball.cli import data_changes
from flyball.cycle import changes
from flyball.data.preparing import prepare
from flyball.data.source import Files, Preparation, Source

FILE = """\
key,at,kilos,mail,note
a,2024-01-01T00:00:00Z,1.0,a@x.org,x
b,2024-01-01T00:00:00Z,2 kg,B@x.org, y
c,2024-01-01T00:00:00Z,,c@x.org,
d,2024-01-01T00:00:00Z,far,,z
e,2024-01-01T00:00:00Z,7,-,z
this line is no row
f,2024-01-01T00:00:00Z,9,f@x.org,z
"""


class Parcel(fb.Contract):
    key = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    kilos = dy.Float64(nullable=True)
    mail = fb.personal(dy.String(nullable=True))


def compared(folder: Path, step: Preparation, text: str = FILE, sample: int = 5) -> changes.Changes:
    (folder / "parcels.csv").write_text(text)
    source = Source("parcels", Files("parcels.csv"), step, Parcel, place=Place(str(folder / "app.py"), 1))
    reader = FileReader()
    (file,) = reader.files(source)
    return changes.compare(reader, source, file, sample=sample)


def cleaned(rows: pl.LazyFrame) -> pl.LazyFrame:
    whole = pl.col("kilos").cast(pl.Float64, strict=False).cast(pl.Int64).cast(pl.String)
    steps = prepare.chain(
        prepare.number("kilos", units={"kg": 1, "": 1}),
        lambda rows: rows.with_columns(pl.coalesce(whole, "kilos").alias("kilos")),
        prepare.trim("note"),
        prepare.cases("mail", to="lower"),
        prepare.nulls("-", columns=["mail"]),
        prepare.fill("kilos", "0"),
        prepare.clip("kilos", high=8),
        prepare.keep(pl.col("key") != "e"),
        prepare.unite("where", "key", "note"),
    )
    return steps(rows).drop("note")


def test_every_cell_falls_under_one_word(tmp_path: Path) -> None:
    found = compared(tmp_path, cleaned)
    assert (found.read, found.ragged, found.prepared) == (6, 1, 5)
    assert (found.matched, found.dropped, found.added) == (5, 1, 0)
    assert (found.gone, found.new, found.values) == (["note"], {"where": 4}, [])
    columns = {c.column: c for c in found.columns}
    kilos = columns["kilos"]
    assert (kilos.kept, kilos.spelt, kilos.changed, kilos.mended, kilos.filled, kilos.emptied) == (1, 1, 1, 1, 1, 0)
    assert kilos.unread == 1, "far"
    assert [(e.kind, e.before, e.after, e.cells) for e in kilos.examples] == [
        ("changed", "9", "8", 1),
        ("filled", None, "0", 1),
        ("mended", "2 kg", "2", 1),
        ("spelt", "1.0", "1", 1),
    ]
    assert (columns["mail"].changed, columns["mail"].kept) == (1, 4)
    assert columns["mail"].examples == [], "whose address it is stays where it is"


def test_a_preparation_without_lines_leaves_values_to_compare(tmp_path: Path) -> None:
    found = compared(tmp_path, lambda rows: cleaned(rows).drop("_line"))
    assert (found.matched, found.dropped, found.added, found.columns) == (None, None, None, [])
    assert (found.read, found.prepared) == (6, 5)
    values = {v.column: (v.gone, v.come) for v in found.values}
    # kilos: 1.0, 2 kg, null, 7 and 9 are gone; 1, 2, 0 and 8 came
    assert values == {"key": (1, 0), "at": (1, 0), "kilos": (5, 4), "mail": (2, 1)}


def test_examples_are_the_most_frequent_and_cut(tmp_path: Path) -> None:
    rows = [f"k{i},2024-01-01T00:00:00Z,{'1 kg' if i % 3 else 'y' * 500},m,n" for i in range(30)]
    text = "\n".join(["key,at,kilos,mail,note", *rows]) + "\n"
    found = compared(
        tmp_path, prepare.chain(prepare.number("kilos", units={"kg": 1}), prepare.cases("kilos", to="upper")), text, 1
    )
    (kilos,) = (c for c in found.columns if c.column == "kilos")
    assert (kilos.mended, kilos.changed) == (20, 10)
    assert [(e.before, e.after, e.cells) for e in kilos.examples] == [("1 kg", "1", 20)]
    assert "y" * 100 not in json.dumps([e.before for e in kilos.examples])


def test_blocks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compared(tmp_path, cleaned)
    monkeypatch.setattr(changes, "BLOCK", 2)
    assert compared(tmp_path, cleaned) == whole


def test_nothing_to_count(tmp_path: Path) -> None:
    found = compared(tmp_path, prepare.trim(), "key,at,kilos,mail,note\n")
    assert (found.read, found.matched, found.dropped, found.added) == (0, 0, 0, 0)


def test_a_preparation_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ColumnNotFoundError") as said:
        compared(tmp_path, prepare.trim("nope"))
    assert said.value.code == "preparation-failed"
    assert "nope" not in str(said.value)  # the contract has personal columns, and the text may quote them


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> fb.Session:
    folder = tmp_path_factory.mktemp("parcels")
    for name in ("parcels-1.csv", "parcels-2.csv"):
        (folder / name).write_text(FILE)
    at = Place(str(folder / "app.py"), 1)
    sources = [
        Source("desk", Files("parcels-*.csv"), cleaned, Parcel, place=at),
        Source("copy", Files("parcels-1.csv"), prepare.trim(), Parcel, place=at),
    ]
    split = fb.by_time(fb.days(1))
    app = fb.App("parcels", sources=sources, search=fb.search(trials=1, optimize=fb.r2, split=split))
    return fb.open(app, fb.Placement(root=folder, key=folder / "key.pem"))


def test_a_file_is_named_or_the_last(session: fb.Session) -> None:
    assert changes.changes(session, "desk").file == "parcels-2.csv"
    first = changes.changes(session, "desk", "parcels-1.csv")
    assert (first.file, first.matched) == ("parcels-1.csv", 5)
    assert next(changes.lines(first)) == "6 rows read, 5 prepared; 1 ragged lines are no rows"
    with pytest.raises(DataError, match="no-such-file"):
        changes.changes(session, "desk", "parcels-3.csv")
    with pytest.raises(DeclarationError, match="no-such-source"):
        changes.changes(session, "Parcel")  # two sources yield it


APP = """
import polars as pl
import dataframely as dy
import flyball as fb
from flyball.data.preparing import prepare


class Parcel(fb.Contract):
    key = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    kilos = dy.Float64(nullable=True)
    mail = fb.personal(dy.String(nullable=True))


step = prepare.chain(prepare.number("kilos", units={"kg": 1, "": 1}), prepare.cases("mail", to="lower"))
desk = fb.files("parcels.csv", prepare=step, yields=Parcel)
app = fb.App("parcels", sources=[desk], search=fb.search(trials=1, optimize=fb.r2, split=fb.by_time(fb.days(1))))
"""


def test_the_verb_tells_a_person_and_a_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_KEY", str(tmp_path / "key.pem"))
    (tmp_path / "parcels.csv").write_text(FILE)
    (tmp_path / "app.py").write_text(APP)
    assert data_changes.run(str(tmp_path), "Parcel", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    kilos, mail = (next(c for c in said["columns"] if c["column"] == name) for name in ("kilos", "mail"))
    assert (said["read"], said["matched"], kilos["mended"], kilos["unread"], mail["changed"]) == (6, 6, 1, 1, 1)
    assert data_changes.run(str(tmp_path), "parcels.Parcel") == 0
    told = capsys.readouterr().out
    assert "'2 kg'" in told
    assert "b@x.org" not in told.lower()
    assert "no examples of personal columns: mail" in told
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".pem" and p.name != "__pycache__") == [
        "app.py",
        "parcels.csv",
    ], "nothing was ingested"
