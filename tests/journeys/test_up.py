"""`flyball up` on a small project, with real processes and the real clock: what it does by itself, what a person may do, and
what it survives. One home lives through all of it, in the order of the tests.

Whatever is awaited has a generous deadline, and nothing is asserted about how long it took.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flyball import cli
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.lease import SqlLease
from flyball.cycle.reconcile import Ended
from flyball.runtime import children
from flyball.serve import auth

DEADLINE = 120.0
MEMORY_MB = 1500
LEASE = "corner_shop/loop"

QUESTION = {
    "order_id": "new-1",
    "placed": "2025-06-29T12:00:00Z",
    "category": "shoes",
    "channel": "web",
    "price": 80.0,
    "customer": "c007",
}
# Short stages; the guard makes each of them wait until the candidate has computed some questions, however slow the machine.
RELEASE = """    release=fb.Release(
        fb.shadow(ms(500)), fb.canary(0.5, ms(500)), abort_unless=[fb.error_rate <= 0.5], patience=days(1)
    ),
    gates=["""
# Costs nothing where memory is not limited, since it is never touched.
HUNGRY = "    np.empty(2 << 30, dtype=np.uint8)\n    return LGBMClassifier("


def until(found: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Ask again and again until there is something; fails with `what` after a long time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    aside = file.with_suffix(".new")
    aside.write_text(text.replace(old, new))
    aside.replace(file)


class Up:
    """One `flyball up`, in a process of its own."""

    def __init__(self, shop: Path, name: str, *options: str) -> None:
        self.said, self.told = shop.parent / f"{name}.out", shop.parent / f"{name}.err"
        command = [
            sys.executable,
            "-m",
            "flyball",
            "up",
            str(shop),
            "--port",
            "0",
            "--every",
            "0.3",
            "--json",
            *options,
        ]
        with self.said.open("wb") as out, self.told.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        self._address = ""

    @property
    def address(self) -> str:
        """Host and port, once a server listens there."""
        if not self._address:
            self._address = str(until(self._ready, "an address")).removeprefix("http://")
        return self._address

    def _ready(self) -> str:
        assert self.process.poll() is None, self.told.read_text()
        try:
            return str(json.loads(self.said.read_text())["address"])
        except json.JSONDecodeError:
            return ""

    def child(self, verb: str) -> int:
        """The number of the process that runs a verb below it; 0 if there is none."""
        ps = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
        for line in ps.stdout.splitlines():
            pid, parent, state, args = line.split(maxsplit=3)
            if int(parent) == self.process.pid and f"-m flyball {verb} " in args and "Z" not in state:
                return int(pid)
        return 0

    def replaced(self, verb: str, before: int) -> int:
        """The process that runs a verb in the place of one that is gone."""
        return int(until(lambda: (now := self.child(verb)) != before and now, f"another {verb}"))

    def ask(self, question: object = QUESTION) -> tuple[int, Any]:
        return request(self.address, "POST", "/predict", question)

    def answer(self) -> Any:
        """An answer, as soon as there is somebody to give one."""

        def tried() -> Any:
            try:
                status, answer = self.ask()
            except OSError:
                return None
            assert status == 200, answer
            return answer

        return until(tried, "an answer")

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def request(address: str, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        given = {} if body is None else {"Content-Type": "application/json"}
        if token:
            given["Authorization"] = f"Bearer {token}"
        connection.request(method, path, None if body is None else json.dumps(body), given)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


class Receiver:
    """Where alerts are posted to: the first time it has no time, and then it takes all of them."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.busy = 1
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.busy:
                    receiver.busy -= 1
                    self.send_response(503)
                else:
                    receiver.posted.append((self.headers["Idempotency-Key"], body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/SECRET"
        Thread(target=self.server.serve_forever, daemon=True).start()


class Shop:
    """The project, its home, and who keeps it up at present."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.folder, self.home, self.app = folder, folder / ".flyball", folder / "app.py"
        self.receiver = receiver
        self.up = Up(folder, "first", "--allow", "127.0.0.0/8")

    def looked(self) -> Any:
        """What the loop thought in its last pass."""
        return json.loads((self.home / "loop.json").read_text())

    def seen(self) -> Any:
        """What it thought of the model."""
        return self.looked()["models"][0]

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "alerts.jsonl").read_text().splitlines()]

    def alert(self, kind: str, words: str = "") -> dict[str, Any]:
        """The first alert of a kind, once it is there."""

        def found() -> dict[str, Any] | None:
            return next((a for a in self.alerts() if a["kind"] == kind and words in a["title"]), None)

        alert: dict[str, Any] = until(found, f"an alert of {kind}")
        return alert

    def holder(self) -> int:
        """The process that has the lease of the loop; 0 for none."""
        with closing(self.lease()) as lease:
            holder = lease.holder(LEASE)
        return int(holder.split(":")[1]) if holder else 0

    def lease(self) -> SqlLease:
        return SqlLease(self.home / "facts.sqlite", SystemClock())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, before = tmp_path_factory.mktemp("up"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FLYBALL_KEY", str(folder / "key" / "signing.pem"))
        patch.delenv("FLYBALL_TOKEN", raising=False)
        assert cli.call(["new", "corner_shop"]) == 0
        app = folder / "corner_shop" / "app.py"
        edit(app, "    gates=[", RELEASE)
        edit(app, "trials=5", "trials=1")
        edit(app, "    return LGBMClassifier(", HUNGRY)
        edit(app, "import dataframely as dy\n", "import dataframely as dy\nimport numpy as np\n")
        receiver = Receiver()
        patch.setenv("FLYBALL_WEBHOOK", receiver.url)
        found = Shop(folder / "corner_shop", receiver)
        try:
            yield found
        finally:
            found.up.process.terminate()
            try:
                found.up.process.wait(60)
            except subprocess.TimeoutExpired:
                found.up.process.kill()
            receiver.server.shutdown()
            receiver.server.server_close()
    assert Path.cwd() == before


@pytest.fixture
def run(shop: Shop, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a verb on the project; returns what `--json` says, or the text of the error."""

    def verb(name: str, *arguments: str, fails: int = 0) -> Any:
        for module in [n for n in sys.modules if n == "corner_shop" or n.startswith("corner_shop.")]:
            del sys.modules[module]
        capfd.readouterr()
        code = cli.call([name, str(shop.folder), *arguments, "--json"])
        said = capfd.readouterr()
        assert code == fails, said.err + said.out
        return said.err if fails else json.loads(said.out)

    return verb


@pytest.fixture
def label(shop: Shop) -> str:
    """The token of a key that may post outcomes, and nothing else."""
    token, place, aside = auth.new_token(), shop.home / "keys.json", shop.home / "keys.new"
    file = json.loads(place.read_text())
    kept = [key for key in file["keys"] if key["name"] != "billing"]
    billing = {"name": "billing", "sha256": auth.digest(token), "scopes": ["label"], "expires": None}
    aside.write_text(json.dumps({"keys": [*kept, billing]}))
    aside.chmod(0o600)
    aside.replace(place)
    return token


def test_it_applies_from_nothing_serves_and_answers(shop: Shop, run: Callable[..., Any]) -> None:
    answer = shop.up.answer()
    assert (answer["version"], answer["role"]) == ("sent_back-1", "champion")
    status = run("status")
    (model,) = status["models"]
    assert (model["champion"], model["epoch"], model["candidate"]) == ("sent_back-1", 1, None)
    assert status["silence"] == "" and status["loop"]["models"][0]["champion"] == "sent_back-1"
    assert "nothing-released" not in shop.up.told.read_text(), "no server is started before there is somebody to answer"


def test_alerts_are_in_the_log_and_at_the_webhook(shop: Shop) -> None:
    stale = shop.alert("watch.observed", "is in breach")
    assert (stale["severity"], stale["text"].split()[:2]) == ("warning", ["newest", "row"])
    promoted = shop.alert("release.promoted")
    until(lambda: promoted["seq"] in [a["seq"] for _, a in shop.receiver.posted], "the promotion at the webhook")
    keys = [key for key, _ in shop.receiver.posted]
    assert keys == [f"corner_shop/{a['seq']}" for _, a in shop.receiver.posted]
    logged = {a["seq"]: a for a in shop.alerts()}
    assert [a for _, a in shop.receiver.posted] == [logged[a["seq"]] for _, a in shop.receiver.posted]
    assert [a["seq"] for _, a in shop.receiver.posted] == sorted(logged)[: len(keys)], "what found it busy came again"
    assert "SECRET" not in shop.up.told.read_text()


def test_changed_code_is_trained_and_goes_through_the_stages(shop: Shop, run: Callable[..., Any]) -> None:
    edit(shop.app, "n_estimators=50", "n_estimators=60")
    heard: set[tuple[str, str]] = set()

    def promoted() -> bool:
        status, answer = shop.up.ask(QUESTION | {"order_id": f"new-{len(heard)}-{time.monotonic_ns()}"})
        assert status == 200, answer
        heard.add((answer["version"], answer["role"]))
        return ("sent_back-2", "champion") in heard

    until(promoted, "sent_back-2 as champion")
    assert heard <= {("sent_back-1", "champion"), ("sent_back-2", "canary"), ("sent_back-2", "champion")}
    (model,) = run("status")["models"]
    assert (model["champion"], model["epoch"], model["candidate"]) == ("sent_back-2", 4, None)
    answering = request(shop.up.address, "GET", "/readyz")[1]["answering"]
    assert answering == {"sent_back": "sent_back-2"}
    assert "sent_back-2" in shop.alert("release.promoted", "sent_back-2")["title"]


def test_a_killed_server_comes_back_on_its_port_and_is_accounted_for(shop: Shop, run: Callable[..., Any]) -> None:
    kept = [shop.up.answer()["id"] for _ in range(5)]
    before, server = run("status")["journal"], shop.up.child("serve")
    os.kill(server, signal.SIGKILL)
    shop.up.replaced("serve", server)
    assert shop.up.answer()["version"] == "sent_back-2"
    told = shop.alert("serve.accounted")
    after = run("status")["journal"]
    assert 0 < after["unknown"] - before["unknown"] <= 4096, "bounded, and said"
    assert "None of them was acknowledged" in told["text"]
    for each in kept:
        status, entry = request(shop.up.address, "GET", f"/predictions/{each}")
        assert (status, entry["version"]) == (200, "sent_back-2"), "what was acknowledged is there"


def test_a_killed_loop_comes_back_and_nobody_waits_for_it(shop: Shop, run: Callable[..., Any]) -> None:
    loop, server = shop.up.child("loop"), shop.up.child("serve")
    os.kill(loop, signal.SIGKILL)
    assert shop.up.ask()[0] == 200
    fresh = shop.up.replaced("loop", loop)
    assert until(lambda: shop.holder() == fresh, "the lease in the hands of the new loop")
    last = shop.looked()["at"]
    until(lambda: shop.looked()["at"] > last, "another look")
    assert shop.seen()["champion"] == "sent_back-2"
    assert shop.up.child("serve") == server
    assert run("status")["models"][0]["epoch"] == 4, "it does nothing twice"


def test_a_loop_that_lost_its_lease_acts_no_more(shop: Shop) -> None:
    """As when its process was stopped for longer than the lease, and another took over."""
    loop, ours = shop.up.child("loop"), f"test:{os.getpid()}:1"
    with closing(shop.lease()) as lease:

        def taken() -> bool:
            lease.release(LEASE, lease.holder(LEASE) or "")
            return lease.acquire(LEASE, ours, SystemClock().now() + timedelta(seconds=DEADLINE)) is not None

        until(taken, "the lease")
        idle = [shop.looked()["at"]]

        def still() -> bool:
            time.sleep(0.5)
            idle.append(shop.looked()["at"])
            return bool(idle[-1] == idle[-2])

        until(still, "a loop that looks no more")
        assert shop.up.ask()[0] == 200
        lease.release(LEASE, ours)
    until(lambda: shop.holder() == loop, "the lease in its hands again")
    until(lambda: shop.looked()["at"] > idle[-1], "another look")
    assert shop.up.child("loop") == loop


def test_outcomes_need_a_key_and_are_joined(shop: Shop, run: Callable[..., Any], label: str) -> None:
    outcome = {"prediction": shop.up.answer()["id"], "outcome": True}
    for token, said in (("", "key-needed"), ("flyball_guessed", "key-unknown")):
        status, refused = request(shop.up.address, "POST", "/outcomes", outcome, token)
        assert (status, refused["error"]["code"]) == (401, said)
    before = run("status")["models"][0]["outcomes"]["targets"]
    for taken in ("accepted", "repeated"):
        status, reply = request(shop.up.address, "POST", "/outcomes", outcome, label)
        assert (status, reply[taken], reply["refused"]) == (200, 1, [])
    assert run("status")["models"][0]["outcomes"]["targets"] == before + 1


def test_who_may_not_operate_changes_nothing(
    shop: Shop, run: Callable[..., Any], label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in (["promote", "sent_back-1", "--at-once"], ["rollback"], ["pause"]):
        for token, said in (("flyball_guessed", "key-unknown"), (label, "scope-missing")):
            monkeypatch.setenv("FLYBALL_TOKEN", token)
            assert f"[{said}]" in run(verb[0], *verb[1:], fails=1)
        monkeypatch.delenv("FLYBALL_TOKEN")
        aside = (shop.home / "token").rename(shop.home / "token.aside")
        assert "[token-missing]" in run(verb[0], *verb[1:], fails=1)
        aside.rename(shop.home / "token")
    (model,) = run("status")["models"]
    assert (model["champion"], model["epoch"], model["paused"]) == ("sent_back-2", 4, "")
    assert shop.up.answer()["version"] == "sent_back-2"


def answers(shop: Shop, version: str) -> bool:
    """Wait until a version answers; every answer before is somebody's."""

    def there() -> bool:
        status, answer = shop.up.ask()
        assert status == 200, answer
        return bool(answer["version"] == version)

    return bool(until(there, f"answers of {version}"))


def looks_again(shop: Shop) -> Any:
    """What the loop thought of the model in a look that began after this, and found nothing to be done."""
    last = shop.looked()["at"]
    until(lambda: shop.looked()["at"] > last, "another look")
    last = shop.looked()["at"]
    until(lambda: shop.looked()["at"] > last and not shop.looked()["working"], "a look with nothing to do")
    return shop.seen()


def test_a_rollback_reaches_the_servers_and_stands(shop: Shop, run: Callable[..., Any]) -> None:
    done = run("rollback", "--reason", "a look at it")
    assert (done["champion"], done["epoch"]) == ("sent_back-1", 5)
    assert answers(shop, "sent_back-1")
    (model,) = run("status")["models"]
    assert model["held"] == {"sent_back-2": "a look at it"}
    alert = shop.alert("release.rolled_back")
    assert alert["severity"] == "critical" and alert["text"] == "a look at it (by local)"
    seen = looks_again(shop)
    assert (seen["champion"], seen["candidate"]) == ("sent_back-1", ""), "what a person took back is not released again"


def test_a_pause_holds_a_rollout_until_it_is_resumed(shop: Shop, run: Callable[..., Any]) -> None:
    run("pause", "--reason", "an audit")
    done = run("promote", "sent_back-2", "--reason", "compare")
    assert (done["champion"], done["candidate"]) == ("sent_back-1", "sent_back-2")

    def over() -> Any:
        shop.up.answer()
        way, looked = run("status")["models"][0]["candidate"], shop.looked()
        moment = datetime.fromisoformat(way["until"])
        return datetime.fromisoformat(looked["at"]) > moment and looked["models"][0]["release"]

    assert until(over, "the end of the first stage").startswith("paused: an audit (local)")
    status = run("status")["models"][0]
    assert (status["candidate"]["stage"], status["paused"]) == ("shadow", "an audit (local)")
    run("pause", "--resume")
    until(lambda: shop.up.answer() and shop.seen()["champion"] == "sent_back-2", "the rest of the way")
    assert answers(shop, "sent_back-2")
    assert run("status")["models"][0]["epoch"] == 8


def test_a_promotion_at_once_reaches_the_servers(shop: Shop, run: Callable[..., Any], monkeypatch: Any) -> None:
    assert run("rollback")["champion"] == "sent_back-1"
    assert answers(shop, "sent_back-1")
    monkeypatch.setenv("FLYBALL_TOKEN", (shop.home / "token").read_text().strip())
    done = run("promote", "sent_back-2", "--at-once", "--reason", "after all")
    assert (done["champion"], done["candidate"], done["epoch"]) == ("sent_back-2", "", 10)
    assert answers(shop, "sent_back-2")
    assert "[already-answers]" in run("promote", "sent_back-2", fails=1)
    assert looks_again(shop)["champion"] == "sent_back-2"


def test_of_two_loops_one_waits_and_takes_over(shop: Shop, run: Callable[..., Any]) -> None:
    first, second = shop.up, Up(shop.folder, "second", "--memory-mb", str(MEMORY_MB), "--allow", "127.0.0.0/8")
    shop.up = second  # whatever happens, the fixture ends it
    try:
        assert second.answer()["version"] == "sent_back-2"
        assert second.address != first.address
        assert until(lambda: second.child("loop"), "a second loop")
        last, holding = shop.looked()["at"], first.child("loop")
        until(lambda: shop.looked()["at"] > last, "another look")
        assert shop.holder() == holding, "one acts"
        host, port = first.address.split(":")
        before = run("status")["journal"]["unknown"]
    finally:
        assert first.end() == 0
    with pytest.raises(ConnectionRefusedError), closing(socket.create_connection((host, int(port)), timeout=5)):
        pass
    assert until(lambda: shop.holder() == second.child("loop"), "the lease in the hands of the second loop")
    last = shop.looked()["at"]
    until(lambda: shop.looked()["at"] > last, "another look")
    assert run("status")["journal"]["unknown"] == before, "a server that is stopped loses nothing"


def test_a_training_without_memory_leaves_the_champion_answering(shop: Shop, run: Callable[..., Any]) -> None:
    alerts = shop.home / "alerts.jsonl"
    edit(shop.app, "n_estimators=60", "n_estimators=70")

    def told() -> bool:
        assert shop.up.ask()[0] == 200
        return "out-of-memory" in alerts.read_text()

    until(told, "an alert that the training ran out of memory")
    until(lambda: not shop.looked()["working"], "a loop that rests")
    assert shop.seen()["champion"] == "sent_back-2"
    assert shop.up.answer()["version"] == "sent_back-2"
    assert shop.up.child("loop") == shop.holder()


def test_a_killed_parent_takes_its_children_along_in_order(shop: Shop, run: Callable[..., Any]) -> None:
    before = run("status")["journal"]
    asked = [shop.up.answer()["id"] for _ in range(3)]
    server, loop = shop.up.child("serve"), shop.up.child("loop")
    shop.up.process.kill()
    shop.up.process.wait(60)
    until(lambda: not alive(server) and not alive(loop), "the end of both")
    after = run("status")["journal"]
    assert after["unknown"] == before["unknown"], "a server that ends in order loses nothing"
    assert after["recorded"] >= before["recorded"] + len(asked)
    assert shop.holder() == 0


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    ps = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return not ps.stdout.startswith(("Z", "\n")) and ps.stdout != ""


GREEDY = """import time
import numpy as np
held = []
try:
    while True:
        held.append(np.empty(1 << 20, dtype=np.uint8))
except MemoryError:
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private memory")
def test_a_child_that_stands_at_its_limit_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an allocator does that tries again and again."""
    monkeypatch.setattr(children, "STUCK", 1.0)
    (tmp_path / "app.py").write_text(GREEDY)
    child = children.Child([str(tmp_path)], SystemClock(), tmp_path, MEMORY_MB)
    child.begin(None, "")
    try:
        assert child.busy() == "applying"
        assert until(child.ended, "its end") == Ended(until=None, failed=children.OUT_OF_MEMORY)
        assert child.rests().endswith("out-of-memory"), "it rests before it is tried again"
    finally:
        child.stop()
