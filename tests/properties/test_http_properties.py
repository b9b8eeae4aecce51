"""Whatever bytes come, the edge answers in JSON with a status that fits, and what it answered is what it recorded.

And whatever the contract: a question is accepted exactly if ingest would accept its row, and becomes the same values.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball.adapters.memory.journal import MemoryJournal
from flyball.checks.clock import Wound
from flyball.data import sift
from flyball.serve import protocol
from flyball.serve.guard import Limits, Refused
from flyball.serve.head import Head
from flyball.serve.http import Ground, Server
from flyball.serve.journal import Settings
from flyball.serve.message import Reply
from flyball.serve.router import Routed
from tests.live import ROW, plan

LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
NAMES = st.sampled_from([*ROW, "customer", "note", "returned", "settled"]) | st.text(max_size=8)
MOMENT = st.datetimes().map(lambda t: t.isoformat() + "Z") | st.datetimes().map(lambda t: t.isoformat() + "-23:59")
REQUEST = st.dictionaries(NAMES, VALUE | MOMENT, max_size=3).map(lambda change: ROW | change)
BODY = st.binary(max_size=200) | (VALUE | REQUEST | st.lists(REQUEST, max_size=12)).map(
    lambda v: json.dumps(v).encode()
)
HEADERS = st.dictionaries(
    st.sampled_from([b"host", b"origin", b"content-type", b"content-length", b"x"]),
    st.sampled_from([b"localhost:1", b"http://localhost:1", b"application/json", b"5", b""]) | st.binary(max_size=20),
)
PLAN = plan()


def exchange(method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> tuple[int, Any, MemoryJournal]:
    clock = Wound()
    journal = MemoryJournal(clock, Settings(durability="interval"))
    routed = {"orders": Routed(epoch=1, champion=PLAN)}
    server = Server("shop", routed, Ground(journal.open("shop"), journal.find, clock), Limits(rows=10))
    found: list[Reply] = []

    async def ask() -> None:
        head = Head(method, path, "", tuple(headers.items()), len(body), True, False)
        try:
            server.receive(server.admit(head)._replace(body=body), found.append)
        except Refused as refusal:
            found.append(server.refused(refusal))
        while not found:
            await asyncio.sleep(0)

    asyncio.run(ask())
    (said,) = found
    return said.status, msgspec.json.decode(said.body) if said.kind == b"application/json" else None, journal


@settings(max_examples=300, deadline=None)
@given(BODY)
def test_any_body_is_answered_and_recorded_or_refused(body: bytes) -> None:
    headers = {b"host": b"localhost", b"content-type": b"application/json"}
    status, said, journal = exchange("POST", "/predict/orders", headers, body)
    entries = list(journal.read())
    if status == 200:
        answers = said if isinstance(said, list) else [said]
        assert [(a["id"], a["output"], a["version"]) for a in answers] == [(e.id, e.output, e.version) for e in entries]
    else:
        assert status in (413, 422) and not entries
        assert set(said["error"]) == {"code", "what", "why", "next"}
        assert len(json.dumps(said)) < 20_000


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]) | st.text(max_size=5),
    st.sampled_from(["/predict", "/predict/orders", "/predictions/", "/metrics", "/readyz"]) | st.text(max_size=20),
    HEADERS,
)
def test_any_request_gets_a_whole_response_and_no_stranger_gets_more(
    method: str, path: str, headers: dict[bytes, bytes]
) -> None:
    status, said, journal = exchange(method, path, headers, json.dumps(ROW).encode())
    assert status in (200, 403, 404, 405, 413, 415)
    if headers.get(b"host", b"").partition(b":")[0].lower() not in (b"localhost", b"127.0.0.1", b"[", b""):
        assert status == 403 and said["error"]["code"] == "foreign-host"
    assert status == 200 or not list(journal.read())


# --- the same verdict as ingest

Drawn = tuple[dy.Column, st.SearchStrategy[Any]]
"""A column, and what a question may say of it: values of the JSON kind of its type, near its limits and beyond."""
INTEGERS = [dy.Int8, dy.Int16, dy.Int32, dy.Int64, dy.UInt8, dy.UInt16, dy.UInt32, dy.UInt64]
EDGES = [each + d for bits in (7, 8, 15, 16, 31, 32, 63, 64, 70) for each in (2**bits, -(2**bits)) for d in (-1, 0, 1)]
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))  # within what nanoseconds reach
ODD_TIMES = [
    "nonsense",
    "",
    "2013-13-01",
    "2013-01-01",
    "2013-01-01T00:00:00",
    "2013-01-01T00:00:00+05:30",
    "12:00:00Z",
]


def even(cell: pl.Expr) -> pl.Expr:
    return cell % 2 == 0


def limits(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Some limits that do not contradict one another."""
    low, high = sorted([draw(values), draw(values)])
    found: dict[str, Any] = {}
    if low < high:
        found |= draw(st.sampled_from([{}, {"min": low}, {"min_exclusive": low}]))
        found |= draw(st.sampled_from([{}, {"max": high}, {"max_exclusive": high}]))
    return found


@st.composite
def integers(draw: st.DrawFn) -> Drawn:
    near = st.integers(-5, 5) | st.sampled_from(EDGES)
    kind = draw(st.sampled_from(INTEGERS))
    least, most = kind().min_value, kind().max_value
    more = limits(draw, near.map(lambda n: min(max(n, least), most)))
    if draw(st.booleans()):
        more = {"is_in": draw(st.lists(st.integers(-5, 5), min_size=1, max_size=4))}
    if draw(st.booleans()):
        more["check"] = even
    return kind(nullable=True, **more), near


