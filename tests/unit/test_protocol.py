"""Requests, as the contract says: what is read, what is refused, and what the schema tells."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import days
from flyball.serve import protocol


def utc(**more: Any) -> dy.Datetime:
    return dy.Datetime(time_zone="UTC", **more)


class Flight(fb.Contract):
    """With one column of every kind that a request may carry."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(utc(), known=fb.before(days(30)))
    origin = dy.Enum(["EWR", "JFK"])
    carrier = dy.String(max_length=2, min_length=2)
    code = dy.String(regex="^[A-Z]+$", nullable=True)
    distance = dy.Int32(min=1, max=6000, description="miles")
    seats = dy.UInt16(nullable=True)
    stops = dy.Int64(nullable=True)
    share = dy.Float64(min_exclusive=0, max_exclusive=1, nullable=True)
    cargo = dy.Bool(nullable=True)
    boarding = utc(nullable=True)
    note = dy.String(nullable=True)
    settled = fb.outcome_time(utc(nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))


READS = frozenset({"scheduled", "origin", "share"})
decode = protocol.decoder(Flight, READS)
LEAST: dict[str, Any] = {"flight_id": "B6 35", "scheduled": "2013-07-01T12:00:00Z", "origin": "JFK"}


def ask(**more: Any) -> dict[str, Any]:
    (row,), is_list = decode(json.dumps(LEAST | more).encode())
    assert not is_list
    return row


def refusal(body: bytes) -> fb.DataError:
    with pytest.raises(fb.DataError) as caught:
        decode(body)
    assert caught.value.code == "request-breaks-contract"
    return caught.value


def refused(**more: Any) -> fb.DataError:
    return refusal(json.dumps(LEAST | more).encode())


def test_the_key_and_what_features_read_are_enough() -> None:
    row = ask()
    assert row["flight_id"] == "B6 35"
    assert row["scheduled"] == datetime(2013, 7, 1, 12, tzinfo=UTC)
    assert row["distance"] is None, "no feature reads it: it may be left out"


def test_a_row_has_every_column_of_the_request_and_no_outcome() -> None:
    assert set(ask()) == {
        "flight_id",
        "scheduled",
        "origin",
        "carrier",
        "code",
        "distance",
        "seats",
        "stops",
        "share",
        "cargo",
        "boarding",
        "note",
    }


@pytest.mark.parametrize("name", ["flight_id", "scheduled", "origin"])
def test_what_is_needed_is_missed_by_name(name: str) -> None:
    body = {k: v for k, v in LEAST.items() if k != name}
    assert f"`{name}`" in refusal(json.dumps(body).encode()).why
    assert name in refused(**{name: None}).why


def test_what_is_read_but_nullable_may_be_null_or_left_out() -> None:
    assert ask()["share"] is None
    assert ask(share=None)["share"] is None
    assert ask(share=0.25)["share"] == 0.25


def test_times_in_any_zone_become_utc() -> None:
    row = ask(scheduled="2013-07-01T08:00:00-04:00", boarding="2013-07-01T11:30:00+00:00")
    assert row["scheduled"] == datetime(2013, 7, 1, 12, tzinfo=UTC)
    assert row["scheduled"].tzinfo is UTC
    assert row["boarding"].tzinfo is UTC


@pytest.mark.parametrize(
    "bad",
    [
        {"scheduled": "2013-07-01T12:00:00"},
        {"scheduled": "yesterday"},
        {"scheduled": 1372680000},
        {"origin": "LGA"},
        {"origin": 1},
        {"carrier": "B"},
        {"carrier": "JBU"},
        {"code": "b6"},
        {"distance": 0},
        {"distance": 6001},
        {"distance": 1.5},
        {"distance": "17"},
        {"distance": True},
        {"seats": -1},
        {"seats": 65_536},
        {"stops": 0.5},
        {"share": 0},
        {"share": 1},
        {"share": "0.5"},
        {"cargo": 1},
        {"note": {"a": 1}},
    ],
    ids=lambda bad: json.dumps(bad)[:40],
)
def test_what_breaks_the_contract_is_refused_by_name(bad: dict[str, Any]) -> None:
    (name,) = bad
    assert f"$.{name}" in refused(**bad).why


@pytest.mark.parametrize(
    "good",
    [{"distance": 1}, {"distance": 6000}, {"seats": 65_535}, {"share": 0.999}, {"carrier": "B6"}, {"code": "JBU"}],
)
def test_what_lies_at_the_limits_is_accepted(good: dict[str, Any]) -> None:
    ((name, value),) = good.items()
    assert ask(**good)[name] == value


