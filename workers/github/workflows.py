"""What GitHub knows of jobs and runs, and the rerun of what failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

from github import GithubException

from workers.domain.errors import TryLater
from workers.domain.job import JobSeen, RunJob, RunSeen
from workers.domain.names import JobId
from workers.domain.pace import Urgency
from workers.github.answers import Json, sentence_of
from workers.github.calls import Calls

# GitHub tells this one apart from a missing permission by its text alone.
STILL_RUNNING: Final = "already running"
PER_PAGE: Final = 100
# A matrix has 256 jobs at most, and nobody's workflow has as many matrices as this would hold.
PAGES_MAX: Final = 20


class Workflows:
    """Asks about jobs and runs."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        """Ask about one job; None if GitHub knows of none."""
        with self._calls.translated(installation_id, f"asking about job {job_id} of {repository}"):
            try:
                job = self._calls.ask(installation_id, "GET", f"/repos/{repository}/actions/jobs/{job_id}").body
            except GithubException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise
            return JobSeen(
                status=job["status"],
                conclusion=job["conclusion"],
                runner_id=job["runner_id"],
                runner_name=job["runner_name"],
                run_attempt=job.get("run_attempt", 1),
            )

    def run(self, installation_id: int, repository: str, run_id: int) -> RunSeen | None:
        """Ask where a run comes from; None if GitHub knows of none."""
        with self._calls.translated(installation_id, f"asking about run {run_id} of {repository}"):
            try:
                path = f"/repos/{repository}/actions/runs/{run_id}"
                # A job waits for the answer: without it no runner is made.
                run = self._calls.ask(installation_id, "GET", path, urgency=Urgency.RUNNER).body
            except GithubException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise
            # Once a fork is deleted nothing is said of it any more.
            head = (run.get("head_repository") or {}).get("id")
            return RunSeen(is_public=not run["repository"]["private"], is_fork=head != run["repository"]["id"])

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        """Run the failed jobs of a run again. Raises `TryLater` while the attempt has not ended."""
        self._rerun(installation_id, f"/repos/{repository}/actions/runs/{run_id}/rerun-failed-jobs")

    def rerun_job(self, installation_id: int, repository: str, job_id: JobId) -> None:
        """Run one job again, and what depends on it. Raises `TryLater` while the attempt has not ended."""
        self._rerun(installation_id, f"/repos/{repository}/actions/jobs/{job_id}/rerun")

    def _rerun(self, installation_id: int, path: str) -> None:
        with self._calls.translated(installation_id, f"asking for {path}"):
            try:
                self._calls.ask(installation_id, "POST", path, urgency=Urgency.RUNNER)
            except GithubException as error:
                if error.status == HTTPStatus.FORBIDDEN and STILL_RUNNING in sentence_of(error).lower():
                    raise TryLater(f"{path}: the run has not ended; ask when it has") from error
                raise

    def jobs_of(self, installation_id: int, repository: str, run_id: int) -> Sequence[RunJob]:
        """Return the jobs of a run's latest attempt; none if GitHub knows of no such run."""
        with self._calls.translated(installation_id, f"asking about the jobs of run {run_id} of {repository}"):
            try:
                return list(self._pages(installation_id, f"/repos/{repository}/actions/runs/{run_id}/jobs"))
            except GithubException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return []
                raise

    def holds_deployment(self, installation_id: int, repository: str, job_id: JobId) -> bool | None:
        """Ask whether a job deploys to an environment; None if GitHub knows of no such job.

        A job's check run has the job's number, and says so (https://docs.github.com/en/rest/checks/runs). Needs
        `checks`, which remarks need, too.
        """
        with self._calls.translated(installation_id, f"asking whether job {job_id} of {repository} deploys"):
            try:
                check = self._calls.ask(installation_id, "GET", f"/repos/{repository}/check-runs/{job_id}").body
            except GithubException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise
            if check["id"] != job_id:
                raise ValueError(f"check run {check['id']!s:.20} instead of {job_id}")
            return check.get("deployment") is not None

    def _pages(self, installation_id: int, path: str) -> Iterator[RunJob]:
        for page in range(1, PAGES_MAX + 1):
            asked = {"filter": "latest", "per_page": PER_PAGE, "page": page}
            listed = self._calls.ask(installation_id, "GET", path, parameters=asked).body["jobs"]
            for one in listed:
                yield _run_job(one)
            if len(listed) < PER_PAGE:
                return


def _run_job(job: Json) -> RunJob:
    ended = job["completed_at"]
    at = None if ended is None else datetime.fromisoformat(ended)
    return RunJob(JobId(job["id"]), job["name"], job["status"], job["conclusion"], at)
