"""Source declarations: what they say, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import DeclarationError
from flyball.data import contract, source
from flyball.data.contract import Contract


class Flight(Contract):
    flight_id = dy.String(primary_key=True)
    scheduled = contract.event_time(dy.Datetime(time_zone="UTC"))


def prepare(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def test_a_source_is_named_after_its_file_and_contract() -> None:
    for path in ("flights.csv.zip", "data/flights.csv", "/data/flights.parquet", r"data\flights.csv"):
        assert source.files(path, prepare=prepare, yields=Flight).name == "flights.Flight"
    assert source.files("2013-*.csv", prepare=prepare, yields=Flight).name == "2013-*.Flight"


def test_a_source_remembers_its_line_and_is_not_changed_by_it() -> None:
    first = source.files("flights.csv", prepare=prepare, yields=Flight, fresh_within=timedelta(1))
    second = source.files("flights.csv", prepare=prepare, yields=Flight, fresh_within=timedelta(1))
    assert first.place.file == __file__
    assert second.place.line == first.place.line + 1
    assert first == second
    assert hash(first) == hash(second)


def test_what_a_source_means_makes_it_another() -> None:
    one = source.files("flights.csv", prepare=prepare, yields=Flight)
    others = [
        source.files("other.csv", prepare=prepare, yields=Flight),
        source.files("flights.csv", prepare=lambda raw: raw, yields=Flight),
        source.files("flights.csv", prepare=prepare, yields=Flight, package="p"),
        source.files("flights.csv", prepare=prepare, yields=Flight, fresh_within=timedelta(1)),
        replace(one, at=source.Files("flights.csv", nulls=("",))),
    ]
    assert one not in others


def test_a_source_holds_no_path_of_this_machine() -> None:
    compared = replace(source.files("data/flights.csv", prepare=prepare, yields=Flight, package="p"), prepare=len)
    assert compared.name == "flights.Flight"
    assert compared.at == source.Files("data/flights.csv", "p", ("", "NA"))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"yields": dy.Schema}, "source-yields-no-contract"),
        ({"yields": "Flight"}, "source-yields-no-contract"),
        ({"prepare": None}, "source-without-preparation"),
        ({"separator": ";;"}, "separator-not-usable"),
        ({"separator": '"'}, "separator-not-usable"),
        ({"separator": "§"}, "separator-not-usable"),
        ({"encoding": "latin-none"}, "encoding-unknown"),
        ({"encoding": "zlib"}, "encoding-unknown"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(wrong: dict[str, object], code: str) -> None:
    declared: dict[str, object] = {"prepare": prepare, "yields": Flight, **wrong}
    with pytest.raises(DeclarationError) as refused:
        source.files("flights.csv", **declared)  # type: ignore[arg-type]
    assert refused.value.code == code
    assert refused.value.where is not None
    assert refused.value.where.file == __file__
