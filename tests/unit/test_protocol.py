"""Requests, as the contract says: what is read, what is refused, and what the schema tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import dataframely as dy
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
        {"note": "x" * 10_001},
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
    for bad in ({"small": 128}, {"small": -129}, {"big": -1}):
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
