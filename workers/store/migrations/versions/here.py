"""Runners that are on a host now, found without reading those that ever were.

Revision ID: 0020
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0020"
down_revision: Final = "0019"


def upgrade() -> None:
    is_here = sa.text("state <> 'gone'")
    op.drop_index("ix_runners_host_id", "runners")
    op.create_index("ix_runners_host_id", "runners", ["host_id"], sqlite_where=is_here, postgresql_where=is_here)
