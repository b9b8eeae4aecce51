"""Sifting: good rows in, bad rows aside with every rule that they broke, repeats counted; nothing twice, nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import contract, quarantine
from flyball.data import sift as sifting
from flyball.data.contract import Contract
from flyball.data.source import LINE, TEXT

AT = "2013-01-01T05:00:00Z"


class Weather(Contract):
    origin = dy.Enum(["JFK", "LGA"], primary_key=True)
    observed = contract.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    wind = dy.Float64(nullable=True, min=0, max=120)
    sky = dy.String(nullable=False, max_length=5)

    @dy.rule()
    def calm_is_clear(cls) -> pl.Expr:
        return (pl.col("wind") > 0) | (pl.col("sky") == "clear")


def sift(*rows: tuple[object, ...]) -> sifting.Sifted:
    frame = pl.DataFrame(
        [(n, *row) for n, row in enumerate(rows, start=2)],
        schema={LINE: pl.Int64, "origin": pl.String, "observed": pl.String, "wind": pl.String, "sky": pl.String},
        orient="row",
    )
    return sifting.sift(frame, Weather)


@pytest.mark.parametrize(
    ("row", "rules"),
    [
        (("JFK", AT, "5", "clear"), []),
        (("JFK", AT, None, "clear"), []),
        (("JFK", AT, "0", "clear"), []),
        (("EWR", AT, "5", "clear"), ["origin|dtype"]),
        ((None, AT, "5", "clear"), ["origin|nullability"]),
        (("JFK", "2013-01-01", "5", "clear"), ["observed|dtype"]),
        (("JFK", AT, "fast", "clear"), ["wind|dtype"]),
        (("JFK", AT, "-1", "clear"), ["wind|min"]),
        (("JFK", AT, "1048.36", "clear"), ["wind|max"]),
        (("JFK", AT, "nan", "clear"), ["wind|max", "wind|nan"]),
        (("JFK", AT, "inf", "clear"), ["wind|inf", "wind|max"]),
        (("JFK", AT, "5", None), ["sky|nullability"]),
        (("JFK", AT, "5", "cloudy"), ["sky|max_length"]),
        (("JFK", AT, "0", "grey"), ["calm_is_clear"]),
        (("EWR", "x", "121", "cloudy"), ["observed|dtype", "origin|dtype", "sky|max_length", "wind|max"]),
    ],
)
def test_every_rule_that_is_broken_is_said(row: tuple[object, ...], rules: list[str]) -> None:
    sifted = sift(("LGA", AT, "5", "clear"), row)
    assert sifted.good.height == (1 if rules else 2)
    assert sifted.bad["rules"].to_list() == ([rules] if rules else [])
    assert quarantine.by_rule(sifted.bad.lazy()) == dict.fromkeys(rules, 1)
    if rules:
        assert sifted.bad[LINE].to_list() == [3]
        kept = json.loads(sifted.bad["row"].item())
        assert list(kept.values()) == list(row)


def test_good_rows_have_the_columns_and_types_of_the_contract() -> None:
    good = sift(("LGA", AT, "5", "clear")).good
    assert good.schema == pl.Schema(contract.spec(Weather).dtypes)
    assert good.rows() == [("LGA", datetime(2013, 1, 1, 5, tzinfo=UTC), 5.0, "clear")]


def test_a_row_said_twice_is_a_repeat() -> None:
    row = ("JFK", AT, "5", "clear")
    sifted = sift(row, ("LGA", AT, "1", "clear"), row, ("JFK", "2013-01-01T06:00:00+01:00", "5.0", "clear"))
    assert (sifted.good.height, sifted.bad.height, sifted.repeats) == (2, 0, 2)
    assert sifted.good["origin"].to_list() == ["JFK", "LGA"]


def test_rows_that_contradict_each_other_are_all_quarantined() -> None:
    sifted = sift(
        ("JFK", AT, "5", "clear"), ("JFK", AT, "6", "clear"), ("JFK", AT, "5", "clear"), ("LGA", AT, "5", "x")
    )
    assert sifted.good["origin"].to_list() == ["LGA"]
    assert sifted.bad["rules"].to_list() == [["primary_key"], ["primary_key"]]
    assert sifted.repeats == 1


def test_keys_that_cannot_be_read_are_not_equal() -> None:
    sifted = sift(("JFK", "x", "5", "clear"), ("JFK", "y", "5", "clear"), (None, AT, "5", "x"), (None, AT, "5", "x"))
    assert sifted.bad["rules"].to_list() == [["observed|dtype"]] * 2 + [["origin|nullability"]] * 2
    assert sifted.repeats == 0


def test_cells_that_cannot_be_read_are_not_equal() -> None:
    sifted = sift(("JFK", AT, "fast", "clear"), ("JFK", AT, "slow", "clear"))
    assert sifted.bad["rules"].to_list() == [["primary_key", "wind|dtype"]] * 2
    assert sifted.repeats == 0


def test_no_rows_are_no_trouble() -> None:
    sifted = sift()
    assert (sifted.good.height, sifted.bad.height, sifted.repeats) == (0, 0, 0)
    assert sifted.bad.schema == pl.Schema({LINE: pl.Int64(), "rules": pl.List(pl.String()), "row": pl.String()})


def test_a_missing_column_is_said_with_what_is_there() -> None:
    frame = pl.DataFrame({"origin": ["JFK"], "observed": [AT], "Wind": ["5"], "sky": ["clear"]})
    with pytest.raises(DataError, match=r"weather\.csv.*'wind'.*Did you mean 'Wind'") as refused:
        sifting.complete(frame.columns, contract.spec(Weather), "weather.csv")
    assert refused.value.code == "column-missing"
    assert refused.value.where is not None
    assert refused.value.where.file == __file__
    assert "origin, observed, Wind, sky" in refused.value.why


def test_a_column_of_a_wrong_type_quarantines_every_row() -> None:
    frame = pl.DataFrame({"origin": [1, 2], "observed": [AT] * 2, "wind": ["5"] * 2, "sky": ["x"] * 2})
    sifted = sifting.sift(frame, Weather)
    assert sifted.bad["rules"].to_list() == [["origin|dtype"]] * 2
    assert sifted.bad[LINE].to_list() == [None, None]


def test_rows_are_kept_as_json_whatever_their_types() -> None:
    frame = pl.DataFrame(
        {
            "origin": ["EWR"] * 3,
            "observed": [AT] * 3,
            "wind": [float("nan"), float("inf"), 1.5],
            "sky": ["\"'\n\x00é"] * 3,
            "more": [b"\xff", None, b""],
            "when": [datetime(2013, 1, 1, tzinfo=UTC)] * 3,
            "inside": [{"bytes": [b"\xff", None], "n": 1.5}, None, {"bytes": None, "n": float("nan")}],
        }
    )
    kept = [json.loads(row) for row in sifting.sift(frame, Weather).bad["row"]]
    assert [row["wind"] for row in kept] == ["NaN", "inf", "1.5"]
    assert [row["more"] for row in kept] == ["/w==", None, ""]
    assert {row["sky"] for row in kept} == {"\"'\n\x00é"}
    assert [row["inside"] for row in kept] == [{"bytes": ["/w==", None], "n": 1.5}, None, {"bytes": None, "n": None}]


def test_ragged_lines_are_kept_as_text() -> None:
    lines = pl.DataFrame({LINE: [7], TEXT: ['a,"b\n']})
    kept = quarantine.ragged(lines.lazy()).collect()
    assert kept.schema == sift().bad.schema
    assert kept.rows() == [(7, ["ragged"], '{"text":"a,\\"b\\n"}')]


def test_a_rule_that_does_not_run_is_the_contracts_fault() -> None:
    class Wrong(Contract):
        id = dy.String(primary_key=True)
        at = contract.event_time(dy.Datetime(time_zone="UTC"))

        @dy.rule()
        def longer_than_nothing(cls) -> pl.Expr:
            return pl.col("no_such_column") > 0

    with pytest.raises(DeclarationError) as refused:
        sifting.sift(pl.DataFrame({"id": ["a"], "at": [AT]}), Wrong)
    assert refused.value.code == "rule-does-not-run"
    assert refused.value.where is not None
    assert refused.value.where.file == __file__
