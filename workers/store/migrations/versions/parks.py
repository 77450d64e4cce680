"""Guests that lie in the object store, and migrations to it and from it.

Revision ID: 0004
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    with op.batch_alter_table("runners") as runners:
        runners.alter_column("host_id", existing_type=sa.Text(), nullable=True)
        runners.add_column(sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("migrations") as migrations:
        migrations.alter_column("source_id", existing_type=sa.Text(), nullable=True)
        migrations.alter_column("target_id", existing_type=sa.Text(), nullable=True)
        migrations.add_column(sa.Column("park_id", sa.Text(), nullable=True))
        migrations.add_column(sa.Column("key", sa.Text(), nullable=True))
        migrations.add_column(sa.Column("manifest", sa.Text(), nullable=True))
