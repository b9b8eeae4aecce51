"""Several shadows beside whoever answers, and one version asked by its name."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flyball._kernel.errors import DataError
from flyball.checks.clock import Wound
from flyball.serve import router
from flyball.serve.guard import Refused
from flyball.serve.plan import Plan
from flyball.serve.router import Beside, Given, Routed, Router, Way
from tests.live import Factor, plan

ASKED = datetime(2026, 11, 20, 10, tzinfo=UTC)
PLAN = plan()


def says(version: str, factor: float, **change: Any) -> Plan:
    return replace(PLAN, version=version, predictor=Factor(factor), **change)


def broken(*_: Any) -> Any:
    raise ZeroDivisionError


def row(order: str = "o1") -> dict[str, Any]:
    placed = datetime(2026, 11, 20, 12, tzinfo=UTC)
    return {"order_id": order, "placed": placed, "category": "books", "price": 8.0, "customer": "c1", "note": None}


CHAMPION, CANDIDATE, PREVIOUS = says("orders-1", 0.5), says("orders-2", 0.25), says("orders-0", 2.0)
ONE, TWO = says("orders-3", 1.0), says("orders-4", 0.125)
BASE = replace(says("orders-1", 0.0), outputs=(), lookup=lambda *_: (), encode=lambda _: [0.0, 3.0, 0.0])


class Table:
    """A router of one model, and what its breakers told."""

    def __init__(self, routed: Routed) -> None:
        self.clock, self.told = Wound(), list[tuple[str, str, str]]()
        self.router = Router(self.clock, lambda *said: self.told.append(said))
        self.router.swap({"orders": routed})

    @property
    def way(self) -> Way:
        return self.router.ways["orders"]

    def ask(self, *orders: str) -> list[Given]:
        return self.router.ask(self.way, [row(order) for order in orders], ASKED, 0.001)

    def override(self, wanted: str, *orders: str) -> list[Given]:
        return self.router.override(self.way, wanted, [row(order) for order in orders], ASKED, 0.001)

    def beside(self, given: Given) -> dict[str, float]:
        made = [self.router.shadow(each) for each in given.besides]
        return {each.version: each.output for each in made if each is not None and each.role == "shadow"}


def table(*shadows: tuple[Plan, float], **more: Any) -> Table:
    return Table(Routed(7, CHAMPION, shadows=tuple(Beside(*each) for each in shadows), **more))


def test_every_shadow_computes_what_the_champion_answered() -> None:
    found = table((ONE, 1.0), (TWO, 1.0))
    (given,) = found.ask("o1")
    assert given.answer is not None and (given.answer.version, given.answer.output) == ("orders-1", 4.0)
    assert found.beside(given) == {"orders-3": 8.0, "orders-4": 1.0}
    shadows = [found.router.shadow(each) for each in given.besides]
    same = ("key", "asked", "inputs", "epoch", "model")
    for each in shadows:
        assert each is not None
        assert [getattr(each, name) for name in same] == [getattr(given.answer, name) for name in same]
    assert len({each.id for each in (*shadows, given.answer) if each is not None}) == 3


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_beside_a_candidate_too_whoever_answers(share: float) -> None:
    found = table((ONE, 1.0), candidate=CANDIDATE, share=share)
    (given,) = found.ask("o1")
    assert given.shadow is not None and given.shadow.plan is (CHAMPION if share else CANDIDATE)
    assert found.beside(given) == {"orders-3": 8.0}


def test_and_when_somebody_stood_in() -> None:
    routed = Routed(
        7, replace(CHAMPION, encode=broken), fallbacks=(("previous", PREVIOUS),), shadows=(Beside(ONE, 1.0),)
    )
    found = Table(routed)
    (given,) = found.ask("o1")
    assert given.answer is not None and given.answer.role == "previous"
    assert found.beside(given) == {"orders-3": 8.0}


def test_what_the_contract_refuses_is_computed_by_nobody() -> None:
    def refuses(*_: Any) -> Any:
        raise DataError("bad", "no")

    (given,) = Table(Routed(7, replace(CHAMPION, lookup=refuses), shadows=(Beside(ONE, 1.0),))).ask("o1")
    assert given.answer is None and given.besides == ()


def test_a_share_is_of_the_entities_and_always_the_same_ones() -> None:
    found, n, share = table((ONE, 0.2), (TWO, 0.2)), 2000, 0.2
    orders = [f"o{i}" for i in range(n)]
    beside: dict[str, set[str]] = {"orders-3": set(), "orders-4": set()}
    for _ in range(2):
        for order, given in zip(orders, found.ask(*orders), strict=True):
            for each in given.besides:
                beside[each.plan.version].add(order)
    for name, chosen in beside.items():
        assert abs(len(chosen) - n * share) < 5 * math.sqrt(n * share * (1 - share))
        assert chosen == {o for o in orders if router.lot(name, f'{{"order_id":"{o}"}}') < share}
    both = len(beside["orders-3"] & beside["orders-4"])
    assert abs(both - n * 0.04) < 5 * math.sqrt(n * 0.04), "one shadow's share tells nothing of another's"


def test_a_shadow_that_fails_is_taken_out_alone() -> None:
    found = table((replace(ONE, encode=broken), 1.0), (TWO, 1.0), candidate=CANDIDATE)
    computed = 0
    for n in range(12):
        (given,) = found.ask(f"o{n}")
        computed += len(found.beside(given))
    assert [(model, version) for model, version, _ in found.told] == [("orders", "orders-3")]
    assert found.way.besides["orders-3"].why and not found.way.besides["orders-4"].why and not found.way.breaker.why
    (given,) = found.ask("o99")
    assert [each.plan.version for each in given.besides] == ["orders-4"], "it is not even asked"
    assert given.shadow is not None, "the candidate is not concerned"
    assert computed == 12 + 8, "eight attempts that failed were recorded, and every one of the other's"


def test_what_the_champion_fails_at_as_well_counts_for_no_shadow() -> None:
    failing = replace(CHAMPION, encode=broken)
    found = Table(
        Routed(7, failing, fallbacks=(("previous", PREVIOUS),), shadows=(Beside(replace(ONE, encode=broken), 1.0),))
    )
    for n in range(40):
        for each in found.ask(f"o{n}")[0].besides:
            found.router.shadow(each)
    assert found.told == []


def test_a_breaker_stays_open_over_a_swap_that_does_not_concern_it() -> None:
    bad = Beside(replace(ONE, encode=broken), 1.0)
    found = Table(Routed(7, CHAMPION, shadows=(bad,)))
    for n in range(9):
        found.beside(found.ask(f"o{n}")[0])
    assert found.way.besides["orders-3"].why
    found.router.swap({"orders": Routed(8, CANDIDATE, shadows=(bad, Beside(TWO, 1.0)))})
    assert found.way.besides["orders-3"].why and not found.way.besides["orders-4"].why
    found.router.swap({"orders": Routed(8, CANDIDATE, shadows=(bad._replace(share=0.5),))})
    assert not found.way.besides["orders-3"].why, "another share is another try"


# --- one version by its name


WHOLE = Routed(
    7,
    CHAMPION,
    CANDIDATE,
    0.5,
    fallbacks=(("previous", PREVIOUS), ("baseline", BASE)),
    shadows=(Beside(ONE, 0.01),),
)


@pytest.mark.parametrize(
    ("wanted", "output"), [("orders-1", 4.0), ("orders-2", 2.0), ("orders-0", 16.0), ("orders-3", 8.0)]
)
def test_an_operator_is_answered_by_the_version_that_was_named(wanted: str, output: float) -> None:
    found = Table(WHOLE)
    for given in found.override(wanted, "o1", "o2"):
        assert given.answer is not None and given.error is None
        assert (given.answer.version, given.answer.role, given.answer.output) == (wanted, "override", output)
        assert given.answer.epoch == 7 and given.answer.inputs["customer"] != "c1"
        assert given.shadow is None and given.besides == () and given.failed == ()


def test_the_baseline_has_a_name_too() -> None:
    routed = replace(WHOLE, fallbacks=(("baseline", replace(BASE, predictor=Factor(1.0))),))
    (given,) = Table(routed).override("baseline", "o1")
    assert given.answer is not None and (given.answer.version, given.answer.output) == ("orders-1", 3.0)


def test_what_is_not_ready_is_refused_with_what_is() -> None:
    with pytest.raises(Refused) as raised:
        Table(WHOLE).override("orders-9\r\nx: y" + "z" * 500, "o1")
    assert raised.value.status == 404 and raised.value.error.code == "version-not-here"
    assert set(raised.value.error.why.removeprefix("Ready here: ").removesuffix(".").split(", ")) == {
        "orders-0",
        "orders-1",
        "orders-2",
        "orders-3",
        "baseline",
    }
    assert len(raised.value.error.what) < 200 and "\n" not in raised.value.error.what


def test_nobody_mends_what_an_operator_asked_for_and_no_breaker_counts_it() -> None:
    found = Table(replace(WHOLE, candidate=replace(CANDIDATE, encode=broken)))
    for n in range(50):
        (given,) = found.override("orders-2", f"o{n}")
        assert given.answer is None and given.error is not None
        assert [(each.role, each.version, each.failed) for each in given.failed] == [
            ("override", "orders-2", "server-failed")
        ]
    assert found.told == [] and found.way.breaker.why == ""


def test_a_version_that_was_taken_out_can_still_be_asked() -> None:
    found = Table(replace(WHOLE, shadows=(Beside(replace(ONE, encode=broken), 1.0),)))
    for n in range(9):
        found.beside(found.ask(f"o{n}")[0])
    assert found.way.besides["orders-3"].why
    assert found.override("orders-3", "o1")[0].error is not None
