"""Reports of one runner, found without reading those of all that there ever were.

Revision ID: 0018
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0018"
down_revision: Final = "0017"


def upgrade() -> None:
    op.create_index("ix_reports_runner_id", "reports", ["runner_id"])
