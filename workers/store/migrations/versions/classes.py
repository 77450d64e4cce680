"""Host classes say more than they did, so each is heard anew with its host's next heartbeat.

Revision ID: 0006
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    hosts = sa.table("hosts", sa.column("host_class", sa.JSON()))
    op.execute(hosts.update().values(host_class=sa.null()))
