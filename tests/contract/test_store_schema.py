"""The steps that alembic makes lead to the tables that the program speaks of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, Text, create_engine, inspect, text

from tests.contract.store_rows import CLASS, ManualClock, a_host, a_job
from workers.domain.errors import Unfit
from workers.domain.names import HostId
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store
from workers.store.schema import METADATA
from workers.store.upgrade import VERSIONS, newest

# Since revision 0005.
COLUMNS_SINCE = (
    *("jobs.terms", "jobs.started_at", "jobs.head_sha", "jobs.head_branch", "jobs.has_deployment", "jobs.lost_at"),
    *("jobs.asked_at", "facts.deployment_at", "runners.pool", "runners.level", "runners.group_id"),
    *("jobs.deferred", "deliveries.refused", "facts.is_public", "facts.head_sha", "facts.head_branch"),
    *("hosts.pool", "hosts.price", "hosts.ended_at", "hosts.sources", "hosts.machine", "reports.seen_at"),
)

# Since revision 0016.
INDEXES_SINCE = ("ix_events_host_id", "ix_reports_runner_id", "ix_deliveries_received_at")


def differences(store_url: str, metadata: MetaData) -> list[object]:
    engine = create_engine(store_url)
    with engine.connect() as connection:
        found: list[object] = list(compare_metadata(MigrationContext.configure(connection), metadata))
    engine.dispose()
    return found


class TestUpgrade:
    def test_the_newest_step_is_known_without_alembic(self) -> None:
        config = Config(attributes={})
        config.set_main_option("script_location", str(VERSIONS.parent))
        assert ScriptDirectory.from_config(config).get_current_head() == newest()

    def test_nothing_is_left_to_generate(self, sql_store: SqlStore, store_url: str) -> None:
        assert differences(store_url, METADATA) == []

    def test_an_index_of_some_rows_is_one_of_some_rows(self, sql_store: SqlStore, store_url: str) -> None:
        engine = create_engine(store_url)
        looked, key = inspect(engine), f"{engine.dialect.name}_where"
        found = {
            one["name"]
            for table in METADATA.tables
            for one in looked.get_indexes(table)
            if one.get("dialect_options", {}).get(key) is not None
        }
        engine.dispose()
        indexes = [one for table in METADATA.tables.values() for one in table.indexes]
        assert found == {one.name for one in indexes if "where" in one.info}
        assert len(found) == 5

    def test_the_comparison_would_see_a_column_that_was_forgotten(self, sql_store: SqlStore, store_url: str) -> None:
        richer = MetaData(naming_convention=METADATA.naming_convention)
        for table in METADATA.sorted_tables:
            table.to_metadata(richer)
        Table("jobs", richer, Column("forgotten", Text), extend_existing=True)
        assert "forgotten" in str(differences(store_url, richer))

    def test_what_was_written_is_there_when_the_store_is_opened_again(self, store_url: str, clock: ManualClock) -> None:
        for is_first in (True, False):
            opened = open_store(store_url, clock)
            assert opened.jobs.add(a_job()) is is_first
            opened.close()

    def test_a_database_of_a_newer_program_is_left_alone(
        self, sql_store: SqlStore, store_url: str, clock: ManualClock
    ) -> None:
        engine = create_engine(store_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        with pytest.raises(Unfit, match=r"9999.*newer"):
            open_store(store_url, clock)

    def test_a_host_class_of_an_older_program_is_forgotten_until_it_is_heard_anew(
        self, sql_store: SqlStore, store_url: str, clock: ManualClock
    ) -> None:
        sql_store.hosts.add(a_host("a"))
        engine = create_engine(store_url)
        with engine.begin() as connection:
            connection.execute(text("""UPDATE hosts SET host_class = '{"acceleration": "tcg", "machine": "pc"}'"""))
            for table in ("stations", "installations", "remarks", "breakers", "catalogues"):
                connection.execute(text(f"DROP TABLE {table}"))
            for index in ("ix_jobs_run_id", *INDEXES_SINCE):
                connection.execute(text(f"DROP INDEX {index}"))
            for column in COLUMNS_SINCE:
                connection.execute(text("ALTER TABLE {} DROP COLUMN {}".format(*column.split("."))))
            connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
        engine.dispose()
        with closing(open_store(store_url, clock)) as opened:
            former = replace(a_host("a"), pool=None, price=None, ended_at=None, sources=None)
            assert opened.hosts.get(HostId("a")) == replace(former, host_class=None)
            opened.note_heartbeat(HostId("a"), clock.now(), CLASS, ())
            assert opened.hosts.get(HostId("a")) == replace(former, heartbeat_at=clock.now(), host_class=CLASS)

    def test_that_a_job_holds_no_deployment_is_not_believed_of_an_older_program(
        self, sql_store: SqlStore, store_url: str, clock: ManualClock
    ) -> None:
        for number, held in ((1, True), (2, False)):
            sql_store.jobs.add(replace(a_job(number), has_deployment=held))
        engine = create_engine(store_url)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE catalogues"))
            for index in INDEXES_SINCE:
                connection.execute(text(f"DROP INDEX {index}"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0014'"))
        engine.dispose()
        with closing(open_store(store_url, clock)) as opened:
            rows = {number: opened.jobs.get(a_job(number).id) for number in (1, 2)}
        assert {number: row and row.has_deployment for number, row in rows.items()} == {1: True, 2: None}

    def test_a_store_that_was_opened_holds_no_connection_that_a_fork_could_share(
        self, store_url: str, clock: ManualClock
    ) -> None:
        database = open_store(store_url, clock)._database
        for pool in (database.reader.pool.status(), database.writer.pool.status()):
            assert "Connections in pool: 0" in pool
            assert "Current Checked out connections: 0" in pool


class TestSqlite:
    def test_an_answered_write_outlives_a_power_cut_and_readers_do_not_wait(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
        with database.writing() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        database.close()
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}

    def test_a_writer_takes_its_turn_at_the_beginning(self, tmp_path: Path) -> None:
        """Or it would be refused later, when what it has read has been written by another."""
        file = tmp_path / "store.sqlite"
        database = Database(f"sqlite:///{file}")
        other = sqlite3.connect(file, timeout=0, isolation_level=None)
        with database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with database.reading():
            other.execute("BEGIN IMMEDIATE")
        other.close()
        database.close()
