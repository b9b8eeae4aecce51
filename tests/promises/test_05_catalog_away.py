"""Promise 5, while the catalog is away: who answers is decided by what was signed, and by nothing else, and answers go on.

The history of a real home is moved away from under its servers and put back. Meanwhile nothing unsigned decides: a route that
somebody wrote is no route, and neither is an older one. What was answered meanwhile is on record, and accounted for afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball import cli
from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.facts import Fact
from flyball.checks.journal import answer
from flyball.cycle import account, answering, artifacts, catalog, operate, shadowing
from flyball.cycle.session import Session
from flyball.release import version
from flyball.release.version import Registered
from flyball.runtime import local_token
from flyball.serve.journal import Settings
from flyball.serve.router import Router
from tests.oracles import projects

APP, MODEL, FIRST, SECOND = "awayed", "sent_back", "sent_back-1", "sent_back-2"
ROW = {
    "order_id": "o1",
    "placed": "2026-01-01T00:00:00Z",
    "category": "books",
    "channel": "web",
    "price": 8.0,
    "customer": "c1",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one version that answers, and another that computes beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYBALL_KEY", str(tmp_path_factory.mktemp("key") / "k.pem"))
        made = projects.make(tmp_path_factory.mktemp("project") / APP)
        assert cli.call(["apply", str(made), "--json"]) == 0
        session = projects.opened(made)
        manifest = msgspec.structs.replace(artifacts.load_manifest(session, FIRST), version=SECOND)
        digest = version.write(manifest, session.blobs, session.signer)
        session.facts.append([Fact(APP, MODEL, Registered(version=SECOND, manifest=digest))])
        shadowing.begin(session, SECOND, share=1.0, by="ann", reason="curious")
        yield made


@pytest.fixture
def home(project: Path, tmp_path: Path) -> Path:
    """A copy of its home."""
    return Path(shutil.copytree(project / ".flyball", tmp_path / "home"))


def away(home: Path) -> Callable[[], None]:
    """Move the history away; returns what puts it back."""
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    for file in home.glob("facts.sqlite*"):
        os.rename(file, elsewhere / file.name)

    def back() -> None:
        assert not list(home.glob("facts.sqlite*")), "nobody made another one meanwhile"
        for file in sorted(elsewhere.iterdir(), reverse=True):  # the log before the file that it belongs to
            os.rename(file, home / file.name)

    return back


def who(session: Session, said: list[str] | None = None) -> tuple[int, str, list[tuple[str, float]]]:
    routed = answering.routed(session, say=(said if said is not None else []).append)[MODEL]
    return routed.epoch, routed.champion.version, [(each.plan.version, each.share) for each in routed.shadows]


ALL = (1, FIRST, [(SECOND, 1.0)])


def test_a_server_that_starts_without_the_history_answers_by_the_signed_route(project: Path, home: Path) -> None:
    there, said = projects.opened(project, home), list[str]()
    assert who(there) == ALL and catalog.away(there) == ""
    back = away(home)
    session = projects.opened(project, home)
    for each in (session, there):
        assert "is not there" in catalog.away(each)
        with pytest.raises(AdapterError, match="catalog-away"):
            operate.pause(each, MODEL, by="ann", reason="x")
        with pytest.raises(AdapterError, match="catalog-away"):
            each.lease.holder("x")
    assert who(session, said) == ALL
    assert len(said) == 1 and said[0].startswith("The history cannot be read")
    back()
    assert catalog.away(session) == "" and who(session) == ALL
    assert operate.pause(session, MODEL, by="ann", reason="x").did, "the same process goes on with it"
    there.facts.verify()


def test_the_cascade_works_without_the_history(project: Path, home: Path) -> None:
    away(home)
    session = projects.opened(project, home)
    routed = answering.routed(session)[MODEL]

    def gone(*_: Any) -> Any:
        raise AdapterError("store-unusable", "no")

    router = Router(session.clock)
    router.swap({MODEL: replace(routed, champion=replace(routed.champion, lookup=gone))})
    rows, _ = routed.champion.decode(json.dumps(ROW).encode())
    (given,) = router.ask(router.ways[MODEL], rows, session.clock.now(), 0.0)
    assert given.answer is not None and (given.answer.role, given.answer.version) == ("baseline", FIRST)
    assert [each.failed for each in given.failed] == ["store-unusable"]
    (shadow,) = given.besides
    found = router.shadow(shadow)
    assert found is not None and (found.version, found.failed) == (SECOND, "")


@pytest.mark.parametrize("forged", ["champion", "share", "unsigned", "gone"])
def test_nothing_unsigned_decides(project: Path, home: Path, forged: str) -> None:
    place = home / "route.json"
    said = json.loads(place.read_text())
    own = said["models"][MODEL]
    match forged:
        case "champion":  # a version of ours, with its own signed manifest: only that it answers was never decided
            own["champion"], own["manifest"] = own["shadows"][0]["version"], own["shadows"][0]["manifest"]
        case "share":
            own["shadows"][0]["share"] = 0.5
        case "unsigned":
            said["signature"] = ""
        case _:
            said = None
    place.write_text(json.dumps(said) if said is not None else "{")
    assert who(projects.opened(project, home)) == ALL, "while the facts can be read, they decide"
    away(home)
    with pytest.raises(AdapterError, match="catalog-away"):
        answering.routed(projects.opened(project, home))


def test_an_older_route_is_not_followed_by_who_knows_a_newer_one(project: Path, home: Path) -> None:
    session = projects.opened(project, home)
    old = (home / "route.json").read_bytes()
    operate.promote(session, SECOND, by="ann", reason="x", override=True, at_once=True)
    before = answering.routed(session)
    assert before[MODEL].champion.version == SECOND
    new = (home / "route.json").read_bytes()
    away(home)
    (home / "route.json").write_bytes(old)
    with pytest.raises(StateError, match="route-is-older"):
        answering.routed(session, before)
    (home / "route.json").write_bytes(new)
    found = answering.routed(session, before)[MODEL]
    assert found.champion is before[MODEL].champion
    assert [(role, plan.version) for role, plan in found.fallbacks] == [("previous", FIRST), ("baseline", SECOND)]


def test_a_home_whose_history_is_away_is_not_begun_anew(
    project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    back = away(home)
    for verb in (["apply"], ["status"], ["shadow", SECOND, "--stop"]):
        name, *rest = verb
        assert cli.call([name, str(project), *rest, "--home", str(home), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "catalog-away"
    back()
    assert projects.opened(project, home).facts.verify().tx > 0


def test_a_journal_rotates_without_the_history_and_is_accounted_for_with_it(project: Path, home: Path) -> None:
    session = projects.opened(project, home)
    known, refused = session.facts.head(), list[BaseException]()
    recorder = session.journals(Settings(rows=20)).open(APP, head=session.facts.head)
    back = away(home)
    done = threading.Semaphore(0)

    def told(error: BaseException | None) -> None:
        refused.extend([error] if error is not None else [])
        done.release()

    for _ in range(5):
        recorder.record([answer(session.clock, model=MODEL) for _ in range(20)], told)
        assert done.acquire(timeout=20)
    recorder.close()
    assert refused == []
    accounts = session.journal.recover()
    assert len(accounts) == 5 and {each.header.head for each in accounts} == {known}
    assert [each.header.head_is_stale for each in accounts] == [False, True, True, True, True]
    back()
    told_of = account.account(session)
    assert sum(each.recorded for each in told_of) == 100
    assert [each.refused + each.unknown for each in told_of] == [0] * 5
    assert account.account(session) == [], "once"


class Served:
    """`flyball serve`, as a process of its own."""

    def __init__(self, project: Path, home: Path) -> None:
        command = [sys.executable, "-m", "flyball", "serve", str(project), "--home", str(home), "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        said = b""
        for line in self.process.stdout:
            said += line
            if line == b"}\n":
                break
        if b"address" not in said:
            raise AssertionError(self.process.communicate(timeout=20)[1].decode())
        self.port = int(json.loads(said)["address"].rpartition(":")[2])

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            headers["Content-Type"] = "application/json"
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            got = connection.getresponse()
            return got.status, json.loads(got.read())

    def until(self, says: Callable[[Any], bool]) -> Any:
        """What it says of itself, once it says so."""
        for _ in range(2400):
            status, said = self.send("GET", "/readyz")
            assert status == 200
            if says(said):
                return said
            threading.Event().wait(0.025)
        raise AssertionError(f"it never came true: {said}")

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return said.decode()


def test_a_server_answers_on_while_the_history_comes_and_goes(project: Path, home: Path) -> None:
    told: list[tuple[str, str, str]] = []
    failures: list[Any] = []
    stop = threading.Event()

    def caller(number: int) -> None:
        asked = 0
        while not stop.wait(0.005):
            asked += 1
            status, said = served.send("POST", "/predict", ROW | {"order_id": f"o{number}-{asked}"})
            if status != 200:
                failures.append(said)
                return
            told.append((said["id"], said["version"], said["role"]))

    back = away(home)
    served = Served(project, home)  # no loop runs, and there is no history: it begins by the signed route
    callers = [threading.Thread(target=caller, args=(n,)) for n in range(2)]
    try:
        for each in callers:
            each.start()
        said = served.until(lambda said: "is not there" in said["catalog"])
        assert said["answering"] == {MODEL: FIRST}
        back()
        session = projects.opened(project, home)
        served.until(lambda said: said["catalog"] == "there")
        operate.promote(session, SECOND, by="ann", reason="better", override=True, at_once=True)
        served.until(lambda said: said["answering"] == {MODEL: SECOND})
        shutil.rmtree(home.parent / "elsewhere")
        again = away(home)
        served.until(lambda said: "is not there" in said["catalog"])
        before = len(told)
        for _ in range(6000):
            if len(told) > before + 20 or failures:
                break
            stop.wait(0.01)
        assert failures == [] and len(told) > before + 20, "answers went on"
        token = {"Authorization": f"Bearer {local_token(home)}"}
        status, asked = served.send("POST", "/predict", ROW, **token, **{"Flyball-Version": FIRST})
        assert (status, asked["version"], asked["role"]) == (200, FIRST, "override"), "who was before can be asked"
        assert served.send("POST", "/predict", ROW, **{"Flyball-Version": FIRST})[0] == 401, "with a key, also here"
        status, asked_too = served.send("POST", "/predict", ROW, **token, **{"Flyball-Version": "sent_back-9"})
        assert status == 404 and asked_too["error"]["code"] == "version-not-here"
        again()
    finally:
        stop.set()
        for each in callers:
            each.join(20)
        served.end()
    assert failures == []
    entries = {each.id: each for each in session.journal.read()}
    left = {(e.id, e.version, e.role) for e in entries.values() if e.role != "shadow" and not e.failed}
    assert left == {*told, (asked["id"], FIRST, "override")}
    assert {each.version for each in entries.values() if each.role == "champion"} == {FIRST, SECOND}
    assert sum(each.recorded for each in account.account(session)) == len(entries)
    assert not any(each.unknown or each.refused for each in account.account(session))
