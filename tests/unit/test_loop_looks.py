"""What the loop looks at each second, and what it makes of it: trainings that see something new, and answers told by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball import days, hours
from flyball._kernel import ids
from flyball._kernel.clock import micros
from flyball._kernel.errors import AdapterError
from flyball._kernel.facts import Fact
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.memory.tables import MemoryTables
from flyball.checks import journal as checks
from flyball.cycle import account, apply, gather, reconcile, retrain, why
from flyball.cycle.session import Session
from flyball.cycle.watching import VOLUME, Watch
from flyball.release import rollout
from flyball.release.policy import Release
from flyball.release.rollout import Aborted, Paused, Promoted, Started, Step
from flyball.release.version import Registered
from flyball.serve.journal import Entry, Settings
from flyball.watch.observed import Observed, State
from tests import loops
from tests.loops import HISTORY, START, TRAININGS, Order, Process, World

WEEKLY = loops.declared(release=Release(), gates=[], retrain=fb.every(days(4)).resting(days(1)))


def stopped() -> World:
    """A source from which nothing came after the first day."""
    return World(frames={"orders-1.csv": HISTORY.filter(pl.col("settled") < START)})


def test_a_training_is_due_when_it_would_see_something_new() -> None:
    world = stopped()
    process = Process(world, WEEKLY)
    apply.apply(process.session, until=START)
    for day in range(1, 12):
        world.to(START + days(day))
        process.look()
    assert list(loops.told(world, *TRAININGS)) == []
    due = retrain.due(process.session, process.session.app.model("till"))
    assert (due.until, due.next) == (None, None)
    assert "every 4d" in due.why and "nothing came after it" in due.why
    world.frames["orders-2.csv"] = HISTORY.filter(pl.col("placed").is_between(START, START + days(2)))
    process.look()
    assert [said["kind"] for _, said in loops.told(world, *TRAININGS)] == ["cycle.retraining", "cycle.retrained"]


def test_what_becomes_known_with_time_is_something_new() -> None:
    """History is known as declared: no file has to come."""
    world = World()
    process = Process(world, WEEKLY)
    apply.apply(process.session, until=START)
    world.to(START + days(3))
    assert retrain.due(process.session, process.session.app.model("till")).next == START + days(4)
    world.to(START + days(5))
    assert retrain.due(process.session, process.session.app.model("till")).until == START + days(5)


def asked(session: Session, epoch: int, at: timedelta) -> str:
    """An answer that was given under an epoch; returns its id."""
    moment = micros(START + at)
    prediction = ids.uuid7(START + at)
    recorder = session.journal.open("till")
    said: dict[str, Any] = {"id": prediction, "model": "till", "version": "default", "epoch": epoch, "asked": moment}
    recorder.record([checks.answer(session.clock, **said)])
    recorder.close()
    return prediction


def test_an_answer_is_told_by_the_decision_that_it_was_given_under() -> None:
    """A server follows a moment later, and a pause changes nobody."""
    world = World()
    session, stage = world.session(), Step(name="shadow", share=0.0, seconds=3600)
    for said in (
        Promoted(version="till-1", previous="", epoch=1, reason="the first"),
        Started(version="till-2", stages=(stage,), epoch=2, reason="passed"),
        Paused(reason="audit", by="ada"),
        Aborted(version="till-2", epoch=3, reason="slow"),
    ):
        session.facts.append([Fact("till", "till", said)])
        world.to(world.clock.now() + hours(1))
    told = {epoch: why.why(session, asked(session, epoch, days(1) + hours(epoch))).because for epoch in range(4)}
    assert told[0].startswith("asked before anything was decided")
    assert told[1] == "till-1 answers from now on: the first (loop)"
    assert told[2] == "till-2 goes into shadow for 1h: passed (loop); till-2 was on its way, in shadow for 1h"
    assert told[3] == "till-2 is aborted: slow (loop)"


def test_a_segment_is_accounted_for_once_and_not_opened_again(tmp_path: Path) -> None:
    world = World()
    journal = SqliteJournal(tmp_path, world.clock, Settings())
    session = world.session()
    object.__setattr__(session, "journals", lambda _: journal)
    for _ in range(2):
        recorder = journal.open("till")
        checks.recorded(recorder, [checks.answer(world.clock)])
        recorder.close()
        world.to(world.clock.now() + hours(1))
        assert [said.recorded for said in account.account(session)] == [1]
    for segment in tmp_path.glob("*.sqlite"):
        segment.write_bytes(b"not to be opened" * 400)
    assert account.account(session) == []


def test_years_of_answers_are_not_folded_again_by_a_loop_that_begins() -> None:
    world = World()
    session = world.session()
    for _ in range(3):
        asked(session, 1, world.clock.now() - START)
        account.account(session)
        world.to(world.clock.now() + days(30))
    watch = Watch(session)
    read = session.journal.read
    folded: list[Mapping[str, int] | None] = []
    object.__setattr__(session.journal, "read", lambda after=None: folded.append(dict(after or {})) or read(after))
    watch.refresh()
    assert [len(after or {}) for after in folded] == [2], "of 90, 60 and 30 days ago, the last alone can matter"
    assert watch.live("till").counts().attempts == 1


def test_after_a_pass_that_failed_only_what_was_folded_half_is_folded_again() -> None:
    """A table that stays unreadable must not have the journal read from its beginning at every look."""
    session = World().session()
    for hour in range(2):
        asked(session, 1, hours(hour))
    watch = Watch(session)
    watch.refresh()
    again = watch.anew()
    assert again.live("till") is watch.live("till")
    again.refresh()
    assert again.live("till").counts().attempts == 2

    def dies(after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        raise AdapterError("journal-unreadable", "The disk is gone")
        yield

    object.__setattr__(session.journal, "read", dies)
    with pytest.raises(AdapterError):
        again.refresh()
    assert again.anew().live("till") is not again.live("till")


class Broken(MemoryTables):
    """Tables on a disk that is gone."""

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        raise AdapterError("table-unreadable", f"{table} cannot be read")


def test_a_table_that_cannot_be_read_keeps_no_failing_candidate_answering() -> None:
    world, app = World(tables=Broken()), loops.declared()
    source = fb.files("orders-*.csv", prepare=loops.plain, yields=Order, fresh_within=days(7), name="orders")
    object.__setattr__(app, "sources", (source,))
    session = world.session(app)
    stage = Step(name="canary", share=0.5, seconds=3600)
    for said in (
        Registered(version="till-1", manifest="one"),
        Registered(version="till-2", manifest="two"),
        Promoted(version="till-1", previous="", epoch=1, reason="the first"),
        Started(version="till-2", stages=(stage,), epoch=2, reason="passed"),
    ):
        session.facts.append([Fact("till", "till", said)])
    recorder = session.journal.open("till")
    for _ in range(30):
        said = {"id": ids.uuid7(world.clock.now()), "model": "till", "epoch": 2, "asked": micros(world.clock.now())}
        recorder.record([checks.answer(world.clock, **said, version="till-2", role="canary", failed="boom")])
    recorder.close()
    world.to(START + hours(1))
    with pytest.raises(AdapterError, match="table-unreadable"):
        reconcile.reconcile(session, Watch(session), reconcile.Here(session))
    assert rollout.now(session.facts, "till", "till").candidate == ""
    assert session.routes.read() is not None


class Counted(MemoryTables):
    """Tables that count how often they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.scans = 0

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        self.scans += 1
        return super().scan(table, batch, schema)


