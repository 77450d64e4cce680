"""A simulated GitHub as a process, a receiver for its webhooks, and runners that are played by hand."""

from __future__ import annotations

import base64
import http.server
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from workers.domain.github_app import Wish, manifest
from workers.github.app import AppGitHub
from workers.rehearsal.github import SimulatorClient

APP_ID: Final = 7
SECRET: Final = "It's a Secret to Everybody"  # GitHub's own example
WAIT_S: Final = 60.0
ROOT: Final = Path(__file__).parents[3]

Json = dict[str, Any]
Found = TypeVar("Found")


def until(condition: Callable[[], Found], what: str, limit_s: float = WAIT_S) -> Found:
    """Wait for a condition and return what it returned."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := condition():
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"waited {limit_s} s in vain: {what}")


@cache
def app_key() -> tuple[str, str]:
    """Return the App's private and public key, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def free_port() -> int:
    """Return a port of the loopback address that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Received:
    """One delivery as it came over the wire."""

    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Json:
        payload: Json = json.loads(self.body)
        return payload


class Receiver:
    """Takes webhooks; `statuses` says what the next ones are answered, 202 when it is empty."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
        receiver = self

        class Answering(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that the library calls
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(headers, body))
                self.send_response(202 if receiver.statuses.empty() else receiver.statuses.get())
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/github"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of_job(self, job_id: int) -> list[Received]:
        return [one for one in list(self.received) if one.payload.get("workflow_job", {}).get("id") == job_id]

    def actions_of(self, job_id: int) -> list[str]:
        return [one.payload["action"] for one in self.of_job(job_id)]


@dataclass(frozen=True)
class MadeApp:
    """An App with everything that its maker is given."""

    id: int
    slug: str
    key: str
    secret: str


