"""A server follows the route of a real home: who is new is made ready, who stays is kept, and who cannot answer is said."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball import cli
from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.facts import Fact
from flyball.adapters.memory.journal import MemoryJournal
from flyball.cycle import answering, artifacts
from flyball.cycle.session import Session
from flyball.learn.export import predictor
from flyball.learn.fit import fitting
from flyball.release import route, version
from flyball.release.rollout import Aborted, Advanced, Promoted, RolledBack, Started, Step
from flyball.release.version import Registered
from flyball.runtime import serving
from flyball.runtime.serving import Edge
from flyball.serve.http import Ground, Server
from flyball.serve.router import Routed, Router
from tests.oracles import projects

APP, MODEL, FIRST = "followed", "sent_back", "sent_back-1"
STAGES = (Step(name="shadow", share=0.0, seconds=60), Step(name="canary", share=0.25, seconds=60))
ROW = {
    "order_id": "o1",
    "placed": datetime(2026, 1, 1, tzinfo=UTC),
    "category": "books",
    "channel": "web",
    "price": 8.0,
    "customer": "c1",
}

CANARY = Step(name="canary", share=0.25, seconds=3600)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one version that answers."""
    with pytest.MonkeyPatch.context() as patch:
        key = tmp_path_factory.mktemp("key") / "k.pem"
        patch.setenv("FLYBALL_KEY", str(key))
        made = projects.make(tmp_path_factory.mktemp("project") / APP)
        assert cli.call(["apply", str(made), "--json"]) == 0
        (made / "key").symlink_to(key)
    return made


