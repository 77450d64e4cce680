"""A guest goes to the object store and comes back: who owns it is one row's business, on every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import START, WholeStore, a_host, a_migration, a_runner
from workers.domain.errors import LeaseLost, NoRoom
from workers.domain.migration import Migration, MigrationPhase, Role, Said, aborted, decide, ended, keyless, stored
from workers.domain.names import HostId, MigrationId
from workers.domain.runner import Runner, Shape
from workers.planning.parking import planned_park, planned_resume

P = MigrationPhase
LATER = START + timedelta(seconds=5)
KEY = "5a" * 32
LIMIT = timedelta(minutes=8)
A, B, C = a_host("a"), a_host("b"), a_host("c")


def parking(store: WholeStore) -> Migration:
    """A busy runner on host a whose park is PAUSED."""
    for host in (A, B, C):
        store.hosts.add(host)
    runner = a_runner(1, A.id)
    row = replace(planned_park(runner, A, MigrationId("park"), KEY, START), phase=P.PAUSED, manifest="its hash")
    assert store.runners.add(replace(runner, migration_id=row.id))
    assert store.migrations.add(row)
    return row


def parked(store: WholeStore) -> Migration:
    row = parking(store)
    return store.decide(row, stored(row, LATER))


def runner_of(store: WholeStore) -> Runner:
    runner = store.runners.get(a_runner(1, A.id).id)
    assert runner is not None
    return runner


def plan_resume(store: WholeStore, park: Migration, target: HostId) -> Migration:
    """Plan as the reconciler of parks does: under the runner's lease, with the row that goes with it."""
    host = store.hosts.get(target)
    assert host is not None
    with store.runners.lease(runner_of(store).id) as lease:
        row = planned_resume(lease.row, park, host, MigrationId(f"to-{target}"), LATER, LIMIT)
        lease.write(replace(lease.row, migration_id=row.id), row)
    return row


def test_a_row_without_a_target_or_a_source_comes_back_as_it_was(store: WholeStore) -> None:
    park = parked(store)
    assert store.migrations.get(park.id) == park
    assert (park.target_id, park.key, park.manifest, park.target_seen_at) == (None, KEY, "its hash", LATER)
    row = plan_resume(store, park, B.id)
    assert store.migrations.get(row.id) == row
    assert (row.source_id, row.park_id) == (None, park.id)


def test_the_commit_leaves_the_runner_in_the_store_and_its_host_empty(store: WholeStore) -> None:
    parked(store)
    runner = runner_of(store)
    assert (runner.host_id, runner.epoch, runner.migration_id, runner.parked_at) == (None, 2, None, LATER)
    assert store.runners_on(A.id) == []
    assert list(store.runners.open()) == [runner]
    assert store.report_of(runner.id) is None


@pytest.mark.parametrize("first", ["commit", "abort"])
def test_a_look_and_an_abort_compete_and_one_wins(store: WholeStore, first: str) -> None:
    row = parking(store)
    after = [stored(row, LATER), aborted(row, "too late", source_is_gone=False)]
    if first == "abort":
        after.reverse()
    phases = {store.decide(row, one).phase for one in after}
    assert phases == {P.COMMITTED if first == "commit" else P.ABORTED}
    assert runner_of(store).is_parked == (first == "commit")


def test_the_commit_of_a_resume_takes_it_out(store: WholeStore) -> None:
    row = replace(plan_resume(store, parked(store), B.id))
    for phase in (P.RECEIVING, P.COPYING, P.PAUSED):
        row = store.decide(row, replace(row, phase=phase))
    store.decide(row, decide(row, Role.TARGET, Said.COMMITTED, LATER))
    runner = runner_of(store)
    assert (runner.host_id, runner.epoch, runner.migration_id, runner.parked_at) == (B.id, 3, None, None)


def test_one_resume_at_a_time(store: WholeStore) -> None:
    park = parked(store)
    plan_resume(store, park, B.id)
    with pytest.raises(NoRoom):
        plan_resume(store, park, C.id)
    assert runner_of(store).migration_id == "to-b"
    assert store.migrations.get(MigrationId("to-c")) is None


def test_who_has_read_the_runner_before_another_planned_writes_nothing(store: WholeStore) -> None:
    """Two workers, and the lease of the first has run out."""
    park = parked(store)
    with store.runners.lease(runner_of(store).id) as lease:
        row = planned_resume(lease.row, park, C, MigrationId("to-c"), LATER, LIMIT)
        other = planned_resume(lease.row, park, B, MigrationId("to-b"), LATER, LIMIT)
        store.migrations.add(other)
        store.decide(other, replace(aborted(other, "why", source_is_gone=False)))
        taken = replace(other, id=MigrationId("again"), phase=P.PAUSED)
        store.migrations.add(taken)
        store.decide(taken, decide(taken, Role.TARGET, Said.COMMITTED, LATER))
        with pytest.raises(LeaseLost):
            lease.write(replace(lease.row, migration_id=row.id), row)
    assert store.migrations.get(row.id) is None


def test_a_resume_needs_room_and_a_park_none(store: WholeStore) -> None:
    park = parked(store)
    full = a_host("full", Shape(vcpus=1, memory_mib=512, disk_mib=4096))
    store.hosts.add(full)
    with pytest.raises(NoRoom, match="full has no room"):
        plan_resume(store, park, full.id)
    assert not runner_of(store).migration_id


def test_the_room_of_a_parked_guest_is_free_for_others(store: WholeStore) -> None:
    parked(store)
    for number in range(2, 4):
        runner = a_runner(number, A.id)
        assert store.runners.add(runner)
        assert store.migrations.add(a_migration(runner, B.id))


def test_the_end_leaves_no_key(store: WholeStore) -> None:
    park = parked(store)
    row = store.decide(park, keyless(park))
    assert row.key is None
    assert row.phase is P.COMMITTED
    row = store.decide(row, ended(row))
    assert (row.phase, row.key) == (P.FINISHED, None)
    assert row not in store.migrations.open()


def test_an_abort_leaves_no_key(store: WholeStore) -> None:
    row = parking(store)
    row = store.decide(row, aborted(row, "why", source_is_gone=False))
    assert row.key is None
    assert store.migrations.get(row.id) == row
    assert runner_of(store).host_id == A.id
