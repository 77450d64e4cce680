"""What GitHub lists: deliveries, repositories, runs, jobs, registrations.

What has not changed since it was last read is answered with 304, which costs nothing of the rate limit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from itertools import islice, takewhile
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog
from github import GithubException

from workers.domain.errors import NotThere, Refused
from workers.domain.listed import DeliveryPage, DeliveryTry, InstallationListed, JobListed, RunnerListed, Scope
from workers.domain.names import JobId
from workers.domain.pace import Seat, Urgency
from workers.github.answers import Answer, Json, understood
from workers.github.calls import Asker, Calls, as_app, runners_path

log = structlog.get_logger()

PER_PAGE: Final = 100
# GitHub allows 10,000 runners in a group, and a page without any ends them; of one state it lists a thousand runs.
PAGES_MAX: Final = 101
# To look into each of them costs three requests of the some thousand that an hour has (`QUIET`).
REPOSITORIES_MAX: Final = 2000
# An answer is some hundred kilobytes at most and mostly a few; of a repository that is looked after five are kept.
REMEMBERED_MAX: Final = 5000
# A run may take longer; GitHub lists them by when they began, the latest first.
RUN_LIMIT: Final = timedelta(days=1)
# GitHub lists runs of one status at a time. A run waits as long as one of its jobs does, whatever the others do.
# Most go on in this order, so one that does while they are read is in one of the lists.
QUIET: Final = ("waiting", "queued", "in_progress")
# Where nothing was heard of for long, a run that has not begun at all is not worth a request.
UNFINISHED: Final = ("requested", "pending", *QUIET)


class Lists:
    """`workers.listing.GitHubLists` for all of our Apps."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[object, ...], tuple[str, Any]] = OrderedDict()
        self._left: dict[int, float] = {}

    @property
    def apps(self) -> Sequence[int]:
        """Our Apps, the first one first."""
        return self._calls.apps

    def left(self, installation_id: int) -> float:
        """Return which part of this hour's requests is left, as the last answer said; 1 if none has."""
        return self._left.get(installation_id, 1.0)

    def deliveries(self, app: int, cursor: str | None = None) -> DeliveryPage:
        """Return one page of tries to deliver to an App's webhook, newest first."""
        parameters = {"per_page": PER_PAGE, **({"cursor": cursor} if cursor else {})}
        itself, path = as_app(app), "/app/hook/deliveries"
        with self._calls.translated(itself, f"listing the deliveries of App {app}"):
            answer = self._calls.ask(itself, "GET", path, parameters=parameters, urgency=Urgency.SWEEP)
            tries = tuple(delivery_try(one, app) for one in answer.body)
            return DeliveryPage(tries, older_cursor(answer.headers.get("link", "")))

    def redeliver(self, app: int, delivery_id: int) -> None:
        """Ask for another try; one that GitHub does not know any more is none of our concern."""
        itself, path = as_app(app), f"/app/hook/deliveries/{delivery_id}/attempts"
        with self._calls.translated(itself, f"asking for delivery {delivery_id} of App {app} once more"):
            try:
                self._calls.ask(itself, "POST", path, urgency=Urgency.POLL)
            except GithubException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise

    def installations(self, app: int) -> Sequence[InstallationListed]:
        """Return the installations of an App, those that are suspended too."""
        with understood(f"reading the installations of App {app}"):
            listed = self._pages(as_app(app), "/app/installations", None, is_there=True)
            return [installation_listed(one) for one in listed]

    def repositories(self, app: int) -> Sequence[Scope]:
        """Return the repositories of an App's installations, `REPOSITORIES_MAX` at most; the log tells of more."""
        with understood(f"reading the repositories of App {app}"):
            found = list(islice(self._repositories(app), REPOSITORIES_MAX + 1))
        if len(found) > REPOSITORIES_MAX:
            log.warning("repositories_unread", app=app, read=REPOSITORIES_MAX)
        return found[:REPOSITORIES_MAX]

    def _repositories(self, app: int) -> Iterator[Scope]:
        for installation in self._pages(as_app(app), "/app/installations", None):
            if installation["suspended_at"] is None:
                here = Seat(app, installation["id"])
                for one in self._pages(here, "/installation/repositories", "repositories"):
                    yield Scope(here.installation, one["full_name"])

    def unfinished_runs(self, scope: Scope, *, is_quiet: bool = False) -> Sequence[int]:
        """Return the runs that have not ended; where it `is_quiet` not those of which no job has come up yet."""
        path, statuses = f"/repos/{scope.repository}/actions/runs", QUIET if is_quiet else UNFINISHED
        pages = (self._pages(scope.installation_id, path, "workflow_runs", status=status) for status in statuses)
        with understood(f"reading {path}"):
            return list(dict.fromkeys(run["id"] for runs in pages for run in runs))

    def finished_runs(self, scope: Scope, since: datetime) -> Mapping[int, datetime]:
        """Return the runs that have ended since then and began no more than a day before that, and when each ended."""
        path, first = f"/repos/{scope.repository}/actions/runs", since - RUN_LIMIT
        pages = self._pages(scope.installation_id, path, "workflow_runs", status="completed")
        with understood(f"reading {path}"):
            young = takewhile(lambda run: datetime.fromisoformat(run["created_at"]) >= first, pages)
            ended = {run["id"]: datetime.fromisoformat(run["updated_at"]) for run in young}
            return {run_id: at for run_id, at in ended.items() if at >= since}

    def all_jobs(self, scope: Scope, run_id: int) -> Sequence[JobListed]:
        """Return the jobs of every attempt of a run; none if GitHub knows of no such run."""
        path = f"/repos/{scope.repository}/actions/runs/{run_id}/jobs"
        with understood(f"reading {path}"):
            return [job_listed(one) for one in self._pages(scope.installation_id, path, "jobs", filter="all")]

    def registrations(self, scope: Scope) -> Sequence[RunnerListed]:
        """Return every registration there, of the repository or (a scope without a slash) of the organization."""
        rows = self._pages(scope.installation_id, runners_path(scope.repository), "runners", is_there=True)
        with understood(f"reading {runners_path(scope.repository)}"):
            return [RunnerListed(one["id"], one["name"], one["busy"]) for one in rows]

    def _pages(
        self, asker: Asker, path: str, key: str | None, *, is_there: bool = False, **parameters: str
    ) -> Iterator[Json]:
        """Yield the rows of a list, page by page, and raise `Refused` if it has more than are read.

        Where GitHub knows of no such thing there is nothing; if we know that it `is_there`, `NotThere` is raised.
        """
        for page in range(1, PAGES_MAX + 1):
            with self._calls.translated(asker, f"reading {path}"):
                try:
                    body = self._read(asker, path, {**parameters, "per_page": PER_PAGE, "page": page})
                except GithubException as error:
                    if error.status != HTTPStatus.NOT_FOUND:
                        raise
                    if is_there:
                        raise NotThere(f"reading {path}: GitHub answered 404; is our App installed there?") from error
                    return
            rows = body if key is None else body[key]
            yield from rows
            if len(rows) < PER_PAGE:
                return
        raise Refused(f"reading {path}: it has more than {(PAGES_MAX - 1) * PER_PAGE} rows, and nobody knows which")

    def _read(self, asker: Asker, path: str, parameters: Mapping[str, str | int]) -> Any:  # noqa: ANN401 - the JSON of any list
        key = (asker, path, *sorted(parameters.items()))
        with self._lock:
            etag, body = self._remembered.get(key, (None, None))
        headers = {"If-None-Match": etag} if etag else None
        answer = self._calls.ask(
            asker, "GET", path, parameters=dict(parameters), headers=headers, urgency=Urgency.SWEEP
        )
        self._note_left(asker, answer)
        if answer.status == HTTPStatus.NOT_MODIFIED:
            return body
        if "etag" in answer.headers:
            self._remember(key, answer.headers["etag"], answer.body)
        return answer.body

    def _remember(self, key: tuple[object, ...], etag: str, body: object) -> None:
        with self._lock:
            self._remembered[key] = (etag, body)
            self._remembered.move_to_end(key)
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)

    def _note_left(self, asker: Asker, answer: Answer) -> None:
        said, installation_id = answer.headers, asker.installation if isinstance(asker, Seat) else asker
        limit = float(said.get("x-ratelimit-limit", 0))
        if limit:
            self._left[installation_id] = float(said.get("x-ratelimit-remaining", limit)) / limit


