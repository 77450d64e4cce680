"""Deliveries about a job as GitHub makes them: the published payloads with only what differs replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from webhook.deliveries import read
from workers.domain.events import Delivery, JobAction
from workers.rehearsal.github.contract import published
from workers.rehearsal.github.deliveries import recorded

# The only recorded delivery that names a deployment.
WITH_DEPLOYMENT = next(one for one in published("deliveries")["workflow_job"] if "deployment" in one)


@dataclass(frozen=True)
class Said:
    """What one delivery is to say."""

    action: JobAction
    job_id: int = 289782451
    run_id: int = 2202229078
    run_attempt: int = 1
    labels: Sequence[str] = ("spot-runner",)
    runner_id: int | None = None
    runner_name: str | None = None
    conclusion: str | None = None
    deployment_at: datetime | None = None
    """`deployment.updated_at`; `created_at` is the same in all of them."""
    repository: str = "octo/hello"
    installation_id: int = 1


def payload(said: Said) -> dict[str, Any]:
    """Return the whole payload."""
    sample = _recorded(said.action)
    job = sample["workflow_job"] | {
        "id": said.job_id,
        "name": "build",
        "run_id": said.run_id,
        "run_attempt": said.run_attempt,
        "head_sha": f"{said.run_id:040x}",
        "head_branch": "main",
        "labels": list(said.labels),
        "runner_id": said.runner_id,
        "runner_name": said.runner_name,
        "conclusion": said.conclusion,
        "status": "waiting" if said.action is JobAction.WAITING else str(said.action),
    }
    content = sample | {"workflow_job": job, "repository": sample["repository"] | {"full_name": said.repository}}
    content["installation"] = {"id": said.installation_id, "node_id": "MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u"}
    content.pop("deployment", None)
    if said.deployment_at is not None:
        moment = said.deployment_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        content["deployment"] = WITH_DEPLOYMENT["deployment"] | {"updated_at": moment}
    return content


@cache
def _recorded(action: JobAction) -> dict[str, Any]:
    return recorded(action.value)


def delivered(said: Said, guid: str, at: datetime) -> Delivery:
    """Let the production receiver read it."""
    headers = {"X-GitHub-Event": "workflow_job", "X-GitHub-Delivery": guid, "Content-Type": "application/json"}
    return read(headers, json.dumps(payload(said)).encode(), at)
