"""Check runs: what an App may put beside a commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from workers.rehearsal.github.deliveries import deployment_of
from workers.rehearsal.github.login import Login
from workers.rehearsal.github.paging import page_of
from workers.rehearsal.github.records import ApiError, Job, Json
from workers.rehearsal.github.views import Views, job_fields, stamp
from workers.rehearsal.github.world import World

Answer = Response | tuple[Response, int]


@dataclass
class CheckRun:
    """One check run."""

    id: int
    repository: str
    head_sha: str
    made_at: datetime
    said: Json = field(default_factory=dict)
    """What its maker has said of it, the latest words."""
    words: int = 1
    """How often its maker has spoken."""


class Checks:
    """Every check run, and the routes that make and show them."""

    def __init__(self, world: World, login: Login, views: Views) -> None:
        self._world, self._login, self._views = world, login, views
        self._runs: dict[int, CheckRun] = {}

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("checks", __name__)
        place = "/repos/<owner>/<repo>"
        routes.post(f"{place}/check-runs")(self.make)
        routes.patch(f"{place}/check-runs/<int:check_id>")(self.change)
        routes.get(f"{place}/check-runs/<int:check_id>")(self.one)
        routes.get(f"{place}/commits/<ref>/check-runs")(self.of_commit)
        routes.get("/_simulator/checks")(self.all)
        return routes

    def make(self, owner: str, repo: str) -> Answer:
        """Keep a check run; GitHub makes another one however alike they are."""
        self._login.require_installation(owner)
        said = request.get_json()
        with self._world.changed:
            number = self._world.free_id()
            run = CheckRun(number, f"{owner}/{repo}", said["head_sha"], self._world.clock.now(), said)
            self._runs[number] = run
        return jsonify(self._view(run)), HTTPStatus.CREATED

    def change(self, check_id: int, owner: str, repo: str) -> Answer:
        """Put other words into a check run."""
        self._login.require_installation(owner)
        with self._world.changed:
            run = self._runs.get(check_id)
            if run is None or run.repository.lower() != f"{owner}/{repo}".lower():
                raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
            run.said, run.words = run.said | request.get_json(), run.words + 1
        return jsonify(self._view(run))

    def one(self, check_id: int, owner: str, repo: str) -> Answer:
        """Show a check run; that of a job of GitHub's own has the job's number, and its deployment if it has one."""
        self._login.require_installation(owner)
        place = f"{owner}/{repo}".lower()
        with self._world.changed:
            run, job = self._runs.get(check_id), self._world.jobs.get(check_id)
            if run is not None and run.repository.lower() == place:
                return jsonify(self._view(run))
            if job is None or job.run.repository.lower() != place:
                raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
            return jsonify(self._of_job(job))

    def of_commit(self, owner: str, repo: str, ref: str) -> Answer:
        """List the check runs beside a commit, the newest first."""
        self._login.require_installation(owner)
        rows = list(self._beside(f"{owner}/{repo}", ref))
        return jsonify({"total_count": len(rows), "check_runs": [self._view(run) for run in page_of(rows)]})

    def _beside(self, repository: str, ref: str) -> Iterator[CheckRun]:
        name = request.args.get("check_name")
        for run in reversed(list(self._runs.values())):
            if (run.repository.lower(), run.head_sha) == (repository.lower(), ref) and name in {None, run.said["name"]}:
                yield run

    def all(self) -> Answer:
        """Tell everything that was said beside commits; only the rehearsal asks this."""
        with self._world.changed:
            shown = [{"repository": run.repository, "words": run.words, **run.said} for run in self._runs.values()]
        return jsonify(shown)

    def _of_job(self, job: Job) -> Json:
        words = {key: job_fields(job)[key] for key in ("name", "head_sha", "status", "conclusion", "started_at")}
        sample = self._views.sample("get /repos/{owner}/{repo}/check-runs/{check_run_id}", job.run.repository)
        view = sample | {"id": job.id, "external_id": str(job.id), "completed_at": stamp(job.completed_at)} | words
        if job.environment is not None:
            whole = deployment_of(job, self._views.url)
            view["deployment"] = {key: whole[key] for key in whole if key not in {"creator", "sha", "ref", "payload"}}
        return view

    def _view(self, run: CheckRun) -> Json:
        said, sample = run.said, self._views.sample("post /repos/{owner}/{repo}/check-runs", run.repository)
        known = {key: said[key] for key in ("name", "external_id", "status", "conclusion") if key in said}
        output = sample["output"] | said.get("output", {})
        moments = {"started_at": stamp(run.made_at), "completed_at": stamp(run.made_at)}
        return sample | {"id": run.id, "head_sha": run.head_sha, "output": output} | known | moments
