"""The channels of alerts of the house, and what the log on disk owes besides."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import BinaryIO

import msgspec
import pytest

from flyball._kernel.errors import AdapterError, RetryableError
from flyball._kernel.ports import Facts
from flyball.adapters.embedded.alerts import LogAlerts, WebhookAlerts
from flyball.adapters.memory.alerts import MemoryAlerts
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.alerts import AlertsSuite, one
from flyball.checks.clock import Wound
from flyball.watch.alert import Alert, Alerts


class WithLog(AlertsSuite):
    @pytest.fixture
    def log(self) -> Facts:
        return MemoryFacts(Wound(), MemorySigner())


class TestMemoryAlerts(WithLog):
    @pytest.fixture
    def alerts(self) -> MemoryAlerts:
        return MemoryAlerts()

    @pytest.fixture
    def again(self, alerts: MemoryAlerts) -> Callable[[], Alerts]:
        return lambda: alerts

    @pytest.fixture
    def arrived(self, alerts: MemoryAlerts) -> Callable[[], list[Alert]]:
        return lambda: alerts.sent


class TestLogAlerts(WithLog):
    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], Alerts]:
        return lambda: LogAlerts(tmp_path / "home" / "alerts.jsonl")

    @pytest.fixture
    def alerts(self, again: Callable[[], Alerts]) -> Alerts:
        return again()

    @pytest.fixture
    def arrived(self, tmp_path: Path) -> Callable[[], list[Alert]]:
        return lambda: lines(tmp_path / "home" / "alerts.jsonl")


class TestWebhookAlerts(WithLog):
    @pytest.fixture
    def received(self) -> list[Alert]:
        return []

    @pytest.fixture
    def again(self, tmp_path: Path, received: list[Alert]) -> Iterator[Callable[[], Alerts]]:
        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(msgspec.json.decode(body, type=Alert))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/hook"
            yield lambda: WebhookAlerts(url, tmp_path / "home" / "alerts.webhook.json", allow=["127.0.0.0/8"])
            server.shutdown()

    @pytest.fixture
    def alerts(self, again: Callable[[], Alerts]) -> Alerts:
        return again()

    @pytest.fixture
    def arrived(self, received: list[Alert]) -> Callable[[], list[Alert]]:
        return lambda: received


def lines(path: Path) -> list[Alert]:
    return [msgspec.json.decode(line, type=Alert) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("kept", [0, 1, 20, -2, -1])
def test_a_torn_line_is_mended(tmp_path: Path, kept: int) -> None:
    """A crash cut the last line anywhere: what was whole stays, the rest goes, and the alert is sent again."""
    path = tmp_path / "alerts.jsonl"
    log = LogAlerts(path)
    log.send(one(1))
    whole = path.read_bytes()
    log.send(one(2, "longer than what will be sent" * 10))
    torn = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + torn[:kept])
    assert log.position() == 1
    log.send(one(2))
    assert lines(path) == [one(1), one(2)]


def test_a_first_line_that_is_torn_is_mended(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").write_bytes(b'{"seq": 1, "at"')
    log = LogAlerts(tmp_path / "alerts.jsonl")
    assert log.position() == 0
    log.send(one(1))
    assert lines(tmp_path / "alerts.jsonl") == [one(1)]


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    log = LogAlerts(path)
    log.send(one(1))
    path.write_bytes(path.read_bytes() * 3000)
    before = path.stat().st_size
    assert before > 500_000
    log.send(one(2))
    with path.open("ab") as file:
        file.write(b'{"seq": 3, "at"')
    assert log.position() == 2
    log.send(one(3))
    assert [each.seq for each in lines(path)] == [1] * 3000 + [2, 3]


def test_what_was_never_a_line_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").write_bytes(b"x" * 300_000)
    with pytest.raises(AdapterError, match="alerts-unreadable"):
        LogAlerts(tmp_path / "alerts.jsonl").send(one(1))
    assert (tmp_path / "alerts.jsonl").stat().st_size == 300_000


def test_two_loops_write_whole_lines_once(tmp_path: Path) -> None:
    """Each of four opens the file for itself, as processes do, and all tell of the same fact at the same moment."""
    together = Barrier(4)

    class OnASlowDisk(LogAlerts):
        def _last(self, file: BinaryIO) -> tuple[int, int]:
            found = super()._last(file)
            Event().wait(0.01)
            return found

    def send(n: int) -> None:
        for seq in range(1, 11):
            together.wait(60)
            OnASlowDisk(tmp_path / "alerts.jsonl").send(one(seq, "said differently" * n))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    assert [each.seq for each in lines(tmp_path / "alerts.jsonl")] == list(range(1, 11))


def test_the_log_is_its_owners_and_one_line_an_alert(tmp_path: Path) -> None:
    LogAlerts(tmp_path / "home" / "alerts.jsonl").send(one(1, "two\nlines"))
    (line,) = (tmp_path / "home" / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line)["severity"] == "warning"
    assert stat.S_IMODE((tmp_path / "home" / "alerts.jsonl").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "home") == ["alerts.jsonl"]


@pytest.mark.parametrize("junk", [b"not json\n", b"{}\n", b"\xff\n", b'{"seq": "1"}\n'])
def test_a_line_that_is_no_alert_is_named(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "alerts.jsonl").write_bytes(junk)
    log = LogAlerts(tmp_path / "alerts.jsonl")
    for act in (log.position, lambda: log.send(one(1))):
        with pytest.raises(AdapterError, match="alerts-unreadable"):
            act()
    assert (tmp_path / "alerts.jsonl").read_bytes() == junk


def test_a_place_that_cannot_be_is_named_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RetryableError, match="alerts-unwritable"):
        LogAlerts(tmp_path / "file" / "alerts.jsonl").send(one(1))
