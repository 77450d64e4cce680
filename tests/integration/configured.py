"""One worker and one host with real just-in-time configurations: `python -m tests.integration.configured HOME URL …`.

What a process of ours would write goes below HOME and to standard error, at the most talkative level; the secrets that
it must not contain are the lines of standard output. A runner is started in a process of its own as the guest's agent
does it; then everything that may go wrong between GitHub and the guest does, once each.
"""

from __future__ import annotations

import logging
import ssl
import sys
from base64 import b64decode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from json import dumps, loads
from pathlib import Path
from random import Random

import httpx
import structlog

from guest_agent.runner import Program
from guest_agent.runner import Runner as GuestRunner
from tests.contract.github.places import until
from tests.contract.store_rows import CLASS, a_host, a_job, a_runner
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.hints import LossyHints
from tests.fakes.relay import FakeRelay
from tests.fakes.trouble import Trouble
from tests.integration.listeners import PACKAGE
from tests.integration.served import served
from workers.clock import SystemClock
from workers.domain.errors import Refused, SpotError, TryLater
from workers.domain.host import Host
from workers.domain.job import JobState
from workers.domain.messages import Heartbeat, StartOrder
from workers.domain.names import HostId, JobId, RunnerId
from workers.domain.runner import RunnerState
from workers.github.app import AppGitHub
from workers.host.daemon import make_host_app
from workers.host_client import HostClient
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.ports import GitHub, HostApi, Registration
from workers.reconcilers.runners import Runners
from workers.store.repository import SqlStore, open_store
from workers.telemetry import start_logging

HOST = HostId("spot-host-a")
LABELS = ("spot-runner",)
# It writes down what everybody on its machine may see of it.
PROGRAM = "import pathlib; pathlib.Path('arguments').write_bytes(pathlib.Path('/proc/self/cmdline').read_bytes())"

log = structlog.get_logger()


class Told(AppGitHub):
    """Tells the test what GitHub has answered."""

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = 1
    ) -> Registration:
        granted = super().register(installation_id, place, name, labels, group_id)
        log.info("registered", granted=granted, as_text=str(granted))
        for secret in secrets_of(granted.jit_config):
            sys.stdout.write(f"{secret}\n")
        return granted


def secrets_of(jit_config: str) -> list[str]:
    """Return a configuration, what is in it under its outer coat, and the credential itself."""
    inner = loads(b64decode(jit_config))[".credentials"]
    return [jit_config, inner, loads(b64decode(inner))["Data"]["Secret"]]


class Engine(FakeEngine):
    """Starts the runner as a guest's agent does, or meets what is asked for."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home
        self.fault: Callable[[StartOrder], BaseException] | None = None
        self.guests: list[GuestRunner] = []

    async def start_runner(self, runner_id: RunnerId, order: StartOrder) -> None:
        if self.fault is not None:
            raise self.fault(order)
        place = self.home / runner_id
        place.mkdir()
        guest = GuestRunner(Program((sys.executable, "-c", PROGRAM), place, None), place / "started")
        guest.start(order.jit_config)
        self.guests.append(guest)


class Stumbling(HostClient):
    """Has a bug right where it holds the configuration."""

    def start_runner(self, host: Host, runner_id: RunnerId, epoch: int, jit_config: str) -> None:
        super().start_runner(host, runner_id, epoch, jit_config)
        raise ValueError("nobody expected this")


class Play:
    """The store, GitHub and the host of one deployment."""

    def __init__(self, home: Path, github: GitHub, installation: int, repository: str) -> None:
        self.home, self.github = home, github
        self.where = installation, repository
        self.store: SqlStore = open_store(f"sqlite:///{home / 'store.sqlite'}", SystemClock())
        self.store.hosts.add(replace(a_host(HOST), address="127.0.0.1", deadline_at=None))
        self.numbers = iter(range(1, 100))

    def start_one(self, hosts: HostApi) -> None:
        """Look at a new runner until nothing follows at once, as a worker does."""
        number, now = next(self.numbers), SystemClock().now()
        job = replace(a_job(number, JobState.PLACED), id=JobId(number), end=None, conclusion=None, terms=None)
        runner = a_runner(number, HOST, RunnerState.REQUESTED)
        installation, repository = self.where
        own = {"installation_id": installation, "repository": repository}
        self.store.jobs.add(replace(job, runner_id=runner.id, **own))  # type: ignore[arg-type]  # each is of its type
        fresh = replace(runner, requested_at=now, github_id=None, idle_at=None, end=None)
        self.store.runners.add(replace(fresh, **own))  # type: ignore[arg-type]  # the same
        relay, hints = FakeRelay(Trouble(FakeClock())), LossyHints(Random(0))
        with ThreadPoolExecutor(1) as beside:
            reconciler = Runners(self.store, hosts, self.github, relay, hints, SystemClock(), beside)
            try:
                with suppress(TryLater):
                    reconciler.advance(runner.id)
            except Exception:
                log.exception("look_failed", kind="runner", id=runner.id)
        log.info("looked_at", row=self.store.runners.get(runner.id), timeline=self.store.timeline())


def send_nonsense(identity: Path, port: int, order: StartOrder) -> str:
    """Send a configuration in a body that is not right; return the answer."""
    context = ssl.create_default_context(cafile=str(identity / "hosts-ca.pem"))
    context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
    body = dumps({"epoch": "first", "jit_config": order.jit_config, "more": order.jit_config})
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.post(f"https://127.0.0.1:{port}/v1/runners/spot-runner-1/start", content=body).text


def main(home: Path, url: str, app_id: int, key: Path, installation: int, repository: str) -> None:
    start_logging("worker", logging.DEBUG)
    authority = Authority.open(home / "ca")
    write_leaf(home / "worker", authority.control_leaf("control"), authority.control_ca, authority.hosts_ca)
    key_pem, csr = make_csr(HOST)
    leaf = Leaf(authority.host_certificate(csr, HOST, "127.0.0.1"), key_pem)
    write_leaf(home / "host", leaf, authority.control_ca, authority.hosts_ca)
    github, engine = Told(url, {app_id: key.read_text()}), Engine(home)
    app = make_host_app(engine, lambda: Heartbeat("boot", True, None, CLASS, (PACKAGE,), ()))
    play = Play(home, github, installation, repository)
    with served(app, home / "host") as port:
        play.start_one(HostClient(home / "worker", port))
        play.start_one(Stumbling(home / "worker", port))
        for fault in (
            lambda order: Refused(f"this host takes no order: {order}"),
            lambda order: TryLater(f"not now: {order}"),
            lambda order: RuntimeError(f"a bug with {order!r} in its hands"),
        ):
            engine.fault = fault
            play.start_one(HostClient(home / "worker", port))
        last = github.register(installation, repository, "spot-runner-last", LABELS)
        log.info("answered", text=send_nonsense(home / "worker", port, StartOrder(1, last.jit_config)))
    with suppress(SpotError):
        play.start_one(HostClient(home / "worker", port))  # nobody listens there any more
    play.store.close()
    for guest in engine.guests:
        until(lambda: guest.status()["state"] == "ended", "the program has ended")  # noqa: B023 - it is called at once


if __name__ == "__main__":
    place, address, app, key_file, where, name = sys.argv[1:]
    main(Path(place), address, int(app), Path(key_file), int(where), name)
