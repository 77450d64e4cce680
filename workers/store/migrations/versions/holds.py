"""Jobs that ask not to be moved.

Revision ID: 0003
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("runner_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("runner_id", name=op.f("pk_holds")),
    )
    op.create_index("ix_holds_ends_at", "holds", ["ends_at"], unique=False)
    op.add_column("reports", sa.Column("hold", sa.JSON(), nullable=True))
    op.add_column("runners", sa.Column("hold_limit_s", sa.Integer(), nullable=False, server_default="0"))
