"""The relay follows a commit beside its answer: no worker, no broker and no hint has a part in it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.store_rows import a_host, a_migration, a_runner
from tests.integration.overlay_world import CLI, CONTROL, RELAY, answers, process, until
from tests.integration.wires import Place, Site
from workers.clock import SystemClock
from workers.domain.errors import Refused, Unreachable
from workers.domain.host import HostState
from workers.domain.messages import RowView, Word
from workers.domain.migration import Migration, MigrationPhase, Said
from workers.domain.names import HostId, guest_address
from workers.host.control import ControlClient
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.links import Links
from workers.ports import Forwarding
from workers.relay.client import RelayClient
from workers.relay.rules import DEVICE
from workers.store.repository import SqlStore, open_store

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SOURCE, TARGET = HostId("spot-host-a"), HostId("spot-host-b")
ADDRESSES = {SOURCE: "10.90.0.16", TARGET: "10.90.0.17"}


@dataclass
class World:
    control: Place
    relay: Place
    home: Path
    store: SqlStore
    client: RelayClient

    def plan(self, number: int, phase: MigrationPhase) -> Migration:
        """A guest on its way, to which the relay still points where it was."""
        runner = a_runner(number, SOURCE)
        row = a_migration(runner, TARGET, phase)
        assert self.store.runners.add(replace(runner, migration_id=row.id))
        assert self.store.migrations.add(row)
        self.control.call(self.client.point, Forwarding(runner.id, 1, runner.address, ADDRESSES[SOURCE]))
        return row

    def where(self, number: int) -> str | None:
        """The host to which the relay's kernel sends a guest's frames."""

        def look() -> frozenset[tuple[str, str]]:
            with Links() as links:
                return links.tunnel_stations(DEVICE)

        return dict(self.relay.call(look)).get(guest_address(number).mac)

    def is_serving(self) -> bool:
        try:
            self.say(a_migration(a_runner(0, SOURCE), TARGET), Said.COMMITTED)
        except (Refused, Unreachable) as error:
            return "404" in str(error)
        raise AssertionError("there is no such row")

    def say(self, row: Migration, said: Said, who: HostId = TARGET) -> RowView:
        async def talk() -> RowView:
            client = ControlClient(f"https://{CONTROL}:8443", self.home / who)
            try:
                return await client.say(row.id, said, Word(row.epoch))
            finally:
                await client.close()

        return self.control.call(lambda: asyncio.run(talk()))


@contextmanager
def pointing_world(home: Path, extra: Callable[[ExitStack, Place, dict[str, str]], object]) -> Iterator[World]:
    """A relay, a receiver that knows it, two hosts' certificates; `extra` starts what else there is to be."""
    (home / "secret").write_text("not a secret")
    site = Site(f"h7q{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(site.remove)
        control = site.add("control", eth0=f"underlay {CONTROL}/24")
        relay = site.add("relay", eth0=f"underlay {RELAY}/24", eth1="internet 198.18.0.3/24")
        store = stack.enter_context(closing(open_store(f"sqlite:///{home / 'spot-runner.sqlite'}", SystemClock())))
        authority = Authority.open(home / "ca")
        for name, directory in (("relay", home / "relay"), ("control", home / "worker")):
            write_leaf(directory, authority.control_leaf(name), authority.control_ca, authority.hosts_ca)
        for host, address in ADDRESSES.items():
            store.hosts.add(replace(a_host(host, state=HostState.READY), address=address, deadline_at=None))
            key, csr = make_csr(host)
            leaf = Leaf(authority.host_certificate(csr, host, address), key)
            write_leaf(home / host, leaf, authority.control_ca, authority.hosts_ca)
        settings = {
            "SPOT_RUNNER_HOME": str(home),
            "SPOT_RUNNER_PUBLIC_LISTEN": "127.0.0.1:8080",
            "SPOT_RUNNER_HOST_LISTEN": f"{CONTROL}:8443",
            "SPOT_RUNNER_WEBHOOK_SECRET_FILE": str(home / "secret"),
            "SPOT_RUNNER_RELAY_URL": f"https://{RELAY}:8445",
            "SPOT_RUNNER_REDIS_URL": f"redis+socket://{home / 'redis.sock'}",
        }
        relaying = {
            "SPOT_RUNNER_RELAY_HOME": str(home / "relay"),
            "SPOT_RUNNER_RELAY_LISTEN": f"{RELAY}:8445",
            "SPOT_RUNNER_RELAY_ADDRESS": RELAY,
            "SPOT_RUNNER_RELAY_FORBIDDEN": json.dumps([f"{CONTROL}/32"]),
        }
        stack.enter_context(process(relay, home / "relay.log", *CLI, "relay", **relaying))
        stack.enter_context(process(control, home / "serve.log", *CLI, "serve", **settings))
        extra(stack, control, settings)
        until(lambda: answers(control, RELAY, 8445), "the relay does not answer")
        client = stack.enter_context(closing(RelayClient(f"https://{RELAY}:8445", home / "worker")))
        world = World(control, relay, home, store, client)
        until(world.is_serving, "the control plane does not answer its hosts")
        yield world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pointing_world(tmp_path_factory.mktemp("pointing"), lambda *_: None) as world:
        yield world


def test_a_commit_points_the_relay_to_the_target(world: World) -> None:
    row = world.plan(1, MigrationPhase.PAUSED)
    assert world.where(1) == ADDRESSES[SOURCE]
    assert world.say(row, Said.COMMITTED).phase is MigrationPhase.COMMITTED
    until(lambda: world.where(1) == ADDRESSES[TARGET], "the relay does not follow")


def test_what_is_not_committed_points_nobody(world: World) -> None:
    """The source's word is no commit, and an aborted row cannot be committed any more."""
    copying, aborted, marker = (
        world.plan(2, MigrationPhase.COPYING),
        world.plan(3, MigrationPhase.PAUSED),
        world.plan(4, MigrationPhase.PAUSED),
    )
    assert world.say(copying, Said.PAUSED, SOURCE).phase is MigrationPhase.PAUSED
    world.store.decide(aborted, replace(aborted, phase=MigrationPhase.ABORTED))
    assert world.say(aborted, Said.COMMITTED).phase is MigrationPhase.ABORTED
    world.say(marker, Said.COMMITTED)
    until(lambda: world.where(4) == ADDRESSES[TARGET], "the relay does not follow")
    assert [world.where(number) for number in (2, 3)] == [ADDRESSES[SOURCE]] * 2


def test_a_relay_that_knows_better_is_left_alone(world: World) -> None:
    row = world.plan(5, MigrationPhase.PAUSED)
    runner = a_runner(5, SOURCE)
    later = Forwarding(runner.id, row.epoch + 1, runner.address, "10.90.0.18")
    world.control.call(world.client.point, later)
    assert world.say(row, Said.COMMITTED).phase is MigrationPhase.COMMITTED
    log = world.home / "serve.log"
    until(lambda: "comes too late" in log.read_text(), "the relay was not asked")
    assert world.where(5) == "10.90.0.18"


def test_a_commit_is_answered_while_the_relay_hangs(world: World) -> None:
    """What the relay does is no part of the answer: a guest stands still until it has come."""
    row = world.plan(6, MigrationPhase.PAUSED)
    world.relay.ip("link", "set", "eth0", "down")
    try:
        began = time.monotonic()
        assert world.say(row, Said.COMMITTED).phase is MigrationPhase.COMMITTED
        assert time.monotonic() - began < 1.0, "the relay's own limit is three seconds"
    finally:
        world.relay.ip("link", "set", "eth0", "up")
