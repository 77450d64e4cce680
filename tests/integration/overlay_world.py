"""A control plane, a relay and hosts of three networks as processes; the overlay is their only way to each other.

control (10.90.0.2) ─┐                    route to the overlay: through the relay
relay (10.90.0.3) ───┼── underlay ──┬── a (10.90.0.16)                 anybody dials it
                                    ├── NAT .21 ── n (192.168.1.2)     dials out
                                    └── NAT .22 ── m (192.168.1.2)     dials out
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.contract.store_rows import a_host
from tests.integration.nats import behind_nat
from tests.integration.wires import CALL_LIMIT_S, Place, Site, run
from workers.clock import SystemClock
from workers.domain.errors import Unreachable
from workers.domain.host import Host, HostState
from workers.domain.names import HostId, RunnerId
from workers.domain.overlay import OVERLAY_NETWORK
from workers.domain.user_data import cloud_config
from workers.host_client import HostClient
from workers.identity import Authority, write_leaf
from workers.reconcilers.hub import Hub
from workers.rehearsal.imds import write_state
from workers.relay.client import RelayClient
from workers.store.repository import SqlStore, open_store
from workers.wireguard import link_name

CONTROL, RELAY, HOST_A = "10.90.0.2", "10.90.0.3", "10.90.0.16"
URL = f"https://{CONTROL}:8443"
ENDPOINT = f"{RELAY}:51820"
LIMIT_S = 90.0
CLI = ("-c", "from workers.cli import main; main()")


@dataclass
class Machine:
    """One host: its namespace, its daemon and where it keeps its things."""

    id: HostId
    place: Place
    home: Path
    local: str
    public: str | None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def identity(self) -> Path:
        return self.home / "identity"

    def peers(self) -> set[str]:
        """The keys that its kernel, or wireguard-go, speaks to now."""
        return set(self.place.call(run, "wg", "show", link_name(self.id), "peers").split())

    def monitor_of_link(self) -> int | None:
        """The process of its wireguard-go, None if the kernel has WireGuard."""
        words = f"wireguard-go\0--foreground\0{link_name(self.id)}\0".encode()
        found = [one for one in Path("/proc").glob("[0-9]*") if commands(one) == words]
        return int(found[0].name) if found else None


def commands(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@dataclass
class World:
    home: Path
    site: Site
    control: Place
    relay: Place
    store: SqlStore
    hub: Hub
    hosts: HostClient
    machines: dict[str, Machine]
    relay_home: Path

    def row(self, name: str) -> Host:
        row = self.store.hosts.get(self.machines[name].id)
        assert row is not None
        return row

    def follow(self) -> None:
        """What the control plane does after each hint about a host."""
        self.control.call(self.hub.follow)

    def call(self, name: str) -> None:
        """Call a host's daemon as the control plane does; harmless."""
        self.control.call(self.hosts.stop, self.row(name), RunnerId("spot-runner-none"), 1)

    def reaches(self, name: str) -> bool:
        try:
            self.call(name)
        except Unreachable:
            return False
        return True

    def key(self, name: str) -> str:
        return self.store.stations()[self.machines[name].id].key

    def relay_settings(self, port: int = 8445) -> dict[str, str]:
        return {
            "SPOT_RUNNER_RELAY_HOME": str(self.relay_home),
            "SPOT_RUNNER_RELAY_LISTEN": f"{RELAY}:{port}",
            "SPOT_RUNNER_OVERLAY": "wireguard",
            "SPOT_RUNNER_OVERLAY_CALLERS": json.dumps([f"{CONTROL}/32"]),
        }

    def hub_peers(self) -> set[str]:
        link = link_name(str(self.relay_home))
        try:
            return set(self.relay.call(run, "wg", "show", link, "peers").split())
        except subprocess.CalledProcessError:  # there is no such link
            return set()


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@contextmanager
def process(place: Place, log: Path, *words: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        started = subprocess.Popen(
            ["ip", "netns", "exec", place.name, sys.executable, *words],
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **settings},
            stdout=output,
            stderr=output,
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


def answers(place: Place, address: str, port: int) -> bool:
    try:
        place.connect(address, port, 1).close()
    except OSError:
        return False
    return True


def launch(world: World, name: str, place: Place, local: str, public: str | None) -> Machine:
    """Write a host down as the reconciler does, and what its cloud tells the machine."""
    key = HostId(f"spot-host-{os.getpid()}-{name}")
    row = replace(a_host(key, state=HostState.LAUNCHING), address=None, host_class=None, deadline_at=None)
    world.store.hosts.add(row)
    token = world.store.issue_token(key, datetime.now(UTC) + timedelta(minutes=5))
    told = {
        "control_url": URL,
        "control_ca_sha256": Authority.open(world.home / "ca").control_ca_sha256,
        "token": token,
    }
    bodies = {"latest/user-data": cloud_config(told), "latest/meta-data/local-ipv4": local}
    write_state(world.home / f"{name}.metadata", bodies | ({"latest/meta-data/public-ipv4": public} if public else {}))
    place.ip("address", "add", "169.254.169.254/32", "dev", "lo")
    machine = world.machines[name] = Machine(key, place, world.home / name, local, public)
    return machine


def daemon_settings(machine: Machine) -> dict[str, str]:
    return {
        "SPOT_RUNNER_HOST_HOME": str(machine.home),
        "SPOT_RUNNER_PACKAGE_STORE": str(machine.home / "packages"),
        "SPOT_RUNNER_PACKAGE_CACHE": str(machine.home / "unpacked"),
        "SPOT_RUNNER_ACCEL": "tcg",
        "SPOT_RUNNER_ALLOW_TCG": "1",
        "SPOT_RUNNER_HEARTBEAT_INTERVAL_S": "0.2",
    }


def start(stack: ExitStack, world: World, machine: Machine) -> None:
    """Start what runs on the machine: its cloud's metadata service and its daemon."""
    name = machine.home.name
    file = str(world.home / f"{name}.metadata")
    metadata = ("-m", "workers.rehearsal.imds", "--file", file)
    stack.enter_context(process(machine.place, world.home / f"{name}-imds.log", *metadata))
    log = world.home / f"{name}.log"
    settings = daemon_settings(machine)
    machine.daemon = stack.enter_context(process(machine.place, log, *CLI, "host", **settings))


@contextmanager
def overlay_world(home: Path) -> Iterator[World]:
    """Start everything, and let every host register."""
    (home / "secret").write_text("not a secret")
    site = Site(f"h7o{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(site.remove)
        stack.callback(end_links, site)  # once no daemon is left that would put them right again
        control = site.add("control", eth0=f"underlay {CONTROL}/24")
        control.ip("route", "add", str(OVERLAY_NETWORK), "via", RELAY)
        relay = site.add("relay", eth0=f"underlay {RELAY}/24", eth1="internet 198.18.0.3/24")
        store = open_store(f"sqlite:///{home / 'spot-runner.sqlite'}", SystemClock())
        stack.callback(store.close)
        authority = Authority.open(home / "ca")
        relay_home = home / "relay"
        for name, directory in (("relay", relay_home), ("control", home / "worker")):
            write_leaf(directory, authority.control_leaf(name), authority.control_ca, authority.hosts_ca)
        client = RelayClient(f"https://{RELAY}:8445", home / "worker")
        hub = Hub(store, client, ENDPOINT)
        hosts = HostClient(home / "worker")
        for one in (client, hosts):
            stack.callback(one.close)
        world = World(home, site, control, relay, store, hub, hosts, {}, relay_home)
        start_service(stack, world)
        control.call(hub.refresh)
        places = {
            "a": (site.add("a", eth0=f"underlay {HOST_A}/24"), HOST_A, HOST_A),
            "n": (behind_nat(site, "n", "10.90.0.21"), "192.168.1.2", None),
            "m": (behind_nat(site, "m", "10.90.0.22"), "192.168.1.2", None),
        }
        for name, (place, local, public) in places.items():
            start(stack, world, launch(world, name, place, local, public))
        register(world)
        yield world


def start_service(stack: ExitStack, world: World) -> None:
    serving = {
        "SPOT_RUNNER_HOME": str(world.home),
        "SPOT_RUNNER_PUBLIC_LISTEN": "127.0.0.1:8080",
        "SPOT_RUNNER_HOST_LISTEN": f"{CONTROL}:8443",
        "SPOT_RUNNER_HOST_URL": URL,
        "SPOT_RUNNER_WEBHOOK_SECRET_FILE": str(world.home / "secret"),
        "SPOT_RUNNER_OVERLAY": "wireguard",
    }
    stack.enter_context(process(world.control, world.home / "serve.log", *CLI, "serve", **serving))
    stack.enter_context(process(world.relay, world.home / "relay.log", *CLI, "relay", **world.relay_settings()))
    until(lambda: answers(world.control, CONTROL, 8443), "the control plane does not answer")
    until(lambda: answers(world.control, RELAY, 8445), "the relay does not answer")


def register(world: World) -> None:
    """Let every machine register, and follow with the hub as the control plane does."""

    def are_ready() -> bool:
        world.follow()
        return all(world.row(name).state is HostState.READY for name in world.machines)

    until(are_ready, "not every host becomes READY")


def end_links(site: Site) -> None:
    """Remove what outlives its daemon, and with it the wireguard-go behind it."""
    for place in site._places:
        for name in place.ip("-o", "link").splitlines():
            link = name.split(":")[1].strip()
            if link.startswith("wg"):
                place.ip("link", "delete", link)
