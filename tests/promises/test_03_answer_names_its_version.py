"""Promise 3: the answer names the version that answered, also while versions change.

Every version of this model says something else of the same row, so an answer gives its author away. A thousand times under
load, who answers is changed as fast as the loop takes it: champions, candidates with any share, shadows that a person set; and
an operator asks for versions by name. What callers were told, what the journal holds and what the versions would have said
must be the same, for every answer and for every shadow.
"""

from __future__ import annotations

import json
import threading
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.serve.auth import Key, Keys, digest
from flyball.serve.breaker import Breaker
from flyball.serve.journal import Settings
from flyball.serve.plan import Plan
from flyball.serve.router import Beside, Routed, Way
from tests.live import ROW, Factor, live, plan

SAYS = {f"orders-{n}": 0.5 + n / 64 for n in range(1, 21)}
"""Version -> what it says of one euro; exact in binary."""

SWAPS = 1000
OPERATOR = Key(name="ann", sha256=digest("secret"), scopes=frozenset({"operate"}))


def version(name: str) -> Plan:
    return replace(FIRST, version=name, predictor=Factor(SAYS[name]))


FIRST = plan("orders-1", SAYS["orders-1"])
PLANS = {name: version(name) for name in SAYS}
NAMES = list(SAYS)


def epoch(turn: int) -> Routed:
    """Every other route has a candidate, with no share, a part, or all of it; two of three have shadows."""
    champion, candidate = (PLANS[NAMES[(turn + ahead) % len(NAMES)]] for ahead in (0, 1))
    fallbacks = (("previous", PLANS[NAMES[(turn - 1) % len(NAMES)]]),) if turn % 3 else ()
    share = (0.0, 0.5, 1.0)[turn % 3]
    besides = [PLANS[NAMES[(turn + ahead) % len(NAMES)]] for ahead in (2, 3)]
    shadows = tuple(Beside(plan, share) for plan, share in zip(besides, (1.0, 0.3), strict=True))[: turn % 3]
    return Routed(
        turn, champion, candidate if turn % 2 else None, share if turn % 2 else 0.0, fallbacks, shadows=shadows
    )


ROUTES = {turn: epoch(turn) for turn in range(1, len(NAMES) * 3 + 1)}


Told = tuple[str, str, str, float, float]
"""Of an answer: id, version, role, output, and the price that was asked about."""


def varied(told: list[list[Told]]) -> bool:
    """Whether versions did change under the callers, and they had answers of every role."""
    answers = [each for response in list(told) for each in response]
    return len({name for _, name, *_ in answers}) > 3 and len({role for _, _, role, *_ in answers}) == 3


