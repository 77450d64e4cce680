"""How the simulated GitHub shows its records: the published samples with only what differs replaced."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from workers.rehearsal.github.contract import published
from workers.rehearsal.github.records import (
    App,
    Delivery,
    Installation,
    Job,
    JobStatus,
    Json,
    Run,
    Runner,
    Step,
    Token,
    Tree,
)
from workers.rehearsal.github.world import World, is_busy

API: Final = "https://api.github.com"
SITE: Final = "https://github.com"
SAMPLE_REPOSITORIES: Final = ("octo-org/octo-repo", "octocat/Hello-World")


def stamp(at: datetime | None) -> str | None:
    """Write a moment as GitHub does."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rewritten(part: Tree, words: Mapping[str, str]) -> Tree:
    """Return a copy with words replaced in every text."""
    if isinstance(part, dict):
        return {key: rewritten(value, words) for key, value in part.items()}
    if isinstance(part, list):
        return [rewritten(value, words) for value in part]
    if isinstance(part, str):
        for word, instead in words.items():
            part = part.replace(word, instead)
    return part


def step_view(step: Step) -> Json:
    """Show a step as both the API and a delivery do."""
    status = "completed" if step.conclusion else "in_progress" if step.started_at else "queued"
    return {
        "name": step.name,
        "status": status,
        "conclusion": step.conclusion,
        "number": step.number,
        "started_at": stamp(step.started_at),
        "completed_at": stamp(step.completed_at),
    }


def job_fields(job: Job) -> Json:
    """Return what differs from sample to sample; the same names stand in the API and in deliveries."""
    taken = job.runner is not None and job.status is not JobStatus.QUEUED
    runner: Json = {"runner_id": None, "runner_name": None, "runner_group_id": None, "runner_group_name": None}
    if taken and job.runner is not None:
        group = {"runner_group_id": job.runner.group.id, "runner_group_name": job.runner.group.name}
        runner = {"runner_id": job.runner.id, "runner_name": job.runner.name, **group}
    return {
        "id": job.id,
        "run_id": job.run.id,
        "run_attempt": job.attempt,
        "head_sha": job.run.head_sha,
        "head_branch": job.run.branch,
        "status": job.status.value,
        "conclusion": job.conclusion,
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at or job.created_at),
        "completed_at": stamp(job.completed_at),
        "name": job.name,
        "labels": list(job.labels),
        "steps": [step_view(step) for step in job.steps] if job.started_at else [],
        **runner,
    }


def status_of(run: Run) -> str:
    """Summarise its latest attempt as GitHub does."""
    if run.is_over:
        return "completed"
    # Even while others of its jobs run: https://github.com/Helvesec/rmux/pull/167.
    if any(job.status is JobStatus.WAITING for job in run.of_attempt()):
        return "waiting"
    return "in_progress" if any(job.started_at for job in run.of_attempt()) else "queued"


def visibility_of(run: Run) -> Json:
    """Say who can see its repository, as both the API and a delivery do."""
    return {"private": run.is_private, "visibility": "private" if run.is_private else "public"}