@st.composite
def floats(draw: st.DrawFn) -> Drawn:
    near = st.sampled_from([0.1, 0.1 + 1e-12, 0.1 - 1e-12, -0.0, 1e39, -1e39, 5e-324, 3.4028235e38]) | st.integers(
        -3, 3
    )
    kind = draw(st.sampled_from([dy.Float32, dy.Float64]))
    more = limits(draw, st.sampled_from([-1, 0, 0.1, 0.3, 2]))
    column = kind(nullable=True, allow_inf=draw(st.booleans()), **more)
    return column, near | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def texts(draw: st.DrawFn) -> Drawn:
    more: dict[str, Any] = draw(st.sampled_from([{}, {"min_length": 2}, {"max_length": 3}, {"regex": r"^\p{L}+$"}]))
    more |= draw(st.sampled_from([{}, {"regex": "^a*$"}, {"min_length": 1, "max_length": 4}]))
    return dy.String(nullable=True, **more), st.text(alphabet="ab1é漢\n\x00😀", max_size=5)


@st.composite
def times(draw: st.DrawFn) -> Drawn:
    zone = draw(st.sampled_from([None, "UTC", "America/New_York"]))
    more = draw(st.sampled_from([{}, {"resolution": "1h"}, {"min": datetime(2000, 1, 1)}])) if zone is None else {}
    column = dy.Datetime(nullable=True, time_zone=zone, time_unit=draw(st.sampled_from(["ms", "us", "ns"])), **more)
    suffix = st.sampled_from(["Z", "-04:00", "+00:00"]) if zone else st.just("")
    return column, st.builds(lambda t, z: t.isoformat() + z, MOMENTS, suffix) | st.sampled_from(ODD_TIMES)


def isos(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values.map(lambda v: v.isoformat()) | st.sampled_from(ODD_TIMES)


SIMPLE: list[Drawn] = [
    (dy.Bool(nullable=True), st.booleans()),
    (dy.Enum(["a", "b"], nullable=True), st.sampled_from(["a", "b", "c", ""])),
    (dy.Categorical(nullable=True), st.sampled_from(["a", "b"])),
    (dy.Date(nullable=True, min=date(2000, 1, 1), resolution="1d"), isos(st.dates())),
    (dy.Date(nullable=True), isos(st.dates())),
    (dy.Time(nullable=True, max_exclusive=time(12)), isos(st.times())),
    (dy.Duration(nullable=True, min=timedelta(0)), st.timedeltas()),
    (dy.Duration(nullable=True, time_unit="ms"), st.timedeltas()),
]
COLUMN = st.one_of(integers(), floats(), texts(), times(), *(st.just(each) for each in SIMPLE))


@dy.rule()
def not_both(cls: Any) -> pl.Expr:
    return pl.col("a").is_null() | pl.col("the b").is_null()


@dy.rule()
def of_an_outcome(cls: Any) -> pl.Expr:
    return pl.col("late") | pl.col("a").is_null()


@st.composite
def asked(draw: st.DrawFn) -> tuple[type[fb.Contract], list[dict[str, Any]]]:
    (a, of_a), (b, of_b) = draw(COLUMN), draw(COLUMN)
    body = {
        "key": dy.String(primary_key=True),
        "at": fb.event_time(dy.Datetime(time_zone="UTC")),
        "a": a.with_nullable(draw(st.booleans())),
        "b": b.with_alias("the b"),
        "settled": fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True)),
        "late": fb.outcome(dy.Bool(nullable=True)),
        **draw(st.sampled_from([{}, {}, {"not_both": not_both}, {"of_an_outcome": of_an_outcome}])),
    }
    question = type(fb.Contract)("Drawn", (fb.Contract,), body)
    row = st.fixed_dictionaries(
        {"key": st.just("k"), "at": st.just("2013-01-01T00:00:00Z"), "a": of_a | st.none(), "the b": of_b | st.none()}
    )
    return question, draw(st.lists(row, min_size=1, max_size=3))


def prepared(row: dict[str, Any]) -> pl.DataFrame:
    """A row as a file would bring it; no text says a duration, so it comes as one."""
    late = {"settled": None, "late": None}
    return pl.DataFrame(
        [pl.Series(n, [v], dtype=pl.Int128 if type(v) is int else None) for n, v in (row | late).items()]
    )


@settings(max_examples=300, deadline=None)
@given(asked())
def test_a_question_is_accepted_exactly_if_ingest_accepts_its_row(drawn: tuple[type[fb.Contract], Any]) -> None:
    question, rows = drawn
    decode = protocol.decoder(question, frozenset({"at", "a", "the b"}))
    sifted = [sift.sift(prepared(row), question).good for row in rows]
    expected = [good.drop("settled", "late").row(0, named=True) if good.height else None for good in sifted]
    for row, values in zip(rows, expected, strict=True):
        assert read(decode, row) == ([values] if values is not None else None)
    assert read(decode, rows) == (expected if None not in expected else None)


def read(decode: Any, said: Any) -> list[dict[str, Any]] | None:
    try:
        rows: list[dict[str, Any]] = decode(msgspec.json.encode(said))[0]
    except fb.DataError:
        return None
    assert all(row["at"].tzinfo is UTC for row in rows)
    return rows
