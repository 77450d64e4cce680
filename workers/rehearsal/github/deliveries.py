"""Webhooks: recorded payloads with only what differs replaced, signed, and sent one after the other.

GitHub gives a receiver ten seconds, never sends again by itself, and lists what failed; so does this.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx

from workers.ports import Clock
from workers.rehearsal.github.contract import Broken, check_delivery, published
from workers.rehearsal.github.records import Delivery, Job, Json
from workers.rehearsal.github.views import API, SITE, job_fields, rewritten

RECEIVER_LIMIT_S: Final = 10.0
KEPT_MAX: Final = 10_000
HOOK_ID: Final = "42"


def recorded(action: str) -> Json:
    """Return the recorded delivery that payloads of this action start from: the first one that names an installation.

    `completed` was never recorded for an App, so its samples lack the installation that every delivery to an App has.
    """
    samples = [sample for sample in published("deliveries")["workflow_job"] if sample["action"] == action]
    chosen: Json = next((sample for sample in samples if "installation" in sample), samples[-1])
    return chosen


def payload_of(action: str, job: Job, url: str) -> Json:
    """Return what GitHub would say of this change."""
    sample = recorded(action)
    owner, name = job.run.repository.split("/", maxsplit=1)
    words = {
        sample["repository"]["full_name"]: job.run.repository,
        API: url,
        SITE: url,
    }
    payload: Json = rewritten(sample, words)
    payload["workflow_job"] |= {"workflow_name": "Rehearsal", **links_of(job, url), **job_fields(job)}
    payload["repository"] |= {"name": name, "full_name": job.run.repository, "private": False}
    payload["repository"]["owner"] |= {"login": owner}
    payload["installation"] = {"id": job.run.installation.id, "node_id": "MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u"}
    return payload


def links_of(job: Job, url: str) -> Json:
    """Return where a job and its run are found."""
    repository = f"{url}/repos/{job.run.repository}"
    return {
        "run_url": f"{repository}/actions/runs/{job.run.id}",
        "url": f"{repository}/actions/jobs/{job.id}",
        "html_url": f"{url}/{job.run.repository}/actions/runs/{job.run.id}/job/{job.id}",
        "check_run_url": f"{repository}/check-runs/{job.id}",
    }


class Sender:
    """Delivers in the order of the changes, by a thread of its own, and remembers every try."""

    def __init__(self, url: str, secret: str, app_id: int, clock: Clock, violated: Callable[[str, str], None]) -> None:
        self.url = url
        self.tries: dict[int, Delivery] = {}
        self._secret = secret.encode()
        self._app_id = app_id
        self._clock = clock
        self._violated = violated
        self._ids = itertools.count(1)
        self._waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

    def start(self, log: Path | None) -> None:
        """Start sending; every try is a line of JSON in `log`."""
        threading.Thread(target=self._send_all, args=(log,), name="webhooks", daemon=True).start()

    def announce(self, action: str, job: Job, url: str) -> None:
        """Queue one delivery; a payload that the published schema does not allow is a violation and is not sent."""
        payload = payload_of(action, job, url)
        try:
            check_delivery("workflow_job", payload)
        except Broken as error:
            self._violated(f"job {job.id} {action}", str(error))
            return
        installation = job.run.installation.id
        self._queue(Delivery(next(self._ids), str(uuid.uuid4()), "workflow_job", action, installation, payload))

    def redeliver(self, delivery: Delivery) -> None:
        """Send the same delivery once more, under the same GUID."""
        self._queue(
            replace(delivery, id=next(self._ids), redelivery=True, delivered_at=None, status_code=0, status="pending")
        )

    def _queue(self, delivery: Delivery) -> None:
        if len(self.tries) >= KEPT_MAX:
            self.tries.pop(next(iter(self.tries)))
        self.tries[delivery.id] = delivery
        self._waiting.put(delivery)

    def _send_all(self, log: Path | None) -> None:
        with httpx.Client(timeout=RECEIVER_LIMIT_S, trust_env=False) as client:
            while True:
                delivery = self._waiting.get()
                self._send(client, delivery)
                if log is not None:
                    with log.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(summary_of(delivery)) + "\n")

    def _send(self, client: httpx.Client, delivery: Delivery) -> None:
        body = json.dumps(delivery.payload).encode()
        delivery.headers = self._headers(delivery, body)
        began = time.monotonic()
        status, answer = HTTPStatus.BAD_GATEWAY.value, ""
        try:
            response = client.post(self.url, content=body, headers=delivery.headers)
            status, answer = response.status_code, response.text[:10_000]
        except httpx.HTTPError as error:
            answer = str(error)
        delivery.duration = round(time.monotonic() - began, 3)
        delivery.answer, delivery.delivered_at, delivery.status_code = answer, self._clock.now(), status
        delivery.status = "OK" if httpx.codes.is_success(status) else "Invalid HTTP Response: " + str(status)

    def _headers(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        return {
            "Accept": "*/*",
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/rehearsal",
            "X-GitHub-Delivery": delivery.guid,
            "X-GitHub-Event": delivery.event,
            "X-GitHub-Hook-ID": HOOK_ID,
            "X-GitHub-Hook-Installation-Target-ID": str(self._app_id),
            "X-GitHub-Hook-Installation-Target-Type": "integration",
            "X-Hub-Signature-256": "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest(),
        }


def summary_of(delivery: Delivery) -> Json:
    """Return what a person wants to see of one try."""
    job = delivery.payload.get("workflow_job", {})
    return {
        "id": delivery.id,
        "guid": delivery.guid,
        "event": delivery.event,
        "action": delivery.action,
        "job_id": job.get("id"),
        "run_attempt": job.get("run_attempt"),
        "redelivery": delivery.redelivery,
        "delivered_at": delivery.delivered_at.isoformat() if delivery.delivered_at else None,
        "status_code": delivery.status_code,
        "duration": delivery.duration,
    }
