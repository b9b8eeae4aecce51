"""The stores of online features of the house; and the SQL one's own duties: crashes, other threads, what is not a store."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, RetryableError, StateError
from flyball.adapters.embedded.online import FORMAT, SqlOnline
from flyball.adapters.memory.online import MemoryOnline
from flyball.checks.online import SERIES, OnlineSuite, change, version
from flyball.learn.features.online import Online, Step


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "features" / "online.sqlite"


@pytest.fixture
def store(place: Path) -> Iterator[SqlOnline]:
    opened = SqlOnline(place, patience=0.05)
    yield opened
    opened.close()


class TestSqlOnline(OnlineSuite):
    @pytest.fixture
    def online(self, store: SqlOnline) -> Online:
        return store


class TestMemoryOnline(OnlineSuite):
    @pytest.fixture
    def online(self) -> Online:
        return MemoryOnline()


def test_it_is_there_when_it_is_opened_again(store: SqlOnline, place: Path) -> None:
    store.commit([change([version(b"k", 1)], [Step(0, "x", 1, 1, 1)])])
    store.close()
    again = SqlOnline(place)
    assert again.position(SERIES) == 1
    with again.view() as view:
        assert view.total(SERIES, 0, "x", 2) == (1, 1)
    again.close()


def test_the_store_is_its_owners(store: SqlOnline, place: Path) -> None:
    store.commit([change()])
    assert {stat.S_IMODE(each.stat().st_mode) for each in place.parent.iterdir()} == {0o600}


def test_a_view_is_one_state_however_others_write(store: SqlOnline, place: Path) -> None:
    store.commit([change(steps=[Step(0, "x", 1, 1, 1)])])
    other = SqlOnline(place)
    with store.view() as view:
        assert view.total(SERIES, 0, "x", 9) == (1, 1)
        other.commit([change(steps=[Step(0, "x", 2, 2, 2)], since=1, position=2)])
        assert view.total(SERIES, 0, "x", 9) == (1, 1)
    with store.view() as view:
        assert view.total(SERIES, 0, "x", 9) == (2, 2)
    other.close()


def test_what_another_process_dropped_is_not_empty(store: SqlOnline, place: Path) -> None:
    store.commit([change(steps=[Step(0, "x", 1, 1, 1)])])
    with store.view() as view:
        assert view.total(SERIES, 0, "x", 9) == (1, 1)
    other = SqlOnline(place)
    other.keep(())
    other.close()
    with store.view() as view, pytest.raises(StateError, match="features-not-online"):
        view.total(SERIES, 0, "x", 9)


def test_threads_read_while_one_writes(store: SqlOnline) -> None:
    """Count and moment are one commit: no reader ever sees one without the other."""
    store.commit([change(position=0)])

    def read(_: int) -> int:
        with store.view() as view:
            return abs(view.total(SERIES, 0, "x", 10**9)[0] - len(view.chain(SERIES, b"k")))

    with ThreadPoolExecutor(3) as pool:
        reads = pool.map(read, range(300))
        for n in range(1, 40):
            store.commit([change([version(b"k", n)], [Step(0, "x", n, n, n)], since=n - 1, position=n)])
        assert set(reads) == {0}


def test_a_locked_store_can_be_tried_again(store: SqlOnline, place: Path) -> None:
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="store-busy"):
        store.commit([change()])
    assert store.position(SERIES) is None
    other.execute("ROLLBACK")
    other.close()
    store.commit([change()])


def test_a_full_disk_can_be_tried_again_and_wrote_nothing(store: SqlOnline) -> None:
    store.commit([change([version(b"k", 1)])])
    with store.view() as view:
        view.run("PRAGMA max_page_count = 10")
    many = [version(b"%d" % n, 1) for n in range(5_000)]
    with pytest.raises(RetryableError, match="disk-full"):
        store.commit([change(many, since=1, position=2)])
    assert store.position(SERIES) == 1
    with store.view() as view:
        view.run("PRAGMA max_page_count = 100000")
    store.commit([change(many, since=1, position=2)])
    assert store.position(SERIES) == 2


def test_what_is_no_store_is_named_and_kept(tmp_path: Path) -> None:
    place = tmp_path / "online.sqlite"
    place.write_bytes(b"flights,weather\n" * 400)
    with pytest.raises(AdapterError, match="store-unusable") as raised:
        SqlOnline(place)
    assert str(place) in str(raised.value)
    assert place.read_bytes() == b"flights,weather\n" * 400
    with pytest.raises(AdapterError, match="store-unusable"):
        SqlOnline(place / "below.sqlite")
    with pytest.raises(AdapterError, match="store-unusable"):
        SqlOnline(tmp_path)


def test_formats_are_told_apart(store: SqlOnline, place: Path) -> None:
    """A later one is refused, and kept; an earlier one is emptied, since all of it is derived."""
    store.commit([change([version(b"k", 1)])])
    store.close()
    for format_ in (FORMAT + 1, 0):
        connection = sqlite3.connect(place)
        connection.execute(f"PRAGMA user_version = {format_}")
        connection.close()
        if format_:
            with pytest.raises(StateError, match="store-is-newer"):
                SqlOnline(place)
    again = SqlOnline(place)
    assert again.position(SERIES) is None
    again.close()


WRITER = """
import sys
from flyball.adapters.embedded.online import SqlOnline
from flyball.checks.online import SERIES, change, version
from flyball.learn.features.online import Step
store = SqlOnline(sys.argv[1])
n = store.position(SERIES) or 0
while True:
    n += 1
    store.commit([change([version(b"k", n)], [Step(0, "x", n, n, n)], since=n - 1 or -1, position=n)])
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(place: Path) -> None:
    """The position, the versions and the steps of a batch are there together, and nothing of the next."""
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.communicate()[0].split("\n")[:-1]
        store = SqlOnline(place)
        position = store.position(SERIES)
        with store.view() as view:
            assert position is not None
            assert position >= int(lines[-1] if lines else said)
            assert len(view.chain(SERIES, b"k")) == position
            assert view.total(SERIES, 0, "x", 10**9) == (position, position)
        store.close()
