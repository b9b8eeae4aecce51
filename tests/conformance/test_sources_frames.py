"""A function as a source: the shipped suite, and what functions of users do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball._kernel.errors import DataError, DeclarationError
from flyball.adapters.embedded.frames import FrameReader
from flyball.checks.sources import ReaderSuite, Reported
from flyball.data import kinds
from flyball.data.source import Reader, Source


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def declare(function: Callable[..., Any]) -> Source:
    return kinds.frames(function, prepare=as_it_is, yields=Reported)


def numbered(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"id": list(numbers)})


class TestFrameReader(ReaderSuite):
    @pytest.fixture
    def frames(self) -> dict[str, pl.DataFrame]:
        return {"day-1.csv": pl.DataFrame({"id": ["a", None]}), "day-2.csv": pl.DataFrame({"id": ["b", "c"]})}

    @pytest.fixture
    def reader(self) -> Reader:
        return FrameReader()

    @pytest.fixture
    def change(self, frames: dict[str, pl.DataFrame]) -> Callable[[str], None]:
        return lambda name: frames.update({name: pl.DataFrame({"id": ["z"]})})

    @pytest.fixture
    def declared(self, frames: dict[str, pl.DataFrame]) -> Source:
        def days() -> Iterator[tuple[str, pl.DataFrame]]:
            yield from frames.items()

        return declare(days)

    def test_no_file_is_said(self, reader: Reader) -> None:  # type: ignore[override]
        """A function that yields nothing has nothing new: it may be asked for what came since."""

        def nothing() -> Iterator[pl.DataFrame]:
            yield from ()

        assert reader.files(declare(nothing)) == ()


def test_a_function_may_ask_since_when() -> None:
    asked = []

    def pages(since: str | None) -> Iterator[tuple[str, pl.LazyFrame]]:
        asked.append(since)
        yield f"page {int(since.split()[1]) + 1 if since else 1}", numbered(1).lazy()

    reader, source = FrameReader(), declare(pages)
    (first,) = reader.files(source)
    (second,) = reader.files(source, first.name)
    assert (first.name, second.name) == ("page 1", "page 2")
    with reader.open(source, second) as reading:
        assert reading.rows.collect()["id"].to_list() == [1]
    assert asked == [None, "page 1"]  # what was looked at is what is read


def test_frames_without_a_name_are_told_by_their_content() -> None:
    def some() -> Iterator[pl.DataFrame]:
        yield numbered(1)
        yield numbered(2)
        yield numbered(1)

    reader = FrameReader()
    first, second = reader.files(declare(some))
    assert first.name != second.name
    assert FrameReader().files(declare(some)) == (first, second)


def test_one_frame_is_held_at_a_time(tmp_path: Path) -> None:
    held = []

    def some() -> Iterator[pl.DataFrame]:
        for n in range(3):
            held.append(len(list(tmp_path.rglob("*.arrow"))))
            yield numbered(n)

    reader = FrameReader(tmp_path)
    reader.files(declare(some))
    assert held == [0, 1, 2]  # each is on the disk before the next is asked for
    reader.files(declare(some))
    assert len(list(tmp_path.rglob("*.arrow"))) == 3
    del reader
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_function_is_told_with_its_line_and_no_row() -> None:
    def some() -> Iterator[pl.DataFrame]:
        yield numbered(1)
        raise ValueError("Lovelace")  # this line

    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# this line"))
    source = declare(some)
    with pytest.raises(DataError, match=f"in line {line} of {Path(__file__).name}: ValueError") as refused:
        FrameReader().files(source)
    assert refused.value.code == "frames-failed" and refused.value.where == source.place
    assert "Lovelace" not in str(refused.value)


@pytest.mark.parametrize("wrong", [7, ("name", 7), (7, numbered(1)), ("\ud800", numbered(1)), None])
def test_what_is_no_frame_is_said(wrong: Any) -> None:
    def some() -> Iterator[Any]:
        yield wrong

    with pytest.raises(DataError, match="frames-failed"):
        FrameReader().files(declare(some))


def test_two_frames_have_two_names() -> None:
    def some() -> Iterator[tuple[str, pl.DataFrame]]:
        yield "x", numbered(1)
        yield "x", numbered(2)

    with pytest.raises(DataError, match="frame-named-twice"):
        FrameReader().files(declare(some))


def test_a_source_of_frames_is_a_function() -> None:
    with pytest.raises(DeclarationError, match="frames-of-no-function"):
        kinds.frames(7, prepare=as_it_is, yields=Reported)  # type: ignore[arg-type]


def test_what_cannot_be_written_is_said() -> None:
    """Cells that are objects of Python."""
    with pytest.raises(DataError, match="frames-failed"):
        FrameReader().files(declare(lambda: [pl.DataFrame({"id": pl.Series([object()], dtype=pl.Object)})]))


def test_a_wrong_cell_of_a_frame_is_not_shown() -> None:
    """Polars quotes it in a TypeError."""
    with pytest.raises(DataError, match="frames-failed") as refused:
        FrameReader().files(declare(lambda: [pl.DataFrame({"id": [1, "Lovelace"]})]))
    assert "Lovelace" not in str(refused.value)
