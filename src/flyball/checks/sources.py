"""What every reader of sources does. Subclass `ReaderSuite`, supply its fixtures, and run it with pytest."""

from __future__ import annotations

from collections.abc import Callable

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import DataError
from flyball.data import contract, source
from flyball.data.contract import Contract
from flyball.data.source import LINE, RAGGED, TEXT, Reader, Source


class Reported(Contract):
    """Something that happened."""

    id = dy.String(primary_key=True)
    at = contract.event_time(dy.Datetime(time_zone="UTC"))


class ReaderSuite:
    """The behaviour of a reader.

    Its files are `day-1.csv` and `day-2.csv`, each with a column `id` of two rows: "a" and null, and "b" and "c".
    """

    @pytest.fixture
    def reader(self) -> Reader:
        """The reader under test."""
        raise NotImplementedError

    @pytest.fixture
    def change(self) -> Callable[[str], None]:
        """Gives a file of the reader other rows: the single id "z"."""
        raise NotImplementedError

    @pytest.fixture
    def declared(self) -> Source:
        """A source that both files match; override where they lie elsewhere."""
        return source.files("day-*.csv", prepare=_as_it_is, yields=Reported)

    @pytest.fixture
    def lost(self) -> Source:
        """A source that no file matches, and that is named after the night; override as `declared`."""
        return source.files("night-*.csv", prepare=_as_it_is, yields=Reported)

    def test_files_are_found_by_name(self, reader: Reader, declared: Source) -> None:
        """In order, with a digest of each content."""
        first, second = reader.files(declared)
        assert (first.name, second.name) == ("day-1.csv", "day-2.csv")
        assert len({first.digest, second.digest}) == 2
        assert all(len(f.digest) == 64 and f.size > 0 for f in (first, second))
        assert reader.files(declared) == (first, second)

    def test_no_file_is_said(self, reader: Reader, lost: Source) -> None:
        """With the line of the declaration."""
        with pytest.raises(DataError, match="night") as refused:
            reader.files(lost)
        assert refused.value.code == "source-without-files"
        assert refused.value.where == lost.place

    def test_a_file_is_rows_and_lines(self, reader: Reader, declared: Source) -> None:
        """Cells, and where each row begins; lines that are no rows are apart."""
        for file, ids in zip(reader.files(declared), (["a", None], ["b", "c"]), strict=True):
            with reader.open(declared, file) as reading:
                rows, ragged = reading.rows.collect(), reading.ragged.collect()
            assert rows["id"].to_list() == ids
            assert rows.schema[LINE] == pl.Int64
            assert rows[LINE].n_unique() == 2
            assert ragged.select(LINE, TEXT).schema == pl.Schema({LINE: pl.Int64(), TEXT: pl.String()})
            assert set(ragged.columns) <= RAGGED.keys()
            assert ragged.is_empty()

    def test_a_changed_file_is_another(self, reader: Reader, declared: Source, change: Callable[[str], None]) -> None:
        """Its digest tells; and nobody is handed rows of one under the digest of the other."""
        before, other = reader.files(declared)
        change("day-1.csv")
        after, still = reader.files(declared)
        assert after.digest != before.digest
        assert still == other
        with pytest.raises(DataError) as refused, reader.open(declared, before) as reading:
            reading.rows.collect()
        assert refused.value.code == "file-changed"


def _as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw
