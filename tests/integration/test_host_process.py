"""`spot-runner host` and `spot-runner serve` as processes: a machine becomes a host, once, and is found again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.store_rows import a_host
from tests.integration.wires import CALL_LIMIT_S, Place, Site, run
from workers.clock import SystemClock
from workers.domain.errors import Refused, Unreachable
from workers.domain.events import Happening
from workers.domain.host import POWERED_OFF, Host, HostState
from workers.domain.messages import Heartbeat, Notice, NoticeKind, RegistrationRequest, RenewalRequest, Word
from workers.domain.migration import Said
from workers.domain.names import HostId, MigrationId
from workers.domain.user_data import cloud_config
from workers.host.control import ControlClient
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.rehearsal.imds import write_state
from workers.store.repository import SqlStore, open_store

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

CONTROL, HOST, RELAY = "10.90.0.2", "10.90.0.16", "10.90.0.3"
URL = f"https://{CONTROL}:8443"
START_LIMIT_S = 60.0


@dataclass
class World:
    control: Place
    machine: Place
    home: Path
    store: SqlStore
    authority: Authority

    def launch(self, name: str) -> str:
        """Write a host down as the reconciler does before it asks the cloud, and return its token."""
        row = replace(a_host(name, state=HostState.LAUNCHING), address=None, host_class=None, deadline_at=None)
        self.store.hosts.add(row)
        return self.store.issue_token(row.id, datetime.now(UTC) + timedelta(minutes=5))

    def row(self, name: str) -> Host:
        row = self.store.hosts.get(HostId(name))
        assert row is not None
        return row


@contextmanager
def process(place: Place, home: Path, name: str, *words: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(
            ["ip", "netns", "exec", place.name, sys.executable, *words],
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **settings},
            stdout=log,
            stderr=log,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(CALL_LIMIT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(CALL_LIMIT_S)


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_LIMIT_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("host-process")
    (home / "secret").write_text("not a secret")
    site = Site(f"h7p{os.getpid()}")
    try:
        control = site.add("control", eth0=f"underlay {CONTROL}/24")
        machine = site.add("host", eth0=f"underlay {HOST}/24")
        machine.ip("address", "add", "169.254.169.254/32", "dev", "lo")
        settings = {
            "SPOT_RUNNER_HOME": str(home),
            "SPOT_RUNNER_PUBLIC_LISTEN": "127.0.0.1:8080",
            "SPOT_RUNNER_HOST_LISTEN": f"{CONTROL}:8443",
            "SPOT_RUNNER_HOST_URL": URL,
            "SPOT_RUNNER_RELAY_ADDRESS": RELAY,
            "SPOT_RUNNER_WEBHOOK_SECRET_FILE": str(home / "secret"),
        }
        store = open_store(f"sqlite:///{home / 'spot-runner.sqlite'}", SystemClock())
        command = ("-c", "from workers.cli import main; main()", "serve")
        with process(control, home, "serve", *command, **settings):
            until(lambda: answers(control), "the control plane does not answer")
            yield World(control, machine, home, store, Authority.open(home / "ca"))
        store.close()
    finally:
        site.remove()


def answers(control: Place) -> bool:
    try:
        control.connect(CONTROL, 8443, 1).close()
    except OSError:
        return False
    return True


@contextmanager
def machine_running(world: World, name: str, home: Path, **also: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        **also,
        "SPOT_RUNNER_HOST_HOME": str(home),
        "SPOT_RUNNER_PACKAGE_STORE": str(home / "packages"),
        "SPOT_RUNNER_PACKAGE_CACHE": str(home / "unpacked"),
        "SPOT_RUNNER_ACCEL": "tcg",
        "SPOT_RUNNER_ALLOW_TCG": "1",
        "SPOT_RUNNER_HEARTBEAT_INTERVAL_S": "0.2",
        "SPOT_RUNNER_NOTICE_INTERVAL_S": "0.2",
    }
    with process(
        world.machine, world.home, name, "-c", "from workers.cli import main; main()", "host", **settings
    ) as it:
        yield it


@contextmanager
def metadata(world: World, name: str, token: str, **also: str) -> Iterator[Path]:
    file = world.home / f"{name}.metadata"
    write_metadata(world, file, name, token, **also)
    with process(world.machine, world.home, "imds", "-m", "workers.rehearsal.imds", "--file", str(file)):
        yield file


def write_metadata(world: World, file: Path, name: str, token: str, **also: str) -> None:
    told = {
        "control_url": URL,
        "control_ca_sha256": world.authority.control_ca_sha256,
        "token": token,
    }
    bodies = {"latest/user-data": cloud_config(told), "latest/meta-data/local-ipv4": HOST}
    write_state(file, bodies | ({"latest/meta-data/spot/instance-action": also["action"]} if also else {}))


def happenings(world: World, name: str) -> list[Happening]:
    return [event.happening for _, event in world.store.timeline() if event.host_id == name]


def test_a_machine_becomes_a_host_and_is_found_again(world: World, tmp_path: Path) -> None:
    name = "spot-host-whole"
    token = world.launch(name)
    home = tmp_path / "home"
    with metadata(world, name, token) as file:
        with machine_running(world, name, home) as daemon:
            until(lambda: world.row(name).state is HostState.READY, "the host does not become READY")
            assert world.row(name).address == HOST
            key = home / "identity" / "key.pem"
            before = key.read_text(), (home / "identity" / "certificate.pem").read_text()
            assert key.stat().st_mode & 0o777 == 0o600
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(CALL_LIMIT_S) == 0
        silent_since = world.row(name).heartbeat_at
        assert silent_since is not None
        with machine_running(world, name, home):
            until(
                lambda: (world.row(name).heartbeat_at or silent_since) > silent_since, "no heartbeat after the restart"
            )
            assert (key.read_text(), (home / "identity" / "certificate.pem").read_text()) == before
            assert happenings(world, name).count(Happening.HOST_REGISTERED) == 1
            at = (datetime.now(UTC) + timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
            write_metadata(world, file, name, token, action=json.dumps({"action": "terminate", "time": at}))
            until(lambda: world.row(name).deadline_at is not None, "the notice is not heard")
            assert abs(world.row(name).deadline_at - datetime.fromisoformat(at)) < timedelta(seconds=30)  # type: ignore[operator]  # awaited above
    rules = run("ip", "netns", "exec", world.machine.name, "nft", "list", "ruleset")
    assert "spot_host" in rules, "the guests' fence outlives the daemon"
    assert token not in (world.home / f"{name}.log").read_text()


def test_a_host_whose_heartbeats_are_not_answered_any_more_ends_itself(world: World, tmp_path: Path) -> None:
    name, limit_s = "spot-host-forgotten", 8.0
    token = world.launch(name)
    limit = {"SPOT_RUNNER_SILENCE_LIMIT_S": str(limit_s)}
    with metadata(world, name, token), machine_running(world, name, tmp_path / "home", **limit) as daemon:
        until(lambda: world.row(name).state is HostState.READY, "the host does not become READY")
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 1.5 * limit_s, "time does not pass")
        assert daemon.poll() is None, "as long as it is answered it stays"
        world.machine.ip("link", "set", "eth0", "down")
        cut_at = time.monotonic()
        try:
            assert daemon.wait(START_LIMIT_S) == POWERED_OFF
        finally:
            world.machine.ip("link", "set", "eth0", "up")
        assert time.monotonic() - cut_at > limit_s - 3, "the silence is counted from the last answer"
    assert "powering_off" in (world.home / f"{name}.log").read_text()


def test_a_control_plane_with_another_issuer_is_told_nothing(world: World, tmp_path: Path) -> None:
    name = "spot-host-lured"
    token = world.launch(name)
    with metadata(world, name, token) as file:
        bodies = json.loads(file.read_text())
        bodies["latest/user-data"] = bodies["latest/user-data"].replace(world.authority.control_ca_sha256, "0" * 64)
        write_state(file, bodies)
        with machine_running(world, name, tmp_path / "home") as daemon:
            assert daemon.wait(START_LIMIT_S) == 2
    assert "is not our control plane" in (world.home / f"{name}.log").read_text().splitlines()[-1]
    assert world.row(name).state is HostState.LAUNCHING
    assert world.store.burn_token(token, HOST) == name, "the token was not shown"


def test_a_used_token_is_one_sentence(world: World, tmp_path: Path) -> None:
    name = "spot-host-late"
    token = world.launch(name)
    world.store.burn_token(token, "10.90.0.99")
    with metadata(world, name, token), machine_running(world, name, tmp_path / "home") as daemon:
        assert daemon.wait(START_LIMIT_S) == 2
    last = (world.home / f"{name}.log").read_text().splitlines()[-1]
    assert last.startswith("spot-runner: ")
    assert "cannot register" in last
    assert not (tmp_path / "home" / "identity" / "certificate.pem").exists()


# ---------------------------------------------------------------- the client alone


def call(world: World, client: ControlClient, play: Callable[[ControlClient], object]) -> object:
    """Let a client speak from the machine's namespace."""

    async def talk() -> object:
        try:
            return await play(client)  # type: ignore[misc]  # every play is a coroutine function
        finally:
            await client.close()

    return world.machine.call(lambda: asyncio.run(talk()))


