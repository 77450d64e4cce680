"""Who sits where on the overlay.

Revision ID: 0007
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"


def upgrade() -> None:
    op.create_table(
        "stations",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stations")),
    )
    op.create_index("uq_stations_key", "stations", ["key"], unique=True)
    op.create_index("uq_stations_address", "stations", ["address"], unique=True)
