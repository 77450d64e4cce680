"""Jobs that wait for their environment, runners that are for a pool, and breakers.

Revision ID: 0012
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0012"
down_revision: Final = "0011"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("facts", sa.Column("deployment_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runners", sa.Column("pool", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "breakers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("unused", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("because", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_breakers"),
    )
