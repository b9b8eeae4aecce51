"""Queries, Delta tables, functions and pushed rows: each row once, over crashes, changed preparations and repeats."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import runtime
from flyball._kernel.errors import AdapterError, DataError
from flyball._kernel.place import Place
from flyball.cycle import arrivals, gather
from flyball.cycle.session import Session
from flyball.data import dataset, kinds, quarantine
from flyball.data.ingest import Ingested
from flyball.data.source import Source
from flyball.serve import ingest
from flyball.serve.ingest import Body
from flyball.serve.tally import Tally

SECRET = "open-sesame"


class Sold(fb.Contract):
    """Something was sold."""

    id = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    price = dy.Int64(nullable=True, min=0)


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def doubled(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("price").cast(pl.Int64, strict=False) * 2)


class World:
    """A place where one thing is sold after the other, and a home that observes it by one kind of source."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.frames = folder, list[pl.DataFrame]()
        self.session: Session

    def open(self, source: Source) -> Session:
        source = replace(source, place=Place(str(self.folder / "app.py"), 1))
        app = fb.App(
            "shop", sources=[source], search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(1)))
        )
        placement = fb.Placement(
            root=self.folder, databases={"shop": f"sqlite:///{self.folder}/shop.sqlite?x={SECRET}"}
        )
        self.session = runtime.open(app, placement)
        return self.session

    def source(self, kind: str, prepare: Callable[[pl.LazyFrame], pl.LazyFrame] = as_it_is) -> Source:
        said: dict[str, Any] = {"prepare": prepare, "yields": Sold}
        match kind:
            case "sql":
                return kinds.sql("SELECT id, at, price FROM sales", database="shop", cursor="id", **said)
            case "delta":
                return kinds.delta("sales", **said)
            case "frames":
                return kinds.frames(self.yielded, **said)
        return kinds.push("sales", **said)

    def yielded(self) -> Iterator[pl.DataFrame]:
        yield from self.frames

    def sell(self, kind: str, *ids: int, price: int = 1) -> None:
        rows = [{"id": n, "at": "2026-01-01T00:00:00Z", "price": price} for n in ids]
        match kind:
            case "sql":
                with closing(sqlite3.connect(self.folder / "shop.sqlite")) as connection, connection:
                    connection.execute("CREATE TABLE IF NOT EXISTS sales (id integer, at text, price integer)")
                    connection.executemany("INSERT INTO sales VALUES (:id, :at, :price)", rows)
            case "delta":
                pl.DataFrame(rows).write_delta(str(self.folder / "sales"), mode="append")
            case "frames":
                self.frames.append(pl.DataFrame(rows))
            case _:
                assert self.session.inbox is not None
                body = pl.DataFrame(rows).write_ndjson().encode()
                self.session.inbox.accept("sales", Body(body, "till", f"content {ids} {price}"))

    def gathered(self) -> list[Ingested]:
        return gather.gather(self.session)

    def rows(self) -> list[tuple[int, int, datetime]]:
        version = dataset.latest(self.session.tables, Sold)
        seen = dataset.read(self.session.tables, Sold, version).sort("id", "_batch").collect()
        return seen.select("id", "price", "_known").rows()

    def ids(self) -> list[int]:
        return [row[0] for row in self.rows()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


KINDS = pytest.mark.parametrize("kind", ["sql", "delta", "frames", "push"])


@KINDS
def test_each_row_once_and_only_what_is_new(world: World, kind: str) -> None:
    world.open(world.source(kind))
    world.sell(kind, 1, 2)
    first = world.gathered()
    assert [(said.read, said.accepted) for said in first] == [(2, 2)]
    assert world.gathered() == [] and arrivals.look(world.session).pending == ()
    world.sell(kind, 3)
    world.sell(kind, 4)
    later = world.gathered()
    assert sum(said.accepted for said in later) == 2
    assert world.ids() == [1, 2, 3, 4]
    world.open(world.source(kind))  # another process
    assert world.gathered() == []
    assert arrivals.look(world.session).notes == ()
    said = b"".join(msg.said for msg in world.session.facts.read())
    assert SECRET.encode() not in said


@KINDS
def test_a_crash_between_the_table_and_its_fact_repeats_nothing(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open(world.source(kind))
    world.sell(kind, 1, 2)
    true_append = type(world.session.facts).append

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as crashing:
        crashing.setattr(type(world.session.facts), "append", crash)
        with pytest.raises(Crash):
            world.gathered()
    assert type(world.session.facts).append is true_append
    world.sell(kind, 3)
    world.open(world.source(kind))
    world.gathered()
    world.gathered()
    assert world.ids() == [1, 2, 3]
    assert sum(said.accepted for said in arrivals.ingested(world.session, world.session.app.sources[0].name)) == 3
    if world.session.inbox is not None:
        assert world.session.inbox.files("sales") == ()


@pytest.mark.parametrize("kind", ["sql", "delta", "frames"])
def test_a_mended_preparation_reads_again_and_keeps_when_rows_were_known(world: World, kind: str) -> None:
    world.open(world.source(kind))
    world.sell(kind, 1)
    world.gathered()  # history
    world.sell(kind, 2)
    world.gathered()  # life
    before = world.rows()
    world.open(world.source(kind, doubled))
    assert {each.why for each in arrivals.look(world.session).pending} == {"its preparation or contract changed"}
    assert [said.corrections for said in world.gathered()] == [1, 1]
    assert world.gathered() == []
    after = world.rows()
    assert [(row[0], row[1]) for row in after] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [after[1][2], after[3][2]] == [before[0][2], before[1][2]]
    world.sell(kind, 3)
    assert [said.read for said in world.gathered()] == [1]


def test_pushed_rows_leave_the_inbox_and_do_not_come_back(world: World) -> None:
    session = world.open(world.source("push"))
    inbox, tally = session.inbox, Tally()
    assert inbox is not None
    body = b'{"id": 1, "at": "2026-01-01T00:00:00Z", "price": 1}\nno json\n{"id": 2, "at": "yesterday", "price": 1}\n'
    for _ in range(2):
        ingest.receive(inbox, "sales", tally, {}, body, "till")
    (said,) = world.gathered()
    assert (said.read, said.accepted, said.quarantined, said.duplicates) == (3, 1, 2, 0)
    assert said.file.startswith("till/")
    assert inbox.files("sales") == ()
    ingest.receive(inbox, "sales", tally, {}, body, "till")  # its reply was lost on the way
    assert world.gathered() == []
    assert inbox.files("sales") == ()
    bad = quarantine.read(session.tables, "Sold", 99).collect()
    assert any("no json" in row for row in bad["row"])
    assert tally.pushed == {("sales", "accepted"): 2, ("sales", "repeated"): 1}


@pytest.mark.parametrize(
    "body", [b"no json", b'{"id": 1}', b"[]]", b'{"other": 1}', b"7", b'{"id": 1, "_line": 4, "_batch": 9}']
)
def test_a_body_that_says_nothing_usable_is_quarantined_and_not_tried_for_ever(world: World, body: bytes) -> None:
    session = world.open(world.source("push"))
    assert session.inbox is not None
    ingest.receive(session.inbox, "sales", Tally(), {}, body, "till")
    world.sell("push", 2)
    bad, good = world.gathered()
    assert (bad.read, bad.quarantined, good.accepted) == (1, 1, 1)
    assert session.inbox.files("sales") == ()


def test_the_later_of_two_pushes_counts(world: World) -> None:
    world.open(world.source("push"))
    for price in (5, 3, 9, 7):
        world.sell("push", 1, price=price)
    world.gathered()
    assert [price for _, price, _ in world.rows()] == [5, 3, 9, 7]


def test_a_database_that_is_down_keeps_no_other_source_waiting(world: World) -> None:
    broken = kinds.sql("SELECT 1 AS id", database="nowhere", prepare=as_it_is, yields=Sold, name="broken")
    session = world.open(world.source("push"))
    world.sell("push", 1)
    app = fb.App(
        "shop",
        sources=[broken, *session.app.sources],
        search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(1))),
    )
    world.session = replace(session, app=app)
    with pytest.raises(AdapterError, match="database-unknown"):
        world.gathered()
    assert world.ids() == [1]
    assert world.session.inbox is not None and world.session.inbox.files("sales") == ()


