"""Runners that are registered with a whole organization, in a runner group of it.

Revision ID: 0014
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0014"
down_revision: Final = "0013"


def upgrade() -> None:
    op.add_column("runners", sa.Column("level", sa.Text(), nullable=False, server_default="repository"))
    op.add_column("runners", sa.Column("group_id", sa.BigInteger(), nullable=False, server_default="1"))