def test_a_table_is_looked_at_again_when_it_moved_or_a_part_of_the_time_has_passed() -> None:
    world, app = World(tables=Counted()), loops.declared()
    source = fb.files("orders-*.csv", prepare=loops.plain, yields=Order, fresh_within=days(7), name="orders")
    object.__setattr__(app, "sources", (source,))
    session = world.session(app)
    gather.gather(session)
    watch, tables = Watch(session), world.tables
    assert isinstance(tables, Counted)

    def looks() -> tuple[int, Observed]:
        before = tables.scans
        (found,) = watch.sources()
        return tables.scans - before, found

    assert looks()[0] == 1
    world.to(START + timedelta(seconds=59))
    scans, found = looks()
    assert (scans, found.state) == (0, "ok")
    world.to(START + hours(1))
    assert looks()[0] == 1
    world.frames["orders-2.csv"] = HISTORY.head(3).with_columns(order_id=pl.lit("new") + pl.col("order_id"))
    gather.gather(session)
    assert looks()[0] == 1, "its head moved"
    assert looks()[0] == 0
    aged = looks()[1].estimate
    world.to(START + hours(1) + timedelta(seconds=30))
    scans, found = looks()
    assert scans == 0 and found.estimate == pytest.approx((aged or 0) + 30), "it ages between two looks at its rows"


@pytest.mark.parametrize("last", ["ok", "breach"])
def test_the_volume_stays_what_it_was_where_few_questions_cannot_tell(last: State) -> None:
    world = World()
    session = world.session()
    session.facts.append([Fact("till", "till", Promoted(version="till-1", previous="", epoch=1, reason="the first"))])
    for day in range(3):
        asked(session, 1, days(day))
    world.to(START + days(2) + hours(6))
    watch = Watch(session)
    watch.refresh()
    assert watch.monitors(session.app.model("till"))[-1].state == "blind", "nothing was found before"
    session.facts.append([Fact("till", "till", Observed(monitor=VOLUME, state=last))])
    world.to(START + days(2) + hours(7))
    (found,) = (said for said in watch.monitors(session.app.model("till")) if said.monitor == VOLUME)
    assert (found.state, found.estimate is None) == (last, False)