def test_what_several_sources_read_stays_until_all_have_it(world: World) -> None:
    class Told(Sold):
        """The same, for another table."""

    def fails(_: pl.LazyFrame) -> pl.LazyFrame:
        raise ValueError

    session = world.open(world.source("push"))
    assert session.inbox is not None
    world.sell("push", 1, 2)
    for prepare, waiting in ((fails, 1), (as_it_is, 0)):
        other = replace(kinds.push("sales", prepare=prepare, yields=Told), place=session.app.sources[0].place)
        app = fb.App("shop", sources=[*session.app.sources, other], search=session.app.search)
        world.session = replace(session, app=app)
        with suppress(DataError):
            world.gathered()
        assert len(session.inbox.files("sales")) == waiting
    assert dataset.read(session.tables, Told, dataset.latest(session.tables, Told)).collect().height == 2


@pytest.mark.parametrize("kind", ["delta", "frames"])
def test_no_part_overtakes_one_that_failed(world: World, kind: str) -> None:
    failing = [3]

    def picky(raw: pl.LazyFrame) -> pl.LazyFrame:
        if raw.select(pl.col("id").cast(pl.Int64).is_in(failing).any()).collect().item():
            raise ValueError
        return raw

    def since(since: str | None) -> Iterator[tuple[str, pl.DataFrame]]:
        for number, frame in enumerate(world.frames):
            if since is None or number > int(since):
                yield str(number), frame

    source = kinds.frames(since, prepare=picky, yields=Sold) if kind == "frames" else world.source(kind, picky)
    world.open(source)
    world.sell(kind, 1)
    world.gathered()
    world.sell(kind, 3)
    world.sell(kind, 4)
    with pytest.raises(DataError, match="preparation-failed"):
        world.gathered()
    failing.clear()
    world.gathered()
    assert world.ids() == [1, 3, 4]
