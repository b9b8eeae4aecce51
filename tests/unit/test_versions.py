"""Signed versions, their state, and the route that follows from it; on facts and blobs in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball._kernel.facts import Fact
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.release import rollout, route, shadowing, version
from flyball.release.rollout import Promoted, Rollout
from flyball.release.route import Answering, Route
from flyball.release.version import Judged, Manifest, Registered, Signed, Snapshot

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
VERDICT = Verdict(
    condition="roc_auc >= 0.65",
    outcome=Outcome.PASS,
    measurement=Measurement(estimate=0.7, low=0.69, high=0.71, n=1000),
    threshold=0.65,
)


class Kept:
    """A route in memory that counts how often it is written."""

    def __init__(self) -> None:
        self.route: Route | None = None
        self.writes = 0

    def read(self) -> Route | None:
        return self.route

    def proven(self) -> Route | None:
        return self.route

    def publish(self, new: Route) -> None:
        self.route = new
        self.writes += 1


@pytest.fixture
def log() -> MemoryFacts:
    return MemoryFacts(VirtualClock(NOON), MemorySigner(), (version.VERSIONS, rollout.ROLLOUTS, shadowing.SHADOWS))


def register(log: MemoryFacts, name: str, *, app: str = "flights", model: str = "lateness") -> None:
    log.append([Fact(app, model, Registered(version=name, manifest=f"digest of {name}"))])


def promote(log: MemoryFacts, name: str, previous: str, epoch: int, *, model: str = "lateness") -> None:
    log.append([Fact("flights", model, Promoted(version=name, previous=previous, epoch=epoch, reason="gates"))])


def manifest(**changed: object) -> Manifest:
    made = Manifest(
        app="flights",
        model="lateness",
        version="lateness-1",
        created=NOON,
        snapshot=Snapshot(batches={"Flight": 3}, cutoff=NOON),
        tested_from=NOON - fb.days(30),
        tested_until=NOON,
        knobs={"leaves": 31, "rate": 0.1},
        steps={"train": "k" * 64},
        causes={"train": {"estimator": "c" * 64}},
        artifacts={"model.txt": "a" * 64},
        predictor="lightgbm",
        head=facts.START.anchor(),
        environment={"polars": "2.1.0"},
    )
    return msgspec.structs.replace(made, **changed)


def read(digest: str, blobs: MemoryBlobs, signer: MemorySigner, named: str = "lateness-1") -> Manifest:
    return version.read("flights", version.Row(version=named, manifest=digest, registered=NOON), blobs, signer)


def test_a_manifest_in_the_place_of_another_versions_is_refused() -> None:
    blobs, signer = MemoryBlobs(), MemorySigner()
    digest = version.write(manifest(), blobs, signer)
    with pytest.raises(fb.StateError, match="signature-broken"):
        read(digest, blobs, signer, named="lateness-2")


def test_a_manifest_comes_back_as_it_was_signed() -> None:
    blobs, signer = MemoryBlobs(), MemorySigner()
    digest = version.write(manifest(), blobs, signer)
    assert read(digest, blobs, signer) == manifest()


def test_the_same_manifest_has_the_same_digest_and_another_has_not() -> None:
    blobs, signer = MemoryBlobs(), MemorySigner()
    first = version.write(manifest(), blobs, signer)
    assert version.write(manifest(), blobs, signer) == first
    assert version.write(manifest(knobs={"leaves": 32, "rate": 0.1}), blobs, signer) != first


def test_a_manifest_signed_by_another_key_is_refused() -> None:
    blobs = MemoryBlobs()
    digest = version.write(manifest(), blobs, MemorySigner("theirs"))
    with pytest.raises(fb.StateError) as caught:
        read(digest, blobs, MemorySigner("ours"))
    assert caught.value.code == "signature-broken"


def test_a_manifest_that_was_changed_is_refused() -> None:
    blobs, signer = MemoryBlobs(), MemorySigner()
    signed = msgspec.json.decode(blobs.get(version.write(manifest(), blobs, signer)), type=Signed)
    forged = bytes(signed.manifest).replace(b'"lateness-1"', b'"lateness-2"')
    assert forged != bytes(signed.manifest)
    digest = blobs.put(msgspec.json.encode(Signed(manifest=msgspec.Raw(forged), signature=signed.signature)))
    with pytest.raises(fb.StateError, match="signature-broken"):
        read(digest, blobs, signer)


def test_a_signature_for_something_else_does_not_count() -> None:
    blobs, signer = MemoryBlobs(), MemorySigner()
    data = facts.encode(manifest())
    elsewhere = signer.sign(b"flyball/head/1:" + data)
    digest = blobs.put(msgspec.json.encode(Signed(manifest=msgspec.Raw(data), signature=elsewhere)))
    with pytest.raises(fb.StateError, match="signature-broken"):
        read(digest, blobs, signer)


@pytest.mark.parametrize("junk", [b"", b"{}", b"not json", b'{"manifest":1}', b'{"manifest":{},"signature":"00"}'])
def test_what_is_no_manifest_is_refused(junk: bytes) -> None:
    blobs = MemoryBlobs()
    with pytest.raises(fb.StateError, match="signature-broken"):
        read(blobs.put(junk), blobs, MemorySigner())


def test_a_missing_manifest_is_a_missing_artifact() -> None:
    with pytest.raises(fb.StateError, match="no-such-artifact"):
        read("0" * 64, MemoryBlobs(), MemorySigner())


def test_versions_are_listed_oldest_first_also_past_ten(log: MemoryFacts) -> None:
    for number in range(1, 13):
        register(log, f"lateness-{number}")
    found = [row.version for row in version.versions(log, "flights", "lateness")]
    assert found == [f"lateness-{n}" for n in range(1, 13)]


def test_versions_of_other_models_and_apps_are_not_listed(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    register(log, "lateness2-1", model="lateness2")
    register(log, "lateness-1", app="flights2")
    assert [row.version for row in version.versions(log, "flights", "lateness")] == ["lateness-1"]
    assert [row.version for row in version.versions(log, "flights", "lateness2")] == ["lateness2-1"]
    assert version.versions(log, "none", "lateness") == []


def test_a_verdict_is_kept_beside_its_version(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    register(log, "lateness-2")
    log.append([Fact("flights", "lateness", Judged(version="lateness-1", decision="release", verdicts=[VERDICT]))])
    judged, waiting = version.versions(log, "flights", "lateness")
    assert (judged.decision, version.verdicts(log, "flights", "lateness-1")) == ("release", [VERDICT])
    assert (judged.manifest, judged.registered) == ("digest of lateness-1", NOON)
    assert (waiting.decision, version.verdicts(log, "flights", "lateness-2")) == ("", [])


def test_the_champion_is_whom_was_promoted_last(log: MemoryFacts) -> None:
    assert rollout.now(log, "flights", "lateness") == Rollout()
    promote(log, "lateness-1", "", 1)
    promote(log, "lateness-2", "lateness-1", 2)
    now = rollout.now(log, "flights", "lateness")
    assert (now.champion, now.previous, now.epoch, now.since) == ("lateness-2", "lateness-1", 2, NOON)
    assert rollout.now(log, "flights", "price") == Rollout()


def test_a_version_is_found_by_name_alone(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    register(log, "price-1", model="price")
    assert version.find(log, "flights", "price-1").manifest == "digest of price-1"


def test_a_version_that_does_not_exist_is_told_with_those_that_do(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    with pytest.raises(fb.StateError) as caught:
        version.find(log, "flights", "lateness-9")
    assert caught.value.code == "no-such-version"
    assert "lateness-1" in caught.value.why


def test_the_number_of_a_version_is_at_the_end_of_its_name() -> None:
    assert version.number("lateness-12") == 12
    assert version.number("late_2-3") == 3


def test_state_is_the_fold_of_the_facts_and_nothing_else(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    log.append([Fact("flights", "lateness", Judged(version="lateness-1", decision="held", verdicts=[VERDICT]))])
    promote(log, "lateness-1", "", 1)
    before = (version.versions(log, "flights", "lateness"), rollout.now(log, "flights", "lateness"))
    log.rebuild()
    assert (version.versions(log, "flights", "lateness"), rollout.now(log, "flights", "lateness")) == before


def test_the_route_is_what_the_facts_say(log: MemoryFacts) -> None:
    assert route.derive(log, "flights", ("lateness",)) == Route(app="flights", models={})
    register(log, "lateness-1")
    promote(log, "lateness-1", "", 1)
    assert route.derive(log, "flights", ("lateness", "price")) == Route(
        app="flights",
        models={"lateness": Answering(epoch=1, champion="lateness-1", manifest="digest of lateness-1", previous="")},
    )


def test_the_route_names_the_first_fallback(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    register(log, "lateness-2")
    promote(log, "lateness-1", "", 6)
    promote(log, "lateness-2", "lateness-1", 7)
    found = route.derive(log, "flights", ("lateness",)).models["lateness"]
    assert (found.epoch, found.champion, found.previous) == (7, "lateness-2", "lateness-1")


def test_only_declared_models_are_routed(log: MemoryFacts) -> None:
    register(log, "old-1", model="old")
    promote(log, "old-1", "", 1, model="old")
    assert route.derive(log, "flights", ("lateness",)).models == {}


def test_a_route_is_written_only_where_it_differs(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    promote(log, "lateness-1", "", 1)
    kept = Kept()
    said = route.sync(log, kept, "flights", ("lateness",))
    assert (kept.route, kept.writes) == (said, 1)
    assert route.sync(log, kept, "flights", ("lateness",)) == said
    assert kept.writes == 1


def test_a_route_that_a_crash_left_behind_is_mended(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    promote(log, "lateness-1", "", 1)
    kept = Kept()
    route.sync(log, kept, "flights", ("lateness",))
    register(log, "lateness-2")
    promote(log, "lateness-2", "lateness-1", 2)
    assert route.sync(log, kept, "flights", ("lateness",)).models["lateness"].epoch == 2
    assert kept.writes == 2


def test_a_route_survives_the_way_to_its_file(log: MemoryFacts) -> None:
    register(log, "lateness-1")
    promote(log, "lateness-1", "", 1)
    said = route.derive(log, "flights", ("lateness",))
    assert msgspec.json.decode(msgspec.json.encode(said), type=Route) == said
