"""What a move would carry, and what it may take of the line.

Revision ID: 0002
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    op.add_column("reports", sa.Column("load", sa.JSON(), nullable=True))
    op.add_column("migrations", sa.Column("share_mib_s", sa.Float(), nullable=True))
