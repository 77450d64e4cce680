"""GitHub, as a GitHub App sees it: just-in-time runners, one job's state, and the rerun of what failed.

PyGithub does login, tokens and connections; its own throttling and retries are off, because a task must end in seconds
and is run again anyway. Where its methods drop what we need (a runner's id, repository-level configurations) or ask
twice, its requester is called with the path as GitHub documents it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from github import Auth, Github, GithubException
from github.Requester import Requester
from requests import RequestException

from workers.domain.errors import BadInput, Refused, RunnerBusy, SpotError, Throttled, TryLater, Unreachable
from workers.domain.names import JobId
from workers.ports import JobSeen, Registration, RunSeen

# GitHub's default group, which every repository and organization has.
RUNNER_GROUP: Final = 1
WORK_FOLDER: Final = "_work"
TIMEOUT_S: Final = 10
# GitHub tells these two apart from a missing permission by their text alone.
STILL_RUNNING: Final = "already running"
RATE_LIMIT: Final = "rate limit"
BAD_KEY: Final = "the GitHub App's private key is of no use (generate one in the App's settings)"

Json = dict[str, Any]


class AppGitHub:
    """`workers.ports.GitHub` for one App; every thread has connections and tokens of its own."""

    def __init__(self, url: str, app_id: int, private_key_pem: str) -> None:
        """`url` is the API's root, without a slash at its end. Raises `BadInput` for a key that cannot sign."""
        require_key(private_key_pem)
        self._login = Auth.AppAuth(app_id, private_key_pem)
        self._options: Json = {
            "base_url": url,
            "seconds_between_requests": 0,
            "seconds_between_writes": 0,
            "retry": None,
            "timeout": TIMEOUT_S,
            "per_page": 100,
            "user_agent": "spot-runner",
            "lazy": True,
        }
        self._mine = threading.local()

    def register(self, installation_id: int, repository: str, name: str, labels: Sequence[str]) -> Registration:
        """Register a just-in-time runner. A name that is taken by a registration of ours is freed and taken again."""
        with self._translated(installation_id, f"registering {name} for {repository}"):
            try:
                return self._register(installation_id, repository, name, labels)
            except GithubException as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
            self._free(installation_id, repository, name)
            return self._register(installation_id, repository, name, labels)

    def deregister(self, installation_id: int, repository: str, github_id: int) -> None:
        """Remove a registration; one that is gone is a success. Raises `RunnerBusy`."""
        with self._translated(installation_id, f"removing runner {github_id} of {repository}"):
            self._delete(installation_id, repository, github_id)

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        """Ask about one job; None if GitHub knows of none."""
        with self._translated(installation_id, f"asking about job {job_id} of {repository}"):
            try:
                job = self._ask(installation_id, "GET", f"/repos/{repository}/actions/jobs/{job_id}")
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
        with self._translated(installation_id, f"asking about run {run_id} of {repository}"):
            try:
                run = self._ask(installation_id, "GET", f"/repos/{repository}/actions/runs/{run_id}")
            except GithubException as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise
        # Once a fork is deleted nothing is said of it any more.
        head = (run.get("head_repository") or {}).get("id")
        return RunSeen(is_public=not run["repository"]["private"], is_fork=head != run["repository"]["id"])

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        """Run the failed jobs of a run again. Raises `TryLater` while the attempt has not ended."""
        with self._translated(installation_id, f"rerunning the failed jobs of run {run_id} of {repository}"):
            try:
                self._ask(installation_id, "POST", f"/repos/{repository}/actions/runs/{run_id}/rerun-failed-jobs")
            except GithubException as error:
                if error.status == HTTPStatus.FORBIDDEN and STILL_RUNNING in sentence_of(error).lower():
                    raise TryLater(f"run {run_id} of {repository} has not ended; rerun it when it has") from error
                raise

    def _register(self, installation_id: int, repository: str, name: str, labels: Sequence[str]) -> Registration:
        wish = {"name": name, "runner_group_id": RUNNER_GROUP, "labels": list(labels), "work_folder": WORK_FOLDER}
        path = f"/repos/{repository}/actions/runners/generate-jitconfig"
        answer = self._ask(installation_id, "POST", path, wish)
        return Registration(github_id=answer["runner"]["id"], jit_config=answer["encoded_jit_config"])

    def _free(self, installation_id: int, repository: str, name: str) -> None:
        """Remove the leftover that holds a name: names are unique to one runner of ours, so it is never another's."""
        path = f"/repos/{repository}/actions/runners"
        answer = self._ask(installation_id, "GET", path, parameters={"name": name})
        for runner in answer["runners"]:
            if runner["name"] == name:
                self._delete(installation_id, repository, runner["id"])

    def _delete(self, installation_id: int, repository: str, github_id: int) -> None:
        try:
            self._ask(installation_id, "DELETE", f"/repos/{repository}/actions/runners/{github_id}")
        except GithubException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise RunnerBusy(f"GitHub keeps runner {github_id} of {repository} because it runs a job") from error
            raise

    def _ask(
        self, installation_id: int, verb: str, path: str, body: Json | None = None, parameters: Json | None = None
    ) -> Json:
        """Call GitHub as an installation and return the answer's JSON, empty if there is none."""
        _, answer = self._requester(installation_id).requestJsonAndCheck(verb, path, parameters, input=body)
        return answer or {}

    def _requester(self, installation_id: int) -> Requester:
        """Return this thread's client of an installation; it keeps its token until shortly before that expires."""
        clients: dict[int, Requester] = self._mine.__dict__.setdefault("clients", {})
        if installation_id not in clients:
            login = self._login.get_installation_auth(installation_id)
            clients[installation_id] = Github(auth=login, **self._options).requester
        return clients[installation_id]

    @contextmanager
    def _translated(self, installation_id: int, doing: str) -> Iterator[None]:
        """Turn what PyGithub raises into our errors; `doing` says in words what was tried."""
        try:
            yield
        except RequestException as error:
            raise Unreachable(f"{doing}: GitHub did not answer within {TIMEOUT_S} s") from error
        except GithubException as error:
            if error.status == HTTPStatus.UNAUTHORIZED:
                self._mine.__dict__.get("clients", {}).pop(installation_id, None)
            raise_ours(error, doing)


def require_key(pem: str) -> None:
    """Refuse what is not an App's key before anything is asked with it."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{BAD_KEY}: it cannot be read as a PEM private key without a password") from error
    if not isinstance(key, RSAPrivateKey):
        raise BadInput(f"{BAD_KEY}: it is not an RSA key")


def raise_ours(error: GithubException, doing: str) -> NoReturn:
    """Raise the error that tells the caller what to do now."""
    text = f"{doing}: GitHub answered {error.status}, {sentence_of(error)}"
    kind: type[SpotError] = Refused
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = Unreachable
    elif error.status == HTTPStatus.TOO_MANY_REQUESTS or (
        error.status == HTTPStatus.FORBIDDEN and is_rate_limit(error)
    ):
        kind = Throttled
    raise kind(text) from error


def is_rate_limit(error: GithubException) -> bool:
    """Say whether a 403 is about our pace; the primary limit says so in a header, the secondary in words."""
    headers = error.headers or {}
    return headers.get("x-ratelimit-remaining") == "0" or RATE_LIMIT in sentence_of(error).lower()


def sentence_of(error: GithubException) -> str:
    """Return GitHub's own words."""
    body: object = error.data
    if isinstance(body, dict):
        return str(body.get("message", body))
    return str(body)
