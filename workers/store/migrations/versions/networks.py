"""Guests that leave through the relay, or through their host.

Revision ID: 0005
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    op.add_column("runners", sa.Column("network", sa.Text(), nullable=False, server_default="relay"))
