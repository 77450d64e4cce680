"""Deliveries found by their age, so that old ones can be removed.

Revision ID: 0019
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0019"
down_revision: Final = "0018"


def upgrade() -> None:
    op.create_index("ix_deliveries_received_at", "deliveries", ["received_at"])