def test_a_limit_of_the_type_itself_is_kept_where_the_contract_sets_none() -> None:
    class Reading(fb.Contract):
        key = dy.String(primary_key=True)
        at = fb.event_time(utc())
        small = dy.Int8(nullable=True)
        big = dy.UInt64(nullable=True)

    read = protocol.decoder(Reading, frozenset())
    row: dict[str, Any] = {"key": "k", "at": "2013-07-01T12:00:00Z"}
    assert read(json.dumps(row | {"small": 127, "big": 2**63}).encode())[0][0]["big"] == 2**63
    for bad in ({"small": 128}, {"small": -129}, {"big": -1}, {"big": 2**64}, {"big": 2**70}):
        with pytest.raises(fb.DataError, match=f"\\$.{next(iter(bad))}"):
            read(json.dumps(row | bad).encode())


@pytest.mark.parametrize("name", ["late", "settled"])
def test_an_outcome_in_a_request_is_refused_as_one(name: str) -> None:
    error = refused(**{name: None})
    assert error.why == f"{name} is an outcome: it is not known when the question is asked."


def test_a_misspelt_column_is_refused_by_name() -> None:
    assert "`distnace`" in refused(distnace=17).why


@pytest.mark.parametrize("body", [b"", b" ", b"null", b"3", b'"x"', b"{", b"{}{}", b"[{}", b'{"flight_id":}'])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    refusal(body)


def test_several_questions_come_as_a_list() -> None:
    rows, is_list = decode(json.dumps([LEAST, LEAST | {"flight_id": "B6 36"}]).encode())
    assert is_list
    assert [row["flight_id"] for row in rows] == ["B6 35", "B6 36"]
    assert decode(b" \n [ ]") == ([], True)


def test_one_bad_question_of_many_is_told_by_its_place() -> None:
    body = json.dumps([LEAST, LEAST | {"origin": "LGA"}]).encode()
    assert "$[1].origin" in refusal(body).why


def test_a_refusal_points_at_the_contract_and_is_bounded() -> None:
    error = refused(**{"x" * 100_000: 1})
    assert len(str(error)) < 5_000
    assert "openapi" in error.next


def test_the_schema_says_what_is_required_allowed_and_meant() -> None:
    schema = protocol.schema(Flight, READS)
    assert set(schema["required"]) == {"flight_id", "scheduled", "origin"}
    assert "late" not in schema["properties"]
    assert schema["additionalProperties"] is False
    distance = schema["properties"]["distance"]
    assert distance["description"] == "miles"
    (number,) = (each for each in distance["anyOf"] if each.get("type") == "integer")
    assert (number["minimum"], number["maximum"]) == (1, 6000)
    assert schema["properties"]["origin"]["enum"] == ["EWR", "JFK"]
    assert schema["properties"]["scheduled"]["format"] == "date-time"


class Booking(fb.Contract):
    """With rules that no type can say, and columns that JSON can."""

    key = dy.String(primary_key=True, alias="the key")
    at = fb.event_time(utc())
    seats = dy.Int32(nullable=True, check=lambda cell: cell % 2 == 0)
    rooms = dy.Int32(nullable=True, is_in=[1, 2])
    town = dy.String(nullable=True, max_length=3)
    day = dy.Date(nullable=True)
    hour = dy.Time(nullable=True)
    stay = dy.Duration(nullable=True)
    wall = dy.Datetime(nullable=True)
    price = dy.Float64()
    tags = dy.List(dy.String(), nullable=True)
    settled = fb.outcome_time(utc(nullable=True))
    paid = fb.outcome(dy.Bool(nullable=True))

    @dy.rule()
    def seated(cls) -> pl.Expr:
        return pl.col("seats").is_not_null() | pl.col("rooms").is_not_null()

    @dy.rule()
    def priced(cls) -> pl.Expr:
        return pl.col("price").is_not_null() & (pl.col("price") > 0)

    @dy.rule()
    def paid_for(cls) -> pl.Expr:
        return pl.col("paid").is_not_null()


book = protocol.decoder(Booking, frozenset({"at"}))
BOOKED: dict[str, Any] = {"the key": "k", "at": "2013-07-01T12:00:00Z", "rooms": 1}


def booked(**more: Any) -> dict[str, Any]:
    return book(json.dumps(BOOKED | more).encode())[0][0]


