"""Reports that say in which heartbeat they came, so that a microVM which is not in the last one is missed.

Revision ID: 0011
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0011"
down_revision: Final = "0010"


def upgrade() -> None:
    op.add_column("reports", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