class Views:
    """Shows records under the simulator's own address."""

    def __init__(self, url: str, world: World) -> None:
        """`url` is the API's root as callers see it: clients insist that links lead back to it."""
        self.url = url
        self._world = world

    def sample(self, operation: str, repository: str | None = None) -> Json:
        """Return the published sample of an answer, under our own address and this repository's name."""
        words = {API: self.url, SITE: self.url}
        if repository:
            words |= dict.fromkeys(SAMPLE_REPOSITORIES, repository)
        view: Json = rewritten(published("responses")[operation], words)
        return view

    def app(self, app: App) -> Json:
        """One App, as it sees itself."""
        view = self.sample("get /app")
        view["owner"] |= {"login": app.owner, "type": "Organization"}
        installed = sum(one.app is app for one in list(self._world.installations.values()))
        return view | {
            "id": app.id,
            "slug": app.slug,
            "name": app.name,
            "html_url": f"{self.url}/apps/{app.slug}",
            "permissions": app.permissions,
            "events": list(app.events),
            "installations_count": installed,
        }

    def made_app(self, app: App, pem: str) -> Json:
        """One App with its secrets, which its maker is shown once."""
        return self.app(app) | {
            "client_id": f"Iv1.{app.id:016x}",
            "client_secret": app.hook_secret[::-1],
            "webhook_secret": app.hook_secret,
            "pem": pem,
        }

    def hook(self, app: App) -> Json:
        """Where an App's deliveries go."""
        return {"url": app.hook_url, "content_type": "json", "insecure_ssl": "0", "secret": "********"}

    def installation(self, installation: Installation) -> Json:
        """One installation of the App."""
        view = self.sample("get /app/installations/{installation_id}")
        view["account"]["login"] = installation.account
        moment, app = stamp(installation.created_at), installation.app
        return view | {
            "id": installation.id,
            "app_id": app.id,
            "app_slug": app.slug,
            "target_type": "Organization",
            "html_url": f"{self.url}/organizations/{installation.account}/settings/installations/{installation.id}",
            "permissions": installation.permissions,
            "events": list(app.events),
            "suspended_at": stamp(installation.suspended_at) if installation.suspended_at else None,
            "suspended_by": None,
            "created_at": moment,
            "updated_at": stamp(installation.updated_at) if installation.updated_at else moment,
        }

    def repository(self, full_name: str) -> Json:
        """One repository that an installation may see."""
        owner, name = full_name.split("/", maxsplit=1)
        view = self.sample("get /installation/repositories", full_name)["repositories"][0]
        view["owner"]["login"] = owner
        rewrite: Json = view | {
            "name": name,
            "full_name": full_name,
            "private": full_name.lower() in self._world.private,
        }
        return rewrite

    def token(self, token: Token) -> Json:
        """An access token, which only its owner is shown."""
        return {
            "token": token.text,
            "expires_at": stamp(token.expires_at),
            "permissions": token.installation.permissions,
            "repository_selection": "all",
        }

    def runner(self, runner: Runner) -> Json:
        """One registration."""
        return {
            "id": runner.id,
            "runner_group_id": runner.group.id,
            "name": runner.name,
            "os": "linux" if runner.seen_at else "unknown",
            "status": "online" if self._world.is_online(runner) else "offline",
            "busy": is_busy(runner),
            "ephemeral": True,
            "labels": [{"id": n, "name": name, "type": "custom"} for n, name in enumerate(runner.labels, start=1)],
        }

    def job(self, job: Job) -> Json:
        """One attempt at a job."""
        repository = job.run.repository
        view = self.sample("get /repos/{owner}/{repo}/actions/jobs/{job_id}", repository)
        words = {"399444496": str(job.id), "29679449": str(job.run.id)}
        rewrite: Json = rewritten(view, words)
        return rewrite | job_fields(job)

    def run(self, run: Run) -> Json:
        """A run in its latest attempt."""
        view = self.sample("get /repos/{owner}/{repo}/actions/runs/{run_id}", run.repository)
        rewrite: Json = rewritten(view, {"30433642": str(run.id)})
        rewrite["repository"]["private"] = run.is_private
        if not run.is_of_fork:
            rewrite["head_repository"]["id"] = rewrite["repository"]["id"]
        return rewrite | {
            "id": run.id,
            "run_attempt": run.attempt,
            "head_sha": run.head_sha,
            "head_branch": run.branch,
            "status": status_of(run),
            "conclusion": run.conclusion,
            "created_at": stamp(run.created_at),
            "updated_at": stamp(max(job.completed_at or job.created_at for job in run.jobs)),
            "run_started_at": stamp(run.of_attempt()[0].created_at),
        }

    def delivery(self, delivery: Delivery) -> Json:
        """One try to deliver, as the list shows it."""
        return {
            "id": delivery.id,
            "guid": delivery.guid,
            "delivered_at": stamp(delivery.delivered_at),
            "redelivery": delivery.redelivery,
            "duration": delivery.duration,
            "status": delivery.status,
            "status_code": delivery.status_code,
            "event": delivery.event,
            "action": delivery.action,
            "installation_id": delivery.installation_id,
            "repository_id": delivery.payload.get("repository", {}).get("id"),
        }

    def whole_delivery(self, delivery: Delivery) -> Json:
        """One try to deliver, with what was said."""
        return self.delivery(delivery) | {
            "url": delivery.app.hook_url,
            "request": {"headers": delivery.headers, "payload": delivery.payload},
            "response": {"headers": {}, "payload": delivery.answer},
        }
