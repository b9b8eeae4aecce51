"""The first form: the chain of transactions, facts, projections, how far they are folded, and leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Count = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "transactions",
        sa.Column("tx", _Count, primary_key=True, autoincrement=False),
        sa.Column("at", _Count, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "facts",
        sa.Column("seq", _Count, primary_key=True, autoincrement=False),
        sa.Column("tx", _Count, sa.ForeignKey("transactions.tx"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("said", sa.LargeBinary, nullable=False),
        sa.Column("measured", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("ix_facts_tx", "facts", ["tx"])
    op.create_index("ix_facts_kind_seq", "facts", ["kind", "seq"])
    op.create_table(
        "projections",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("row", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "folds",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("tx", _Count, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", _Count, nullable=False),
        sa.Column("until", _Count, nullable=False),
        sqlite_strict=True,
    )