@pytest.mark.parametrize(
    ("more", "value"),
    [
        ({"seats": 4}, 4),
        ({"rooms": 2}, 2),
        ({"town": "Ulm"}, "Ulm"),
        ({"day": "2013-01-01"}, date(2013, 1, 1)),
        ({"hour": "12:30:00"}, time(12, 30)),
        ({"stay": "P2DT1H"}, timedelta(days=2, hours=1)),
        ({"wall": "2013-01-01T00:00:00"}, datetime(2013, 1, 1)),
        ({"price": 1}, 1.0),
    ],
)
def test_a_cell_becomes_the_value_that_the_table_holds(more: dict[str, Any], value: object) -> None:
    found = booked(**more)[next(iter(more))]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seats": 3}, "'seats|check' - at `$.seats`"),
        ({"rooms": None}, "'seated' - at `$`"),
        ({"price": 0}, "'priced' - at `$`"),
        ({"rooms": 3}, "$.rooms"),
        ({"town": "Köl"}, "$.town"),
        ({"day": "yesterday"}, "$.day"),
        ({"hour": "12:30:00Z"}, "$.hour"),
        ({"stay": "P999999999D"}, "$.stay"),
        ({"wall": "2013-01-01T00:00:00Z"}, "$.wall"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "$.at"),
        ({"tags": ["a"]}, "tags"),
        ({"the key": 3}, "$.the key"),
    ],
)
def test_what_ingest_would_quarantine_is_refused_by_its_rule(more: dict[str, Any], told: str) -> None:
    with pytest.raises(fb.DataError, match="request-breaks-contract") as caught:
        booked(**more)
    assert told in caught.value.why


def test_a_rule_is_told_by_the_place_of_its_question() -> None:
    body = json.dumps([BOOKED, BOOKED | {"seats": 3}]).encode()
    with pytest.raises(fb.DataError) as caught:
        book(body)
    assert "`$[1].seats`" in caught.value.why


def test_a_rule_over_several_rows_judges_each_question_alone() -> None:
    class Visit(fb.Contract):
        key = dy.String(primary_key=True)
        at = fb.event_time(utc())
        badge = dy.Int32(unique=True)
        depth = dy.Int32(check=lambda cell: cell == cell.max())

    read = protocol.decoder(Visit, frozenset({"badge", "depth"}))
    rows = [{"key": "k", "at": "2013-07-01T12:00:00Z", "badge": 1, "depth": depth} for depth in (1, 2)]
    assert [row["depth"] for row in read(json.dumps(rows).encode())[0]] == [1, 2]


def test_a_name_that_is_no_identifier_is_kept() -> None:
    assert booked()["the key"] == "k"
    schema = protocol.schema(Booking, frozenset({"at"}))
    assert set(schema["required"]) == {"the key", "at"}
    assert "tags" not in schema["properties"], "no feature reads it, and JSON cannot say it"


def test_a_column_that_must_be_asked_and_cannot_is_refused_at_its_contract() -> None:
    with pytest.raises(fb.DeclarationError, match="column-not-askable") as caught:
        protocol.decoder(Booking, frozenset({"tags"}))
    assert "Booking.tags" in caught.value.what
    assert caught.value.where is not None and caught.value.where.file == __file__
    assert caught.value.next


def test_a_name_that_json_must_escape_cannot_be_asked() -> None:
    class Quoted(fb.Contract):
        key = dy.String(primary_key=True, alias='the "key"')
        at = fb.event_time(utc())

    with pytest.raises(fb.DeclarationError, match="column-not-askable"):
        protocol.decoder(Quoted, frozenset())


def test_an_instant_keeps_the_zone_of_its_column() -> None:
    class Departure(fb.Contract):
        key = dy.String(primary_key=True)
        at = fb.event_time(utc())
        local = dy.Datetime(time_zone="America/New_York")
        coarse = dy.Datetime(time_zone="UTC", time_unit="ms")
        single = dy.Float32(min=0.25)

    row = {
        "key": "k",
        "at": "2013-07-01T12:00:00Z",
        "local": "2013-07-01T12:00:00Z",
        "coarse": "2013-07-01T12:00:00.0019Z",
    }
    found = protocol.decoder(Departure, frozenset({"local"}))(json.dumps(row | {"single": 0.3}).encode())[0][0]
    assert (found["local"].hour, str(found["local"].tzinfo)) == (8, "America/New_York")
    assert found["coarse"] == datetime(2013, 7, 1, 12, 0, 0, 1000, UTC)
    assert found["single"] == pl.Series([0.3], dtype=pl.Float32).item()
    for bad in (0.2, 1e39):
        with pytest.raises(fb.DataError, match="single"):
            protocol.decoder(Departure, frozenset())(json.dumps(row | {"single": bad}).encode())
