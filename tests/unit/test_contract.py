"""Contracts: roles on columns, what they add up to, and what they may not say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import days, hours, minutes
from flyball.data import contract
from flyball.data.contract import Contract, Lead, Moment, Ref
from flyball.serve import protocol


def utc(**more: Any) -> dy.Datetime:
    return dy.Datetime(time_zone="UTC", **more)


class Flight(fb.Contract):
    """With every role."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(utc(), known=fb.before(days(30)))
    origin = fb.protected(dy.Enum(["EWR", "JFK"]))
    distance = dy.Int32(min=1, description="miles")
    tailnum = fb.personal(dy.String(nullable=True))
    settled = fb.outcome_time(utc(nullable=True), void_after=days(2))
    late = fb.outcome(dy.Bool(nullable=True))
    delay = fb.outcome(dy.Float64(nullable=True))


class Weather(fb.Contract):
    """Without outcomes, with a key of two columns."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(utc(primary_key=True))
    wind = dy.Float64(nullable=True)


def test_the_spec_says_what_the_roles_add_up_to() -> None:
    spec = contract.spec(Flight)
    assert spec.name == "Flight"
    assert spec.key == ("flight_id",)
    assert spec.event_time == "scheduled"
    assert spec.known_before == days(30)
    assert spec.outcome_time == "settled"
    assert spec.void_after == days(2)
    assert spec.outcomes == ("late", "delay")
    assert spec.late == {"settled", "late", "delay"}


def test_a_contract_without_outcomes_is_known_when_it_happens() -> None:
    spec = contract.spec(Weather)
    assert spec.key == ("origin", "observed")
    assert spec.known_before == timedelta(0)
    assert (spec.outcome_time, spec.void_after, spec.outcomes, spec.late) == (None, None, (), frozenset())


def test_a_request_is_the_contract_minus_its_outcomes_in_order() -> None:
    assert [c.name for c in contract.spec(Flight).request] == [
        "flight_id",
        "scheduled",
        "origin",
        "distance",
        "tailnum",
    ]


def test_columns_keep_their_types_and_order() -> None:
    spec = contract.spec(Flight)
    assert spec.names == tuple(Flight.columns())
    assert spec.dtypes["scheduled"] == pl.Datetime("us", "UTC")
    assert spec.dtypes["distance"] == pl.Int32
    assert spec.column("distance").description == "miles"
    assert not spec.column("distance").nullable
    assert spec.column("tailnum").nullable
    assert spec.column("flight_id").key


def test_roles_can_be_asked_for() -> None:
    spec = contract.spec(Flight)
    assert spec.with_role(contract.Personal) == ("tailnum",)
    assert spec.with_role(contract.Protected) == ("origin",)
    assert spec.with_role(contract.Outcome) == ("late", "delay")


def test_one_column_may_have_two_roles_and_keep_other_metadata() -> None:
    class Loan(fb.Contract):
        key = dy.String(primary_key=True)
        asked = fb.event_time(utc())
        group = fb.personal(fb.protected(dy.String(metadata={"source": "form"})))

    spec = contract.spec(Loan)
    assert spec.with_role(contract.Personal) == spec.with_role(contract.Protected) == ("group",)
    assert (Loan.group.metadata or {})["source"] == "form"


def test_a_contract_is_still_a_dataframely_schema() -> None:
    good = pl.DataFrame(
        {"origin": ["EWR"], "observed": ["2013-01-01"], "wind": [3.0]},
        schema_overrides={"wind": pl.Float64},
    ).with_columns(pl.col("observed").str.to_datetime(time_zone="UTC"))
    assert Weather.is_valid(good)
    assert not Weather.is_valid(good.with_columns(origin=pl.lit(None, dtype=pl.String)))
    assert Weather.sample(5).height == 5


def test_the_spec_is_read_once() -> None:
    assert contract.spec(Flight) is contract.spec(Flight)


def test_a_contract_knows_the_line_of_its_class() -> None:
    where = contract.spec(Weather).place
    assert where.file == __file__


def test_a_column_knows_the_contract_it_was_taken_from() -> None:
    assert contract.ref(Flight.origin) == Ref(Flight, "origin")
    assert contract.ref(Weather.origin) == Ref(Weather, "origin")
    assert str(contract.ref(Weather.origin)) == "Weather.origin"


def test_a_column_of_a_subclass_belongs_to_whom_it_was_last_asked_of() -> None:
    class Charter(Flight):
        """The same columns, another table."""

    assert contract.ref(Charter.origin) == Ref(Charter, "origin")
    assert contract.ref(Flight.origin) == Ref(Flight, "origin")


@pytest.mark.parametrize("stray", [dy.String(), "origin", None, pl.col("origin")])
def test_a_column_without_a_contract_is_refused(stray: Any) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        contract.ref(stray)
    assert caught.value.code == "column-without-contract"
    assert caught.value.where is not None


def test_before_is_a_span_or_a_moment() -> None:
    assert fb.before(days(30)) == Lead(days(30))
    assert fb.before(Flight.scheduled, hours(2), tolerance=minutes(5)) == Moment(
        Ref(Flight, "scheduled"), hours(2), minutes(5)
    )
    assert fb.before(Flight.scheduled, hours(2)).tolerance == timedelta(0)


def key() -> dy.Column:
    return dy.String(primary_key=True)


def happened() -> dy.Column:
    return fb.event_time(utc())


CONTRADICTIONS: dict[str, tuple[Callable[[], dict[str, dy.Column]], str]] = {
    "no event time": (lambda: {"key": key()}, "it has 0 event times"),
    "two event times": (lambda: {"key": key(), "a": happened(), "b": happened()}, "it has 2 event times"),
    "event time may be null": (lambda: {"key": key(), "a": fb.event_time(utc(nullable=True))}, "'a' is nullable"),
    "event time without a zone": (lambda: {"key": key(), "a": fb.event_time(dy.Datetime())}, "not a UTC time"),
    "event time is a date": (lambda: {"key": key(), "a": fb.event_time(dy.Date())}, "not a UTC time"),
    "event time elsewhere": (
        lambda: {"key": key(), "a": fb.event_time(dy.Datetime(time_zone="America/New_York"))},
        "not a UTC time",
    ),
    "event time in milliseconds": (
        lambda: {"key": key(), "a": fb.event_time(utc(time_unit="ms"))},
        "not a UTC time",
    ),
    "no key": (lambda: {"a": happened()}, "it has no key"),
    "two outcome times": (
        lambda: {
            "key": key(),
            "a": happened(),
            "s": fb.outcome_time(utc(nullable=True)),
            "t": fb.outcome_time(utc(nullable=True)),
            "y": fb.outcome(dy.Bool(nullable=True)),
        },
        "it has two outcome times",
    ),
    "outcome without a time": (
        lambda: {"key": key(), "a": happened(), "y": fb.outcome(dy.Bool(nullable=True))},
        "outcomes and outcome_time come together",
    ),
    "a time without outcomes": (
        lambda: {"key": key(), "a": happened(), "s": fb.outcome_time(utc(nullable=True))},
        "outcomes and outcome_time come together",
    ),
    "outcome is never null": (
        lambda: {
            "key": key(),
            "a": happened(),
            "s": fb.outcome_time(utc(nullable=True)),
            "y": fb.outcome(dy.Bool()),
        },
        "'y' is not nullable",
    ),
    "outcome time is never null": (
        lambda: {"key": key(), "a": happened(), "s": fb.outcome_time(utc()), "y": fb.outcome(dy.Bool(nullable=True))},
        "'s' is not nullable",
    ),
}


def made(columns: dict[str, dy.Column]) -> type[Contract]:
    return type(Contract)("Made", (Contract,), dict(columns))  # type: ignore[return-value]


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contract_that_contradicts_itself_is_refused(case: str) -> None:
    columns, what = CONTRADICTIONS[case]
    contradictory = made(columns())
    with pytest.raises(fb.DeclarationError) as caught:
        contract.spec(contradictory)
    assert caught.value.code == "contract-contradicts-itself"
    assert what in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    assert caught.value.why
    assert caught.value.next


def test_the_smallest_contract_is_a_key_and_a_time() -> None:
    spec = contract.spec(made({"key": key(), "a": happened()}))
    assert spec.names == ("key", "a")


def test_a_name_with_an_underscore_is_kept_for_the_house() -> None:
    with pytest.raises(fb.DeclarationError, match="starts with an underscore"):
        contract.spec(made({"key": key(), "a": happened(), "_batch": dy.Int64()}))


def test_an_entity_is_the_key_unless_it_is_declared() -> None:
    class Ride(fb.Contract):
        ride = dy.String(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC"))
        rider = fb.entity(dy.String())

    class Trip(fb.Contract):
        trip = dy.String(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC"))

    assert contract.spec(Ride).entity == ("rider",)
    assert contract.spec(Trip).entity == ("trip",)
    ask, settle = (protocol.decoder(Ride, frozenset(reads)) for reads in (contract.spec(Ride).entity, ()))
    row = b'{"ride": "r", "at": "2013-01-01T00:00:00Z"}'
    assert settle(row)[0][0]["ride"] == "r"  # an outcome is told by the key alone
    with pytest.raises(fb.DataError, match="rider"):
        ask(row)


def test_an_outcome_is_no_entity() -> None:
    class Odd(fb.Contract):
        ride = dy.String(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC"))
        settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
        rider = fb.entity(fb.outcome(dy.String(nullable=True)))

    with pytest.raises(fb.DeclarationError, match="an outcome and an entity"):
        contract.spec(Odd)