@pytest.fixture
def session(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The project with a copy of its home."""
    monkeypatch.setenv("FLYBALL_KEY", str((project / "key").readlink()))
    shutil.copytree(project / ".flyball", tmp_path / "home")
    return projects.opened(project, tmp_path / "home")


def say(session: Session, *said: facts.Said) -> None:
    session.facts.append([Fact(APP, MODEL, each) for each in said])


def another(session: Session, name: str, **change: Any) -> str:
    """Register a version that is the first one under another name, or nearly."""
    manifest = msgspec.structs.replace(artifacts.load_manifest(session, FIRST), version=name, **change)
    digest = version.write(manifest, session.blobs, session.signer)
    say(session, Registered(version=name, manifest=digest))
    return name


def broken(session: Session, name: str) -> str:
    """Register a version whose model is not there."""
    stored = artifacts.load_manifest(session, FIRST).artifacts
    return another(session, name, artifacts=stored | dict.fromkeys(predictor.ARTIFACTS.values(), "0" * 64))


def start(name: str, epoch: int) -> Started:
    return Started(version=name, stages=STAGES, epoch=epoch, reason="passed its gates")


def promote(name: str, previous: str, epoch: int) -> Promoted:
    return Promoted(version=name, previous=previous, epoch=epoch, reason="went through its stages")


def who(routed: Routed) -> tuple[int, str, str, float, list[tuple[str, str]]]:
    candidate = routed.candidate.version if routed.candidate is not None else ""
    fallbacks = [(role, plan.version) for role, plan in routed.fallbacks]
    return routed.epoch, routed.champion.version, candidate, routed.share, fallbacks


def test_the_names_of_training_hold() -> None:
    assert answering.SCORES == fitting.SCORES
    assert fitting.RIVALS[-1] == "baseline"


def test_the_route_says_who_answers_and_who_stays_is_used_again(session: Session) -> None:
    told: list[str] = []
    first = answering.routed(session, say=told.append)
    assert who(first[MODEL]) == (1, FIRST, "", 0.0, [("baseline", FIRST)])
    second = another(session, "sent_back-2")
    say(session, start(second, 2))
    then = answering.routed(session, first, told.append)
    assert who(then[MODEL]) == (2, FIRST, second, 0.0, [("baseline", FIRST)])
    assert then[MODEL].champion is first[MODEL].champion
    assert then[MODEL].fallbacks == first[MODEL].fallbacks
    say(
        session,
        Advanced(version=second, stage=1, into=CANARY, epoch=3),
        promote(second, FIRST, 4),
    )
    later = answering.routed(session, then, told.append)
    assert who(later[MODEL]) == (4, second, "", 0.0, [("previous", FIRST), ("baseline", second)])
    assert later[MODEL].champion is then[MODEL].candidate
    assert later[MODEL].fallbacks[0][1] is first[MODEL].champion
    say(session, RolledBack(version=second, to=FIRST, epoch=5, reason="wrong"))
    again = answering.routed(session, later, told.append)
    assert who(again[MODEL])[:3] == (5, FIRST, "")
    assert again[MODEL].champion is first[MODEL].champion
    assert told == []


def test_a_share_comes_with_its_stage(session: Session) -> None:
    second = another(session, "sent_back-2")
    say(
        session,
        start(second, 2),
        Advanced(version=second, stage=1, into=CANARY, epoch=3),
    )
    assert who(answering.routed(session)[MODEL])[:4] == (3, FIRST, second, 0.25)


def test_a_baseline_answers_when_neither_store_nor_model_can(session: Session) -> None:
    routed = answering.routed(session)[MODEL]
    scores = fitting.read_scores(session.blobs.get(artifacts.load_manifest(session, FIRST).artifacts[fitting.SCORES]))

    def gone(*_: Any) -> Any:
        raise AdapterError("store-unusable", "no")

    router = Router(session.clock)
    router.swap({MODEL: with_champion(routed, lookup=gone)})
    (given,) = router.ask(router.ways[MODEL], [ROW], session.clock.now(), 0.0)
    assert given.answer is not None
    assert (given.answer.role, given.answer.version) == ("baseline", FIRST)
    assert msgspec.to_builtins(given.answer.features) == {}, "it looks nothing up"
    assert given.answer.output == scores[-1][0] and 0 < given.answer.output < 1
    assert [each.failed for each in given.failed] == ["store-unusable"]


def with_champion(routed: Routed, **change: Any) -> Routed:
    return replace(routed, champion=replace(routed.champion, **change))


def test_a_candidate_that_cannot_be_made_ready_leaves_the_champion_alone_and_is_said(session: Session) -> None:
    told: list[str] = []
    say(session, start(broken(session, "sent_back-2"), 2))
    routed = answering.routed(session, say=told.append)
    assert who(routed[MODEL]) == (2, FIRST, "", 0.0, [("baseline", FIRST)])
    assert len(told) == 1 and "goes without the candidate sent_back-2" in told[0] and "no-such-artifact" in told[0]


def test_a_previous_one_that_cannot_be_made_ready_is_left_out(session: Session) -> None:
    told: list[str] = []
    say(session, promote(broken(session, "sent_back-2"), FIRST, 2))
    say(session, promote(another(session, "sent_back-3"), "sent_back-2", 3))
    routed = answering.routed(session, say=told.append)
    assert who(routed[MODEL]) == (3, "sent_back-3", "", 0.0, [("baseline", "sent_back-3")])
    assert len(told) == 1 and "the previous sent_back-2" in told[0]


def following(session: Session, story: Callable[[Server, list[str]], Awaitable[None]]) -> list[str]:
    """Run a story beside a server that follows the route."""
    told: list[str] = []

    async def run() -> None:
        seen = session.routes.read()
        recorder = MemoryJournal(session.clock).open(APP)
        server = Server(APP, answering.routed(session), Ground(recorder, lambda _: None, session.clock))
        task = asyncio.create_task(serving.follow(session, server, seen, told.append))
        try:
            await story(server, told)
            assert not task.done()
        finally:
            task.cancel()
            recorder.close()

    asyncio.run(run())
    return told


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def publish(session: Session) -> None:
    route.sync(session.facts, session.routes, APP, session.models)


def test_a_server_follows_a_whole_rollout(session: Session) -> None:
    second = another(session, "sent_back-2")
    steps: list[tuple[facts.Said, tuple[int, str, str, float]]] = [
        (start(second, 2), (2, FIRST, second, 0.0)),
        (
            Advanced(version=second, stage=1, into=CANARY, epoch=3),
            (3, FIRST, second, 0.25),
        ),
        (Aborted(version=second, epoch=4, reason="wrong", holds=False), (4, FIRST, "", 0.0)),
        (start(second, 5), (5, FIRST, second, 0.0)),
        (promote(second, FIRST, 6), (6, second, "", 0.0)),
    ]

    async def story(server: Server, _: list[str]) -> None:
        champion = server.routed[MODEL].champion
        for said, expected in steps:
            say(session, said)
            publish(session)
            await until(lambda expected=expected: who(server.routed[MODEL])[:4] == expected)  # type: ignore[misc]
        assert server.routed[MODEL].fallbacks[0] == ("previous", champion)

    told = following(session, story)
    assert told == [
        "sent_back-1 answers from now on, beside it sent_back-2",
        "sent_back-1 answers from now on, 25% by sent_back-2",
        "sent_back-1 answers from now on",
        "sent_back-1 answers from now on, beside it sent_back-2",
        "sent_back-2 answers from now on",
    ]


def test_a_champion_that_cannot_be_made_ready_leaves_who_answers_now(session: Session) -> None:
    async def story(server: Server, told: list[str]) -> None:
        say(session, promote(broken(session, "sent_back-2"), FIRST, 2))
        publish(session)
        await until(lambda: bool(told))
        assert who(server.routed[MODEL])[:2] == (1, FIRST)
        await asyncio.sleep(0.5)
        assert len(told) == 1 and "goes on as before" in told[0] and "no-such-artifact" in told[0]
        say(session, promote(another(session, "sent_back-3"), "sent_back-2", 3))
        publish(session)
        await until(lambda: who(server.routed[MODEL])[:2] == (3, "sent_back-3"))

    following(session, story)


def test_what_was_in_the_way_is_tried_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TRIES_AGAIN", 0.3)
    second = another(session, "sent_back-2")
    real = answering.routed

    async def story(server: Server, told: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:

            def busy(*_: Any) -> Any:
                raise AdapterError("store-busy", "the disk is away")

            patch.setattr(answering, "routed", busy)
            say(session, promote(second, FIRST, 2))
            publish(session)
            await until(lambda: bool(told))
            assert who(server.routed[MODEL])[:2] == (1, FIRST)
        assert answering.routed is real
        await until(lambda: who(server.routed[MODEL])[:2] == (2, second))

    told = following(session, story)
    assert len(told) == 2 and "the disk is away" in told[0]


def test_a_candidate_that_was_left_out_is_tried_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said once, however often it is tried."""
    monkeypatch.setattr(serving, "TRIES_AGAIN", 0.2)
    second, real, tries = another(session, "sent_back-2"), answering.plan_of, [0]

    def twice(session: Session, model: Any, version: str, *rest: str) -> Any:
        tries[0] += version == second
        if version == second and tries[0] < 3:
            raise AdapterError("store-busy", "the disk is away")
        return real(session, model, version, *rest)

    monkeypatch.setattr(answering, "plan_of", twice)

    async def story(server: Server, told: list[str]) -> None:
        say(session, start(second, 2))
        publish(session)
        await until(lambda: server.routed[MODEL].candidate is not None)
        await until(lambda: len(told) == 2)

    told = following(session, story)
    assert "goes without the candidate sent_back-2" in told[0] and "the disk is away" in told[0]
    assert told[1] == "sent_back-1 answers from now on, beside it sent_back-2"


def test_who_was_left_out_at_the_start_is_tried_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TRIES_AGAIN", 0.2)
    second = another(session, "sent_back-2")
    say(session, start(second, 2))
    publish(session)

    async def run() -> None:
        recorder = MemoryJournal(session.clock).open(APP)
        routed = {MODEL: replace(answering.routed(session)[MODEL], candidate=None)}
        server = Server(APP, routed, Ground(recorder, lambda _: None, session.clock))
        seen = session.routes.read()
        task = asyncio.create_task(serving.follow(session, server, seen, lambda _: None, ["without it"]))
        await until(lambda: server.routed[MODEL].candidate is not None)
        task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("role", ["candidate", "champion"])
def test_an_error_that_nobody_foresaw_ends_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    second, real = another(session, "sent_back-2"), answering.plan_of

    def odd(session: Session, model: Any, version: str, *rest: str) -> Any:
        if version == second:
            raise ValueError("onnxruntime says no")
        return real(session, model, version, *rest)

    monkeypatch.setattr(answering, "plan_of", odd)

    async def story(server: Server, told: list[str]) -> None:
        say(session, start(second, 2) if role == "candidate" else promote(second, FIRST, 2))
        publish(session)
        await until(lambda: bool(told))
        assert "onnxruntime says no" in told[0]
        back = Aborted(version=second, epoch=3, reason="wrong", holds=False)
        say(session, back if role == "candidate" else RolledBack(version=second, to=FIRST, epoch=3, reason="wrong"))
        publish(session)
        await until(lambda: who(server.routed[MODEL])[:3] == (3, FIRST, ""))

    following(session, story)


def test_a_route_that_cannot_be_read_ends_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TRIES_AGAIN", 0.2)
    second, real = another(session, "sent_back-2"), type(session.routes).read

    def odd(_: Any) -> Any:
        raise ZeroDivisionError("no")

    async def story(server: Server, told: list[str]) -> None:
        monkeypatch.setattr(type(session.routes), "read", odd)
        await until(lambda: bool(told))
        monkeypatch.setattr(type(session.routes), "read", real)
        say(session, promote(second, FIRST, 2))
        publish(session)
        await until(lambda: who(server.routed[MODEL])[:2] == (2, second))

    assert len(following(session, story)) == 2, "said once, whatever it was"


def test_nobody_who_waits_for_a_disk_holds_up_who_follows(session: Session) -> None:
    """A rollback must not queue behind reads."""
    second, goes = another(session, "sent_back-2"), threading.Event()

    async def story(server: Server, told: list[str]) -> None:
        for _ in range(100):
            asyncio.get_running_loop().run_in_executor(None, goes.wait, 60)
        say(session, promote(second, FIRST, 2))
        publish(session)
        try:
            await until(lambda: who(server.routed[MODEL])[:2] == (2, second))
        finally:
            goes.set()

    following(session, story)


def test_one_models_champion_is_no_other_models_trouble(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first, told = answering.routed(session), list[str]()
    gone = broken(session, "sent_back-2")
    app, find = type(session.app), type(session.app).model
    derived = route.derive(session.facts, APP, session.models).models[MODEL]
    digest = version.find(session.facts, APP, gone).manifest
    bad = msgspec.structs.replace(derived, epoch=9, champion=gone, manifest=digest)
    both = route.Route(app=APP, models={"another": bad, MODEL: msgspec.structs.replace(derived, epoch=7)})
    monkeypatch.setattr(app, "model", lambda self, _: find(self, MODEL))
    monkeypatch.setattr(route, "derive", lambda *_: both)
    before = {"another": replace(first[MODEL], epoch=3), MODEL: first[MODEL]}
    found = answering.routed(session, before, told.append)
    assert {name: each.epoch for name, each in found.items()} == {"another": 3, MODEL: 7}
    assert len(told) == 1 and "another goes on as before, without sent_back-2" in told[0]
    assert list(answering.routed(session, say=told.append)) == [MODEL], "nor at the start"
    assert "another is not answered, without sent_back-2" in told[1]
    monkeypatch.setattr(route, "derive", lambda *_: route.Route(app=APP, models={"another": bad}))
    with pytest.raises(StateError, match="no-such-artifact"):
        answering.routed(session)


def test_a_server_derives_the_route_and_leaves_the_file_alone(session: Session) -> None:
    """Two processes with two app files would otherwise write over each other for ever."""
    written = session.routes.read()
    say(session, start(another(session, "sent_back-2"), 2))
    assert answering.routed(session)[MODEL].epoch == 2
    assert session.routes.read() == written


def test_several_processes_may_share_a_port_and_others_may_not() -> None:
    with closing(serving._listen(Edge(port=0, shared=True))) as one:
        port = one.getsockname()[1]
        one.listen()
        with closing(serving._listen(Edge(port=port, shared=True))) as two:
            two.listen()
        with pytest.raises(AdapterError, match="port-taken"):
            serving._listen(Edge(port=port))


def test_nothing_answers_where_nothing_was_released(project: Path, tmp_path: Path) -> None:
    empty = projects.opened(project, tmp_path / "nothing")
    with pytest.raises(StateError, match="nothing-released"):
        answering.routed(empty)
