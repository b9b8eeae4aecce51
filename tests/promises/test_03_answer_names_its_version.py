"""Promise 3: the answer names the version that answered, also while versions change.

Every version of this model says something else of the same row, so an answer gives its author away. Versions are swapped
under load as fast as the loop takes them; what callers were told, what the journal holds and what the versions would have
said must be the same, for every answer.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.serve.journal import Settings
from flyball.serve.plan import Plan
from tests.live import ROW, Factor, Live, live, plan

SAYS = {f"orders-{n}": 0.5 + n / 64 for n in range(1, 21)}
"""Version -> what it says of one euro; exact in binary."""


def version(name: str) -> Plan:
    return replace(FIRST, version=name, predictor=Factor(SAYS[name]), epoch=int(name.rpartition("-")[2]))


FIRST = plan("orders-1", SAYS["orders-1"])
PLANS = {name: version(name) for name in SAYS}


def swap(shop: Live, name: str) -> None:
    """Change versions on the loop's thread, as whoever follows the route does; returns when it is done."""
    done: Future[None] = Future()

    def now() -> None:
        shop.server.swap({"orders": PLANS[name]})
        done.set_result(None)

    shop.loop.call_soon_threadsafe(now)
    done.result(10)


@pytest.mark.parametrize("durability", ["acknowledged", "interval"])
def test_every_answer_is_what_the_version_that_it_names_says(tmp_path: Path, durability: Any) -> None:
    told: list[list[tuple[str, str, float, float]]] = []
    stop = threading.Event()

    def caller(number: int) -> None:
        with closing(HTTPConnection("127.0.0.1", shop.port, timeout=20)) as connection:
            asked = 0
            while not stop.is_set():
                asked += 1
                price = float(number * 100 + asked % 64)
                rows = 1 if asked % 3 else 70  # more than the server answers without giving others their turn
                row = ROW | {"price": price}
                body = json.dumps([row] * rows if rows > 1 else row)
                connection.request("POST", "/predict/orders", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                said = json.loads(reply.read())
                assert reply.status == 200, said
                answers = said if rows > 1 else [said]
                told.append([(each["id"], each["version"], each["output"], price) for each in answers])

    settings = Settings(durability=durability)
    with live(tmp_path, {"orders": PLANS["orders-1"]}, settings=settings) as shop:
        threads = [threading.Thread(target=caller, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(120):
            swap(shop, f"orders-{turn % len(SAYS) + 1}")
            threading.Event().wait(0.008)
        stop.set()
        for thread in threads:
            thread.join(30)
        counted = {name: shop.counted(f'flyball_answers_total{{model="orders",version="{name}"}}') for name in SAYS}
    answers = [each for response in told for each in response]
    for id_, name, output, price in answers:
        assert output == price * SAYS[name], id_
    for response in told:
        assert len({name for _, name, _, _ in response}) == 1, "one request is answered by one version"
    assert len({name for _, name, _, _ in answers}) > 3, "versions did change under the callers"
    entries = {e.id: e for e in SqliteJournal(tmp_path / "journal", SystemClock()).read()}
    assert set(entries) == {id_ for id_, *_ in answers}
    for id_, name, output, _ in answers:
        entry = entries[id_]
        assert (entry.version, entry.output) == (name, output)
        assert f"orders-{entry.epoch}" == name
    assert counted == {name: sum(1 for a in answers if a[1] == name) for name in SAYS}


def test_after_a_swap_nobody_is_answered_by_the_version_before(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": PLANS["orders-1"]}) as shop:
        for name in SAYS:
            swap(shop, name)
            assert shop.ask(ROW).json["version"] == name
            assert shop.send("GET", "/readyz").json["answering"] == {"orders": name}
            assert name in shop.send("GET", "/openapi.json").json["info"]["version"]
        done: Future[None] = Future()
        shop.loop.call_soon_threadsafe(lambda: (shop.server.swap({}), done.set_result(None)))
        done.result(10)
        assert shop.ask(ROW).code == "no-such-model"
