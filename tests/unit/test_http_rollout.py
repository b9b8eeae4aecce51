"""The edge during a rollout: shadows that never harm an answer, attempts that failed, and the pages that tell of them."""

from __future__ import annotations

import http.client
import json
import select
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball._kernel.errors import AdapterError, RetryableError
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.adapters.embedded.tokens import local_token, open_keys
from flyball.serve import aside, shadows
from flyball.serve.guard import Limits
from flyball.serve.journal import Answer, Done, Entry, Recorder, Settings, Standing
from flyball.serve.plan import Plan
from flyball.serve.router import Routed
from tests.live import ROW, Live, live, plan

OLD, NEW = plan("orders-1", 0.5), plan("orders-2", 0.25)


def broken(version: str, error: Exception) -> Plan:
    def raises(*_: Any) -> Any:
        raise error

    return replace(OLD, version=version, lookup=raises)


def entries(folder: Path) -> list[Entry]:
    return list(SqliteJournal(folder / "journal", SystemClock()).read())


def rows(many: int) -> list[dict[str, Any]]:
    return [ROW | {"order_id": f"o{n}"} for n in range(many)]


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def settled(shop: Live, many: int) -> bool:
    return shop.counted("flyball_shadow_total") + shop.counted("flyball_shadow_dropped_total") == many


def test_the_answer_says_as_what_it_was_given(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.5)}) as shop:
        said = shop.ask(rows(200)).json
        assert {(each["version"], each["role"], each["output"]) for each in said} == {
            ("orders-1", "champion", 4.0),
            ("orders-2", "canary", 2.0),
        }
        for version, role in (("orders-1", "champion"), ("orders-2", "canary")):
            label = f'{{model="orders",role="{role}",version="{version}"}}'
            assert shop.counted(f"flyball_answers_total{label}") == sum(e["role"] == role for e in said)
            assert shop.counted(f"flyball_answer_seconds_count{label}") == 1, "one request"
        until(lambda: settled(shop, 200))
        assert shop.counted("flyball_shadow_dropped_total") == 0
    found = entries(tmp_path)
    assert sorted(e.version for e in found) == ["orders-1"] * 200 + ["orders-2"] * 200, "both computed every question"
    assert len({(e.key, e.asked) for e in found}) == 200


def test_who_is_ready_shows_the_candidate(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.05)}) as shop:
        ready = shop.send("GET", "/readyz").json
        assert ready["answering"] == {"orders": "orders-1"}
        assert ready["candidates"] == {"orders": {"version": "orders-2", "share": 0.05, "taken_out": ""}}
        shop.swap({"orders": NEW})
        assert shop.send("GET", "/readyz").json["candidates"] == {}


def test_shadows_are_bounded_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    goes = threading.Event()

    class Held:
        """Records shadows only when it may: so the queue is full for as long as is wanted."""

        def __init__(self, real: Recorder) -> None:
            self._real, self.process = real, real.process

        def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
            if any(answer.role == "shadow" for answer in answers):
                assert goes.wait(60)
            return self._real.record(answers, done)

        def standing(self) -> Standing:
            return self._real.standing()

        def close(self) -> None:
            self._real.close()

    limits = Limits(shadows=10)
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.0)}, through=Held, limits=limits) as shop:
        assert len(shop.ask(rows(50)).json) == 50, "no caller waits for them"
        goes.set()
        until(lambda: settled(shop, 50))
        assert shop.counted("flyball_shadow_dropped_total") == 40
        assert shop.counted('flyball_shadow_total{how="answered",model="orders",version="orders-2"}') == 10
        assert shop.counted("flyball_answers_total") == 50
    assert sorted(e.role for e in entries(tmp_path)) == ["champion"] * 50 + ["shadow"] * 10


def test_an_answer_waits_for_one_shadow_at_most(tmp_path: Path) -> None:
    """Of three hundred, each of which takes until it is let go: counted in shadows, so that no slow machine tells otherwise."""
    goes, lasts = threading.Semaphore(0), 0.04

    def slowly(values: Any) -> Any:
        assert goes.acquire(timeout=60)
        return NEW.encode(values)

    routed = Routed(1, OLD, replace(NEW, encode=slowly), 0.0, slow=60.0)
    with live(tmp_path, {"orders": routed}) as shop:
        try:
            assert shop.ask(rows(300)).status == 200
            waited = []
            with closing(http.client.HTTPConnection("127.0.0.1", shop.port, timeout=20)) as connection:
                for _ in range(15):
                    connection.request("POST", "/predict", json.dumps(ROW), {"Content-Type": "application/json"})
                    time.sleep(lasts)
                    goes.release()
                    # Its own way may take longer than a shadow on a bad day; then it waits for another.
                    for let_go in range(1, 6):  # noqa: B007
                        if select.select([connection.sock], [], [], 10 * lasts)[0]:
                            break
                        goes.release()
                    assert connection.getresponse().read()
                    waited.append(let_go)
            assert statistics.median(waited) == 1
            assert len(shop.server._shadows) > 100, "it had not been drained"
        finally:
            goes.release(1000)
            shop.on_loop(shop.server._shadows._queue.clear)