@pytest.mark.parametrize(("durability", "swaps"), [("acknowledged", SWAPS), ("interval", 200)])
def test_every_answer_is_what_the_version_that_it_names_says(tmp_path: Path, durability: Any, swaps: int) -> None:
    told: list[list[Told]] = []
    named: list[tuple[str, str]] = []
    stop = threading.Event()
    failures: list[Any] = []

    def caller(number: int) -> None:
        with closing(HTTPConnection("127.0.0.1", shop.port, timeout=60)) as connection:
            asked = 0
            while not stop.is_set():
                asked += 1
                price = float(number * 100 + asked % 64)
                rows = 1 if asked % 3 else 70  # more than the server answers without giving others their turn
                row = ROW | {"price": price}
                many = [row | {"order_id": f"o{number}-{asked}-{n}"} for n in range(rows)]
                body = json.dumps(many if rows > 1 else many[0])
                headers = {"Content-Type": "application/json"}
                if number == 0 and asked % 4 == 0:
                    wanted = NAMES[asked // 4 % len(NAMES)]
                    headers |= {"Authorization": "Bearer secret", "Flyball-Version": wanted}
                connection.request("POST", "/predict/orders", body, headers)
                reply = connection.getresponse()
                said = json.loads(reply.read())
                if "Flyball-Version" in headers:
                    if reply.status == 404 and said["error"]["code"] == "version-not-here":
                        continue
                    named.extend((a["id"], wanted) for a in (said if rows > 1 else [said]))
                if reply.status != 200:
                    failures.append(said)
                    return
                answers = said if rows > 1 else [said]
                told.append([(a["id"], a["version"], a["role"], a["output"], price) for a in answers])

    settings = Settings(durability=durability)
    keys = Keys(lambda: (OPERATOR,), SystemClock())
    with live(tmp_path, {"orders": ROUTES[1]}, settings=settings, keys=keys) as shop:
        threads = [threading.Thread(target=caller, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        turn = 0
        while turn < swaps or (turn < 20 * swaps and not varied(told)):
            shop.swap({"orders": ROUTES[turn % len(ROUTES) + 1]})
            threading.Event().wait(0.004)
            turn += 1
        stop.set()
        for thread in threads:
            thread.join(60)
        counted = {
            (name, role): shop.counted(f'flyball_answers_total{{model="orders",role="{role}",version="{name}"}}')
            for name in SAYS
            for role in ("champion", "canary", "override")
        }
    assert failures == [], "no request failed"
    answers = [each for response in told for each in response]
    for id_, name, _, output, price in answers:
        assert output == price * SAYS[name], id_
    entries = {e.id: e for e in SqliteJournal(tmp_path / "journal", SystemClock()).read()}
    left = {id_ for id_, each in entries.items() if each.role != "shadow"}
    assert left == {id_ for id_, *_ in answers}
    assert len({name for _, name, *_ in answers}) > 3, "versions did change under the callers"
    assert {role for _, _, role, *_ in answers} == {"champion", "canary", "override"}
    assert {(id_, name) for id_, name, role, *_ in answers if role == "override"} == set(named), (
        "who was named, and no other"
    )
    for id_, name, role, output, _ in answers:
        assert (entries[id_].version, entries[id_].role, entries[id_].output) == (name, role, output)
    for each in entries.values():
        route = ROUTES[each.epoch]
        fits: dict[str, list[Plan | None]] = {
            "champion": [route.champion],
            "canary": [route.candidate],
            "shadow": [route.champion, route.candidate, *(beside.plan for beside in route.shadows)],
            "override": list(Way(route, Breaker()).ready().values()),
        }
        assert each.version in {p.version for p in fits[each.role] if p is not None}, "the epoch names the route"
        assert each.output == each.inputs["price"] * SAYS[each.version] and each.failed == ""
    shadows = [each for each in entries.values() if each.role == "shadow"]
    assert len(shadows) > 20
    beside = [e for e in shadows if e.version in {b.plan.version for b in ROUTES[e.epoch].shadows}]
    assert len(beside) > 20 and len({e.version for e in beside}) > 3
    answered = {(e.key, e.asked): e for e in entries.values() if e.role != "shadow"}
    for each in shadows:
        other = answered[each.key, each.asked]
        assert other.version != each.version and other.epoch == each.epoch, "the same question, of the same route"
    for (name, role), count in counted.items():
        assert count == sum(1 for a in answers if (a[1], a[2]) == (name, role))
    for response in told:
        assert len({entries[id_].epoch for id_, *_ in response}) == 1, "one request is answered by one route"


def test_after_a_swap_nobody_is_answered_by_the_version_before(tmp_path: Path) -> None:
    with live(tmp_path, {"orders": PLANS["orders-1"]}) as shop:
        for name in SAYS:
            shop.swap({"orders": PLANS[name]})
            assert shop.ask(ROW).json["version"] == name
            assert shop.send("GET", "/readyz").json["answering"] == {"orders": name}
            assert name in shop.send("GET", "/openapi.json").json["info"]["version"]
        shop.swap({})
        assert shop.ask(ROW).code == "no-such-model"
