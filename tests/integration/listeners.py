"""The receiver's two apps over a real store and a real authority, called without a network."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from typing import Any

from flask.testing import FlaskClient
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from tests.contract.store_rows import CLASS, a_host
from webhook.app import create_host_app
from webhook.seats import Seats
from webhook.words import Words
from workers.domain.events import Happening
from workers.domain.host import Host, HostState
from workers.domain.messages import Heartbeat, RunnerReport
from workers.domain.names import HostId, PackageDigest
from workers.domain.overlay import Overlay
from workers.identity import Authority
from workers.objects import DirectoryObjects
from workers.ports import Clock
from workers.store.repository import SqlStore

SECRET = b"not a secret"
PACKAGE = PackageDigest("sha256:" + "ab" * 32)


@dataclass
class HeardHints:
    """Hints that reach nobody and are remembered."""

    heard: list[tuple[str, tuple[str, ...], bool]] = field(default_factory=list)

    def look_at(self, kind: str, *ids: str, urgent: bool = False) -> None:
        self.heard.append((kind, ids, urgent))


@dataclass(frozen=True)
class Connection:
    """A socket as gunicorn hands it on, behind which somebody has shown this certificate."""

    name: str | None

    def getpeercert(self) -> dict[str, Any]:
        if self.name is None:
            return {}
        return {"subject": ((("organizationName", "spot-runner"),), (("commonName", self.name),))}


class HostCaller:
    """Speaks to the host listener as one host, or as nobody."""

    def __init__(
        self,
        store: SqlStore,
        authority: Authority,
        hints: HeardHints,
        clock: Clock,
        objects: DirectoryObjects | None = None,
        overlay: Overlay = Overlay.PLAIN,
    ) -> None:
        seats = Seats(store, clock) if overlay is Overlay.WIREGUARD else None
        words = Words(store, authority, hints, clock, (PACKAGE,), objects, seats)
        app = create_host_app(words, objects)
        self._client: FlaskClient = app.test_client()

    def get(self, path: str, name: str | None) -> TestResponse:
        return self._client.get(path, environ_overrides={"gunicorn.socket": Connection(name)})

    def put(self, path: str, name: str | None, content: bytes) -> TestResponse:
        return self._client.put(path, data=content, environ_overrides={"gunicorn.socket": Connection(name)})

    def post(self, path: str, name: str | None, body: object, source: str = "10.90.0.16") -> TestResponse:
        content = body if isinstance(body, bytes) else TypeAdapter(type(body)).dump_json(body)
        return self._client.post(
            path,
            data=content,
            content_type="application/json",
            environ_overrides={"gunicorn.socket": Connection(name), "REMOTE_ADDR": source},
        )


def a_heartbeat(*runners: RunnerReport, ready: bool = True) -> Heartbeat:
    return Heartbeat(
        boot_id="boot",
        ready=ready,
        not_ready_because=None if ready else "self-test runs",
        host_class=CLASS,
        packages=(PACKAGE,),
        runners=runners,
    )


def signed(event: str, payload: object, guid: str, secret: bytes = SECRET) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a delivery, as GitHub would send them."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return body, {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": guid,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
    }


def bare(name: str, state: HostState) -> Host:
    """A host of which nothing is known yet but that it was asked for."""
    return replace(a_host(name, state=state), address=None, host_class=None, heartbeat_at=None, deadline_at=None)


def happened(store: SqlStore) -> list[Happening]:
    return [event.happening for _, event in store.timeline()]


def state_of(store: SqlStore, host_id: HostId) -> HostState:
    host = store.hosts.get(host_id)
    assert host is not None
    return host.state