class Keeping:
    """Keeps acknowledgements of some answers back for as long as is wanted."""

    def __init__(self, real: Recorder, keeps: Callable[[Answer], bool]) -> None:
        self._real, self._keeps, self.process = real, keeps, real.process
        self.kept: list[Done] = []

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        if done is not None and any(map(self._keeps, answers)):
            self.kept.append(done)
            done = None
        return self._real.record(answers, done)

    def standing(self) -> Standing:
        return self._real.standing()

    def close(self) -> None:
        self._real.close()

    def release(self) -> None:
        self._keeps = lambda _: False
        kept, self.kept = self.kept, []
        for each in kept:
            each(None)


def test_shadows_leave_the_journal_to_those_who_wait_for_it(tmp_path: Path) -> None:
    made: list[Keeping] = []

    def through(real: Recorder) -> Recorder:
        made.append(Keeping(real, lambda answer: answer.role == "shadow"))
        return made[0]

    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.0)}, through=through) as shop:
        assert len(shop.ask(rows(300)).json) == 300
        until(lambda: len(made[0].kept) == shadows.IN_FLIGHT)
        for _ in range(20):
            assert shop.ask(ROW).status == 200
        assert len(made[0].kept) == shadows.IN_FLIGHT, "no more are in flight, however long the disk takes"
        shop.on_loop(made[0].release)
        until(lambda: settled(shop, 320))
        assert shop.counted("flyball_shadow_dropped_total") == 0
    assert sum(e.role == "shadow" for e in entries(tmp_path)) == 320


def test_shadows_are_computed_though_somebody_is_always_answered(tmp_path: Path) -> None:
    made: list[Keeping] = []

    def through(real: Recorder) -> Recorder:
        made.append(Keeping(real, lambda answer: answer.key == '{"order_id":"held"}' and answer.role != "shadow"))
        return made[0]

    with (
        live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.0)}, through=through) as shop,
        ThreadPoolExecutor(1) as pool,
    ):
        held = pool.submit(shop.ask, ROW | {"order_id": "held"})
        until(lambda: made[0].kept)
        assert shop.ask(rows(30)).status == 200
        until(lambda: settled(shop, 30))
        shop.on_loop(made[0].release)
        assert held.result(20).status == 200


def test_who_is_told_of_a_breaker_cannot_make_a_caller_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def tripped(model: str, version: str, why: str) -> None:
        raise BrokenPipeError("standard output is gone")

    bad = broken("orders-2", ZeroDivisionError("no"))
    with live(tmp_path, {"orders": Routed(1, OLD, bad, 1.0)}, tripped=tripped) as shop:
        assert {reply.status for reply in map(shop.ask, rows(12))} == {200}
        assert shop.counted("flyball_breaker_opened_total") == 1
    assert "nobody could be told" in caplog.text


def test_reading_beyond_what_can_wait_is_turned_away_and_nobody_elses_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes = threading.Event()

    def find(_: Any, __: str) -> None:
        assert goes.wait(60)

    monkeypatch.setattr(SqliteJournal, "find", find)
    with live(tmp_path) as shop, ThreadPoolExecutor(aside.MOST + 6) as pool:
        reads = [pool.submit(shop.send, "GET", "/predictions/x") for _ in range(aside.MOST + 6)]
        until(lambda: shop.counted("flyball_refusals_total") == 6)
        assert shop.ask(ROW).status == 200
        refused = shop.send("GET", "/predictions/x")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "server-busy", "1")
        goes.set()
        statuses = [read.result(20).status for read in reads]
        assert (statuses.count(404), statuses.count(503)) == (aside.MOST, 6)
        assert shop.send("GET", "/predictions/x").status == 404


