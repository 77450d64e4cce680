"""A delivery of GitHub's, read and judged; nothing here does I/O.

What we use is checked strictly: GitHub's description of `workflow_job` is the schema, cut to the fields that we read.
What we do not use is kept as it came, so that it can be looked at later.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

import pydantic_core
import zstandard
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from workers.domain.errors import BadInput
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.names import JobId

# Our events stay below 100 kB; GitHub itself stops at 25 MB, but only for events that we do not ask for.
BODY_LIMIT_BYTES: Final = 1 << 20

_GUID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_EVENT: Final = re.compile(r"[a-z_]{1,64}")

# Numbers must fit the store's columns, 64 bits but for attempts, and PostgreSQL takes no NUL in a text.
_Number = Annotated[int, Field(gt=0, lt=1 << 63)]
_Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Job(_Strict):
    id: _Number
    run_id: _Number
    run_attempt: Annotated[int, Field(gt=0, lt=1 << 31)]
    name: _Text
    labels: Annotated[tuple[_Text, ...], Field(max_length=100)]
    # GitHub writes 0 for a job that no runner has taken.
    runner_id: Annotated[int, Field(ge=0, lt=1 << 63)] | None
    runner_name: _Text | None
    conclusion: _Text | None


class _Repository(_Strict):
    full_name: Annotated[_Text, StringConstraints(pattern=r"^[^/\s]+/[^/\s]+$")]
    private: bool | None = None


class _Installation(_Strict):
    id: _Number


class _WorkflowJob(_Strict):
    action: JobAction
    workflow_job: _Job
    repository: _Repository
    # An App's deliveries have it. A repository's own webhook has none, and without it we may do nothing there.
    installation: _Installation | None = None


class Headers(Protocol):
    def get(self, key: str, default: str, /) -> str:
        """Return a header, whatever its letters' case."""


def read(headers: Headers, body: bytes, now: datetime) -> Delivery:
    """Return what was delivered. Raises `BadInput` if it is not JSON or not its event's schema."""
    guid = _header(headers, "X-GitHub-Delivery", _GUID)
    event = _header(headers, "X-GitHub-Event", _EVENT)
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise BadInput(f"Content-Type is {content_type!r}; set the webhook's content type to application/json")
    content = _json(body)
    action = content.get("action")
    return Delivery(
        guid=guid,
        event=event,
        action=action if isinstance(action, str) and _EVENT.fullmatch(action) else None,
        received_at=now,
        body=zstandard.compress(body, 1),
        fact=_fact(guid, body, now) if event == "workflow_job" and _is_used(action) else None,
    )


def _header(headers: Headers, name: str, form: re.Pattern[str]) -> str:
    value = headers.get(name, "")
    if not form.fullmatch(value):
        raise BadInput(f"the header {name} is {'missing' if not value else 'malformed'}; GitHub always sends it")
    return value


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadInput(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInput("the body is not a JSON object")
    return content


def _is_used(action: object) -> bool:
    """An action that GitHub may invent later is kept, a missing one is not the event's schema."""
    return not isinstance(action, str) or action in set(JobAction)


def _fact(guid: str, body: bytes, now: datetime) -> JobFact | None:
    try:
        said = _WorkflowJob.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"not a workflow_job event: {place}: {first['msg']}") from error
    if said.installation is None:
        return None
    job = said.workflow_job
    return JobFact(
        delivery=guid,
        action=said.action,
        seen_at=now,
        job_id=JobId(job.id),
        installation_id=said.installation.id,
        repository=said.repository.full_name,
        run_id=job.run_id,
        run_attempt=job.run_attempt,
        name=job.name,
        labels=job.labels,
        runner_id=job.runner_id or None,
        runner_name=job.runner_name or None,
        conclusion=job.conclusion,
        is_public=None if said.repository.private is None else not said.repository.private,
    )
