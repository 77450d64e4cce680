"""Webhooks: recorded payloads with only what differs replaced, signed, and sent in order if no rehearsal wants else.

GitHub gives a receiver ten seconds, never sends again by itself, and lists what failed; so does this.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import structlog

from workers.ports import Clock
from workers.rehearsal.github.contract import Broken, Sampling, check_delivery, published
from workers.rehearsal.github.fates import WHOLE, Damage, Dice, Fate, Shares, damaged
from workers.rehearsal.github.records import Delivery, Installation, Job, Json
from workers.rehearsal.github.views import API, SITE, job_fields, rewritten, stamp, visibility_of

RECEIVER_LIMIT_S: Final = 10.0
KEPT_MAX: Final = 10_000
HOOK_ID: Final = "42"

_log: Final = structlog.get_logger()


def recorded(action: str) -> Json:
    """Return the recorded delivery that payloads of this action start from: the first one that names an installation.

    `completed` was never recorded for an App, so its samples lack the installation that every delivery to an App has.
    """
    samples = [sample for sample in published("deliveries")["workflow_job"] if sample["action"] == action]
    chosen: Json = next((sample for sample in samples if "installation" in sample), samples[-1])
    return chosen


def payload_of(action: str, job: Job, installation: Installation, url: str) -> Json:
    """Return what GitHub would say of this change to an App that is installed there."""
    sample = recorded(action)
    owner, name = job.run.repository.split("/", maxsplit=1)
    words = {
        sample["repository"]["full_name"]: job.run.repository,
        API: url,
        SITE: url,
    }
    payload: Json = rewritten(sample, words)
    payload["workflow_job"] |= {"workflow_name": "Rehearsal", **links_of(job, url), **job_fields(job)}
    payload["repository"] |= {"name": name, "full_name": job.run.repository, **visibility_of(job.run)}
    payload["repository"]["owner"] |= {"login": owner}
    payload.pop("deployment", None)
    if job.environment is not None:
        payload["deployment"] = deployment_of(job, url)
    payload["installation"] = {"id": installation.id, "node_id": "MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u"}
    return payload


def deployment_of(job: Job, url: str) -> Json:
    """Return the deployment of a job that names an environment."""
    samples = (sample.get("deployment") for sample in published("deliveries")["workflow_job"])
    sample: Json = next(one for one in samples if one)
    repository = f"{url}/repos/{job.run.repository}"
    return sample | {
        "id": job.id,
        "url": f"{repository}/deployments/{job.id}",
        "statuses_url": f"{repository}/deployments/{job.id}/statuses",
        "repository_url": repository,
        "environment": job.environment,
        "sha": job.run.head_sha,
        "ref": job.run.branch,
        "created_at": stamp(job.created_at),
        "updated_at": stamp(max(at for at in (job.created_at, job.deployed_at, job.started_at) if at)),
    }


def links_of(job: Job, url: str) -> Json:
    """Return where a job and its run are found."""
    repository = f"{url}/repos/{job.run.repository}"
    return {
        "run_url": f"{repository}/actions/runs/{job.run.id}",
        "url": f"{repository}/actions/jobs/{job.id}",
        "html_url": f"{url}/{job.run.repository}/actions/runs/{job.run.id}/job/{job.id}",
        "check_run_url": f"{repository}/check-runs/{job.id}",
    }


class Line:
    """Deliveries that wait, each until its moment; those of one moment leave in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Delivery, Damage | None]] = []
        self._places = itertools.count()

    def put(self, delivery: Delivery, damage: Damage | None, wait_s: float) -> None:
        """Let it leave in so many seconds."""
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + wait_s, next(self._places), delivery, damage))
            self._changed.notify()

    def take(self) -> tuple[Delivery, Damage | None]:
        """Wait for the next one whose moment has come."""
        with self._changed:
            while True:
                left_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if left_s is not None and left_s <= 0:
                    _, _, delivery, damage = heapq.heappop(self._waiting)
                    return delivery, damage
                self._changed.wait(left_s)

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting)


