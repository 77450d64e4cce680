"""Timelines of one host, found without reading that of the deployment.

Revision ID: 0017
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0017"
down_revision: Final = "0016"


def upgrade() -> None:
    names_a_host = sa.text("host_id IS NOT NULL")
    op.create_index(
        "ix_events_host_id",
        "events",
        ["host_id", "number"],
        sqlite_where=names_a_host,
        postgresql_where=names_a_host,
    )
