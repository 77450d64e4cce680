"""Run by alembic: every step goes through the connection that `upgrade` was given, inside its transaction."""

from __future__ import annotations

from alembic import context

from workers.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