class Sender:
    """Delivers in the order of the changes, by threads of its own, and remembers every try."""

    def __init__(self, clock: Clock, violated: Callable[[str, str], None], checked: Sampling | None = None) -> None:
        """`checked` says which payloads are held against the published schema; all, by default."""
        self.tries: dict[int, Delivery] = {}
        self.dice = Dice(Shares())
        self._clock = clock
        self._violated = violated
        self._checked = checked or Sampling()
        self._ids = itertools.count(1)
        self._waiting = Line()
        self._kept = threading.Lock()

    def start(self, log: Path | None, senders: int = 1) -> None:
        """Start sending; every try is a line of JSON in `log`. Only one sender keeps the order of the changes."""
        for _ in range(senders):
            threading.Thread(target=self._send_all, args=(log,), name="webhooks", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many deliveries have not left yet."""
        return len(self._waiting)

    def announce(self, action: str, job: Job, installation: Installation, url: str) -> None:
        """Tell an App of a change of a job."""
        self.send("workflow_job", action, installation, payload_of(action, job, installation, url))

    def send(self, event: str, action: str, installation: Installation, payload: Json) -> None:
        """Queue one delivery; a payload that the published schema does not allow is a violation and is not sent."""
        try:
            if self._checked.wants(action):
                check_delivery(event, payload)
        except Broken as error:
            self._violated(f"{event} {action}", str(error))
            return
        delivery = Delivery(
            next(self._ids), str(uuid.uuid4()), event, action, installation.id, payload, installation.app
        )
        fate = self.dice.fate()
        if not fate.is_lost:
            self._queue(delivery, fate)

    def redeliver(self, delivery: Delivery) -> None:
        """Send the same delivery once more, under the same GUID."""
        self._queue(self._anew(delivery, redelivery=True), WHOLE)

    def _anew(self, delivery: Delivery, *, redelivery: bool) -> Delivery:
        fresh = {"id": next(self._ids), "delivered_at": None, "status_code": 0, "status": "pending"}
        return replace(delivery, redelivery=redelivery, **fresh)  # type: ignore[arg-type]  # mypy sees one type for all

    def _queue(self, delivery: Delivery, fate: Fate) -> None:
        self._keep(delivery)
        self._waiting.put(delivery, fate.damage, fate.wait_s)
        if fate.again_after_s is not None:
            double = self._anew(delivery, redelivery=False)
            self._keep(double)
            self._waiting.put(double, fate.damage, fate.wait_s + fate.again_after_s)

    def _keep(self, delivery: Delivery) -> None:
        with self._kept:
            if len(self.tries) >= KEPT_MAX:
                self.tries.pop(next(iter(self.tries)))
            self.tries[delivery.id] = delivery

    def _send_all(self, log: Path | None) -> None:
        with httpx.Client(timeout=RECEIVER_LIMIT_S, trust_env=False) as client:
            while True:
                delivery, damage = self._waiting.take()
                try:
                    self._send(client, delivery, damage)
                    self._note(delivery, log)
                except Exception:  # noqa: BLE001  # whatever befalls one delivery, those behind it must leave
                    _log.exception("delivery_failed", delivery=delivery.id, about=delivery.event)
                    delivery.status, delivery.delivered_at = "failed", self._clock.now()

    def _note(self, delivery: Delivery, log: Path | None) -> None:
        if log is not None:
            with self._kept, log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(summary_of(delivery)) + "\n")

    def _send(self, client: httpx.Client, delivery: Delivery, damage: Damage | None) -> None:
        body = damaged(json.dumps(delivery.payload).encode(), damage)
        delivery.headers = self._headers(delivery, body)
        if damage is Damage.UNSIGNED:
            delivery.headers["X-Hub-Signature-256"] = "sha256=" + "0" * 64
        began = time.monotonic()
        status, answer = HTTPStatus.BAD_GATEWAY.value, ""
        try:
            response = client.post(delivery.app.hook_url, content=body, headers=delivery.headers)
            status, answer = response.status_code, response.text[:10_000]
        except httpx.HTTPError as error:
            answer = str(error)
        delivery.duration = round(time.monotonic() - began, 3)
        delivery.answer, delivery.status_code = answer, status
        delivery.status = "OK" if httpx.codes.is_success(status) else "Invalid HTTP Response: " + str(status)
        delivery.delivered_at = self._clock.now()  # the last, for it is listed from now on

    def _headers(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        return {
            "Accept": "*/*",
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/rehearsal",
            "X-GitHub-Delivery": delivery.guid,
            "X-GitHub-Event": delivery.event,
            "X-GitHub-Hook-ID": HOOK_ID,
            "X-GitHub-Hook-Installation-Target-ID": str(delivery.app.id),
            "X-GitHub-Hook-Installation-Target-Type": "integration",
            "X-Hub-Signature-256": "sha256="
            + hmac.new(delivery.app.hook_secret.encode(), body, hashlib.sha256).hexdigest(),
        }


def summary_of(delivery: Delivery) -> Json:
    """Return what a person wants to see of one try."""
    job = delivery.payload.get("workflow_job", {})
    return {
        "id": delivery.id,
        "guid": delivery.guid,
        "app_id": delivery.app.id,
        "event": delivery.event,
        "action": delivery.action,
        "job_id": job.get("id"),
        "run_attempt": job.get("run_attempt"),
        "redelivery": delivery.redelivery,
        "delivered_at": delivery.delivered_at.isoformat() if delivery.delivered_at else None,
        "status_code": delivery.status_code,
        "duration": delivery.duration,
    }
