"""Promise 7, for rows that are pushed, attacked by who pushes: bodies that always fail, that come again, and that forge.

And by a process that died while it took them in: what it left behind must not hold up what comes after it.
"""

from __future__ import annotations

from pathlib import Path

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import runtime
from flyball.cycle import arrivals, gather, received, reconcile
from flyball.cycle.pushed import MARK
from flyball.cycle.reconcile import Here
from flyball.cycle.session import Session, silent
from flyball.cycle.watching import Watch
from flyball.data import together
from tests import arriving
from tests.arriving import agrees, body, click


def picky(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Cannot prepare a body that has click 3."""
    if raw.select((pl.col("id") == "3").any()).collect().item():
        raise ValueError
    return raw


def opened(folder: Path, prepare: object = arriving.as_it_is) -> Session:
    source = fb.push("clicks", prepare=prepare, yields=arriving.Click)  # type: ignore[arg-type]
    return runtime.open(arriving.app(folder, source), fb.Placement(root=folder))


def pushes(session: Session, name: str, *rows: dict[str, object]) -> None:
    assert session.inbox is not None
    session.inbox.accept("clicks", body(name, rows))


def waiting(session: Session) -> int:
    assert session.inbox is not None
    return len(session.inbox.files("clicks"))


def test_bodies_that_always_fail_hold_up_nobody_however_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "FILES", 11)
    session = opened(tmp_path, picky)
    for n in range(22):  # two commits of them, and more than a source of files is given
        pushes(session, f"bad {n}", click(3, n))
    pushes(session, "good", click(1, 1))
    watch, worker = Watch(session), Here(session)
    reconcile.reconcile(session, watch, worker)
    assert arriving.rows(session) == [(1, 1, 1)]
    for _ in range(3):
        reconcile.reconcile(session, watch, worker)
    assert worker.rests() and not watch.arriving.comes(session)
    pushes(session, "later", click(2, 2))
    assert watch.arriving.comes(session)
    watch.arriving.take(session, silent)
    assert arriving.rows(session) == [(1, 1, 1), (2, 2, 2)] and waiting(session) == 22
    agrees(session)


class Odd(fb.Contract):
    """With a rule that does not run on every row."""

    id = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    who = dy.String()

    @dy.rule()
    def is_counted(cls) -> pl.Expr:
        return pl.col("who").cast(pl.Int64) > 0


def test_a_body_on_which_a_rule_does_not_run_stops_no_pass(tmp_path: Path) -> None:
    sources = (fb.push(n, prepare=arriving.as_it_is, yields=c) for n, c in (("clicks", arriving.Click), ("odd", Odd)))
    session = runtime.open(arriving.app(tmp_path, *sources), fb.Placement(root=tmp_path))
    assert session.inbox is not None
    session.inbox.accept("odd", body("bad", [click(3, 1)]))
    watch, worker = Watch(session), Here(session)
    looked = [reconcile.reconcile(session, watch, worker) for _ in range(2)]
    assert [each.hindered for each in looked] == ["", ""] and worker.rests()
    session.inbox.accept("odd", body("good", [click(1, 1) | {"who": "7"}]))
    assert not watch.arriving.take(session, silent)
    assert session.tables.head("Odd").batch == 1 and len(session.inbox.files("odd")) == 1


def test_what_a_process_died_over_holds_up_nobody_once_a_worker_lived_through_it(tmp_path: Path) -> None:
    session = opened(tmp_path, picky)
    pushes(session, "bad", click(3, 1))
    (session.home / MARK).touch()
    watch, worker = Watch(session), Here(session)
    for _ in range(2):
        reconcile.reconcile(session, watch, worker)
    assert worker.rests() and not (session.home / MARK).exists()
    pushes(session, "good", click(1, 1))
    watch.arriving.take(session, silent)
    assert arriving.rows(session) == [(1, 1, 1)]


def test_a_process_that_died_when_all_was_in_leaves_nothing_waiting(tmp_path: Path) -> None:
    session = opened(tmp_path)
    for _ in range(2):  # the second time, as if it had not left yet
        pushes(session, "a", click(1, 1))
        gather.gather(session) if not arriving.rows(session) else (session.home / MARK).touch()
    assert waiting(session) == 1
    assert Watch(session).arriving.take(session, silent) and waiting(session) == 0
    assert Watch(session).arriving.take(session, silent) and not (session.home / MARK).exists()


def test_a_body_that_is_sent_again_takes_nothing_back_though_its_preparation_changed(tmp_path: Path) -> None:
    session = opened(tmp_path)
    for name, price in (("a", 1), ("b", 2)):
        pushes(session, name, click(1, price))
        gather.gather(session)
    session = opened(tmp_path, lambda raw: raw.with_columns(pl.lit("x").alias("more")))
    pushes(session, "a", click(1, 1))
    assert gather.gather(session) == [] and waiting(session) == 0
    assert arriving.rows(session) == [(1, 1, 1), (2, 1, 2)]
    pushes(session, "c", click(1, 1))  # under a key of its own it says something new
    assert len(received.ingest(session)) == 1
    agrees(session)


def test_no_name_in_a_body_takes_the_place_of_what_lies_beside_a_column(tmp_path: Path) -> None:
    session = opened(tmp_path)
    for n, name in enumerate(("\0sealed\0who", "\0sealed\0price", "\0before\0"), start=1):
        pushes(session, name, click(n, 1) | {name: "forged"}, click(n + 3, 1))
    assert [(s.accepted, s.by_rule) for s in received.ingest(session)] == [(1, {"ragged": 1})] * 3
    agrees(session)


def test_history_ends_when_all_that_waits_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "FILES", 2)
    session = opened(tmp_path)
    for n in range(1, 4):
        pushes(session, f"{n}", click(n, 1))
    watch = Watch(session)
    while not watch.arriving.take(session, silent):
        pass
    pushes(session, "life", click(4, 1))
    received.ingest(session)
    said = sorted(arrivals.ingested(session, "clicks-pushed.Click"), key=lambda each: each.batch)
    assert [each.known_from is None for each in said] == [True, True, True, False]
