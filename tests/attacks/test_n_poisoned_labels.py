"""Class N, poisoned feedback: no outcome without a key that may label, whatever path or media type it comes by; who said it is
kept with it, so that one sender's can be told apart; nobody says it of a time to come, or too many at once. What a flood of
questions can do is bounded elsewhere: an operator's override counts for no monitor (tests/unit/test_router_besides.py).
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from flyball.adapters.embedded.clock import SystemClock
from flyball.serve.auth import SCOPES
from flyball.serve.outcomes import Posted
from tests.attacks.hostile import bearer, table
from tests.live import Live

SAID = {"model": "orders", "key": {"order_id": "n1"}, "outcome": True}


def stored(shop: Live) -> list[Posted]:
    outcomes = shop.server.ground.outcomes
    assert outcomes is not None
    return list(outcomes.read())


@pytest.mark.parametrize("scope", ["", *sorted(SCOPES - {"label"})])
def test_nobody_labels_without_the_scope(shop: Live, scope: str) -> None:
    headers = {"Content-Type": "application/json", **(bearer(scope) if scope else {})}
    before = stored(shop)
    for path in table(shop.server):
        for body in (SAID, [SAID] * 3, SAID | {"by": "label"}):
            shop.send("POST", path, json.dumps(body).encode(), headers)
    assert shop.send("POST", "/outcomes", json.dumps(SAID).encode(), headers).status == (403 if scope else 401)
    assert stored(shop) == before


def test_an_outcome_has_its_sender_and_is_not_of_a_time_to_come(shop: Live) -> None:
    headers = {"Content-Type": "application/json", **bearer("label")}
    late = (SystemClock().now() + timedelta(hours=1)).isoformat()
    for body, taken in (
        (SAID | {"settled": late}, 0),
        (SAID | {"settled": "2026-11-20T12:00:00"}, 0),
        (SAID | {"outcome": "yes"}, 0),
        (SAID | {"outcome": 0.5}, 0),
        (SAID | {"key": {"order_id": "n1", "customer": "x"}}, 0),
        (SAID | {"model": "nobody"}, 0),
        (SAID | {"prediction": "../x"}, 0),
        (SAID, 1),
    ):
        assert shop.send("POST", "/outcomes", json.dumps(body).encode(), headers).json["accepted"] == taken, body
    assert [each.by for each in stored(shop)] == ["label"]
    assert shop.send("POST", "/outcomes", json.dumps([SAID] * 1001).encode(), headers).status == 413


def test_a_later_word_replaces_none(shop: Live) -> None:
    """A poisoned correction is one more, told as such, and what was said before it is still there."""
    headers = {"Content-Type": "application/json", **bearer("label")}
    told = SAID | {"key": {"order_id": "n2"}}
    assert shop.send("POST", "/outcomes", json.dumps(told).encode(), headers).json["accepted"] == 1
    assert (
        shop.send("POST", "/outcomes", json.dumps(told | {"outcome": False}).encode(), headers).json["corrected"] == 1
    )
    assert [each.value for each in stored(shop)][-2:] == [1.0, 0.0]
