"""Whatever bytes a text file has: each of its lines is in one row, or in one piece of raw text; and memory is bounded."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.errors import DataError
from flyball._kernel.place import Place
from flyball.adapters.embedded import lines, records, regular
from flyball.adapters.embedded.sources import FileReader
from flyball.checks.sources import Reported
from flyball.data.source import LINE, RULE, TEXT, Files, Source

PIECES = st.sampled_from(
    [
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b'""',
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"a",
        b"NA",
        b"\xe9",
        "é".encode(),
        b"\xff",
        b" ",
    ]
)
BODIES = st.lists(st.one_of(PIECES, st.binary(max_size=3), st.just(b"x" * 70)), max_size=60).map(b"".join)
HEADERS = st.sampled_from(
    [b"a", b"a,b", b"a,b,c", b"a;b", b"a;b;c", b"\xef\xbb\xbfa,b", b'"a","b"', b"a\tb", b"\n\na,b"]
)


def declare(path: Path, separator: str = "") -> Source:
    at = Files(path.name, separator=separator)
    return Source("x", at, lambda raw: raw, Reported, place=Place(str(path.parent / "app.py"), 1))


def read(declared: Source) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    reader = FileReader()
    (file,) = reader.files(declared)
    with reader.open(declared, file) as reading:
        return reading.rows.collect().to_dicts(), reading.ragged.collect().to_dicts()


def physical(content: bytes) -> list[str]:
    """The lines of a file, without their ends."""
    whole = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not whole[-1]:
        whole.pop()
    texts = []
    for line in whole:
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append(line.decode("latin-1"))
    return texts


def covered(row: dict[str, object], begins: int) -> range:
    """The lines that a row or a piece of raw text is made of."""
    return range(begins, begins + 1 + sum(str(cell).count("\n") for name, cell in row.items() if name != LINE))


@settings(max_examples=300, deadline=None)
@given(header=HEADERS, body=BODIES, separator=st.sampled_from(["", ";", "|"]), longest=st.sampled_from([48, 8 << 20]))
def test_each_line_is_in_one_row_or_one_piece_of_text(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, body: bytes, separator: str, longest: int
) -> None:
    path = tmp_path_factory.mktemp("dirty") / "x.csv"
    path.write_bytes(content := header + b"\n" + body)
    with pytest.MonkeyPatch.context() as patched:
        for module in (lines, records, regular):
            patched.setattr(module, "LONGEST", longest)
        try:
            rows, ragged = read(declare(path, separator))
        except DataError as problem:
            assert '"' in header.decode() and "header" in problem.what  # noqa: PT017 - that one has quotes
            return

    texts = physical(content)
    seen: dict[int, int] = {}
    for each in (*rows, *ragged):
        begins = each[LINE]
        assert isinstance(begins, int)
        for number in covered(each if TEXT not in each else {TEXT: each[TEXT]}, begins):
            seen[number] = seen.get(number, 0) + 1
    assert set(seen.values()) <= {1}
    first = next(n for n, text in enumerate(texts, start=1) if text.strip("\r"))
    assert all(n in seen for n, text in enumerate(texts, start=1) if n > first and text.strip())
    for each in ragged:
        begins, text = each[LINE], each[TEXT]
        assert isinstance(begins, int) and isinstance(text, str)
        if each[RULE] != "too-long" and "SHA-256" not in text:
            stood = texts[begins - 1 : begins + text.count("\n")]
            assert text.rstrip("\r") == "\n".join(stood).rstrip("\r")


@settings(max_examples=40, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), BODIES))
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("x.csv", "x.tsv", "x.jsonl", "x.csv.gz", "x.csv.zip", "x.parquet", "x.arrow"):
        (folder / name).write_bytes(content)
        try:
            read(declare(folder / name))
        except DataError as problem:
            assert problem.code == "file-unreadable" and name in problem.what  # noqa: PT017 - most bytes are no file


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """Its beginning, its length and its SHA-256 are kept; what stands around it is read."""
    size = 200 << 20
    with (tmp_path / "x.csv").open("wb") as file:
        file.write(b"a,b\n1,2\nlong,")
        file.seek(size, 1)  # NUL bytes, that take no disk either
        file.write(b"\n3,4\n")
    tracemalloc.start()
    rows, (left,) = read(declare(tmp_path / "x.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(row["a"], row["b"], row[LINE]) for row in rows] == [("1", "2", 2), ("3", "4", 4)]
    digest = hashlib.sha256(b"long,")
    for _ in range(200):
        digest.update(bytes(1 << 20))
    digest.update(b"\n")
    text = left[TEXT]
    assert (left[LINE], left[RULE]) == (3, "too-long")
    assert isinstance(text, str) and text.startswith("long,\0")
    assert f"({size + 6:,} bytes in all, SHA-256 {digest.hexdigest()})" in text
    assert len(text) < 10_000
    assert peak < 64 << 20


def test_a_quote_that_never_closes_takes_no_memory(tmp_path: Path) -> None:
    """Only so much is looked at for its end; the lines behind it are rows again."""
    with (tmp_path / "x.csv").open("wb") as file:
        file.write(b'a,b\n1,"open\n' + b"2,3\n" * 4_000_000)
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(records, "LONGEST", 1 << 16)
        found = records._records(tmp_path / "x.csv", ",")
        assert [next(found)[:2] for _ in range(3)] == [(1, ["a", "b"]), (2, None), (3, ["2", "3"])]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
