"""Who was exposed to what: read back from a journal that a router filled, and compared with what it was seen to answer."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError
from flyball._kernel.facts import Fact, Said
from flyball.checks.clock import Wound
from flyball.cycle import exposed
from flyball.cycle.session import Session
from flyball.release.rollout import Aborted, Advanced, Promoted, Started, Step
from flyball.serve.journal import Answer, Recorder, Settings
from flyball.serve.plan import Plan
from flyball.serve.router import Beside, Routed, Router, lot
from flyball.watch import live
from tests.live import Factor, plan
from tests.loops import World

ASKED = datetime(2013, 7, 1, 12, tzinfo=UTC)
FIVE, HALF = Step(name="canary", share=0.05, seconds=60), Step(name="canary", share=0.5, seconds=60)
PLAN = plan(model="till")


def says(version: str, **change: Any) -> Plan:
    return replace(PLAN, version=version, predictor=Factor(0.5), **change)


ONE, TWO, THREE = says("till-1"), says("till-2"), says("till-3")


class Shop:
    """An app whose rollouts are facts, and a router that answers by them."""

    def __init__(self) -> None:
        self.world = World()
        self.session: Session = self.world.session()
        self.recorder: Recorder = self.session.journals(Settings()).open("till")
        self.seen: dict[tuple[int, str, str], tuple[int, int]] = {}
        self.moment = ASKED

    def say(self, *said: Said) -> None:
        self.session.facts.append([Fact("till", "till", each) for each in said])

    def ask(self, routed: Routed, orders: range, wanted: str = "") -> None:
        """Each once, as a server does it that begins now."""
        router = Router(Wound())
        router.swap({"till": routed})
        for n in orders:
            self.moment += timedelta(seconds=1)
            row = {"order_id": f"o{n}", "placed": self.moment, "category": "books", "price": 1.0, "customer": "c"}
            way, rows = router.ways["till"], [row | {"note": None}]
            asked = (way, wanted, rows) if wanted else (way, rows)
            (given,) = (router.override if wanted else router.ask)(*asked, self.moment, 0.0)  # type: ignore[operator]
            pending = (*((given.shadow,) if given.shadow is not None else ()), *given.besides)
            made = [router.shadow(each) for each in pending]
            self.recorder.record([each for each in (*given.failed, given.answer, *made) if each is not None])
            if given.answer is not None and not wanted:
                self._saw(given.answer)

    def _saw(self, answer: Answer) -> None:
        who = answer.epoch, answer.key, answer.version
        first, count = self.seen.get(who, (answer.asked, 0))
        self.seen[who] = first, count + 1


@pytest.fixture(scope="module")
def shop() -> Shop:
    """A canary of 5 and of 50 in a hundred, one that fell before, shadows, overrides, and a candidate that failed a while."""
    made = Shop()
    made.say(Promoted(version="till-1", previous="", epoch=1, reason="first"))
    made.ask(Routed(1, ONE), range(50))
    made.say(Started(version="till-2", stages=(FIVE, HALF), epoch=2, reason="sent"))
    made.ask(Routed(2, ONE, TWO, 0.05), range(600))
    made.ask(Routed(2, ONE, TWO, 0.05), range(300))  # after a restart
    made.say(Advanced(version="till-2", stage=1, into=HALF, epoch=3))
    made.ask(Routed(3, ONE, TWO, 0.5, shadows=(Beside(THREE, 1.0),)), range(600))
    made.ask(Routed(3, ONE, TWO, 0.5), range(600, 620), wanted="till-2")
    made.say(Aborted(version="till-2", epoch=4, reason="no"))
    made.say(Started(version="till-3", stages=(HALF,), epoch=5, reason="sent"))
    made.ask(Routed(5, ONE, THREE, 0.5), range(100))
    made.ask(Routed(5, ONE, replace(THREE, encode=broken), 0.5), range(100))
    made.say(Promoted(version="till-3", previous="till-1", epoch=6, reason="yes"))
    made.ask(Routed(6, THREE), range(50))
    made.recorder.close()
    return made


def broken(*_: Any) -> Any:
    raise ZeroDivisionError


def test_every_exposure_is_there_once_with_its_first_answer(shop: Shop, tmp_path: Path) -> None:
    found = exposed.exposed(shop.session, out=tmp_path / "e.parquet")
    rows = pl.read_parquet(tmp_path / "e.parquet")
    said = {
        (row["epoch"], row["entity"], row["version"]): (int(row["first"].timestamp() * 1e6), row["answers"])
        for row in rows.iter_rows(named=True)
    }
    wanted = {who: seen for who, seen in shop.seen.items() if who[0] in (2, 3, 5)}
    assert len(said) == rows.height == found.exposures == len(wanted)
    assert said == wanted
    assert set(rows["model"]) == {"till"} and set(rows["arm"]) == {"candidate", "champion"}
    assert set(rows.filter(epoch=3)["candidate"]) == {"till-2"} and set(rows.filter(epoch=3)["share"]) == {0.5}
    sound = rows.filter(pl.col("epoch") != 5)
    assert sound["drawn"].equals(sound["arm"].alias("drawn"))
    assert list(tmp_path.iterdir()) == [tmp_path / "e.parquet"], "nothing else is left"


def test_the_stages_say_how_many_and_that_it_stuck(shop: Shop) -> None:
    found = exposed.exposed(shop.session, "till")
    assert [(s.stage, s.candidate, s.champion, s.epoch, s.share) for s in found.stages] == [
        ("canary", "till-2", "till-1", 2, 0.05),
        ("canary", "till-2", "till-1", 3, 0.5),
        ("canary", "till-3", "till-1", 5, 0.5),
    ]
    for stage, n in zip(found.stages, (600, 600, 100), strict=True):
        drawn = sum(lot(stage.candidate, key(i)) < stage.share for i in range(n))
        assert (stage.entities, stage.candidates) == (n, drawn)
        assert stage.z is not None and abs(stage.z) < 5
        assert stage.z == pytest.approx((drawn - n * stage.share) / math.sqrt(n * stage.share * (1 - stage.share)))
    assert found.sticky and [s.astray for s in found.stages] == [0, 0, 0]
    first, second, third = found.stages
    assert (first.both, first.mended, second.both, second.mended) == (0, 0, 0, 0)
    assert third.both == third.mended == third.candidates, (
        "each of them saw the champion too, when the candidate failed"
    )
    assert {each.epoch for each in found.moved} == {5} and len(found.moved) == min(exposed.SHOWN, third.both)
    assert all("mended" in each.why for each in found.moved)


def test_who_was_in_at_five_in_a_hundred_is_in_at_fifty(shop: Shop, tmp_path: Path) -> None:
    exposed.exposed(shop.session, out=tmp_path / "e.parquet")
    rows = pl.read_parquet(tmp_path / "e.parquet").filter(arm="candidate")
    early, late = (set(rows.filter(epoch=epoch)["entity"]) for epoch in (2, 3))
    assert early < late


def key(n: int) -> str:
    return facts.encode({"order_id": f"o{n}"}).decode()


def test_in_pieces_it_is_the_same(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exposed.exposed(shop.session, out=tmp_path / "whole.parquet")
    monkeypatch.setattr(exposed, "PIECE", 97)
    parts = exposed.exposed(shop.session, out=tmp_path / "parts.parquet")
    assert parts.stages == whole.stages and parts.exposures == whole.exposures
    by = ["epoch", "entity", "arm"]
    one, other = (pl.read_parquet(tmp_path / f"{name}.parquet").sort(by) for name in ("whole", "parts"))
    assert one.equals(other)


def test_an_entity_that_was_answered_against_its_lot_is_named() -> None:
    made = Shop()
    made.say(Promoted(version="till-1", previous="", epoch=1, reason="first"))
    made.say(Started(version="till-2", stages=(HALF,), epoch=2, reason="sent"))
    wrong = next(n for n in range(100) if lot("till-2", key(n)) >= 0.5)
    made.ask(Routed(2, ONE, TWO, 1.0), range(wrong, wrong + 1))  # a server that thinks it is everybody's turn
    made.ask(Routed(2, ONE, TWO, 0.5), range(wrong, wrong + 1))
    found = exposed.exposed(made.session)
    assert not found.sticky and (found.stages[0].astray, found.stages[0].both) == (1, 1)
    assert [(each.entity, each.why) for each in found.moved] == [(key(wrong), "answered against its lot")]


def test_where_nobody_was_exposed_it_says_so(tmp_path: Path) -> None:
    made = Shop()
    made.say(Promoted(version="till-1", previous="", epoch=1, reason="first"))
    assert exposed.exposed(made.session, out=tmp_path / "e.parquet").stages == []
    assert pl.read_parquet(tmp_path / "e.parquet").height == 0
    made.say(Started(version="till-2", stages=(HALF,), epoch=2, reason="sent"))
    (stage,) = exposed.exposed(made.session, out=tmp_path / "e.parquet").stages
    assert stage.entities == 0 and stage.z is None
    assert msgspec.json.decode(msgspec.json.encode(stage))["candidate"] == "till-2"


def test_a_place_that_cannot_be_written_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="exposures-unwritable"):
        exposed.exposed(shop.session, out=tmp_path / "no" / "e.parquet")


def test_a_declared_entity_is_who_is_exposed() -> None:
    answer = Answer(
        id="x",
        asked=0,
        model="till",
        version="till-2",
        epoch=2,
        role="canary",
        within_tolerance=True,
        key='{"order_id":"o1"}',
        inputs={"order_id": "o1", "customer": "c1"},
        features={},
        output=1.0,
        latency_us=1,
        via="x",
    )
    assert live.whom(answer, ("customer",)) == '{"customer":"c1"}'  # type: ignore[arg-type]
