"""What is said beside commits, and what it needs: each job's commit, and what a host costs and for whom it was bought.

Revision ID: 0013
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0013"
down_revision: Final = "0012"


def upgrade() -> None:
    for table in ("jobs", "facts"):
        op.add_column(table, sa.Column("head_sha", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("head_branch", sa.Text(), nullable=True))
    held: sa.Column[bool] = sa.Column("has_deployment", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    op.add_column("jobs", held)
    op.add_column("jobs", sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("deferred", sa.Text(), nullable=True))
    op.create_index("ix_jobs_run_id", "jobs", ["run_id"])
    op.add_column("hosts", sa.Column("pool", sa.Text(), nullable=True))
    op.add_column("hosts", sa.Column("price", sa.Float(), nullable=True))
    op.add_column("hosts", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("hosts", sa.Column("sources", sa.JSON(), nullable=True))
    op.create_table(
        "remarks",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("installation_id", sa.BigInteger(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("head_sha", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_remarks"),
    )
    op.create_index("ix_remarks_due_at", "remarks", ["due_at"])
