"""Class G, broken authorisation: every scope against every route; none includes another, and what a request names beside its
path (a version, a prediction, another key) gives no right that the key has not.
"""

from __future__ import annotations

import json

from flyball.serve.auth import SCOPES
from tests.attacks.hostile import BODY, bearer, kept, say, table
from tests.live import ROW, Live


def test_every_scope_against_every_route(shop: Live) -> None:
    let_in = set()
    with kept(shop) as connection:
        for scope in sorted(SCOPES):
            for path, way in table(shop.server).items():
                reply = say(connection, way.methods[0], path, bearer(scope))
                if reply.status == 403:
                    assert b"scope-missing" in reply.body
                else:
                    let_in.add((scope, way.scope))
    assert {pair for pair in let_in if pair[1]} == {(scope, scope) for scope in ("predict", "label", "ingest", "read")}


def test_who_answers_is_an_operators_to_say(shop: Live) -> None:
    """The header changes what is needed, on every path that takes questions: `predict` is then not enough."""
    asks = [path for path, way in table(shop.server).items() if way.scope == "predict"]
    assert len(asks) >= 6
    for path in asks:
        sent = {"Content-Type": "application/json", "Flyball-Version": "orders-1"}
        assert shop.send("POST", path, BODY, {**sent, **bearer("predict")}).status == 403
        assert shop.send("POST", path, BODY, {**sent, **bearer("operate")}).status in (200, 422)
        assert shop.send("POST", path, BODY, {"Content-Type": "application/json", **bearer("operate")}).status == 403


def test_an_outcome_is_recorded_under_the_name_of_its_key_whatever_it_says(shop: Live) -> None:
    sent = {"Content-Type": "application/json", **bearer("label")}
    said = {"model": "orders", "key": {"order_id": "g1"}, "outcome": True}
    for more in ({"by": "admin"}, {"received": "2020-01-01T00:00:00Z"}, {"seq": 1}):
        reply = shop.send("POST", "/outcomes", json.dumps(said | more).encode(), sent)
        assert reply.status == 422 and reply.json["accepted"] == 0
    assert shop.send("POST", "/outcomes", json.dumps(said).encode(), sent).json["accepted"] == 1
    outcomes = shop.server.ground.outcomes
    assert outcomes is not None and [each.by for each in outcomes.read()][-1:] == ["label"]


def test_a_recorded_answer_is_for_readers(shop: Live) -> None:
    asked = shop.send(
        "POST", "/predict", json.dumps(ROW).encode(), {"Content-Type": "application/json", **bearer("predict")}
    )
    at = f"/predictions/{asked.json['id']}"
    assert shop.send("GET", at, headers=bearer("predict")).code == "scope-missing"
    assert shop.send("GET", at, headers=bearer("read")).json["id"] == asked.json["id"]
