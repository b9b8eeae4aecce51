"""An app whose rows arrive by themselves: what is asked of them, what must be the same however they came, and who crashes.

Clicks come with a number; the same number again is a correction. Whoever asks, asks about a customer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import days, hours
from flyball._kernel.place import Place
from flyball.cycle.session import Session
from flyball.data import contract, dataset, ingest, quarantine
from flyball.data.source import Source
from flyball.learn.features import offline
from flyball.learn.features.lookup import Lookup
from flyball.serve.ingest import Body

START = datetime(2026, 1, 1, tzinfo=UTC)


class Click(fb.Contract):
    """Something that a customer did."""

    id = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    who = dy.String()
    price = dy.Int64(nullable=True, min=0)


class Order(fb.Contract):
    """What is asked about."""

    order = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    who = dy.String()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    returned = fb.outcome(dy.Bool(nullable=True))


FEATURES = fb.features(
    last=fb.latest(Click, by=Order.who),
    spent=fb.window(Click, Click.price.col.sum(), by=Order.who, over=[hours(3), days(9000)]),
    clicks=fb.window(Click, pl.len(), by=Order.who, over=days(9000)),
)


@fb.model(FEATURES, predicts=Order.returned, asked=fb.before(Order.placed, hours(0)))
def returns(knobs: fb.Params) -> LGBMClassifier:
    """Never trained here."""
    return LGBMClassifier()


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Rows come as the contract has them."""
    return raw


def app(folder: Path, *clicks: Source) -> fb.App:
    """The app; by default clicks are pushed."""
    pushed = clicks or (fb.push("clicks", prepare=as_it_is, yields=Click),)
    asked = fb.push("orders", prepare=as_it_is, yields=Order)
    where = Place(str(folder / "app.py"), 1)
    search = fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(days(1)))
    return fb.App("shop", sources=[replace(s, place=where) for s in (*pushed, asked)], model=returns, search=search)


def click(number: int, price: int | None, minutes: int = 0) -> dict[str, Any]:
    """One click; whose it is follows from its number."""
    at = (START + timedelta(minutes=minutes or number)).isoformat()
    return {"id": number, "at": at, "who": f"c{number % 3}", "price": price}


def body(name: str, rows: Iterable[Mapping[str, Any]], *lines: bytes) -> Body:
    """What one request brings, told by its name."""
    return Body(b"".join(line + b"\n" for line in (*map(msgspec.json.encode, rows), *lines)), "till", f"key {name}")


def rows(session: Session) -> list[tuple[int, int, int | None]]:
    """(batch, number, price) of all that is in the table, in order."""
    found = dataset.read(session.tables, Click, dataset.latest(session.tables, Click))
    return found.select("_batch", "id", "price").sort("_batch", "id").collect().rows()


def agrees(session: Session, seed: int = 0) -> None:
    """Each batch holds what it accounts for, the facts say the same, and what is online is what is built from the table."""
    draw = random.Random(seed)
    name = contract.spec(Click).name
    accounts = ingest.repair(session.tables, name)
    assert [said.batch for said in accounts] == list(range(1, session.tables.head(name).batch + 1))
    held, bad = [row[0] for row in rows(session)], quarantine.read(session.tables, name, 10**9).collect()
    for said in accounts:
        assert isinstance(said, ingest.Ingested)
        assert said.read == said.accepted + said.quarantined + said.duplicates
        mine = bad.filter(pl.col("_batch") == said.batch)
        assert (said.accepted, said.quarantined) == (held.count(said.batch), mine.height)
        assert set(mine["_file"]) <= {said.file}
    told = [
        msgspec.json.decode(f.said, type=ingest.Ingested)
        for f in session.facts.read(kinds=frozenset({"data.ingested"}))
    ]
    assert [said for said in told if said.table == name] == list(accounts)
    session.facts.verify()
    now = session.clock.now() + timedelta(minutes=1)
    asked = [draw.choice([now, START + (now - START) * draw.random()]) for _ in range(20)]
    asking = [
        {"order": f"q{n}", "placed": at, "who": f"c{draw.randrange(4)}", "_asked": at} for n, at in enumerate(asked)
    ]
    tables = {
        contract.spec(table).name: dataset.read(session.tables, table, dataset.latest(session.tables, table))
        for table in (Click, Order)
    }
    moments = dict.fromkeys(("placed", "_asked"), pl.Datetime("us", "UTC"))
    built = offline.build(FEATURES, Order, pl.DataFrame(asking, schema_overrides=moments), tables)
    look = Lookup(FEATURES, Order, session.online)
    for question, expected in zip(asking, built.select(look.names).rows(), strict=True):
        assert look(question, question["_asked"]) == list(expected)


class Crash(BaseException):
    """The process is gone."""


WRITES = {
    "facts": ("append",),
    "tables": ("append", "delete"),
    "online": ("commit", "refill"),
    "inbox": ("drop", "accept"),
}


class Port:
    """A place at whose write of that number, of all writes that `written` counts, the process ends: before it, or after."""

    def __init__(self, name: str, place: Any, written: list[str], at: int, *, after: bool) -> None:
        self._name, self._place, self._written, self._at, self._after = name, place, written, at, after

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._place, attribute)
        return self._writing(attribute, found) if attribute in WRITES[self._name] else found

    def _writing(self, attribute: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **named: Any) -> Any:
            self._written.append(f"{self._name}.{attribute}")
            falls = len(self._written) - 1 == self._at
            if falls and not self._after:
                raise Crash
            result = act(*args, **named)
            if falls:
                raise Crash
            return result

        return write


def crashing(session: Session, at: int, written: list[str], *, after: bool) -> Session:
    """The session of a process that ends at its write of that number."""
    ports = {name: Port(name, getattr(session, name), written, at, after=after) for name in WRITES}
    return replace(session, **ports)  # type: ignore[arg-type]