@pytest.mark.parametrize("error", [RetryableError("journal-full", "no"), AdapterError("journal-write", "no")])
def test_a_journal_that_takes_no_shadow_harms_nobody(tmp_path: Path, error: AdapterError) -> None:
    class Choosy:
        def __init__(self, real: Recorder) -> None:
            self._real, self.process = real, real.process

        def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
            if any(answer.role == "shadow" for answer in answers):
                raise error
            return self._real.record(answers, done)

        def standing(self) -> Standing:
            return self._real.standing()

        def close(self) -> None:
            self._real.close()

    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.5)}, through=Choosy) as shop:
        assert shop.ask(rows(20)).status == shop.ask(ROW).status == 200
        until(lambda: shop.counted("flyball_shadow_dropped_total") == 21)
        assert shop.counted("flyball_shadow_total") == shop.counted("flyball_refusals_total") == 0
    assert len(entries(tmp_path)) == 21


def test_what_a_broken_disk_loses_of_shadows_and_faults_is_counted(tmp_path: Path) -> None:
    """The answer of the same group is refused to its caller; the rest has no caller, and is counted."""
    broken_disk = threading.Event()

    def connect(path: str) -> journal_segment.Connection:
        real = journal_segment.connect(path)

        class Moody:
            def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> journal_segment.Cursor:
                if sql.startswith("INSERT INTO pages") and broken_disk.is_set():
                    raise sqlite3.OperationalError("disk I/O error")
                return real.execute(sql, parameters)

            def close(self) -> None:
                real.close()

        return Moody()

    failing = broken("orders-1", AdapterError("store-busy", "no"))
    routed = Routed(1, failing, None, fallbacks=(("previous", NEW),))
    with live(tmp_path, {"orders": routed}, connect=connect) as shop:
        assert shop.ask(ROW).json["role"] == "previous"
        broken_disk.set()
        assert shop.ask(ROW).code == "journal-write"
        until(lambda: shop.counted("flyball_failed_dropped_total") == 1)
        broken_disk.clear()
        assert shop.ask(ROW).json["role"] == "previous"
        until(lambda: shop.counted("flyball_failed_total") == 2)
    assert [(e.role, e.failed) for e in entries(tmp_path)] == [("champion", "store-busy"), ("previous", "")] * 2


def test_at_the_end_what_can_be_computed_in_time_is_and_the_rest_is_counted(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.0)}) as shop:
        dropped: list[int] = []
        shop.ask(ROW)
        until(lambda: settled(shop, 1))

        def end() -> None:
            way = shop.server._router.ways["orders"]
            for seconds in (0.0, 30.0):
                given = shop.server._router.ask(way, decoded, SystemClock().now(), 0.0)
                shop.server._shadows.add(each.shadow for each in given if each.shadow is not None)
                dropped.append(shop.server.end(seconds))

        decoded, _ = OLD.decode(json.dumps(rows(7)).encode())
        shop.on_loop(end)
        until(lambda: shop.counted("flyball_shadow_total") == 8)
        assert dropped == [7, 7], "none in no time, and all of them in half a minute"
    assert sum(e.role == "shadow" for e in entries(tmp_path)) == 8


def test_every_attempt_that_failed_is_recorded_and_counted(tmp_path: Path) -> None:
    line = (("previous", broken("orders-0", AdapterError("store-busy", "no"))),)
    champion = broken("orders-1", AdapterError("store-damaged", "no"))
    with live(tmp_path, {"orders": Routed(4, champion, NEW, 1.0, line, 0.2)}) as shop:
        assert (shop.ask(ROW).json["version"], shop.ask(ROW).json["role"]) == ("orders-2", "canary")
        shop.swap({"orders": Routed(5, champion, None, 0.0, line, 0.2)})
        said = shop.ask(ROW).json
        assert (said["version"], said["role"], said["output"]) == ("default", "default", 0.2)
        shop.swap({"orders": Routed(6, champion, None, 0.0, line)})
        reply = shop.ask(ROW)
        assert (reply.status, reply.code) == (503, "store-damaged")
        failed = '{{model="orders",role="{}",version="{}"}}'
        until(lambda: shop.counted("flyball_failed_total" + failed.format("champion", "orders-1")) == 2)
        assert shop.counted("flyball_failed_total" + failed.format("previous", "orders-0")) == 2
        found = {(e.epoch, e.role): e for e in entries(tmp_path)}
        page = shop.send("GET", f"/predictions/{found[6, 'champion'].id}").json
        assert (page["failed"], page["output"], page["role"]) == ("store-damaged", None, "champion")
    assert {(e.epoch, e.role, e.version, e.failed) for e in entries(tmp_path)} == {
        (4, "canary", "orders-2", ""),
        (4, "shadow", "orders-1", "store-damaged"),
        (5, "champion", "orders-1", "store-damaged"),
        (5, "previous", "orders-0", "store-busy"),
        (5, "default", "default", ""),
        (6, "champion", "orders-1", "store-damaged"),
        (6, "previous", "orders-0", "store-busy"),
    }


