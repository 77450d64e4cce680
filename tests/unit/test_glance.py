"""Many jobs are placed from rows that were read once; what another did meanwhile costs a second look, and no more."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.unit.planning.rows import NOW, SMALL, SPEC, a_host, a_job, a_runner
from workers.domain.errors import TryLater
from workers.domain.host import HostState
from workers.domain.job import Job, JobState
from workers.domain.labels import Interrupt
from workers.domain.names import PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.runner import RunnerState
from workers.planning.capacity import CapacityPolicy
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.glance import AGE_MAX, Glance
from workers.reconcilers.placing import DEALING, Placing

TERMS = Terms("ci", PackageDigest("sha256:00"), "debian-12", SMALL, GuestNetwork.NAT, Interrupt.MOVE)


class Office:
    """One host with room for two, and jobs that wait."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.store = MemoryStore(self.clock)
        self.store.hosts.add(a_host("a"))
        hints = LossyHints(random.Random(0))
        self.buyer = Buyer(self.store, hints, self.clock, CapacityPolicy("fake", SPEC, ready_hosts=0, hosts_max=3))
        self.placing = Placing(self.store, hints, self.clock, self.buyer)

    def queued(self, number: int) -> Job:
        job = replace(a_job(number), terms=TERMS)
        self.store.jobs.add(job)
        return job

    def serve(self, job: Job) -> Job:
        with self.store.jobs.lease(job.id) as lease:
            self.placing.serve(lease, TERMS)
            return lease.row

    def bought(self) -> int:
        return sum(host.state is HostState.REQUESTED for host in self.store.hosts.rows.values())


@pytest.fixture
def office() -> Office:
    return Office()


def test_rows_are_read_anew_when_they_are_old_or_were_found_wrong(office: Office) -> None:
    glance = Glance(office.store, office.buyer, office.clock)
    first = glance.rows()
    assert glance.rows() is first
    second = glance.rows(first)
    assert second is not first
    assert glance.rows(first) is second, "another thread has read them anew already"
    office.clock.move(AGE_MAX)
    assert glance.rows() is not second
    office.clock.move(timedelta(seconds=-5))
    third = glance.rows()
    assert third.read_at == office.clock.now(), "a clock that was put back does not make them last"


def test_jobs_that_are_placed_from_the_same_rows_take_no_place_twice(office: Office) -> None:
    jobs = [office.queued(number) for number in (1, 2, 3)]
    placed = [office.serve(job) for job in jobs]
    assert [job.state for job in placed] == [JobState.PLACED, JobState.PLACED, JobState.QUEUED]
    assert len({job.runner_id for job in placed[:2]}) == 2
    assert office.bought() == 1


def test_jobs_that_see_the_same_buy_no_host_twice_and_none_too_few(office: Office) -> None:
    for number in range(1, 8):
        office.serve(office.queued(number))
    assert office.bought() == 2, "three may be there, and the jobs need four"


def test_what_another_has_written_meanwhile_is_seen_when_it_matters(office: Office) -> None:
    office.serve(office.queued(1))
    office.store.runners.add(replace(a_runner("theirs", job=9), number=99))
    third = office.serve(office.queued(3))
    assert third.state is JobState.QUEUED, "the rows that were read had room for it"
    assert office.bought() == 1


def test_a_runner_that_was_counted_on_from_old_rows_is_not_taken_from_its_job(office: Office) -> None:
    spare = replace(a_runner("spare", state=RunnerState.IDLE, job=9), pool=TERMS.pool)
    office.store.runners.add(spare)
    glance_at = office.queued(1)
    office.placing._glance.rows()
    with office.store.runners.lease(spare.id) as lease:  # another worker gives it to a job of its own
        lease.write(replace(lease.row, job_id=glance_at.id, state=RunnerState.BUSY))
    placed = office.serve(glance_at)
    assert placed.runner_id not in {None, spare.id}


def test_who_has_just_lost_his_runner_is_made_none_for_a_moment_but_takes_one_that_is_free(office: Office) -> None:
    job = office.queued(1)
    office.placing.lost(job)
    with pytest.raises(TryLater) as later:
        office.serve(job)
    assert later.value.at == office.clock.now() + DEALING
    office.store.runners.add(replace(a_runner("spare", state=RunnerState.IDLE, job=9), pool=TERMS.pool))
    office.clock.move(AGE_MAX)
    assert office.serve(job).runner_id == "spare"


def test_after_that_moment_he_gets_a_new_one(office: Office) -> None:
    job = office.queued(1)
    office.placing.lost(job)
    office.clock.move(DEALING)
    assert office.serve(job).state is JobState.PLACED
