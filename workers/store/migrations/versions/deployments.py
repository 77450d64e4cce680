"""Jobs of which it is not known whether they deploy: what was taken for a no may only have been found in a list.

Revision ID: 0015
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0015"
down_revision: Final = "0014"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("has_deployment", existing_type=sa.Boolean(), nullable=True, server_default=None)
    held: sa.ColumnClause[bool] = sa.column("has_deployment", sa.Boolean())
    # What deliveries have said is read again from them.
    op.execute(sa.update(sa.table("jobs", held)).where(held.is_(False)).values(has_deployment=None))
