"""What the rehearsal itself asks of the simulated GitHub, under `/_simulator`; GitHub has nothing like it."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request

from workers.rehearsal.github import environments
from workers.rehearsal.github.deliveries import Sender, summary_of
from workers.rehearsal.github.fates import Dice, Shares
from workers.rehearsal.github.faults import Fault, FaultKind, Faults
from workers.rehearsal.github.installing import Installing
from workers.rehearsal.github.rates import RateLimits
from workers.rehearsal.github.records import ApiError, Job, Json, Runner, Step
from workers.rehearsal.github.world import StepOrder, World, is_busy

Answer = Response | tuple[Response, int]


class Rehearsing:
    """Starts jobs, tells everything about them, plants faults."""

    def __init__(self, world: World, sender: Sender, faults: Faults, rates: RateLimits) -> None:
        self._world = world
        self._sender = sender
        self._faults = faults
        self._rates = rates
        self._installing = Installing(world, sender)

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("rehearsing", __name__, url_prefix="/_simulator")
        routes.post("/installations")(self.install)
        routes.post("/installations/<account>/<change>")(self.change)
        routes.post("/repositories/<owner>/<repo>/make-private")(self.make_private)
        routes.post("/jobs")(self.start)
        routes.get("/jobs")(self.jobs)
        routes.get("/jobs/<int:job_id>")(self.job)
        routes.post("/jobs/<int:job_id>/cancel")(self.cancel)
        routes.post("/jobs/<int:job_id>/hold")(self.hold_back)
        routes.post("/jobs/<int:job_id>/approve")(self.approve)
        routes.post("/jobs/<int:job_id>/expire")(self.expire_lock)
        routes.post("/tokens/expire")(self.expire_tokens)
        routes.post("/runners/remove-idle")(self.remove_idle)
        routes.get("/standing")(self.standing)
        routes.put("/shares")(self.set_shares)
        routes.get("/shares")(self.shares)
        routes.get("/runners")(self.runners)
        routes.get("/deliveries")(self.deliveries)
        routes.get("/violations")(self.violations)
        routes.get("/refused")(self.refused)
        routes.get("/admitted")(self.admitted)
        routes.post("/faults")(self.plant)
        routes.put("/oldest-runner")(self.set_oldest_runner)
        return routes

    def refused(self) -> Answer:
        """Tell how often each rate limit struck."""
        return jsonify(self._rates.refused)

    def admitted(self) -> Answer:
        """Tell how many calls of each kind were let through."""
        return jsonify(self._rates.admitted)

    def install(self) -> Answer:
        """`{"account", "permissions"?, "is_told"?}` installs the App there, once; perhaps with fewer permissions.

        Its receiver hears of it only if that is wanted, since most tests are about other deliveries.
        """
        asked = wish()
        installation = self._world.install(str(asked["account"]), permissions=asked.get("permissions"))
        if asked.get("is_told"):
            self._installing.announce_created(installation)
        return jsonify({"id": installation.id, "account": installation.account}), HTTPStatus.CREATED

    def change(self, account: str, change: str) -> Answer:
        """`suspend`, `unsuspend` or `remove` an installation, or `{"repositories"}` are `added` to it or `removed`."""
        match change:
            case "suspend":
                self._installing.suspend(account)
            case "unsuspend":
                self._installing.unsuspend(account)
            case "remove":
                self._installing.remove(account)
            case "added" | "removed":
                self._installing.change_repositories(account, change, wish()["repositories"])
            case _:
                raise ApiError(HTTPStatus.NOT_FOUND, f"an installation cannot be {change}")
        return jsonify({})

    def start(self) -> Answer:
        """`{"repository", "labels", "steps": [{"name", "run"}], "count", "together", "of_fork", "branch"}` starts jobs.

        Each is a run of its own unless `together`, which makes them the jobs of one run. An `environment` is where they
        deploy to; those `held` wait from their first moment on.
        """
        asked = wish()
        steps = [StepOrder(str(step["name"]), str(step["run"])) for step in asked["steps"]]
        names = [f"{asked.get('name', 'rehearsal')} {number}" for number in range(1, int(asked.get("count", 1)) + 1)]
        groups = [names] if asked.get("together") else [[name] for name in names]
        repository, of_fork = str(asked["repository"]), bool(asked.get("of_fork"))
        more: Any = {"of_fork": of_fork, "branch": str(asked.get("branch", "main"))}
        more["environment"] = asked.get("environment")
        with self._world.changed:  # no runner may take a job that is to be held
            runs = [self._world.start_run(repository, group, asked["labels"], steps, **more) for group in groups]
            jobs = [job for run in runs for job in run.jobs]
            for job in jobs if asked.get("held") else ():
                environments.hold_back(self._world, job)
        ids = [job.id for job in jobs]
        return jsonify({"ids": ids, "run_ids": [run.id for run in runs]}), HTTPStatus.CREATED

    def make_private(self, owner: str, repo: str) -> Answer:
        """Let not everybody see a repository from its next run on."""
        with self._world.changed:
            self._world.private.add(f"{owner}/{repo}".lower())
        return jsonify({})

    def jobs(self) -> Answer:
        with self._world.changed:
            return jsonify([summary(job) for job in self._world.jobs.values()])

    def job(self, job_id: int) -> Answer:
        """Tell all about one job; `?after=N` leaves out the first N lines of its log."""
        after = int(request.args.get("after", 0))
        with self._world.changed:
            job = self._job(job_id)
            attempts = [other for other in job.run.jobs if other.slot == job.slot]
            lines = [asdict(line) | {"at": line.at.timestamp()} for line in job.log[after:]]
            return jsonify(summary(job) | {"attempts": [summary(one) for one in attempts], "log": lines})

    def cancel(self, job_id: int) -> Answer:
        self._world.cancel(self._job(job_id))
        return jsonify({})

    def hold_back(self, job_id: int) -> Answer:
        """Let the rules of its environment hold a queued job back."""
        environments.hold_back(self._world, self._job(job_id))
        return jsonify({})

    def approve(self, job_id: int) -> Answer:
        """Let a job that waits be queued."""
        environments.approve(self._world, self._job(job_id))
        return jsonify({})

    def expire_lock(self, job_id: int) -> Answer:
        """Let a running job's lock expire now."""
        self._world.expire_lock(self._job(job_id))
        return jsonify({})

    def expire_tokens(self) -> Answer:
        """Let every access token expire now."""
        return jsonify({"expired": self._world.expire_tokens()})

    def remove_idle(self) -> Answer:
        """Remove every runner that waits for a job now."""
        return jsonify({"removed": [runner.name for runner in self._world.remove_idle()]})

    def standing(self) -> Answer:
        """Tell in a few numbers how far it is; cheap, for whoever asks often."""
        with self._world.changed:
            numbers = {
                "jobs": len(self._world.jobs),
                "unfinished": len(self._world.unfinished),
                "runners": len(self._world.live),
            }
        return jsonify(numbers | {"undelivered": self._sender.waiting})

    def set_shares(self) -> Answer:
        """Let these shares of all deliveries from now on be lost, doubled, …: the fields of `fates.Shares`."""
        try:
            self._sender.dice = Dice(Shares(**wish()))
        except TypeError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"not shares: {error}") from error
        return jsonify({})

    def shares(self) -> Answer:
        """Tell how many deliveries have met what since the shares were set."""
        return jsonify(dict(self._sender.dice.drawn()))

    def runners(self) -> Answer:
        with self._world.changed:
            return jsonify([self._runner(runner) for runner in self._world.runners.values()])

    def deliveries(self) -> Answer:
        return jsonify([summary_of(delivery) for delivery in list(self._sender.tries.values())])

    def violations(self) -> Answer:
        with self._world.changed:
            return jsonify([asdict(one) | {"at": one.at.timestamp()} for one in self._world.violations])

    def plant(self) -> Answer:
        """`{"kind", "verb", "path", "times", "share"}` lets matching requests of the public API meet a fault."""
        asked = wish()
        times, share = int(asked.get("times", 1)), float(asked.get("share", 1))
        fault = Fault(FaultKind(asked["kind"]), asked["verb"], asked["path"], times, share)
        self._faults.plant(fault)
        return jsonify({}), HTTPStatus.CREATED

    def set_oldest_runner(self) -> Answer:
        """`{"version": "0.2.0"}`: runners of an older release are registered, get no job and are removed."""
        with self._world.changed:
            self._world.oldest_version = str(wish()["version"])
            self._world.changed.notify_all()
        return jsonify({})

    def _job(self, job_id: int) -> Job:
        found = self._world.jobs.get(job_id)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"there is no job {job_id}")
        return found

    def _runner(self, runner: Runner) -> Json:
        return {
            "id": runner.id,
            "name": runner.name,
            "labels": list(runner.labels),
            "scope": runner.scope,
            "group": runner.group.name,
            "online": self._world.is_online(runner),
            "busy": is_busy(runner),
            "gone_because": runner.gone_because,
            "registered_at": runner.registered_at.timestamp(),
        }


def wish() -> Json:
    """Return the request's JSON object."""
    asked = request.get_json()
    if not isinstance(asked, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return asked


def summary(job: Job) -> Json:
    """Tell one attempt at a job; moments are Unix times."""
    moments = {
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "lock_expires_at": job.lock_until,
    }
    return {
        "id": job.id,
        "run_id": job.run.id,
        "run_attempt": job.attempt,
        "repository": job.run.repository,
        "name": job.name,
        "labels": list(job.labels),
        "status": job.status.value,
        "conclusion": job.conclusion,
        "runner_id": job.runner.id if job.runner else None,
        "runner_name": job.runner.name if job.runner else None,
        "steps": [step_summary(step) for step in job.steps],
        "log_lines": len(job.log),
        **{name: at.timestamp() if at else None for name, at in moments.items()},
    }


def step_summary(step: Step) -> Json:
    """Tell one step; `starts` is how often it was started in this attempt."""
    return {
        "number": step.number,
        "name": step.name,
        "starts": step.starts,
        "conclusion": step.conclusion,
        "started_at": step.started_at.timestamp() if step.started_at else None,
        "completed_at": step.completed_at.timestamp() if step.completed_at else None,
    }
