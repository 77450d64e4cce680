"""Rows to fill a store with, each with every field set, and a clock that stands still until it is moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tests.fakes.classes import EMULATED
from webhook.needs import DeliveryStore
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.host import Host, HostState
from workers.domain.job import Job, JobEnd, JobState, Rerun
from workers.domain.labels import Interrupt
from workers.domain.market import Market, Sources
from workers.domain.migration import Migration, MigrationPhase, Ports, Role
from workers.domain.names import HostId, JobId, MigrationId, PackageDigest, RunnerId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.runner import Runner, RunnerEnd, RunnerState, Shape
from workers.ports import Store
from workers.selling import Catalogues

START = datetime(2026, 11, 23, 4, 0, 0, 123456, tzinfo=UTC)
SHAPE = Shape(vcpus=1, memory_mib=1024, disk_mib=4096)
CLASS = EMULATED
TERMS = Terms("ci", PackageDigest("sha256:00"), "debian-12", SHAPE, GuestNetwork.NAT, Interrupt.RERUN, 60)
PLENTY = Shape(vcpus=4096, memory_mib=1 << 24, disk_mib=1 << 28)


class WholeStore(Store, DeliveryStore, Protocol):
    """What the reconcilers and the receiver need together; the store in memory and the real one promise the same."""

    @property
    def catalogues(self) -> Catalogues: ...
    def note_seen(self, migration_id: MigrationId, role: Role, now: datetime) -> Migration | None: ...
    def burn_token(self, token: str, address: str) -> HostId | None: ...


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self._now = START

    def now(self) -> datetime:
        return self._now

    def move(self, by: timedelta) -> None:
        self._now += by


def room_for(runners: int) -> Shape:
    """What a host needs to hold exactly so many microVMs of the usual shape."""
    return Shape(vcpus=64, memory_mib=SHAPE.memory_mib * runners, disk_mib=SHAPE.disk_mib * 64)


def a_job(number: int = 7, state: JobState = JobState.RUNNING) -> Job:
    return Job(
        id=JobId(number + (1 << 40)),
        installation_id=11,
        repository="octo/hello",
        run_id=1 << 35,
        run_attempt=1,
        name="build — “ö” 🏗",
        labels=("self-hosted", "spot-runner"),
        state=state,
        queued_at=START + timedelta(seconds=number),
        runner_id=RunnerId("spot-runner-x"),
        conclusion="failure",
        end=JobEnd.LOST,
        rerun=Rerun.WANTED,
        unserved="no such label",
        terms=TERMS,
        started_at=START + timedelta(seconds=number + 9),
        asked_at=START + timedelta(seconds=number + 5),
        head_sha="c" * 40,
        head_branch="gh-readonly-queue/main/pr-7",
        has_deployment=True,
        lost_at=START + timedelta(seconds=number + 99),
        deferred="the pool ci has spent its 5 EUR",
    )


def a_host(name: str, spec: Shape = PLENTY, state: HostState = HostState.READY) -> Host:
    return Host(
        id=HostId(name),
        cloud="local",
        state=state,
        requested_at=START,
        spec=spec,
        instance_id="i-1",
        address="10.90.0.16",
        host_class=CLASS,
        heartbeat_at=START + timedelta(seconds=1),
        deadline_at=START + timedelta(minutes=2),
        pool="ci",
        price=0.125,
        ended_at=START + timedelta(minutes=3),
        sources=Sources(("local", "aws"), ("eu-central-1a",), Market.SPOT_THEN_ON_DEMAND),
    )


def a_runner(number: int, host: str, state: RunnerState = RunnerState.BUSY) -> Runner:
    return Runner(
        id=RunnerId(f"spot-runner-{number}"),
        number=number,
        job_id=JobId(number),
        installation_id=11,
        repository="octo/hello",
        labels=("spot-runner",),
        package=PackageDigest("sha256:00"),
        shape=SHAPE,
        state=state,
        requested_at=START,
        host_id=HostId(host),
        epoch=1,
        github_id=1 << 33,
        idle_at=START,
        end=RunnerEnd.UNUSED,
        hold_limit_s=600,
        pool="ci",
    )


def a_migration(
    runner: Runner, target: str, phase: MigrationPhase = MigrationPhase.PLANNED, name: str | None = None
) -> Migration:
    return Migration(
        id=MigrationId(name or f"spot-move-{runner.number}"),
        runner_id=runner.id,
        source_id=runner.host_id,
        target_id=HostId(target),
        phase=phase,
        epoch=runner.epoch + 1,
        planned_at=START,
        deadline_at=START + timedelta(minutes=1),
        ports=Ports(memory=40001, disk=40002),
        share_mib_s=59.5,
        source_seen_at=START,
        target_seen_at=START,
        figures={"sent_mib": 17.25},
    )


def a_fact(guid: str, job: int = 7, action: JobAction = JobAction.QUEUED) -> JobFact:
    return JobFact(
        delivery=guid,
        action=action,
        seen_at=START,
        job_id=JobId(job),
        installation_id=11,
        repository="octo/hello",
        run_id=1 << 35,
        run_attempt=1,
        name="build",
        labels=("spot-runner",),
        runner_id=1 << 33,
        runner_name="spot-runner-x",
        conclusion="success",
        is_public=True,
        deployment_at=START - timedelta(seconds=1),
        head_sha="c" * 40,
        head_branch="main",
    )


def a_delivery(guid: str, job: int = 7) -> Delivery:
    return Delivery(guid, "workflow_job", "queued", START, b"\x28\xb5\x2f\xfd\x00", a_fact(guid, job))


def moving(store: WholeStore, number: int, phase: MigrationPhase) -> Migration:
    """Put a runner on host `a` and its migration to host `b` into the store, in this phase."""
    for name in ("a", "b"):
        if store.hosts.get(HostId(name)) is None:
            store.hosts.add(a_host(name))
    runner = a_runner(number, "a")
    migration = a_migration(runner, "b", phase)
    store.runners.add(runner)
    with store.runners.lease(runner.id) as lease:
        lease.write(replace(runner, migration_id=migration.id), migration)
    return migration
