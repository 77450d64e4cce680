"""What a backup holds, and what becomes of it when somebody cuts it, changes it, or restores it over something."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.contract.conftest import empty_database
from tests.contract.store_rows import (
    START,
    ManualClock,
    a_delivery,
    a_host,
    a_job,
    a_migration,
    a_runner,
)
from workers.bootstrap.backup import run_backup, run_restore
from workers.bootstrap.github_app import keep_app, open_vault, stored_app
from workers.domain.errors import BadInput, SpotError, Unfit
from workers.domain.events import Event, Happening
from workers.domain.github_app import GitHubApp
from workers.domain.job import Job
from workers.identity import Authority
from workers.settings import ControlSettings
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store
from workers.store.schema import METADATA

APP = GitHubApp(7, "-----BEGIN PRIVATE KEY-----", ("secret",))
DAMAGES = 40


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def deployment(home: Path, url: str | None = None) -> ControlSettings:
    return ControlSettings(home=home, database_url=url)


@pytest.fixture
def served(tmp_path: Path, store_url: str, clock: ManualClock) -> ControlSettings:
    """A deployment with a row of each kind."""
    settings = deployment(tmp_path / "home", store_url)
    Authority.open(settings.home / "ca")
    keep_app(open_vault(settings), APP)
    (settings.home / "objects.key").write_bytes(b"k" * 32)
    (settings.home / "objects").mkdir()
    (settings.home / "objects" / "parked").write_bytes(b"gigabytes")
    with closing(open_store(store_url, clock)) as store:
        fill(store)
    return settings


def fill(store: SqlStore) -> None:
    store.jobs.add(a_job(), happened())
    for name in ("a", "b"):
        store.hosts.add(a_host(name))
    store.runners.add(a_runner(3, "a"))
    store.migrations.add(a_migration(a_runner(3, "a"), "b"))
    store.write_deliveries([a_delivery("one"), a_delivery("two", 8)])


def happened() -> Event:
    return Event(Happening.JOB_QUEUED, START, job_id=a_job().id)


def contents(url: str) -> Mapping[str, list[dict[str, Any]]]:
    with closing(Database(url)) as database, database.reading() as connection:
        return {
            table.name: [
                dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in METADATA.sorted_tables
        }


def refusal(settings: ControlSettings, file: Path) -> str | None:
    """Restore, and return why it was refused, None if it was not."""
    try:
        run_restore(settings, file)
    except BadInput as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_restored_is_what_was_backed_up_whichever_database_it_goes_to(
    kind: str, served: ControlSettings, tmp_path: Path, request: pytest.FixtureRequest, clock: ManualClock
) -> None:
    file = tmp_path / "backup.tar"
    assert run_backup(served, file) == 0
    before = contents(served.database)
    assert {name for name, rows in before.items() if rows} >= {"jobs", "runners", "hosts", "deliveries", "events"}
    with closing(open_store(served.database, clock)) as store:
        store.jobs.add(a_job(9))  # later than the backup
    (tmp_path / "other").mkdir()
    other = deployment(tmp_path / "new", empty_database(kind, request, tmp_path / "other"))
    assert run_restore(other, file) == 0
    assert contents(other.database) == before
    assert Authority.open(other.home / "ca").control_ca == Authority.open(served.home / "ca").control_ca
    assert stored_app(open_vault(other)) == APP
    assert (other.home / "objects.key").read_bytes() == b"k" * 32
    assert not (other.home / "objects").exists(), "parked guests are of no use by then"
    assert [one for one in other.home.rglob("*") if one.is_file() and one.stat().st_mode & 0o077] == []
    with closing(open_store(other.database, clock)) as store:
        store.record(happened())  # numbers go on where they were
        store.write_deliveries([a_delivery("three", 9)])
        assert len(list(store.timeline())) == len(before["events"]) + 1


def test_a_backup_is_for_its_owner_alone_and_says_so(
    served: ControlSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = tmp_path / "pools.toml"
    run_backup(served.model_copy(update={"pools_file": pools}), tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert "whoever reads it is this deployment" in said
    assert f"SPOT_RUNNER_POOLS_FILE: {pools} is not in it" in said
    assert sorted(one.name for one in tmp_path.iterdir() if "backup" in one.name or one.name.startswith(".")) == [
        "backup.tar"
    ]


def test_nothing_is_overwritten(served: ControlSettings, tmp_path: Path) -> None:
    file, before = tmp_path / "backup.tar", contents(served.database)
    run_backup(served, file)
    content = file.read_bytes()
    with pytest.raises(BadInput, match="there already"):
        run_backup(served, file)
    assert file.read_bytes() == content
    with pytest.raises(Unfit, match=r"in use: ca/control\.pem is there"):
        run_restore(served, file)
    with pytest.raises(Unfit, match="the store is in use"):
        run_restore(deployment(tmp_path / "new", served.database), file)
    assert contents(served.database) == before
    assert not (tmp_path / "new").exists(), "and nothing is left of the attempt"


def test_what_is_no_deployment_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no home of a deployment"):
        run_backup(deployment(tmp_path), tmp_path / "backup.tar")
    Authority.open(tmp_path / "ca")
    with pytest.raises(Unfit, match="there is no store at"):
        run_backup(deployment(tmp_path), tmp_path / "backup.tar")
    assert not (tmp_path / "spot-runner.sqlite").exists()
    assert not (tmp_path / "backup.tar").exists()


class TestOnSqlite:
    """What has nothing to do with the kind of database."""

    @pytest.fixture
    def settings(self, tmp_path: Path, clock: ManualClock) -> ControlSettings:
        found = deployment(tmp_path / "home")
        Authority.open(found.home / "ca")
        keep_app(open_vault(found), APP)
        with closing(open_store(found.database, clock)) as store:
            fill(store)
        return found

    def test_a_damaged_backup_restores_nothing_or_all_of_it(self, settings: ControlSettings, tmp_path: Path) -> None:
        """Bytes that mean nothing, such as what fills a block, may be anything."""
        file, before, chance = tmp_path / "backup.tar", contents(settings.database), random.Random(7)
        run_backup(settings, file)
        whole, refused = file.read_bytes(), 0
        for number in range(DAMAGES):
            at = chance.randrange(len(whole))
            cut = number % 2 == 0
            file.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            fresh = deployment(tmp_path / f"new-{number}")
            if (said := refusal(fresh, file)) is None:
                assert contents(fresh.database) == before
            else:
                refused += 1
                assert any(
                    remedy in said for remedy in ("use another backup", "that spot-runner backup made", "edition")
                )
                assert not fresh.home.exists()
        assert refused > DAMAGES / 2

    def test_whoever_writes_meanwhile_is_in_it_as_a_whole_or_not_at_all(
        self, settings: ControlSettings, tmp_path: Path, clock: ManualClock
    ) -> None:
        over, written = threading.Event(), list[Job]()

        def write() -> None:
            with closing(open_store(settings.database, clock)) as store:
                while not over.is_set():
                    job = a_job(100 + len(written))
                    store.jobs.add(job, Event(Happening.JOB_QUEUED, START, job_id=job.id))
                    written.append(job)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(3):
                seen = len(written)
                run_backup(settings, tmp_path / f"{number}.tar")
                run_restore(deployment(tmp_path / f"new-{number}"), tmp_path / f"{number}.tar")
                found = contents(deployment(tmp_path / f"new-{number}").database)
                jobs = {row["id"] for row in found["jobs"]}
                assert jobs == {row["job_id"] for row in found["events"]}
                assert len(jobs) >= seen + 1, "what was committed before is in it"
        finally:
            over.set()
            writer.join(60)

    def test_a_restore_that_was_killed_is_told_and_nobody_makes_another_authority(
        self, settings: ControlSettings, tmp_path: Path
    ) -> None:
        run_backup(settings, tmp_path / "backup.tar")
        fresh = deployment(tmp_path / "new")
        (fresh.home / "ca" / ".restoring").mkdir(parents=True)
        with pytest.raises(Unfit, match="has not ended"):
            Authority.open(fresh.home / "ca")
        with pytest.raises(Unfit, match="has not ended; empty"):
            run_restore(fresh, tmp_path / "backup.tar")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another")
    def test_another_users_home_is_let_alone(self, settings: ControlSettings, tmp_path: Path) -> None:
        os.chown(settings.home, 1, 1)
        with pytest.raises(BadInput, match="belongs to daemon; run this as that user"):
            run_backup(settings, tmp_path / "backup.tar")

    @pytest.mark.parametrize("lacking", [1 << 10, 1 << 16, None])
    def test_a_full_disk_leaves_no_half_backup(
        self, settings: ControlSettings, tmp_path: Path, lacking: int | None
    ) -> None:
        """The first lacks the end of the file alone, the last nearly all of the store's copy."""
        run_backup(settings, tmp_path / "whole.tar")
        room = (tmp_path / "whole.tar").stat().st_size - lacking if lacking is not None else 1 << 12
        told = {**os.environ, "SPOT_RUNNER_HOME": str(settings.home)}
        (tmp_path / "out").mkdir()
        done = subprocess.run(
            [Path(sys.executable).with_name("spot-runner"), "backup", tmp_path / "out" / "backup.tar"],
            env=told,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("spot-runner: ")
        assert done.stderr.count("\n") == 1
        assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_no_backup_is_told_so(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\0" * 4096):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(SpotError, match=r"no backup|cannot be read as a backup"):
            run_restore(deployment(tmp_path / "new"), tmp_path / "x")
        assert not (tmp_path / "new").exists()
