"""A log of partitions and offsets, as Kafka is one, fits behind the ports as they are: no row lost or twice, no order broken.

The log here lies in memory and is all that a consumer sees of one: offsets only grow within a partition, what was read may be
read again, and nobody remembers for us how far we came. That stands in the name of the last slice that was ingested.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball import runtime
from flyball._kernel.errors import AdapterError, DataError
from flyball._kernel.place import Place
from flyball.cycle import arrivals, gather
from flyball.cycle.session import Session
from flyball.data.kinds import Pushed
from flyball.data.source import LINE, RAGGED, At, File, Readers, Reading, Source
from tests import arriving
from tests.arriving import Click, Crash, agrees, click, crashing

SLICE = 4
"""Messages of a partition in one slice, at most."""


@dataclass(frozen=True)
class Topic(At):
    """The messages of a topic."""

    topic: str

    @property
    def slices(self) -> bool:
        """A slice that was ingested is listed no more."""
        return True

    def __str__(self) -> str:
        return self.topic


class TopicReader:
    """`Reader` of a topic: a file is a range of offsets of every partition, `0:12-16,1:7-9`, from where the last one ended."""

    def __init__(self, partitions: list[list[dict[str, Any]]]) -> None:
        self.partitions, self.down, self.fetched = partitions, False, 0

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """At most one: what is not polled waits in the log, which is all the back-pressure there is to it."""
        if self.down:
            raise AdapterError("log-unreachable", "No broker answers.", where=source.place)
        begins = [end for _, end in _ranges(since)] if since else [0] * len(self.partitions)
        ranges = [(b, min(b + SLICE, len(log))) for b, log in zip(begins, self.partitions, strict=True)]
        if all(begin == end for begin, end in ranges):
            return ()
        name = ",".join(f"{n}:{begin}-{end}" for n, (begin, end) in enumerate(ranges))
        return (File(name, hashlib.sha256(name.encode()).hexdigest(), 1),)  # an offset never says anything else

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """The messages of a range, partition by partition, in the order of their offsets."""
        found = [
            message
            for log, (begin, end) in zip(self.partitions, _ranges(file.name), strict=True)
            for message in log[begin:end]
        ]
        self.fetched += len(found)
        rows = pl.DataFrame(found, schema=["id", "at", "who", "price"]).with_row_index(LINE, offset=1)
        yield Reading(rows.lazy().cast({LINE: pl.Int64}), pl.LazyFrame(schema=dict(RAGGED)))


def _ranges(name: str) -> list[tuple[int, int]]:
    spans = [part.partition(":")[2].split("-") for part in name.split(",")]
    return [(int(begin), int(end)) for begin, end in spans]


def produced(seed: int, messages: int) -> list[list[dict[str, Any]]]:
    """Two partitions; each key stays in its own, and is never said twice within a slice, but often corrected."""
    draw = random.Random(seed)
    logs: list[list[dict[str, Any]]] = [[], []]
    for _ in range(messages):
        number = draw.randrange(30)
        log = logs[number % 2]
        if number not in {message["id"] for message in log[-SLICE:]}:
            log.append(click(number, draw.randrange(5)))
    return logs


def oracle(logs: list[list[dict[str, Any]]]) -> dict[int, list[int | None]]:
    """Number -> what it said, one after the other, without repeats."""
    said: dict[int, list[int | None]] = {}
    for log in logs:
        for message in log:
            known = said.setdefault(message["id"], [])
            if not known or known[-1] != message["price"]:
                known.append(message["price"])
    return said


def told(session: Session) -> dict[int, list[int | None]]:
    said: dict[int, list[int | None]] = {}
    for _, number, price in arriving.rows(session):
        said.setdefault(number, []).append(price)
    return said


Opened = Callable[[TopicReader], Session]


@pytest.fixture(params=[False, True], ids=["memory", "embedded"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    def open_(reader: TopicReader, prepare: Any = arriving.as_it_is) -> Session:
        topic = Source("clicks", Topic("clicks"), prepare, Click, place=Place(str(tmp_path / "app.py"), 1))
        session = runtime.open(arriving.app(tmp_path, topic), fb.Placement(root=tmp_path, create=request.param))
        return replace(session, reader=Readers({Topic: reader, Pushed: _Nothing()}))

    return open_


class _Nothing:
    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        return ()


def gathered(session: Session) -> None:
    """Until nothing is left to poll; at least once, as a loop that begins looks whether all is online."""
    gather.gather(session)
    while arrivals.look(session).pending:
        gather.gather(session)


def test_every_message_once_in_the_order_of_its_partition(opened: Opened) -> None:
    reader = TopicReader(produced(1, 10))
    session, later = opened(reader), produced(2, 60)
    gathered(session)
    for log, more in zip(reader.partitions, later, strict=True):
        log += more
    reader.down = True
    with pytest.raises(AdapterError, match="log-unreachable"):
        gather.gather(session)
    reader.down, before = False, reader.fetched
    gather.gather(session)
    assert reader.fetched - before <= 2 * SLICE  # what is not taken in is not fetched
    gathered(session)
    assert told(session) == oracle(reader.partitions)
    assert reader.fetched == sum(map(len, reader.partitions))
    agrees(session)


def test_a_crash_around_any_write_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Above all between the rows and the facts: how far the log was read lies in the commit of the rows."""
    logs = produced(3, 14)
    for after in (False, True):
        for at in count():
            reader, written = TopicReader(logs), list[str]()
            topic = Source(
                "clicks", Topic("clicks"), arriving.as_it_is, Click, place=Place(str(tmp_path / "app.py"), 1)
            )
            session = runtime.open(arriving.app(tmp_path, topic), fb.Placement(root=tmp_path, create=False))
            session = replace(session, reader=Readers({Topic: reader, Pushed: _Nothing()}))
            with suppress(Crash):
                gathered(crashing(session, at, written, after=after))
            gathered(session)
            assert told(session) == oracle(logs)
            agrees(session)
            if len(written) <= at:
                assert at > 10
                break


def test_no_slice_overtakes_one_that_failed(opened: Opened) -> None:
    reader, failing = TopicReader(produced(4, 30)), [True]

    def picky(raw: pl.LazyFrame) -> pl.LazyFrame:
        if failing and raw.collect().height:
            raise ValueError
        return raw

    session = opened(reader, picky)  # type: ignore[call-arg]
    for _ in range(2):
        with pytest.raises(DataError, match="preparation-failed"):
            gather.gather(session)
    failing.clear()
    gathered(session)
    assert told(session) == oracle(reader.partitions)