@pytest.fixture
def registered(world: World, tmp_path: Path) -> Path:
    """The identity of a machine that has just registered through the client."""
    name = HostId(f"spot-host-{tmp_path.name[-12:].replace('_', '-')}")
    token, (key, csr) = world.launch(name), make_csr(name)
    request = RegistrationRequest(name, token, csr, HOST)
    client = ControlClient(URL, tmp_path / "identity")
    answer = call(world, client, lambda each: each.register(request, world.authority.control_ca_sha256))
    write_leaf(tmp_path / "identity", Leaf(answer.certificate, key), answer.control_ca, answer.hosts_ca)  # type: ignore[attr-defined]  # what register returns
    return tmp_path / "identity"


BEAT = Heartbeat("boot", False, "being tested", a_host("x").host_class, (), ())  # type: ignore[arg-type]  # every field of the row is set


def test_a_registered_client_is_heard(world: World, registered: Path) -> None:
    async def play(client: ControlClient) -> None:
        for _ in range(3):
            assert (await client.heartbeat(BEAT)).packages == ()
        await client.notice(Notice(NoticeKind.REBALANCE, 60.0))
        with pytest.raises(Refused, match="404"):
            await client.row(MigrationId("spot-move-of-others"))
        with pytest.raises(Refused, match="404"):
            await client.say(MigrationId("spot-move-of-others"), Said.COMMITTED, Word(1))
        request = RenewalRequest(make_csr(HostId("spot-host-x"))[1])
        with pytest.raises(Refused, match="404"):
            await client.move_certificate(MigrationId("spot-move-of-others"), request)

    call(world, ControlClient(URL, registered), play)


