"""The vaults of the house; and what the one on disk owes: its mode, several processes, and no byte of what was forgotten."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded.vault import SqliteVault
from flyball.adapters.memory.vault import MemoryVault
from flyball.checks.vault import DIGESTS, VaultSuite
from flyball.data.seal import Vault


class TestSqliteVault(VaultSuite):
    @pytest.fixture
    def vault(self, tmp_path: Path) -> Iterator[Vault]:
        with closing(SqliteVault(tmp_path / "home" / "vault.sqlite")) as made:
            yield made


class TestMemoryVault(VaultSuite):
    @pytest.fixture
    def vault(self) -> Vault:
        return MemoryVault()


def test_its_file_is_its_owners_alone_and_made_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "vault.sqlite"
    with closing(SqliteVault(path)) as vault:
        assert vault.find(DIGESTS[0]) is None
        assert not path.exists()
        vault.tokens(DIGESTS[:1])
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


def test_no_byte_of_what_was_forgotten_is_left(tmp_path: Path) -> None:
    # No one of which is the end of another and the beginning of some token, as of small numbers one in sixteen is.
    digests = [hashlib.sha256(each.encode()).hexdigest()[:32] for each in DIGESTS]
    with closing(SqliteVault(tmp_path / "vault.sqlite")) as vault:
        token = vault.tokens(digests)[digests[600]]
        held = [each.read_bytes() for each in tmp_path.iterdir()]
        assert any(token.encode() in each and digests[600].encode() in each for each in held)
        vault.forget([digests[600]])
        held = [each.read_bytes() for each in tmp_path.iterdir()]
        assert not any(token.encode() in each or digests[600].encode() in each for each in held)


PROCESS = """
import json, sys
from flyball.adapters.embedded.vault import SqliteVault
from flyball.checks.vault import DIGESTS
vault = SqliteVault(sys.argv[1])
print(json.dumps([dict(vault.tokens(DIGESTS[n : n + 40])) for n in range(0, 400, 20)]))
"""


def test_processes_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "vault.sqlite")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(said)) == 1
    assert said[0].strip()


def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vault.sqlite"
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version=7")
    with closing(SqliteVault(path)) as vault, pytest.raises(StateError) as refused:
        vault.tokens(DIGESTS[:1])
    assert refused.value.code == "store-is-newer"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vault.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with closing(SqliteVault(path)) as vault, pytest.raises(AdapterError) as refused:
        vault.find(DIGESTS[0])
    assert refused.value.code == "store-unusable"
