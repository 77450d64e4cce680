"""The steps from each schema to the next, which alembic takes. It takes a while to load, and is seldom needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from workers.domain.errors import Unfit
from workers.store.connection import Database

HEAD: Final = "head"


def take(database: Database, to: str = HEAD) -> None:
    """Make the tables, or change them to what this program needs; any number of processes may call this at once.

    `to` is an earlier revision only where a database of an earlier program is to be made. Raises `Unfit` if the
    database was already changed by a newer program.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    with database.reading() as connection:
        if revision_of(connection) == scripts.get_current_head():
            return
    with database.alone() as connection:
        _refuse_newer(scripts, revision_of(connection))
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def revisions() -> list[str]:
    """Return every revision of the schema, the first one first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def revision_of(connection: Connection) -> str | None:
    """Return the revision that a database is at, None for one that has no tables of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config(attributes={})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _refuse_newer(scripts: ScriptDirectory, revision: str | None) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise Unfit(
            f"the database is at revision {revision}, which this program does not know; install a newer spot-runner"
        )