def test_a_certificate_of_another_deployment_is_not_heard(world: World, registered: Path, tmp_path: Path) -> None:
    foreign = Authority.open(tmp_path / "foreign")
    key, csr = make_csr(HostId("spot-host-forged"))
    write_leaf(
        tmp_path / "forged",
        Leaf(foreign.host_certificate(csr, HostId("spot-host-forged"), HOST), key),
        (registered / "control-ca.pem").read_text(),
        (registered / "hosts-ca.pem").read_text(),
    )

    async def play(client: ControlClient) -> None:
        with pytest.raises((Unreachable, Refused)):
            await client.heartbeat(BEAT)

    call(world, ControlClient(URL, tmp_path / "forged"), play)


def test_a_server_that_is_not_control_is_told_nothing(world: World, registered: Path, tmp_path: Path) -> None:
    """The machine's own certificate authority is right, the name is not: another host answers at that address."""
    trusting_hosts = tmp_path / "trusting-hosts"
    write_leaf(
        trusting_hosts,
        Leaf((registered / "certificate.pem").read_text(), (registered / "key.pem").read_text()),
        world.authority.hosts_ca,
        world.authority.hosts_ca,
    )

    async def play(client: ControlClient) -> None:
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await client.heartbeat(BEAT)

    call(world, ControlClient(URL, trusting_hosts), play)


def test_silence_ends_within_the_limit(world: World, registered: Path) -> None:
    async def play(client: ControlClient) -> None:
        with pytest.raises(Unreachable, match="control plane at"):
            await client.heartbeat(BEAT)

    listening = world.control.listen(CONTROL, 8999)
    call(world, ControlClient(f"https://{CONTROL}:8999", registered), play)
    listening.close()
    call(world, ControlClient(f"https://{CONTROL}:8999", registered), play)


def test_registering_leaves_no_secret_in_the_store(world: World, registered: Path) -> None:
    assert registered.exists()
    with sqlite3.connect(world.home / "spot-runner.sqlite") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "PRIVATE KEY" not in dump
