"""A store of any earlier program comes to the present schema with all that it holds.

Each revision's tables are made by the steps that its program knew, and filled with rows that have every column set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, Table, insert, inspect, make_url, select

from tests.contract.conftest import empty_database
from tests.contract.store_rows import START, ManualClock, a_fact, a_host, a_job, a_migration, a_runner
from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.migration import Migration
from workers.domain.runner import Runner
from workers.store.connection import Database
from workers.store.repository import open_store
from workers.store.revisions import revisions
from workers.store.rows import FACTS, HOSTS, JOBS, MIGRATIONS, RUNNERS, Kind
from workers.store.schema import METADATA
from workers.store.upgrade import newest, upgrade

WORDS: Mapping[str, object] = {"TEXT": "x", "BIGINT": 7, "INTEGER": 7, "FLOAT": 0.5, "BOOLEAN": True, "BLOB": b"\x00"}
# What a step forgets on purpose: until then a host's class was said in other words (classes.py).
FORGOTTEN = {("hosts", "host_class"): "0006"}
MOVE = a_migration(a_runner(3, "a"), "b")


def whole(kind: Kind[Any], row: Job | Runner | Host | Migration) -> dict[str, Any]:
    return kind.columns(row) | {"lease_token": None, "lease_until": None}


def rows() -> dict[str, dict[str, Any]]:
    """Return a row of every table that there is now; a column that no domain word fills says anything."""
    known = {
        "jobs": whole(JOBS, a_job()),
        "runners": whole(RUNNERS, a_runner(3, "a")),
        "hosts": whole(HOSTS, a_host("a")),
        "migrations": whole(MIGRATIONS, MOVE),
        "facts": FACTS.columns(a_fact("delivery-1")) | {"number": 5, "is_in_row": False},
    }
    return {table.name: known.get(table.name) or anything(table) for table in METADATA.sorted_tables}


def anything(table: Table) -> dict[str, Any]:
    return {column.name: _said(str(column.type), column.name) for column in table.columns}


def _said(kind: str, name: str) -> object:
    if kind.startswith(("DATETIME", "TIMESTAMP")):
        return START
    return {"of": name} if kind == "JSON" else WORDS[kind]


def plain(row: Mapping[str, object]) -> object:
    """Return it as JSON would say it: a column keeps a list where a row has a tuple."""
    return json.loads(json.dumps(row, default=str, sort_keys=True))


def filled(database: Database) -> dict[str, dict[str, Any]]:
    """Put a row into each table that this database has, and return what was put where."""
    found, given = MetaData(), rows()
    with database.writing() as connection:
        found.reflect(connection)
        for name in found.tables.keys() & given.keys():
            given[name] = {key: value for key, value in given[name].items() if key in found.tables[name].columns}
            connection.execute(insert(METADATA.tables[name]).values(**given[name]))
    return {name: given[name] for name in found.tables.keys() & given.keys()}


@pytest.mark.parametrize("revision", revisions())
def test_a_store_of_this_revision_is_upgraded_with_all_its_rows(
    revision: str, store_url: str, clock: ManualClock
) -> None:
    with closing(Database(store_url)) as database:
        upgrade(database, to=revision)
        before = filled(database)
        assert before.keys() >= {"jobs", "runners", "hosts", "migrations", "deliveries", "facts", "events"}
        with closing(open_store(store_url, clock)) as store:
            assert [row.id for row in store.jobs.open()] == [a_job().id]
            assert store.runners.get(a_runner(3, "a").id) is not None
            assert [row.id for row in store.migrations.open()] == [MOVE.id]
            assert store.hosts.get(a_host("a").id) is not None
            assert [one.delivery for one in store.facts_of(a_fact("delivery-1").job_id)] == ["delivery-1"]
        with database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
            for name, given in before.items():
                kept = dict(connection.execute(select(METADATA.tables[name])).mappings().one())
                forgotten = {column for (table, column), at in FORGOTTEN.items() if table == name and revision < at}
                assert plain({key: kept[key] for key in given.keys() - forgotten}) == plain(
                    {key: value for key, value in given.items() if key not in forgotten}
                )


def described(database: Database) -> dict[str, object]:
    """Say all of every table that a program could notice."""
    with database.reading() as connection:
        seen, found = inspect(connection), dict[str, object]()
        for name in seen.get_table_names():
            columns = [
                (one["name"], str(one["type"]), one["nullable"], one["default"]) for one in seen.get_columns(name)
            ]
            indexes = [
                (one["name"], one["column_names"], one["unique"], sorted(map(str, one["dialect_options"].values())))
                for one in seen.get_indexes(name)
            ]
            keys = seen.get_pk_constraint(name)
            found[name] = sorted(columns), sorted(indexes, key=str), sorted(keys["constrained_columns"]), keys["name"]
            if not database.is_postgresql:
                made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).scalar_one()
                found[f"{name}, counted for ever"] = "AUTOINCREMENT" in made
        return found


def test_what_is_made_at_once_is_what_the_steps_lead_to(
    store_url: str, clock: ManualClock, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with closing(Database(store_url)) as database:
        upgrade(database)
        at_once = described(database)
    (tmp_path / "other").mkdir()
    other = empty_database(make_url(store_url).get_backend_name(), request, tmp_path / "other")
    with closing(Database(other)) as database:
        upgrade(database, to=newest())
        assert described(database) == at_once


def test_there_is_one_line_of_revisions() -> None:
    found = revisions()
    assert found[0] == "0001"
    assert found == sorted(found)
    assert len(found) == len(set(found)) >= 14
