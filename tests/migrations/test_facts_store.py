"""The embedded database comes from its migrations, is opened without them, and is migrated by one process only."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from flyball._kernel.errors import StateError
from flyball.adapters.embedded import schema
from flyball.adapters.embedded.database import Database
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.clock import Wound
from flyball.checks.facts import TALLY, added


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "facts.sqlite"


def test_the_constant_is_the_newest_revision() -> None:
    assert ScriptDirectory(schema.SCRIPTS).get_current_head() == schema.HEAD


def test_the_migrations_make_the_tables(store: Path) -> None:
    """Names, types, nullability, indices and keys: what the code believes is what is there."""
    database = Database(store)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.tables)
        strict = connection.exec_driver_sql("SELECT name FROM pragma_table_list WHERE strict").scalars().all()
    database.close()
    assert differences == []
    assert set(strict) == set(schema.tables.tables)


OPEN = """
import sys
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.keys import MemorySigner
SqlFacts(sys.argv[1], VirtualClock(), MemorySigner()).close()
print("alembic" in sys.modules)
"""


def opened(store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OPEN, str(store)], stdout=subprocess.PIPE, text=True)


def test_processes_that_open_at_once_migrate_once(store: Path) -> None:
    racers = [opened(store) for _ in range(3)]
    out = [racer.communicate()[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 3
    assert "True" in out
    assert opened(store).communicate()[0].strip() == "False", "an up-to-date store was opened with alembic"


def test_a_newer_store_is_refused_and_kept(store: Path) -> None:
    facts = SqlFacts(store, Wound(), MemorySigner(), [TALLY])
    facts.append([added(1)])
    facts.close()
    database = sqlite3.connect(store)
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    before = list(database.iterdump())
    with pytest.raises(StateError, match="store-is-newer") as raised:
        SqlFacts(store, Wound(), MemorySigner(), [TALLY])
    assert str(store) in str(raised.value)
    assert list(database.iterdump()) == before
    database.close()


def test_a_failing_migration_leaves_the_store_as_it_was(store: Path) -> None:
    """One transaction: a table in the way of the migration's third leaves none of the first two."""
    database = sqlite3.connect(store)
    database.execute("CREATE TABLE projections (mine)")
    database.commit()
    with pytest.raises(Exception, match="store-unusable"):
        Database(store)
    assert database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("projections",)]
    database.close()