def test_a_list_of_which_one_has_no_answer_does_not_leave_and_has_no_shadows(tmp_path: Path) -> None:
    def at_times(row: Any, asked: Any) -> Any:
        if row["order_id"] == "o3":
            raise AdapterError("store-busy", "no")
        return OLD.lookup(row, asked)

    with live(tmp_path, {"orders": Routed(1, replace(OLD, lookup=at_times), NEW, 0.0)}) as shop:
        assert shop.ask(rows(5)).code == "store-busy"
        until(lambda: shop.counted("flyball_failed_total") == 1)
        assert settled(shop, 0)
    assert [(e.role, e.failed) for e in entries(tmp_path)] == [("champion", "store-busy")]


def test_many_callers_during_a_rollout_see_nothing_of_it(tmp_path: Path) -> None:
    settings = Settings(durability="interval", patience=timedelta(0))
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.5)}, settings=settings) as shop, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(shop.ask, rows(300)))
        assert {reply.status for reply in replies} == {200}
        until(lambda: settled(shop, 300))
        dropped = shop.counted("flyball_shadow_dropped_total")
    found = entries(tmp_path)
    assert len(found) == 300 + 300 - dropped, "recorded = answered + shadows - what was dropped"


# --- keys and outcomes


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    outcomes = SqliteOutcomes(tmp_path / "outcomes.sqlite")
    keys = open_keys(tmp_path, SystemClock())
    with live(tmp_path, {"orders": Routed(1, OLD, NEW, 0.5)}, keys=keys, outcomes=outcomes) as found:
        yield found, outcomes, {"Authorization": f"Bearer {local_token(tmp_path)}"}
    outcomes.close()


def post(shop: Live, said: Any, headers: dict[str, str]) -> Any:
    return shop.send("POST", "/outcomes", json.dumps(said).encode(), headers)


def test_outcomes_are_taken_from_who_has_a_key(shop: Any) -> None:
    server, outcomes, bearer = shop
    given = server.ask(ROW | {"placed": "2026-11-20T07:00:00-05:00"}).json
    by_id = {"prediction": given["id"], "outcome": True}
    by_key = {"key": {"order_id": "o1"}, "outcome": None}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        reply = post(server, by_id, headers)
        assert reply.status == 401 and reply.headers["www-authenticate"].startswith("Bearer")
    assert list(outcomes.read()) == []
    reply = post(server, [by_id, by_key, by_id], bearer)
    assert (reply.status, reply.json) == (200, {"accepted": 2, "repeated": 1, "corrected": 0, "refused": []})
    posted = list(outcomes.read())
    assert [(p.prediction, p.key, p.value, p.by) for p in posted] == [
        (given["id"], "", 1.0, "local"),
        ("", '{"order_id":"o1"}', None, "local"),
    ]
    entry = server.send("GET", f"/predictions/{given['id']}").json
    assert entry["key"] == posted[1].key, "an outcome finds its question by the key as the journal has it"
    assert post(server, {"outcome": 1}, bearer).status == 422
    assert post(server, "nonsense", bearer).status == 422
    assert server.send("GET", "/outcomes").status == 405


def test_a_wrong_key_is_told_where_none_is_needed_and_probes_ask_for_none(shop: Any) -> None:
    server, _, bearer = shop
    wrong = {"Authorization": "Bearer wrong"}
    body = json.dumps(ROW).encode()
    for method, path, sent in (("POST", "/predict", body), ("GET", "/metrics", None), ("GET", "/predictions/x", None)):
        assert server.send(method, path, sent, wrong).status == 401
        assert server.send(method, path, sent, bearer).status == server.send(method, path, sent).status != 401
    for path in ("/healthz", "/readyz"):
        assert server.send("GET", path, headers=wrong).status == 200


def test_without_a_place_for_outcomes_there_is_no_such_page(tmp_path: Path) -> None:
    with live(tmp_path) as bare:
        for method in ("GET", "POST"):
            assert bare.send(method, "/outcomes", b"{}" if method == "POST" else None).status == 404
