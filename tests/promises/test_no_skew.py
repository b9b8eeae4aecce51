"""No skew, proved: a shop is really served while its data go on; every value that was answered by is built again, bit for bit.

Keys and customers are personal, so the journal knows them by hashes alone. Then it is attacked: a store that lags behind, one
that was tampered with, a past that was mended, rolled back and erased, and answers that promise nothing.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball import cli, runtime
from flyball._kernel import facts, ids
from flyball._kernel.clock import micros
from flyball.adapters.embedded.clock import step
from flyball.cycle import answering, apply, arrivals, erase, gather, skew, skewed, versions
from flyball.cycle.session import Session
from flyball.cycle.skew import Skew, SkewAudited
from flyball.learn.features import online
from flyball.learn.features.declare import Window
from flyball.runtime import Placement
from flyball.serve.journal import Answer, Settings
from flyball.serve.router import Router
from tests.oracles import projects

NOW = datetime(2025, 6, 29, 12, tzinfo=UTC)
MORE = """customer_last=fb.latest(Order, by=Order.customer, columns=[Order.price, Order.category]),
    spent=fb.window(Order, Order.price.col.sum(), by=Order.customer, over=[days(1), days(30)]),
)


class Knobs"""
FED = {"customer_last_price", "customer_last_category", "spent_1d", "spent_30d"}
"""The columns that follow a customer's orders at once; the others wait for outcomes, two weeks."""


@dataclass
class Shop:
    """A project, and the clock that it lives by."""

    project: Path

    @property
    def clock(self) -> Path:
        return self.project.parent / "instant"

    def session(self) -> Session:
        app = projects.opened(self.project).app
        return runtime.open(app, Placement(root=self.project, clock=self.clock))

    def at(self, session: Session, seconds: float) -> datetime:
        step(self.clock, session.clock.now() + timedelta(seconds=seconds))
        return session.clock.now()

    def orders(self) -> list[dict[str, str]]:
        with (self.project / "data" / "orders.csv").open() as file:
            return list(csv.DictReader(file))

    def arrive(self, name: str, rows: list[dict[str, str]]) -> None:
        with (self.project / "data" / f"orders-{name}.csv").open("w") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    def ask(self, session: Session, *whom: tuple[str, str]) -> list[str]:
        """About these orders of these customers, a second apart, each when it is placed; returns the ids of the answers."""
        recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
        router, found = Router(session.clock), []
        router.swap(answering.routed(session))
        way = router.ways["sent_back"]
        for order, customer in whom:
            asked = self.at(session, 1)
            (decoded,), _ = way.routed.champion.decode(question(order, customer, asked))
            (given,) = router.ask(way, [decoded], asked, 0.0)
            assert given.answer is not None
            recorder.record([given.answer])
            found.append(given.answer.id)
        recorder.close()
        return found

    def fresh(self, session: Session, name: str, customers: list[str]) -> list[dict[str, str]]:
        """A file of orders that were placed a minute ago."""
        placed = session.clock.now() - timedelta(minutes=1)
        rows = [
            {
                **self.orders()[n],
                "order_id": f"{name}{n}",
                "customer": customer,
                "placed": said(placed),
                "price": "77.7",
            }
            | {"settled": "", "returned": ""}
            for n, customer in enumerate(customers)
        ]
        self.arrive(name, rows)
        return rows


