"""How a runner gets its job and reports on it.

GitHub's own protocol for runners is not published, so the paths and bodies here are ours; what they stand for is not:
a session, a long poll that offers one job, a lock that must be renewed, a stream of events, one conclusion.
Every call may be repeated: the answer is the same and nothing happens twice.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

from workers.rehearsal.github.records import ApiError, Job, JobStatus, Json, Line, Runner, Step
from workers.rehearsal.github.world import TAKE_LIMIT, World, fits, is_busy

# A real long poll ends after about 50 s too.
POLL_LIMIT_S: Final = 50.0
LINE_LENGTH_MAX: Final = 64 * 1024
CONCLUSIONS: Final = frozenset({"success", "failure", "cancelled", "skipped"})


class Broker:
    """What a runner may say, on the world's lock."""

    def __init__(self, world: World) -> None:
        self.world = world

    def runner_by_secret(self, secret: str) -> Runner:
        """Return who is speaking; a runner whose job is over is still known."""
        with self.world.changed:
            runner = self.world.by_secret.get(secret)
            if runner is not None:
                runner.seen_at = self.world.clock.now()
                return runner
        raise ApiError(HTTPStatus.UNAUTHORIZED, "no registration has these credentials")

    def open_session(self, runner: Runner, session: str, version: str = "") -> Json:
        """Begin, or begin anew: a runner that already has a job cannot have another session."""
        with self.world.changed:
            require_live(runner)
            if is_busy(runner) and runner.session != session:
                raise ApiError(HTTPStatus.CONFLICT, f"{runner.name} already runs a job in another session")
            runner.session, runner.version = session, version
            runner.connected_at = runner.connected_at or self.world.clock.now()
            return {"runner": runner.name, "poll_seconds": POLL_LIMIT_S}

    def next_offer(self, runner: Runner, session: str, wait_s: float) -> Json | None:
        """Wait for a job that fits and offer it; the same one until it is taken or taken back."""
        world = self.world
        with world.changed:
            world.changed.wait_for(lambda: self._has_news(runner, session), timeout=max(0.0, min(wait_s, POLL_LIMIT_S)))
            runner.seen_at = world.clock.now()
            require_live(runner)
            if runner.session != session:
                raise ApiError(HTTPStatus.CONFLICT, f"{runner.name} has another session now")
            job = runner.job or self._first_fitting(runner)
            return None if job is None else self._offer(runner, job)

    def _has_news(self, runner: Runner, session: str) -> bool:
        if runner.gone_because is not None or runner.session != session or runner.job is not None:
            return True
        return self._first_fitting(runner) is not None

    def _first_fitting(self, runner: Runner) -> Job | None:
        if self.world.is_outdated(runner):
            return None
        waiting = (
            job for job in self.world.unfinished.values() if job.status is JobStatus.QUEUED and job.runner is None
        )
        return next((job for job in waiting if fits(runner, job)), None)

    def _offer(self, runner: Runner, job: Job) -> Json:
        if job.status is JobStatus.QUEUED and job.runner is None:
            job.runner, runner.job = runner, job
            job.offered_until = self.world.clock.now() + TAKE_LIMIT
        return {"job_id": job.id}

    def acquire(self, runner: Runner, job_id: int) -> Json:
        """Take the job that was offered: its lock starts, and it is in progress."""
        world = self.world
        with world.changed:
            job = self._job_of(runner, job_id)
            if job.status is JobStatus.QUEUED:
                job.status, job.offered_until = JobStatus.IN_PROGRESS, None
                job.started_at = world.clock.now()
                job.lock_until = world.clock.now() + world.limits.lock
                world.announce("in_progress", job)
            return order_of(job, world.limits.lock)

    def renew(self, runner: Runner, job_id: int) -> Json:
        """Keep the job's lock alive."""
        world = self.world
        with world.changed:
            job = self._job_of(runner, job_id)
            job.lock_until = world.clock.now() + world.limits.lock
            return {"lock_seconds": world.limits.lock.total_seconds()}

    def append(self, runner: Runner, job_id: int, first: int, events: Sequence[Mapping[str, Any]]) -> Json:
        """Take a batch of events, the first of which has number `first`; those that are known already are passed over.

        An event that comes twice must be the same both times: if it differs, two copies of one runner are at work, and
        that is kept as a violation.
        """
        with self.world.changed:
            job = self._job_of(runner, job_id)
            if first > len(job.digests):
                raise ApiError(HTTPStatus.CONFLICT, f"event {len(job.digests)} is missing before event {first}")
            for number, event in enumerate(events, start=first):
                self._append_one(job, number, event)
            return {"next": len(job.digests)}

    def _append_one(self, job: Job, number: int, event: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()
        if number < len(job.digests):
            if job.digests[number] != digest:
                self.world.violated(f"job {job.id}", f"event {number} came twice and is not the same")
            return
        self._note(job, event)
        job.digests.append(digest)

    def _note(self, job: Job, event: Mapping[str, Any]) -> None:
        now = self.world.clock.now()
        step = step_of(job, event.get("step"))
        match event:
            case {"kind": "line", "text": str(text), "at": float() | int() as at}:
                job.log.append(Line(now, float(at), step.number, text[:LINE_LENGTH_MAX]))
            case {"kind": "started"}:
                step.starts += 1
                step.started_at = now
            case {"kind": "ended", "conclusion": str(conclusion)} if conclusion in CONCLUSIONS:
                step.conclusion, step.completed_at = conclusion, now
            case _:
                raise ApiError(HTTPStatus.BAD_REQUEST, f"not an event: {event!r:.200}")

    def finish(self, runner: Runner, job_id: int, conclusion: str) -> None:
        """Report the job's end; saying it twice is harmless."""
        if conclusion not in CONCLUSIONS:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"not a conclusion: {conclusion!r:.80}")
        with self.world.changed:
            job = self.world.jobs.get(job_id)
            if job is not None and job.runner is runner and job.is_over and job.conclusion == conclusion:
                return
            self.world.complete(self._job_of(runner, job_id), conclusion)

    def _job_of(self, runner: Runner, job_id: int) -> Job:
        """Return the job that this runner has; 404 if it never had it, 410 if it lost it."""
        job = self.world.jobs.get(job_id)
        if job is None or job.runner is not runner:
            raise ApiError(HTTPStatus.NOT_FOUND, f"job {job_id} is not this runner's")
        if job.is_over:
            raise ApiError(HTTPStatus.GONE, f"job {job_id} is over ({job.conclusion})")
        return job


