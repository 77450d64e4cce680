"""What the fake GitHub lists: tries to deliver, runs, jobs, registrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Protocol

from workers.domain.errors import NotThere
from workers.domain.events import Delivery, JobFact
from workers.domain.listed import DeliveryPage, DeliveryTry, InstallationListed, JobListed, RunnerListed, Scope

if TYPE_CHECKING:
    from tests.fakes.github import FakeGitHub, RemoteJob

PAGE = 100
APP = 7
HOME = Scope(1, "octo/hello")
# Which may be of several Apps.
INSTALLATIONS = {"octo": (1, 3), "hexa": (2,)}


@dataclass(frozen=True)
class Tried:
    said: DeliveryTry
    delivery: Delivery


class Carrier(Protocol):
    def send(self, fact: JobFact) -> None:
        """Take what one delivery is to say."""

    def arrived(self, now: datetime) -> list[Delivery]:
        """Return what arrives now."""


class Post:
    """Carries deliveries to a receiver that may be down, and remembers every try."""

    def __init__(self) -> None:
        self.is_receiver_down = False
        self.tries: list[Tried] = []
        self.on_the_way: list[tuple[datetime, Delivery]] = []
        self._numbers = count(1)

    def arrived(self, now: datetime) -> list[Delivery]:
        """Return what arrives now; a receiver that is down gets nothing, and GitHub does not try again by itself."""
        here = [one for at, one in self.on_the_way if at <= now]
        self.on_the_way = [(at, one) for at, one in self.on_the_way if at > now]
        for one in here:
            said = DeliveryTry(next(self._numbers), one.guid, now, not self.is_receiver_down, APP)
            self.tries.append(Tried(said, one))
        return [] if self.is_receiver_down else here

    def send_again(self, delivery_id: int, now: datetime) -> None:
        found = next((one.delivery for one in self.tries if one.said.id == delivery_id), None)
        if found is not None:
            fact = replace(found.fact, seen_at=now) if found.fact else None
            self.on_the_way.append((now, replace(found, received_at=now, fact=fact)))


@dataclass
class FakeLists:
    """`listing.GitHubLists` of a fake GitHub."""

    github: FakeGitHub
    requests_left: float = 1.0
    apps: Sequence[int] = (APP,)
    hidden: set[Scope] = field(default_factory=set)
    """Of whose registrations it answers that there is no such place."""
    said_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    """When GitHub says that the installation was changed last."""

    def left(self, installation_id: int) -> float:
        return self.requests_left

    def deliveries(self, app: int, cursor: str | None = None) -> DeliveryPage:
        with self.github.trouble.befalls("github", "deliveries", cursor):
            newest_first = [one.said for one in reversed(self.github.post.tries) if one.said.app == app]
            first = int(cursor or 0)
            older = str(first + PAGE) if len(newest_first) > first + PAGE else None
            return DeliveryPage(tuple(newest_first[first : first + PAGE]), older)

    def redeliver(self, app: int, delivery_id: int) -> None:
        with self.github.trouble.befalls("github", "redeliver", delivery_id):
            self.github.post.send_again(delivery_id, self.github.clock.now())

    def installations(self, app: int) -> Sequence[InstallationListed]:
        with self.github.trouble.befalls("github", "installations", app):
            if not self.github.is_installed:
                return []
            return [
                InstallationListed(number, owner, self.said_at, self.github.is_suspended, takes_all=False)
                for owner, numbers in INSTALLATIONS.items()
                for number in numbers
            ]

    def repositories(self, app: int) -> Sequence[Scope]:
        with self.github.trouble.befalls("github", "repositories", app):
            return [HOME] if self.github.is_installed and not self.github.is_suspended else []

    def unfinished_runs(self, scope: Scope, *, is_quiet: bool = False) -> Sequence[int]:
        with self.github.trouble.befalls("github", "unfinished_runs", scope.repository):
            passed_over = {"completed", "pending"} if is_quiet else {"completed"}
            return list(dict.fromkeys(job.run_id for job in self._jobs(scope) if job.status not in passed_over))

    def finished_runs(self, scope: Scope, since: datetime) -> Mapping[int, datetime]:
        with self.github.trouble.befalls("github", "finished_runs", scope.repository):
            jobs = self._jobs(scope)
            unfinished = {job.run_id for job in jobs if job.status != "completed"}
            ended = dict[int, datetime]()
            for job in reversed(jobs):
                if job.completed_at is not None and job.run_id not in unfinished:
                    ended[job.run_id] = max(job.completed_at, ended.get(job.run_id, job.completed_at))
            return {run_id: at for run_id, at in ended.items() if at >= since}

    def all_jobs(self, scope: Scope, run_id: int) -> Sequence[JobListed]:
        with self.github.trouble.befalls("github", "all_jobs", run_id):
            return [_listed(job) for job in self._jobs(scope) if job.run_id == run_id]

    def registrations(self, scope: Scope) -> Sequence[RunnerListed]:
        with self.github.trouble.befalls("github", "registrations", scope.repository):
            owner = scope.repository.partition("/")[0]
            is_known = scope.installation_id in INSTALLATIONS.get(owner, ()) and scope not in self.hidden
            if not self.github.knows_us() or not is_known:
                raise NotThere(f"GitHub knows of no {scope.repository}")
            here = (one for one in self.github.runners.values() if one.place == scope.repository)
            return [RunnerListed(one.github_id, one.name, one.job is not None) for one in here]

    def _jobs(self, scope: Scope) -> list[RemoteJob]:
        return list(self.github.jobs.values()) if self._sees(scope) else []

    def _sees(self, scope: Scope) -> bool:
        return self.github.knows_us() and scope == HOME


def _listed(job: RemoteJob) -> JobListed:
    return JobListed(
        id=job.id,
        run_id=job.run_id,
        run_attempt=job.attempt,
        name="build",
        labels=job.labels,
        status=job.status,
        conclusion=job.conclusion,
        runner_id=job.runner.github_id if job.runner else None,
        runner_name=job.runner.name if job.runner else None,
        head_sha=f"{job.run_id:040x}",
        head_branch=job.branch,
    )
