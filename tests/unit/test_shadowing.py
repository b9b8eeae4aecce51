"""Shadows that a person sets: facts, what they make of the route, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flyball._kernel.errors import DeclarationError, StateError
from flyball._kernel.facts import Fact, Said
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.release import rollout, route, shadowing, version
from flyball.release.rollout import Aborted, Promoted, Started, Step
from flyball.release.route import Beside
from flyball.release.version import Registered

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CANARY = Step(name="canary", share=0.5, seconds=60)


class Book:
    """The facts of one model with five versions, the first of them champion."""

    def __init__(self) -> None:
        self.clock = VirtualClock(NOON)
        projections = (version.VERSIONS, rollout.ROLLOUTS, shadowing.SHADOWS)
        self.log = MemoryFacts(self.clock, MemorySigner(), projections)
        self.say(*(Registered(version=f"m-{n}", manifest=f"{n:064x}") for n in range(1, 8)))
        self.say(Promoted(version="m-1", previous="", epoch=1, reason="first"))

    def say(self, *said: Said) -> None:
        self.log.append([Fact("a", "m", each) for each in said])

    def begin(self, name: str, share: float = 1.0) -> list[Said]:
        said = shadowing.begin(self.now, name, share, by="ann", reason="curious")
        if said:
            self.say(*said)
        return said

    @property
    def now(self) -> tuple[shadowing.Watching, ...]:
        return shadowing.now(self.log, "a", "m")

    @property
    def routed(self) -> list[tuple[str, float]]:
        return [(each.version, each.share) for each in route.derive(self.log, "a", ("m",)).models["m"].shadows]


def test_a_shadow_is_set_and_taken_away_and_who_wanted_it_is_known() -> None:
    book = Book()
    assert book.now == () and book.routed == []
    book.begin("m-2", 0.25)
    book.clock.advance(timedelta(hours=1))
    book.begin("m-3")
    assert [(each.version, each.share, each.by, each.reason) for each in book.now] == [
        ("m-2", 0.25, "ann", "curious"),
        ("m-3", 1.0, "ann", "curious"),
    ]
    assert [each.since - NOON for each in book.now] == [timedelta(0), timedelta(hours=1)]
    shown = route.derive(book.log, "a", ("m",)).models["m"]
    assert shown.epoch == 1, "who answers has not changed"
    assert shown.shadows[0] == Beside(version="m-2", manifest=f"{2:064x}", share=0.25)
    said = shadowing.end(book.now, "m-2", by="bob", reason="seen enough")
    book.say(*said)
    assert book.routed == [("m-3", 1.0)]
    assert shadowing.told(said[0]) == "m-2 computes beside nobody any more: seen enough (bob)"
    assert shadowing.end(book.now, "m-2", by="bob", reason="again") == []


def test_what_is_so_already_is_not_recorded_again_and_a_share_may_change() -> None:
    book = Book()
    assert book.begin("m-2", 0.25) != []
    assert book.begin("m-2", 0.25) == []
    assert book.begin("m-2", 0.5) != []
    assert book.routed == [("m-2", 0.5)]


def test_a_shadow_that_answers_is_not_computed_twice_and_comes_back() -> None:
    book = Book()
    book.begin("m-2", 0.25)
    book.begin("m-3")
    book.say(Started(version="m-2", stages=(CANARY,), epoch=2, reason="sent"))
    assert book.routed == [("m-3", 1.0)]
    book.say(Aborted(version="m-2", epoch=3, reason="no", holds=False))
    assert book.routed == [("m-2", 0.25), ("m-3", 1.0)]
    book.say(Promoted(version="m-3", previous="m-1", epoch=4, reason="yes"))
    assert book.routed == [("m-2", 0.25)]


def test_the_route_names_the_manifest_of_everybody() -> None:
    book = Book()
    book.say(Promoted(version="m-2", previous="m-1", epoch=2, reason="yes"))
    shown = route.derive(book.log, "a", ("m",)).models["m"]
    assert (shown.manifest, shown.previous_manifest) == (f"{2:064x}", f"{1:064x}")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_no_share_is_refused(share: float) -> None:
    with pytest.raises(DeclarationError, match="shadow-share"):
        Book().begin("m-2", share)


def test_so_many_and_no_more() -> None:
    book = Book()
    for n in range(2, 2 + shadowing.MOST):
        book.begin(f"m-{n}")
    with pytest.raises(StateError, match="too-many-shadows") as raised:
        book.begin("m-7")
    assert "m-2, m-3, m-4, m-5" in str(raised.value)
    assert book.begin("m-3", 0.5) != [], "one that is there may change"


def test_the_state_is_the_fold_of_the_facts() -> None:
    book = Book()
    book.begin("m-2", 0.25)
    book.begin("m-3")
    before = book.now
    book.log.verify()
    book.log.rebuild()
    assert book.now == before


def test_an_older_route_is_known_as_one() -> None:
    book = Book()
    old = route.derive(book.log, "a", ("m",))
    assert route.older(old, {"m": 1, "gone": 9}) == []
    assert route.older(old, {"m": 2}) == ["m"]