@dataclass
class Place:
    """One simulated GitHub that runs."""

    url: str
    control: SimulatorClient
    receiver: Receiver
    installation: int = 0
    owner: str = "octo-org"
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    @property
    def repository(self) -> str:
        return f"{self.owner}/widgets"

    def port(self) -> AppGitHub:
        return AppGitHub(self.url, {APP_ID: app_key()[0]})

    def token(self, installation: int | None = None) -> str:
        """Ask for an installation's token as the App."""
        answer = self.ask("POST", f"/app/installations/{installation or self.installation}/access_tokens", app_jwt())
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        return token

    def make_app(self, name: str, /, **changed: object) -> str:
        """Post a manifest as a browser would, say yes on GitHub's page, and return the code that comes back."""
        asked = manifest(Wish(name, self.owner, is_public=True), "http://127.0.0.1:9") | changed
        form = {"manifest": json.dumps(asked), "owner": self.owner, "state": "a state"}
        assert self.http.post(f"{self.url}/organizations/{self.owner}/settings/apps/new", data=form).status_code == 200
        answer = self.http.post(f"{self.url}/settings/apps/created", data=form)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"].partition("code=")[2].partition("&")[0]

    def another_app(self, name: str, hook_url: str) -> MadeApp:
        """Make another App, as its owner would."""
        code = self.make_app(name, hook_attributes={"url": hook_url, "active": True})
        made = self.http.post(f"{self.url}/app-manifests/{code}/conversions").json()
        return MadeApp(made["id"], made["slug"], made["pem"], made["webhook_secret"])

    def install(self, app: MadeApp, account: str) -> int:
        """Install another App in an account, as its owner would, and return the installation's number."""
        answer = self.http.post(f"{self.url}/apps/{app.slug}/installations", data={"account": account})
        assert answer.status_code == 302, answer.text
        return int(answer.headers["Location"].partition("installation_id=")[2].partition("&")[0])

    def ask(self, verb: str, path: str, login: str, body: Json | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {login}"}
        return self.http.request(verb, self.url + path, headers=headers, json=body)


def app_jwt(**changed: str | int) -> str:
    """Return the App's JWT, with some claims changed."""
    now = int(time.time())
    return jwt.encode({"iat": now - 60, "exp": now + 300, "iss": str(APP_ID), **changed}, app_key()[0], "RS256")


def simulator_command(directory: Path, listen: str, **options: float | str) -> list[str]:
    """Return what runs a simulated GitHub with our App; its secret and public key are in this folder then."""
    (directory / "secret").write_text(SECRET)
    (directory / "app.pem").write_text(app_key()[1])
    command = [sys.executable, "-m", "workers.rehearsal.github", "--listen", listen]
    command += ["--webhook-secret-file", str(directory / "secret")]
    command += ["--app-key-file", str(directory / "app.pem"), "--app-id", str(APP_ID), "--state-dir", str(directory)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return command


@contextmanager
def simulated_github(directory: Path, **limits: float | str) -> Iterator[Place]:
    """Run a simulated GitHub as a process; `limits` are its options, such as `lock_seconds`, and go before ours."""
    receiver, port = Receiver(), free_port()
    # What is tried here is tried faster than GitHub allows, if a test does not say otherwise.
    options = {"webhook_url": receiver.url, "requests_per_hour": 0, "points_per_minute": 0, **limits}
    command = simulator_command(directory, f"127.0.0.1:{port}", **options)
    with (directory / "simulator.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    place = Place(f"http://127.0.0.1:{port}", SimulatorClient(f"http://127.0.0.1:{port}"), receiver)
    try:
        until(lambda: place.control.is_up() or running.poll() is not None, "the simulator answers")
        assert running.poll() is None, (directory / "simulator.log").read_text()
        place.installation = place.control.install(place.owner)
        yield place
    finally:
        place.control.close()
        place.http.close()
        running.send_signal(signal.SIGTERM)
        running.wait(WAIT_S)
        receiver.close()


class PlayedRunner:
    """A runner played by hand: it says to the broker what the test wants it to say."""

    def __init__(self, place: Place, jit_config: str, session: str = "played") -> None:
        files = json.loads(base64.b64decode(jit_config))
        credentials = json.loads(base64.b64decode(files[".credentials"]))
        self._place = place
        self._secret = credentials["Data"]["Secret"]
        self.session = session

    def ask(self, verb: str, path: str, body: Json | None = None) -> httpx.Response:
        return self._place.ask(verb, "/_runner" + path, self._secret, body)

    def online(self) -> PlayedRunner:
        assert self.ask("PUT", f"/sessions/{self.session}", {}).status_code == 200
        return self

    def offered(self) -> int:
        answer = self.ask("GET", f"/sessions/{self.session}/offer?wait=20")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["job_id"])

    def taking(self) -> int:
        """Come online, wait for a job and take it."""
        job_id = self.online().offered()
        assert self.ask("POST", f"/jobs/{job_id}/acquire", {}).status_code == 200
        return job_id

    def say(self, job_id: int, first: int, *events: Json) -> httpx.Response:
        return self.ask("POST", f"/jobs/{job_id}/events", {"first": first, "events": list(events)})

    def finish(self, job_id: int, conclusion: str) -> httpx.Response:
        return self.ask("POST", f"/jobs/{job_id}/finish", {"conclusion": conclusion})


@contextmanager
def rehearsal_runner(
    home: Path, jit_config: str, server: tuple[str, str] | None = None, user: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the real rehearsal runner; `server` replaces one address in its configuration by another."""
    if server is not None:
        jit_config = readdressed(jit_config, *server)
    home.mkdir(exist_ok=True)
    # Not every user may read the folder that the tests are in.
    shutil.copytree(ROOT / "runner-vm/rehearsal_runner", home / "program/rehearsal_runner")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(home / "program")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "ACTIONS_RUNNER_INPUT_JITCONFIG": jit_config}
    # Nor may every user start the Python that runs the tests: it may lie in somebody's home.
    python = str(Path(sys.executable).resolve()) if user is None else "/usr/bin/python3"
    with (home / "runner.log").open("ab") as log:
        running = subprocess.Popen(
            [python, "-m", "rehearsal_runner"],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(WAIT_S)


def readdressed(jit_config: str, was: str, becomes: str) -> str:
    """Return a just-in-time configuration with another server in it."""
    files = json.loads(base64.b64decode(jit_config))
    runner = base64.b64decode(files[".runner"]).decode().replace(was, becomes)
    files[".runner"] = base64.b64encode(runner.encode()).decode()
    return base64.b64encode(json.dumps(files).encode()).decode()
