"""Hosts that know what the cloud has told of their machine.

Revision ID: 0010
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0010"
down_revision: Final = "0009"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("machine", sa.JSON(), nullable=True))
