"""The tables of the embedded SQL database, and how a database of an earlier release becomes one of this release.

    transactions      the chain: one signed head per transaction
    facts             what was recorded, byte for byte as it was hashed
    projections       state: one row per key of each projection
    folds             how far, and by which definition, each projection is folded
    leases            who may do what, until when

`HEAD` is compared with the stored revision by plain SQL; Alembic (a quarter of a second to import) is loaded only when
they differ. A database of a newer release is refused. Tables are STRICT, so that values keep the types they are hashed with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from flyball._kernel.errors import StateError

HEAD: Final = "0001"
"""The newest revision in `migrations/`; a test holds them together."""

SCRIPTS: Final = Path(__file__).parent / "migrations"

_Count = sa.BigInteger().with_variant(sa.Integer, "sqlite")

tables = sa.MetaData()

transactions = sa.Table(
    "transactions",
    tables,
    sa.Column("tx", _Count, primary_key=True, autoincrement=False),
    sa.Column("at", _Count, nullable=False, comment="microseconds since 1970-01-01 UTC"),
    sa.Column("chain", sa.Text, nullable=False),
    sa.Column("trace", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sqlite_strict=True,
)

facts = sa.Table(
    "facts",
    tables,
    sa.Column("seq", _Count, primary_key=True, autoincrement=False),
    sa.Column("tx", _Count, sa.ForeignKey("transactions.tx"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("app", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("said", sa.LargeBinary, nullable=False),
    sa.Column("measured", sa.LargeBinary, nullable=False),
    sa.Index("ix_facts_kind_seq", "kind", "seq"),
    sqlite_strict=True,
)

projections = sa.Table(
    "projections",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("row", sa.LargeBinary, nullable=False),
    sqlite_strict=True,
)

folds = sa.Table(
    "folds",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("tx", _Count, nullable=False, comment="the last transaction that is folded in"),
    sqlite_strict=True,
)

leases = sa.Table(
    "leases",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False, comment="empty when given back"),
    sa.Column("token", _Count, nullable=False),
    sa.Column("until", _Count, nullable=False, comment="microseconds since 1970-01-01 UTC"),
    sqlite_strict=True,
)

_revision = sa.table("alembic_version", sa.column("version_num", sa.Text))


def revision(connection: sa.Connection) -> str | None:
    """The revision of the database; None when it is new."""
    if not connection.dialect.has_table(connection, _revision.name):
        return None
    return connection.execute(sa.select(_revision.c.version_num)).scalar()


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to `HEAD` within the caller's write transaction, so that of two processes one migrates.

    Raises:
        StateError: `store-is-newer`.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script, stored = ScriptDirectory(SCRIPTS), revision(connection)
    if stored is not None and stored not in {each.revision for each in script.walk_revisions()}:
        raise StateError(
            "store-is-newer",
            f"{connection.engine.url.database} has the format {stored}; this release knows formats up to {HEAD}",
            why="A newer release of flyball has written to it; this one would misread what it does not know",
            next="run the newer release, or restore a backup from before the upgrade",
        )
    # Without an env.py: there is one database and it is already connected, so the script environment has nothing to say.
    context = MigrationContext.configure(connection, opts={"fn": lambda at, _: script._upgrade_revs("head", at)})
    with Operations.context(context):
        context.run_migrations()
