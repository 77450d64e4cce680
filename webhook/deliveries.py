"""A delivery of GitHub's, read and judged; nothing here does I/O.

What we use is checked strictly: GitHub's description of `workflow_job` is the schema, cut to the fields that we read.
What we do not use is kept as it came, so that it can be looked at later.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol

import pydantic_core
import zstandard
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from webhook import installations
from workers.domain.errors import BadInput
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.installation import Guests
from workers.domain.names import JobId

# Our events stay below 100 kB; GitHub itself stops at 25 MB, but only for events that we do not ask for.
BODY_LIMIT_BYTES: Final = 1 << 20

GUID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
EVENT: Final = re.compile(r"[a-z_]{1,64}")
# Numbers that JSON does not know and pydantic overlooks where it reads nothing. In a text they are harmless.
_NO_JSON: Final = (b"NaN", b"Infinity")

# To make one costs as much as compressing a delivery; it has one state, and threads take turns at it.
_COMPRESSOR: Final = zstandard.ZstdCompressor(level=1)
_ONE_AT_A_TIME: Final = threading.Lock()

# Numbers must fit the store's columns, 64 bits but for attempts, and PostgreSQL takes no NUL in a text.
_Number = Annotated[int, Field(gt=0, lt=1 << 63)]
_Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]


# It becomes a part of the paths that GitHub is asked by.
_Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]


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
    head_sha: _Commit | None = None
    head_branch: _Text | None = None


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is no moment of this era") from error


class _Deployment(_Strict):
    updated_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_utc)]


class _Repository(_Strict):
    full_name: Annotated[_Text, StringConstraints(pattern=r"^[^/\s]+/[^/\s]+$")]
    private: bool | None = None


class _Installation(_Strict):
    id: _Number


class WorkflowJob(_Strict):
    action: JobAction
    workflow_job: _Job
    repository: _Repository
    deployment: _Deployment | None = None
    # An App's deliveries have it. A repository's own webhook has none, and without it we may do nothing there.
    installation: _Installation | None = None


class Headers(Protocol):
    def get(self, key: str, default: str, /) -> str:
        """Return a header, whatever its letters' case."""


def read(headers: Headers, body: bytes, now: datetime) -> Delivery:
    """Return what was delivered. Raises `BadInput` if it is not JSON or not its event's schema."""
    guid = _header(headers, "X-GitHub-Delivery", GUID)
    event = _header(headers, "X-GitHub-Event", EVENT)
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise BadInput(f"Content-Type is {content_type!r}; set the webhook's content type to application/json")
    delivery = Delivery(guid=guid, event=event, action=None, received_at=now, body=_compressed(body))
    if event == "workflow_job" and not any(word in body for word in _NO_JSON):
        with suppress(ValidationError):  # what is wrong, or not used, is found out below
            return _with_job(delivery, WorkflowJob.model_validate_json(body))
    action = _json(body).get("action")
    if isinstance(action, str) and EVENT.fullmatch(action):
        delivery = replace(delivery, action=action)
    return _with_fact(delivery, action, body)


def _with_fact(delivery: Delivery, action: object, body: bytes) -> Delivery:
    """Return the delivery with what it says; an action that GitHub may invent later is kept and says nothing."""
    if delivery.event == "workflow_job" and _is_used(action):
        return _with_job(delivery, _job_event(body))
    if delivery.event in installations.EVENTS and installations.is_used(action):
        fact = installations.fact_of(delivery.event, delivery.guid, body, delivery.received_at)
        return replace(delivery, installation=fact)
    return delivery


def admitted(delivery: Delivery, served: Guests) -> Delivery:
    """Return what is to be written down: the job of somebody who is not served is no fact, and the reason is kept."""
    fact = delivery.fact
    refused = None if fact is None else served.refusal(fact.installation_id, fact.repository)
    return delivery if refused is None else replace(delivery, fact=None, refused=refused)


def _compressed(body: bytes) -> bytes:
    with _ONE_AT_A_TIME:
        return _COMPRESSOR.compress(body)


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


def _job_event(body: bytes) -> WorkflowJob:
    try:
        return WorkflowJob.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"not a workflow_job event: {place}: {first['msg']}") from error


def _with_job(delivery: Delivery, said: WorkflowJob) -> Delivery:
    fact = None if said.installation is None else _fact(delivery, said, said.installation.id)
    return replace(delivery, action=said.action.value, fact=fact)


def _fact(delivery: Delivery, said: WorkflowJob, installation_id: int) -> JobFact:
    job = said.workflow_job
    return JobFact(
        delivery=delivery.guid,
        action=said.action,
        seen_at=delivery.received_at,
        job_id=JobId(job.id),
        installation_id=installation_id,
        repository=said.repository.full_name,
        run_id=job.run_id,
        run_attempt=job.run_attempt,
        name=job.name,
        labels=job.labels,
        runner_id=job.runner_id or None,
        runner_name=job.runner_name or None,
        conclusion=job.conclusion,
        head_sha=job.head_sha,
        head_branch=job.head_branch,
        is_public=None if said.repository.private is None else not said.repository.private,
        deployment_at=said.deployment.updated_at if said.deployment else None,
    )
