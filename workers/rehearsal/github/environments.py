"""What the rules of an environment do to a job that deploys to it: it waits until somebody approves.

    QUEUED ──held back──▶ WAITING ──approved──▶ QUEUED

GitHub announces both, and of two announcements in one second nothing says which came first.
"""

from __future__ import annotations

from http import HTTPStatus

from workers.rehearsal.github.records import ApiError, Job, JobStatus
from workers.rehearsal.github.world import World


def hold_back(world: World, job: Job) -> None:
    """Let a queued job wait. Raises `ApiError` if it deploys to nothing, or is not queued."""
    with world.changed:
        if job.environment is None:
            raise ApiError(HTTPStatus.CONFLICT, f"job {job.id} names no environment whose rules could hold it back")
        _require(job, JobStatus.QUEUED)
        world.take_back(job)
        _move(world, job, JobStatus.WAITING)


def approve(world: World, job: Job) -> None:
    """Let a job that waits be queued. Raises `ApiError` if it does not wait."""
    with world.changed:
        _require(job, JobStatus.WAITING)
        _move(world, job, JobStatus.QUEUED)


def _require(job: Job, status: JobStatus) -> None:
    if job.status is not status:
        raise ApiError(HTTPStatus.CONFLICT, f"job {job.id} is not {status.value}: it is {job.status.value}")


def _move(world: World, job: Job, status: JobStatus) -> None:
    job.status, job.deployed_at = status, world.clock.now()
    world.announce(status.value, job)
    world.changed.notify_all()
