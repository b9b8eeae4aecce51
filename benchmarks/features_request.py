"""Ten expressions over one request, as a server computes them: microseconds a question.

The limit is a Python function written by hand for these ten. Peers are bare Polars on a frame of one row, and on a frame of 64
rows for 64 questions, which is what gathering requests into small batches could give at best (its waiting is not counted).
A turn is 64 questions in turn, many times over: a server computes features on one thread, so 64 at once are 64 in turn.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dataframely as dy
import polars as pl

import flyball as fb
from benchmarks.pairs import Case, Measure, measure
from flyball._kernel import place
from flyball.data import contract
from flyball.learn.features.declare import Computed, Expression
from flyball.learn.features.lookup import _Computation

AT_ONCE = 64
ROUNDS = 20


class Trip(fb.Contract):
    """What is asked about."""

    trip = dy.String(primary_key=True)
    booked = dy.Datetime(time_zone="UTC")
    leaves = fb.event_time(dy.Datetime(time_zone="UTC"))
    origin = dy.Enum(["EWR", "JFK", "LGA"])
    carrier = dy.String()
    distance = dy.Int32(min=1, max=6000)
    seats = dy.Int32(min=1, max=500)
    fare = dy.Float64(nullable=True, min=0, max=10_000)


C = pl.col
HOUR = C.leaves.dt.convert_time_zone("America/New_York").dt.hour()
EXPRESSIONS: dict[str, pl.Expr] = {
    "hour": HOUR,
    "hour_sin": (HOUR * (2 * math.pi / 24)).sin(),
    "hour_cos": (HOUR * (2 * math.pi / 24)).cos(),
    "weekend": C.leaves.dt.convert_time_zone("America/New_York").dt.weekday() >= 6,
    "lead": (C.leaves - C.booked).dt.total_minutes() / 60,
    "per_mile": C.fare / C.distance,
    "fare_log": C.fare.fill_null(0.0).log1p(),
    "size": pl.when(C.seats >= 300)
    .then(pl.lit("wide"))
    .when(C.seats >= 100)
    .then(pl.lit("narrow"))
    .otherwise(pl.lit("small")),
    "own": C.carrier.is_in(["UA", "B6", "DL"]),
    "hub": (C.origin == "EWR") & (C.carrier == "UA"),
}
ZONE, MINUTE, SIXTIETH, CIRCLE = ZoneInfo("America/New_York"), timedelta(minutes=1), 1 / 60, 2 * math.pi / 24


def by_hand(request: dict[str, Any]) -> list[object]:
    """The ten, for requests like these: what nobody should have to write twice."""
    wall = request["leaves"].astimezone(ZONE)
    hour, fare, seats, carrier = wall.hour, request["fare"], request["seats"], request["carrier"]
    return [
        hour,
        math.sin(hour * CIRCLE),
        math.cos(hour * CIRCLE),
        wall.weekday() >= 5,
        (request["leaves"] - request["booked"]) // MINUTE * SIXTIETH,
        None if fare is None else fare / request["distance"],
        math.log1p(0.0 if fare is None else fare),
        "wide" if seats >= 300 else "narrow" if seats >= 100 else "small",
        carrier in ("UA", "B6", "DL"),
        request["origin"] == "EWR" and carrier == "UA",
    ]


def requests() -> list[dict[str, Any]]:
    """Questions as the server decodes them, nulls among them."""
    chance = random.Random(1)
    found = []
    for number in range(AT_ONCE):
        leaves = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(525_600))
        request = {
            "trip": str(number),
            "leaves": leaves,
            "booked": leaves - timedelta(minutes=chance.randrange(90_000)),
        }
        request |= {"origin": chance.choice(["EWR", "JFK", "LGA"]), "carrier": chance.choice(["UA", "AA", "B6", "WN"])}
        request |= {"distance": chance.randint(80, 5000), "seats": chance.randint(20, 400)}
        found.append(request | {"fare": chance.choice([None, chance.uniform(20, 900), chance.uniform(20, 900)])})
    return found


def cases() -> Iterator[Case]:
    """`request-10`: everybody answers the same 64 questions with the same bits."""
    spec, asked, where = contract.spec(Trip), requests(), place.here()
    schema = {n: spec.dtypes[n] for n in asked[0]}
    named = [e.alias(name) for name, e in EXPRESSIONS.items()]
    ours = _Computation([Computed(name, Expression(e), where) for name, e in EXPRESSIONS.items()], spec)

    def polars(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return pl.DataFrame([tuple(r.values()) for r in rows], schema=schema, orient="row").select(named).rows()

    answer: dict[str, Callable[[], list[list[object]]]] = {
        "ours": lambda: [list(ours(request)) for request in asked],
        "limit": lambda: [by_hand(request) for request in asked],
        "polars": lambda: [list(polars([request])[0]) for request in asked],
        "polars-64": lambda: [list(row) for row in polars(asked)],
    }
    expected = repr(answer["polars-64"]())
    assert repr(answer["ours"]()) == expected
    assert repr(answer["limit"]()) == expected
    yield measure("request-10", "us/question", {who: _turn(each) for who, each in answer.items()}, higher=False)


def _turn(answer: Callable[[], object]) -> Measure:
    def turn() -> float:
        start = time.perf_counter()
        for _ in range(ROUNDS):
            answer()
        return (time.perf_counter() - start) / ROUNDS / AT_ONCE * 1e6

    return turn
