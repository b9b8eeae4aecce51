"""Promise 7, for rows that are pushed: what was acknowledged is in once, in its order, in the tables, the facts and online.

Attacked by a crash before and after every write of an ingest of many bodies, by killing the process that ingests fifteen times,
by bodies that cannot be read, and by a loop that stands still while everybody pushes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import polars as pl
import pytest

import flyball as fb
from flyball import runtime
from flyball._kernel.errors import RetryableError
from flyball.cycle import arrivals, followed, gather, received, reconcile, status
from flyball.cycle.arriving import MARK
from flyball.cycle.reconcile import Here
from flyball.cycle.session import Session, silent
from flyball.cycle.watching import Watch
from flyball.data import together
from flyball.runtime import looping, serving
from flyball.serve import ingest
from flyball.serve.tally import Tally
from tests import arriving
from tests.arriving import Crash, agrees, body, click, crashing

BODIES = [
    body("a", [click(1, 5), click(2, 7), click(1, 5)]),  # says one row twice
    body("b", [click(1, 6), click(3, -1)], b"no row"),  # corrects, breaks a rule, and is no row
    body("c", [click(4, 1), click(4, 2)]),  # contradicts itself
    body("d", [click(1, 6), click(5, None)]),  # repeats the correction
    body("e", [click(1, 5), click(6, 3)]),  # takes it back
    body("f", [{"id": 9}]),  # lacks what it needs
]
ROWS = [(1, 1, 5), (1, 2, 7), (2, 1, 6), (4, 5, None), (5, 1, 5), (5, 6, 3)]
COUNTS = [(3, 2, 0, 1, 0), (3, 1, 2, 0, 1), (2, 0, 2, 0, 0), (2, 1, 0, 1, 0), (2, 2, 0, 0, 1), (1, 0, 1, 0, 0)]


def memory(folder: Path) -> Session:
    return runtime.open(arriving.app(folder), fb.Placement(root=folder, create=False))


def push(session: Session) -> None:
    assert session.inbox is not None
    for each in BODIES:
        session.inbox.accept("clicks", each)


def done(session: Session) -> None:
    """All bodies are in, once, as if they had come one after the other."""
    said = sorted(arrivals.ingested(session, "clicks-pushed.Click"), key=lambda each: each.batch)
    assert [(s.read, s.accepted, s.quarantined, s.duplicates, s.corrections) for s in said] == COUNTS
    assert [each.file for each in said] == [each.file.name for each in BODIES]
    assert arriving.rows(session) == ROWS
    assert session.inbox is not None and session.inbox.files("clicks") == ()
    agrees(session)


def test_many_bodies_are_one_commit_and_each_is_accounted_for(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    push(session)
    written: list[str] = []
    gather.gather(crashing(session, -1, written, after=False))
    assert [written.count(name) for name in ("tables.append", "online.commit")] == [2, 3]  # a commit a series
    assert session.tables.head("Click").version == 0
    done(session)
    push(session)  # their replies were lost
    assert gather.gather(session) == []
    done(session)


def test_a_crash_around_any_write_repeats_nothing_and_loses_nothing(tmp_path: Path) -> None:
    for after in (False, True):
        for at in count():
            session, written = memory(tmp_path), list[str]()
            push(session)
            with suppress(Crash):
                gather.gather(crashing(session, at, written, after=after))
            if len(written) <= at:
                assert at > 8
                break
            if at % 2:
                push(session)
            gather.gather(session)
            done(session)


def test_a_body_that_cannot_be_prepared_keeps_no_other_waiting(tmp_path: Path) -> None:
    def picky(raw: pl.LazyFrame) -> pl.LazyFrame:
        if raw.select((pl.col("id") == "3").any()).collect().item():
            raise ValueError
        return raw

    source = fb.push("clicks", prepare=picky, yields=arriving.Click)
    session = runtime.open(arriving.app(tmp_path, source), fb.Placement(root=tmp_path))
    push(session)
    watch, worker = Watch(session), Here(session)
    for _ in range(3):
        reconcile.reconcile(session, watch, worker)
    assert session.inbox is not None and session.inbox.files("clicks") == (BODIES[1].file,)
    assert worker.rests()
    assert not watch.arriving.comes(session)
    assert [each[0] for each in arriving.rows(session)] == [1, 1, 3, 3, 4, 4]
    agrees(session)


def test_what_a_process_died_over_is_left_to_the_worker(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    push(session)
    (session.home / MARK).touch()
    watch = Watch(session)
    assert not watch.arriving.take(session, silent)
    assert arriving.rows(session) == []
    gather.gather(session)  # the worker does
    assert watch.arriving.take(session, silent) and not (session.home / MARK).exists()
    assert session.inbox is not None
    session.inbox.accept("clicks", body("g", [click(1, 1)]))
    assert watch.arriving.take(session, silent)
    assert arriving.rows(session)[-1] == (7, 1, 1)
    agrees(session)


def test_a_pushed_row_is_online_long_before_the_next_pass(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    stop = threading.Event()

    class Idle(Here):
        """Is told to train, for nothing was ever trained here, and has no time."""

        def begin(self, until: object, model: str) -> None:
            pass

        def stop(self) -> None:
            pass

    thread = threading.Thread(target=looping.loop, args=(session, Idle(session), [], 60.0, stop, silent))
    thread.start()
    try:
        assert _within(60, lambda: (session.home / looping.STATE).exists())
        for n, each in enumerate(BODIES):
            assert session.inbox is not None and session.inbox.accept("clicks", each)
            assert _within(40, lambda n=n: session.tables.head("Click").batch == n + 1 and not _waiting(session))
    finally:
        stop.set()
        thread.join()
    done(session)


def _within(seconds: float, true: object) -> bool:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def _waiting(session: Session) -> bool:
    assert session.inbox is not None
    return bool(session.inbox.files("clicks"))


def test_a_loop_that_stands_still_holds_the_senders_back_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    inbox = type(session.inbox)(tmp_path / "inbox", most=2000)  # type: ignore[call-arg,misc]
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    session = replace(session, inbox=inbox, reader=runtime.places._readers({}, inbox, tmp_path))
    taken, told = list[int](), list[str]()
    for n in range(60):
        sent = msgspec.json.encode(click(n, 1))
        for _ in range(3):  # a sender tries again, as it is told
            try:
                assert ingest.receive(inbox, "clicks", Tally(), {}, sent, "till")[0] == 202
                taken.append(n)
                break
            except RetryableError as refused:
                told.append(refused.code)
                assert sum(file.size for file in inbox.files("clicks")) <= 2000
                if n > 40:  # by now the loop is back
                    received.ingest(session)
    assert 20 < len(taken) < 60 and taken[-1] == 59 and set(told) == {"inbox-full"}
    received.ingest(session)
    assert [row[1] for row in arriving.rows(session)] == taken
    agrees(session)


ZYGOTE = """
import os, sys, time
sys.path.insert(0, {cwd!r})
import tests.promises.test_07_arriving_rows as t
print("go", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            t.pushes_and_ingests(t.Path({folder!r}), int(line))
        except BaseException as problem:
            print("died", repr(problem), file=sys.stderr, flush=True)
        os._exit(1)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""
"""Forks a process a line, which has all that it needs loaded."""


def _grows(file: Path, size: int) -> bool:
    return _size(file) > size


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def pushes_and_ingests(folder: Path, turn: int) -> None:
    """Push bodies and ingest them, until killed; what was acknowledged is written down."""
    session, draw = runtime.open(arriving.app(folder), fb.Placement(root=folder)), random.Random(turn)
    assert session.inbox is not None
    with (folder / "acknowledged").open("a") as acknowledged:
        for n in count():
            for _ in range(draw.randrange(1, 6)):
                name = f"{turn}-{n}-{draw.random()}"
                sent = body(name, [click(draw.randrange(40), draw.randrange(9)) for _ in range(draw.randrange(1, 4))])
                session.inbox.accept("clicks", sent)
                acknowledged.write(f"{sent.file.name}\n")
                acknowledged.flush()
            received.ingest(session)


def test_a_process_that_is_killed_fifteen_times_leaves_nothing_twice_and_nothing_out(tmp_path: Path) -> None:
    draw, kept = random.Random(7), tmp_path / "acknowledged"
    script = ZYGOTE.format(cwd=os.getcwd(), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zygote:
        assert zygote.stdin is not None and zygote.stdout is not None
        assert zygote.stdout.readline() == "go\n"
        for turn in range(15):
            zygote.stdin.write(f"{turn}\n")
            zygote.stdin.flush()
            child = int(zygote.stdout.readline())
            assert _within(60, partial(_grows, kept, _size(kept)))  # it is at it
            time.sleep(draw.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
            assert zygote.stdout.readline() == "gone\n"
        zygote.stdin.close()
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    gather.gather(session)
    assert session.inbox is not None and session.inbox.files("clicks") == ()
    said = sorted(arrivals.ingested(session, "clicks-pushed.Click"), key=lambda each: each.batch)
    acknowledged = kept.read_text().split()
    names = [each.file for each in said]
    assert len(set(names)) == len(names) > 30
    assert [
        name for name in names if name in set(acknowledged)
    ] == acknowledged  # each once, in the order of the replies
    assert len(names) - len(acknowledged) <= 15  # killed between the disk and the reply
    for seed in range(3):
        agrees(session, seed)


def test_how_far_all_is_behind_is_told(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    push(session)
    assert status.status(session).waiting == {"clicks": 6, "orders": 0}
    with suppress(Crash):
        gather.gather(crashing(session, 4, [], after=True))  # one series of three is filled
    (told,) = status.status(session).online
    assert (told.table, told.batch, told.online, told.behind, told.newest_online) == ("Click", 6, None, 6, None)
    assert followed.behind(session) == {"Click": 6}
    gather.gather(session)
    (told,) = status.status(session).online
    assert (told.behind, told.newest_online) == (0, told.newest) and told.newest is not None
    assert told.online == 5 and followed.behind(session) == {"Click": 0}  # the sixth has no row to apply
    assert status.status(session).waiting == {"clicks": 0, "orders": 0}


def test_a_pass_takes_one_commit_of_a_backlog_and_says_that_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "FILES", 2)
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    push(session)
    watch = Watch(session)
    for batches, all_of_it in ((2, False), (4, False), (6, True), (6, True)):
        assert watch.arriving.take(session, silent) is all_of_it
        assert session.tables.head("Click").batch == batches
        assert watch.arriving.comes(session) is not all_of_it
    done(session)


def test_a_server_says_in_its_metrics_how_far_all_is_behind(tmp_path: Path) -> None:
    session = runtime.open(arriving.app(tmp_path), fb.Placement(root=tmp_path))
    push(session)
    gather.gather(replace(session, inbox=None))
    server = SimpleNamespace(tally=Tally())

    async def measured() -> None:
        task = asyncio.create_task(serving._measure(session, server))  # type: ignore[arg-type]
        while not server.tally.inbox:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(measured(), 60))
    text = server.tally.text().decode()
    assert 'flyball_inbox_waiting{source="clicks"} 6.0' in text
    assert 'flyball_online_behind{table="Click"} 0.0' in text