def delivery_try(delivery: Json, app: int) -> DeliveryTry:
    """Take what we use of a try to deliver to this App."""
    at = datetime.fromisoformat(delivery["delivered_at"])
    return DeliveryTry(delivery["id"], delivery["guid"], at, is_ok(delivery), app)


def is_ok(delivery: Json) -> bool:
    """Say whether a try succeeded, by GitHub's own word and the receiver's."""
    return bool(delivery["status"] == "OK" or HTTPStatus.OK <= delivery["status_code"] < HTTPStatus.MULTIPLE_CHOICES)


def older_cursor(link: str) -> str | None:
    """Return the cursor of the next page from a `Link` header, None on the last one."""
    for part in link.split(","):
        address, _, relation = part.partition(";")
        if relation.strip() == 'rel="next"':
            return parse_qs(urlsplit(address.strip(" <>")).query).get("cursor", [None])[0]
    return None


def installation_listed(installation: Json) -> InstallationListed:
    """Take what deliveries say of an installation, too."""
    return InstallationListed(
        id=installation["id"],
        account=installation["account"]["login"],
        said_at=datetime.fromisoformat(installation["updated_at"]),
        is_suspended=installation["suspended_at"] is not None,
        takes_all=installation["repository_selection"] == "all",
    )


def job_listed(job: Json) -> JobListed:
    """Take what we use of a job; GitHub writes 0 for a runner that there is none of."""
    return JobListed(
        id=JobId(job["id"]),
        run_id=job["run_id"],
        run_attempt=job.get("run_attempt", 1),
        name=job["name"],
        labels=tuple(job["labels"]),
        status=job["status"],
        conclusion=job["conclusion"],
        runner_id=job["runner_id"] or None,
        runner_name=job["runner_name"] or None,
        head_sha=job["head_sha"],
        head_branch=job.get("head_branch"),
    )