def said(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def question(order: str, customer: str, placed: datetime) -> bytes:
    row = {"order_id": order, "placed": placed, "category": "shoes", "channel": "web", "price": 19.9}
    return msgspec.json.encode({**row, "customer": customer})


def made(folder: Path, name: str, stored: str) -> Shop:
    """Served for a while: new customers and old ones, orders that lie in the table, and a file and a correction in between."""
    shop = Shop(projects.make(folder / name))
    app = shop.project / "app.py"
    projects.edit(app, "order_id = dy.String(primary_key=True)", "order_id = fb.personal(dy.String(primary_key=True))")
    projects.edit(app, "customer = fb.personal(dy.String())", f"customer = fb.personal(dy.String(), stored={stored!r})")
    projects.edit(app, "price = dy.Float64(min=0", "price = dy.Float32(min=0")
    projects.edit(app, ")\n\n\nclass Knobs", MORE)
    projects.edit(app, "data/orders.csv", "data/orders*.csv")
    first = shop.project / "data" / "orders.csv"
    head, *rows = first.read_text().splitlines()
    first.write_text("\n".join([head, *rows[::3]]) + "\n")
    step(shop.clock, NOW)
    session = shop.session()
    apply.apply(session)
    last = shop.orders()[-1]
    own = [(last["order_id"], last["customer"]), ("q1", last["customer"]), ("q2", "nobody"), ("q3", "c007")]
    shop.ask(session, *own)
    shop.at(session, 60)
    fresh = shop.fresh(session, "a", ["c007", last["customer"], "c008"])
    mended = {**last, "price": "1.25"}
    shop.arrive("a", [*fresh, mended])
    gather.gather(session)
    shop.at(session, 5)
    shop.ask(session, *own, (fresh[0]["order_id"], "c007"), ("q4", "c008"))
    return shop


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return made(tmp_path_factory.mktemp("skew"), "plain", "plain")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return made(tmp_path_factory.mktemp("skew"), "sealed", "token")


@pytest.fixture
def shop(plain: Shop, tmp_path: Path) -> Shop:
    """One to attack."""
    shutil.copytree(plain.project.parent, tmp_path / "own")
    return Shop(tmp_path / "own" / plain.project.name)


def audit(session: Session, limit: int = 1000) -> Skew:
    """What is asked now is compared as well."""
    return skew.skew(session, None, limit=limit)


def counts(found: Skew, cause: str) -> dict[str, int]:
    return {name: n for name, c in found.found.features.items() if (n := getattr(c, cause))}


def named(found: Skew, cause: str) -> dict[str, set[str]]:
    """Column -> the predictions that differ in it."""
    rows: dict[str, set[str]] = {}
    for row in found.rows:
        if row.cause == cause:
            rows.setdefault(row.column, set()).add(row.prediction)
    return rows


@pytest.mark.parametrize("name", ["plain", "sealed"])
def test_every_value_that_was_served_is_built_again_to_the_bit(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: Shop = request.getfixturevalue(name)
    session = served.session()
    served.at(session, 1)
    entries = list(session.journal.read())
    looked = {name for entry in entries for name, value in entry.features.items() if value not in (None, 0, 0.0)}
    assert looked >= FED | {"category_returns", "customer_returns"}, "nothing was looked up: nothing would be proved"
    own, other = entries[0].features, entries[1].features
    assert own["customer_last_price"] != other["customer_last_price"], "an order does not see itself"
    found = audit(session)
    assert (found.holds, found.rows) == (True, ())
    assert {c.compared for c in found.found.features.values()} == {len(entries)} == {10}
    assert not counts(found, "differing") and set(found.found.left_out.values()) == {0}
    fact = list(session.facts.read(kinds=frozenset({facts.kind(SkewAudited)})))[-1]
    assert facts.decode(fact, SkewAudited) == found.found and b"c007" not in fact.said
    monkeypatch.setattr(skew, "CHUNK", 3)
    assert audit(session) == found


def test_a_server_that_listens_is_audited_by_the_verb(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    at = shop.at(shop.session(), 1)
    command = [sys.executable, "-m", "flyball", "serve", str(shop.project), "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, "--clock", str(shop.clock)], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        told = ""
        while not told.endswith("}}"):
            line = server.stdout.readline()
            assert line
            told += line.strip()
        address = json.loads(told)["address"].removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
            for n in range(5):
                body = question(f"h{n}", "c007", at)
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
        server.terminate()
        server.wait(20)
    step(shop.clock, at + timedelta(seconds=1))
    capfd.readouterr()
    arguments = ["skew", str(shop.project), "--clock", str(shop.clock)]
    assert cli.call([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["holds"] and found["found"]["compared"] == 15
    assert cli.call([*arguments, "--since", at.strftime("%Y-%m-%dT%H:%M:%S")]) == 0
    out = capfd.readouterr().out
    assert "5 of 5 recorded answers" in out and "no skew" in out and "c007" not in out


def test_a_tampered_total_is_named_with_every_answer_that_it_was_in(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    session = shop.session()
    (window,) = (f for f in session.app.model(None).features.features if isinstance(f, Window) and f.name == "spent")
    with closing(sqlite3.connect(session.home / "online.sqlite")) as store, store:
        series = store.execute("SELECT id FROM series WHERE name = ?", (online.name(window),)).fetchone()
        tampered = store.execute(
            "UPDATE steps SET total = CAST(total AS INTEGER) + ? WHERE series = ? AND span = 0 AND entity = 'c007' "
            "AND at = (SELECT max(at) FROM steps WHERE series = ? AND span = 0 AND entity = 'c007')",
            (2**40, *series, *series),
        )
        assert tampered.rowcount == 1
    wrong = shop.ask(session, ("w1", "c007"), ("w2", "c008"), ("w3", "c007"))
    shop.at(session, 1)
    found = audit(session)
    theirs = {wrong[0], wrong[2]}
    assert named(found, "unexplained") == {"spent_1d": theirs, "spent_30d": theirs}
    assert not found.holds and counts(found, "differing") == {"spent_1d": 2, "spent_30d": 2}
    one = next(row for row in found.rows if row.column == "spent_1d")
    assert float(one.logged) - float(one.recomputed) == pytest.approx(1.0)
    capfd.readouterr()
    assert cli.call(["skew", str(shop.project), "--clock", str(shop.clock), "--limit", "1"]) == 1
    out = capfd.readouterr().out
    assert "4 of 130 values differ, and nothing explains it" in out
    assert sum(prediction in out for prediction in wrong) == 1 and "c007" not in out


def came(session: Session) -> None:
    """A file is in, and the online store has not heard of it."""
    (pending,) = arrivals.look(session).pending
    assert gather.one(session, pending, [], lambda _: None) is None


def test_a_store_that_lags_is_behind_for_a_while_and_then_unexplained(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = shop.session()
    shop.fresh(session, "b", ["c007", "c009"])
    came(session)
    first = shop.ask(session, ("l1", "c007"), ("l2", "c008"), ("l3", "c009"))
    shop.at(session, skewed.PATIENCE.total_seconds())
    second = shop.ask(session, ("l4", "c007"), ("l5", "c008"))
    gather.follow(session)
    last = shop.ask(session, ("l6", "c007"))
    shop.at(session, 1)
    found = audit(session)
    behind, unexplained = named(found, "behind"), named(found, "unexplained")
    assert set(behind) <= FED and behind["spent_1d"] == {first[0], first[2]}
    assert set(unexplained) <= FED and unexplained["spent_1d"] == {second[0]}
    assert last[0] not in {row.prediction for row in found.rows}
    late = next(row for row in found.rows if row.cause == "behind" and row.prediction == first[0])
    assert late.detail == "Order: batch 3 was not online, 1 s after it was known"
    assert not found.holds and found.rows[0].cause == "unexplained"
    monkeypatch.setattr(skewed, "TRIES", 0)
    assert counts(audit(session), "unexplained") == counts(found, "differing"), "what was not tried is never excused"


def test_a_past_that_was_mended_or_rolled_back_is_told_from_skew(shop: Shop) -> None:
    session = shop.session()
    ids_ = shop.ask(session, ("m1", "c007"), ("m2", "nobody"))
    shop.at(session, 1)
    versions.roll_back(session, "Order", to=1, reason="a bad file", by="test")
    shop.at(session, 1)
    after = shop.ask(session, ("m3", "c007"))
    shop.at(session, 1)
    found = audit(session)
    mended = named(found, "mended")
    assert found.holds and counts(found, "differing") == counts(found, "mended")
    assert set(mended) <= FED and ids_[0] in mended["spent_1d"]
    assert not {ids_[1], *after} & {row.prediction for row in found.rows}
    assert {row.detail.partition(" at ")[0] for row in found.rows} == {"Order: a rollback to version 1 (batch 3)"}
    projects.edit(shop.project / "preparation.py", "with_columns(", 'with_columns(pl.lit("9.5").alias("price"), ')
    session = shop.session()
    shop.at(session, 1)
    gather.gather(session)
    shop.at(session, 1)
    found = audit(session)
    assert found.holds and after[0] in named(found, "mended")["customer_last_price"]
    assert any("was read again" in row.detail for row in found.rows)


def test_what_was_erased_can_neither_be_proved_nor_called_skew(shop: Shop) -> None:
    session = shop.session()
    settled = (said(NOW - timedelta(days=40)), said(NOW - timedelta(days=16)))
    bought = {
        o["customer"] for o in shop.orders() if o["category"] == "shoes" and settled[0] < o["placed"] < settled[1]
    }
    gone = min(bought - {"c007", "c008", shop.orders()[-1]["customer"]})
    shop.ask(session, ("e1", gone))
    shop.at(session, 1)
    assert not counts(audit(session), "differing")
    erase.erase(session, f"customer = '{gone}'", by="test", reason="asked to")
    shop.at(session, 1)
    after = shop.ask(session, ("e2", "c007"))
    shop.at(session, 1)
    found = audit(session)
    assert found.holds and found.found.left_out["erased"] == 1
    assert set(counts(found, "gone")) == {"category_returns"}, "that of all who bought of the same category"
    assert counts(found, "differing") == counts(found, "gone") == {"category_returns": 10}
    assert after[0] not in {row.prediction for row in found.rows}


def test_what_promises_nothing_is_left_out_and_counted(shop: Shop) -> None:
    session = shop.session()
    asked = shop.at(session, 1)
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    entry = list(session.journal.read())[-1]
    base = {name: getattr(entry, name) for name in Answer.__struct_fields__}
    base |= {"asked": micros(asked), "features": {**entry.features, "price": -0.0}}
    for changes in (
        {"failed": "server-failed", "features": {}},
        {"role": "default", "version": "default", "features": {}},
        {"role": "baseline", "features": {}},
        {"within_tolerance": False},
        {"inputs": {**entry.inputs, "category": "cars"}},
        {"inputs": {**entry.inputs, "price": 1}},
        {"model": "another"},
    ):
        recorder.record([Answer(**{**base, **changes, "id": ids.uuid7(asked)})])
    for role in ("canary", "shadow", "previous"):  # these are compared, and -0.0 is not 19.9
        recorder.record([Answer(**{**base, "role": role, "id": ids.uuid7(asked)})])
    recorder.close()
    shop.at(session, 1)
    found = audit(session)
    left = {reason: n for reason, n in found.found.left_out.items() if n}
    assert left == {"failed": 1, "no features": 2, "outside tolerance": 1, "unreadable": 2}
    assert found.found.answers == found.found.compared + sum(left.values()) == 19
    wrong = [row for row in found.rows if row.column == "price"]
    assert {(row.role, row.logged, row.cause) for row in wrong} == {
        (role, "-0.0", "unexplained") for role in ("canary", "shadow", "previous")
    }
    projects.edit(shop.project / "app.py", "over=days(120)", "over=days(90)")
    other = audit(shop.session())
    assert (other.holds, other.found.compared) == (True, 0)
    assert other.found.left_out["other features"] == 13 + 2


def test_equal_is_of_one_type_and_to_the_bit() -> None:
    nan = float("nan")
    alike: list[Any] = [None, True, 1, 1.0, "1", -0.0, nan, float("inf")]
    for n, one in enumerate(alike):
        assert [skewed.same(one, other) for other in alike] == [n == m for m in range(len(alike))]
    assert skewed.same(nan, -nan) and not skewed.same(0.0, -0.0) and not skewed.same(0.1, 0.1 + 2**-54 * 2)
