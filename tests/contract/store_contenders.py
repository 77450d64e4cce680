"""What several processes do to one store at once; each opens it for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Barrier

from tests.contract.store_rows import START, ManualClock, WholeStore, a_host, a_job, a_runner
from workers.domain.errors import LeaseLost, NoRoom
from workers.domain.events import Event, Happening
from workers.domain.job import Job
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, JobId
from workers.domain.runner import Quota
from workers.store.repository import open_store

WAIT_S = 60


def open_and_add(url: str) -> bool:
    """Open a store that perhaps nobody has opened before, and add the row that everybody adds."""
    store = open_store(url, ManualClock())
    try:
        return store.hosts.add(a_host("a"))
    finally:
        store.close()


def count_up(url: str, job_id: JobId, times: int) -> int:
    """Add one to a figure in the row, so often, each time under a lease; return how often it had to wait."""
    store, refused, done = open_store(url, ManualClock()), 0, 0
    while done < times:
        try:
            with store.jobs.lease(job_id) as lease:
                lease.write(replace(lease.row, run_attempt=lease.row.run_attempt + 1))
                done += 1
        except LeaseLost:
            refused += 1
    store.close()
    return refused


def decide_all(url: str, rows: Sequence[Migration], phase: MigrationPhase, together: Barrier) -> list[MigrationPhase]:
    """Try to bring each of these rows into this phase, at the same moment as the other side; return what was heard."""
    store, happening = open_store(url, ManualClock()), Happening(f"migration_{phase}")
    heard = []
    for row in rows:
        together.wait(WAIT_S)
        told = Event(happening, START, migration_id=row.id)
        heard.append(store.decide(row, replace(row, phase=phase), told).phase)
    store.close()
    return heard


def place(store: WholeStore, job: Job, quota: Quota, host: HostId) -> bool:
    """Write a runner for a job down, within a quota; say whether there was room."""
    number = int(job.id) % (1 << 40)
    runner = replace(a_runner(number, host), repository=quota.repository)
    with store.jobs.lease(job.id) as lease:
        try:
            lease.write(replace(lease.row, deferred=None), quota, runner)
        except NoRoom:
            return False
    return True


def place_all(url: str, quotas: Sequence[Quota], side: int, together: Barrier) -> list[bool]:
    """Place one runner for each of these quotas, at the same moment as the other side, on a host of this side's own."""
    store = open_store(url, ManualClock())
    placed = []
    for number, quota in enumerate(quotas):
        together.wait(WAIT_S)
        placed.append(place(store, a_job(2 * number + side), quota, HostId(f"host-{number}-{side}")))
    store.close()
    return placed
