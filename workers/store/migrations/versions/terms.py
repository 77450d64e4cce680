"""Jobs that keep what they get and since when they run; facts that say whether anybody can see their repository.

Revision ID: 0008
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0008"
down_revision: Final = "0007"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("terms", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("facts", sa.Column("is_public", sa.Boolean(), nullable=True))
