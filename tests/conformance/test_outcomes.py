"""The stores of outcomes of the house; and what the one on disk owes: several processes, and a kill at any moment."""

from __future__ import annotations

import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, RetryableError, StateError
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.checks.outcomes import OutcomesSuite, new
from flyball.serve.outcomes import Outcomes


class TestSqliteOutcomes(OutcomesSuite):
    @pytest.fixture
    def outcomes(self, tmp_path: Path) -> Iterator[Outcomes]:
        with closing(SqliteOutcomes(tmp_path / "home" / "outcomes.sqlite")) as made:
            yield made


class TestMemoryOutcomes(OutcomesSuite):
    @pytest.fixture
    def outcomes(self) -> Outcomes:
        return MemoryOutcomes()


POSTER = """
import itertools, os, sys
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.checks.outcomes import new

store, name = SqliteOutcomes(sys.argv[1]), sys.argv[2]
for n in itertools.count():
    batch = [new(float(n), key=f"{name}/{n}/{i}") for i in range(1 + n % 7)] + [new(float(n), key=name)]
    store.post(batch)
    os.write(1, "".join(f"{each.key}={each.value}\\n" for each in batch).encode())
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Two processes post into one new file and are killed; what they said is there, in whole batches, in their order."""
    chance, total = random.Random(1813), 0
    for round_ in range(3):
        path = tmp_path / f"{round_}.sqlite"
        posters = [
            subprocess.Popen([sys.executable, "-c", POSTER, str(path), name], stdout=subprocess.PIPE)
            for name in ("a", "b")
        ]
        said = [_until_killed(poster, after=chance.uniform(0.05, 0.4)) for poster in posters]
        with closing(SqliteOutcomes(path)) as store:
            rows = list(store.read())
        found = {f"{row.key}={row.value}" for row in rows}
        for name, lines in zip("ab", said, strict=True):
            assert set(lines) <= found
            mine = [row for row in rows if row.key.startswith(name)]
            assert mine[-1].key == name, "half a batch was stored"
            counted = [row.value for row in mine if row.key == name]
            assert counted == [float(n) for n in range(len(counted))]
            total += len(lines)
        assert len({row.seq for row in rows}) == len(rows)
    assert total > 50


def _until_killed(poster: subprocess.Popen[bytes], after: float) -> list[str]:
    """What it acknowledged until it was killed, some time after its first word."""
    assert poster.stdout is not None
    with poster:
        said = poster.stdout.readline()
        killer = threading.Timer(after, poster.send_signal, [signal.SIGKILL])
        killer.start()
        said += poster.stdout.read()
        killer.join()
    return said.decode().split("\n")[:-1]  # what follows the last line's end was cut short: it was not said


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    with closing(SqliteOutcomes(tmp_path / "home" / "outcomes.sqlite")) as store:
        store.post([new()])
        modes = {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "home").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_another_writer_is_waited_for_and_then_named(tmp_path: Path) -> None:
    with closing(SqliteOutcomes(tmp_path / "o.sqlite", patience=0.05)) as store:
        with closing(sqlite3.connect(tmp_path / "o.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(RetryableError, match="store-busy"):
                store.post([new()])
            assert list(store.read()) == []
        assert store.post([new()]) == ["accepted"]


def test_a_full_disk_stores_nothing_of_a_post(tmp_path: Path) -> None:
    with closing(SqliteOutcomes(tmp_path / "o.sqlite")) as store:
        store.post([new()])
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
        with pytest.raises(RetryableError, match="disk-full"):
            store.post([new(key=f"{{{n}}}{'x' * 900}") for n in range(100)])
        assert len(list(store.read())) == 1
        store._connection.execute("PRAGMA max_page_count=100000").fetchall()
        assert store.post([new(key="{}")]) == ["accepted"]


def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "o.sqlite")) as other:
        other.execute("PRAGMA user_version=99")
    with pytest.raises(StateError, match="store-is-newer"):
        SqliteOutcomes(tmp_path / "o.sqlite")


@pytest.mark.parametrize("junk", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_named(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "o.sqlite").write_bytes(junk)
    with pytest.raises(AdapterError, match="store-damaged") as raised:
        SqliteOutcomes(tmp_path / "o.sqlite")
    assert str(tmp_path) in str(raised.value)


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="store-unusable"):
        SqliteOutcomes(tmp_path / "file" / "o.sqlite")
