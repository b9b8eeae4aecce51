"""The logs of the house, and the SQL one's own duties: crashes, other processes, full disks, what is not a database."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, RetryableError, StateError
from flyball._kernel.facts import START, Projection
from flyball._kernel.ports import Facts
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.memory.facts import Log, MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.clock import Wound
from flyball.checks.facts import TALLY, FactsSuite, Open, added

SIGNER = MemorySigner("conformance")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "facts.sqlite"


class TestSqlFacts(FactsSuite):
    @pytest.fixture
    def open_facts(self, store: Path) -> Iterator[Open]:
        opened: list[SqlFacts] = []

        def open_(clock: Clock, projections: Sequence[Projection]) -> Facts:
            opened.append(SqlFacts(store, clock, FileSigner(store.parent / "keys" / "key.pem"), projections))
            return opened[-1]

        yield open_
        for each in opened:
            each.close()

    def test_folding_by_an_older_definition_is_refused(self, open_facts: Open, clock: Wound) -> None:
        """The process that was not restarted reads and writes nothing that two definitions have made."""
        old = open_facts(clock, [TALLY])
        old.append([added(3)])
        newer = Projection(TALLY.name, frozenset({"checks.added"}), TALLY.key, TALLY.fold)
        head = open_facts(clock, [newer]).head()
        for use in (lambda: old.append([added(1)]), lambda: old.get("tally", "x"), old.verify):
            with pytest.raises(StateError, match="projection-changed"):
                use()
        assert old.head() == head


class TestMemoryFacts(FactsSuite):
    @pytest.fixture
    def open_facts(self) -> Open:
        log = Log()
        return lambda clock, projections: MemoryFacts(clock, SIGNER, projections, log)


@pytest.fixture
def facts(store: Path) -> Iterator[SqlFacts]:
    opened = SqlFacts(store, Wound(), SIGNER, [TALLY], patience=0.05)
    yield opened
    opened.close()


def test_the_store_is_its_owners(facts: SqlFacts, store: Path) -> None:
    facts.append([added(1)])
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in store.parent.iterdir()}
    assert modes == dict.fromkeys(["facts.sqlite", "facts.sqlite-wal", "facts.sqlite-shm"], 0o600)


def test_a_url_is_a_place(store: Path) -> None:
    by_path, by_url = SqlFacts(store, Wound(), SIGNER), SqlFacts(f"sqlite:///{store}", Wound(), SIGNER)
    head = by_path.append([added(1)])
    assert by_url.head() == head
    by_path.close()
    by_url.close()


def test_commits_are_synced(facts: SqlFacts) -> None:
    with facts.database.write() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}


def test_a_locked_store_can_be_tried_again(facts: SqlFacts, store: Path) -> None:
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="store-busy") as raised:
        facts.append([added(1)])
    assert str(store) in str(raised.value)
    assert facts.head() == START  # readers are not held up
    other.execute("ROLLBACK")
    other.close()
    assert facts.append([added(1)]).tx == 1


def test_a_full_disk_can_be_tried_again_and_wrote_nothing(facts: SqlFacts, store: Path) -> None:
    head = facts.append([added(1)])
    with facts.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 20")
    with pytest.raises(RetryableError, match="disk-full") as raised:
        facts.append([added(1) for _ in range(2_000)])
    assert str(store) in str(raised.value)
    assert facts.verify() == head
    with facts.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 2000000")
    assert facts.append([added(1)]).tx == 2


def test_what_is_no_database_is_named_and_kept(store: Path) -> None:
    store.write_bytes(b"flights,weather\n" * 400)
    with pytest.raises(AdapterError, match="store-damaged") as raised:
        SqlFacts(store, Wound(), SIGNER)
    assert str(store) in str(raised.value)
    assert store.read_bytes() == b"flights,weather\n" * 400


@pytest.mark.parametrize("place", ["{}/file/facts.sqlite", "{}", "sqlite://", ":memory:", "sqlite:///:memory:"])
def test_what_cannot_be_a_store_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match=r"store-(unusable|unsupported)"):
        SqlFacts(place.format(tmp_path), Wound(), SIGNER)


def test_another_key_does_not_continue_the_chain(facts: SqlFacts, store: Path) -> None:
    head = facts.append([added(1)])
    other = SqlFacts(store, Wound(), MemorySigner("another"))
    with pytest.raises(StateError, match="history-broken"):
        other.append([added(1)])
    with pytest.raises(StateError, match="history-broken"):
        other.verify()
    other.close()
    assert facts.verify() == head


APPENDER = """
import sys
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.facts import TALLY, added
facts = SqlFacts(sys.argv[1], SystemClock(), MemorySigner("conformance"), [TALLY])
while True:
    head = facts.append([added(1), added(2)])
    print(head.tx, head.hash, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(store: Path) -> None:
    """SIGKILL while two append at once, at ever other moments; the store is reopened by the next two."""
    acknowledged: dict[int, str] = {}
    for round_ in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", APPENDER, str(store)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            tx, chain = writer.stdout.readline().split()
            acknowledged[int(tx)] = chain
        time.sleep(0.05 + int(hashlib.sha256(b"%d" % round_).hexdigest(), 16) % 50_000 / 1e6)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            # The last line may be cut short: it was not acknowledged in full.
            for line in writer.communicate()[0].split("\n")[:-1]:
                tx, chain = line.split()
                acknowledged[int(tx)] = chain
        facts = SqlFacts(store, SystemClock(), SIGNER, [TALLY])
        last = facts.verify().tx
        assert max(acknowledged) <= last
        assert facts.get("tally", "flights/late") == b"%d" % (3 * last)
        facts.close()
    database = sqlite3.connect(store)
    chains = dict(database.execute("SELECT tx, chain FROM transactions"))
    database.close()
    assert len(acknowledged) > 10
    assert acknowledged.items() <= chains.items()
