"""Rows as small as they can be, to be changed by `replace`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.fakes.classes import VIRTUALIZED
from workers.domain.events import JobAction, JobFact
from workers.domain.host import Host, HostState
from workers.domain.job import Job, JobState
from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, JobId, MigrationId, PackageDigest, RunnerId
from workers.domain.runner import Runner, RunnerState, Shape

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
SMALL = Shape(vcpus=1, memory_mib=1024, disk_mib=4096)
SPEC = Shape(vcpus=4, memory_mib=2048, disk_mib=65536)
CLASS = VIRTUALIZED


def a_host(name: str = "a", state: HostState = HostState.READY, deadline_at: datetime | None = None) -> Host:
    return Host(
        HostId(name),
        "fake",
        state,
        NOW,
        SPEC,
        address=f"10.90.0.{ord(name[0])}",
        host_class=CLASS,
        heartbeat_at=NOW,
        deadline_at=deadline_at,
    )


def a_runner(name: str = "r", host: str = "a", state: RunnerState = RunnerState.BUSY, job: int = 1) -> Runner:
    return Runner(
        id=RunnerId(name),
        number=0,
        job_id=JobId(job),
        installation_id=1,
        repository="octo/hello",
        labels=("spot-runner",),
        package=PackageDigest("sha256:00"),
        shape=SMALL,
        state=state,
        requested_at=NOW,
        host_id=HostId(host),
        idle_at=NOW,
    )


def a_job(number: int = 1, state: JobState = JobState.QUEUED, runner: str | None = None) -> Job:
    return Job(
        id=JobId(number),
        installation_id=1,
        repository="octo/hello",
        run_id=1,
        run_attempt=1,
        name="build",
        labels=("spot-runner",),
        state=state,
        queued_at=NOW,
        runner_id=RunnerId(runner) if runner else None,
        has_deployment=False,
    )


def a_move(phase: MigrationPhase = MigrationPhase.PLANNED, runner: str = "r") -> Migration:
    return Migration(
        MigrationId("m"), RunnerId(runner), HostId("a"), HostId("b"), phase, 2, planned_at=NOW, deadline_at=NOW + MINUTE
    )


def a_report(
    guest: GuestRunnerState = GuestRunnerState.RUNNING, monitor: MonitorState = MonitorState.RUNNING, epoch: int = 1
) -> RunnerReport:
    return RunnerReport(RunnerId("r"), epoch, monitor, guest)


def a_fact(action: JobAction, runner: str | None = None, conclusion: str | None = None) -> JobFact:
    return JobFact(
        delivery=f"{action}-{runner}-{conclusion}",
        action=action,
        seen_at=NOW,
        job_id=JobId(1),
        installation_id=1,
        repository="octo/hello",
        run_id=1,
        run_attempt=1,
        name="build",
        labels=("spot-runner",),
        runner_id=7 if runner else None,
        runner_name=runner,
        conclusion=conclusion,
    )