def require_live(runner: Runner) -> None:
    """Refuse a runner whose registration is no more."""
    if runner.gone_because is not None:
        raise ApiError(HTTPStatus.GONE, f"{runner.name} is not registered any more: {runner.gone_because}")


def step_of(job: Job, number: object) -> Step:
    """Return the step with this number."""
    found = next((step for step in job.steps if step.number == number), None)
    if found is None:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"job {job.id} has no step {number!r:.20}")
    return found


def order_of(job: Job, lock: timedelta) -> Json:
    """Tell the runner what to run."""
    return {
        "job_id": job.id,
        "name": job.name,
        "repository": job.run.repository,
        "run_id": job.run.id,
        "run_attempt": job.attempt,
        "lock_seconds": lock.total_seconds(),
        "steps": [{"number": step.number, "name": step.name, "run": step.run} for step in job.steps],
    }


def encoded_jit_config(runner: Runner, server_url: str, work_folder: str) -> str:
    """Encode the runner's configuration in the shape that actions/runner reads: base64 of files, each base64 of JSON.

    The key pair is absent: GitHub's runner signs its way to a token with it, ours shows its secret.
    """
    files: dict[str, Json] = {
        ".runner": {
            "AgentId": str(runner.id),
            "AgentName": runner.name,
            "PoolId": "1",
            "PoolName": "Default",
            "DisableUpdate": "True",
            "Ephemeral": "True",
            "ServerUrl": server_url,
            "GitHubUrl": f"{server_url}/{runner.scope}",
            "WorkFolder": work_folder,
            "UseV2Flow": "True",
        },
        ".credentials": {"Scheme": "Rehearsal", "Data": {"ClientId": str(runner.id), "Secret": runner.secret}},
        ".credentials_rsaparams": {},
    }
    return encoded({name: encoded(content) for name, content in files.items()})


def encoded(content: Json) -> str:
    """Return base64 of JSON."""
    return base64.b64encode(json.dumps(content).encode()).decode()
