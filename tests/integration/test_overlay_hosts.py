"""Hosts of three networks: each makes its key, registers, is given its peers, and is called by its overlay address."""

from __future__ import annotations

import base64
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.overlay_world import (
    CLI,
    HOST_A,
    RELAY,
    World,
    answers,
    commands,
    daemon_settings,
    overlay_world,
    process,
    until,
)
from tests.integration.wires import CALL_LIMIT_S, run
from workers.domain.host import HostState
from workers.domain.overlay import HUB_ADDRESS
from workers.wireguard import link_name

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

KEY_FILE = "wireguard.key"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with overlay_world(tmp_path_factory.mktemp("overlay")) as world:
        yield world


def test_each_has_an_address_of_its_own_at_which_the_control_plane_calls_it(world: World) -> None:
    addresses = [world.row(name).address for name in world.machines]
    assert sorted(map(str, addresses)) == ["10.91.0.16", "10.91.0.17", "10.91.0.18"]
    for name in world.machines:
        world.call(name)


def test_the_hub_lets_in_every_host_and_nobody_else(world: World) -> None:
    assert world.hub_peers() == {world.key(name) for name in world.machines}


@pytest.mark.parametrize(("caller", "called"), [("a", "n"), ("n", "a"), ("n", "m"), ("m", "n")])
def test_hosts_of_different_networks_reach_each_other_whoever_calls(world: World, caller: str, called: str) -> None:
    address = str(world.row(called).address)
    until(lambda: answers(world.machines[caller].place, address, 8444), f"{caller} does not reach {called}")


def test_without_its_tunnel_a_host_has_no_way_to_another_network(world: World) -> None:
    assert not answers(world.machines["a"].place, "192.168.1.2", 8444)
    assert not answers(world.machines["n"].place, HOST_A, 8444), "the daemon answers on the overlay alone"


def test_a_private_key_stays_where_it_was_made(world: World) -> None:
    keys = {base64.b64encode((one.identity / "wireguard.key").read_bytes()) for one in world.machines.values()}
    keys.add(base64.b64encode((world.relay_home / "wireguard.key").read_bytes()))
    assert len(keys) == 4
    for one in (*(each.identity for each in world.machines.values()), world.relay_home):
        assert (one / "wireguard.key").stat().st_mode & 0o777 == 0o600
        assert one.stat().st_mode & 0o777 == 0o700
    with sqlite3.connect(world.home / "spot-runner.sqlite") as connection:
        told = "\n".join(connection.iterdump()).encode()
    connection.close()
    told += b"".join(file.read_bytes() for file in world.home.rglob("*") if file.is_file() and file.name != KEY_FILE)
    told += b"".join(commands(one) + environment(one) for one in Path("/proc").glob("[0-9]*"))
    assert not [key for key in keys if key in told or base64.b64decode(key) in told]
    assert world.key("a").encode() in told, "the public one is told, so we looked in the right places"


def environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_addresses_of_the_overlay_are_believed_of_tunnels_alone(world: World) -> None:
    """A stranger on their own network speaks to a host in the relay's name and to the relay in a host's."""
    a, stranger = world.machines["a"].place, world.site.add("stranger", eth0="underlay 10.90.0.66/24")
    hub, host = HUB_ADDRESS, str(world.row("n").address)
    for forged in (hub, host):
        stranger.ip("address", "add", f"{forged}/32", "dev", "lo")

    def say(source: str, target: str, text: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            mouth.bind((source, 0))
            mouth.sendto(text, (target, 7000))

    for place, target, forged in ((a, HOST_A, hub), (world.relay, RELAY, host)):
        with closing(place.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)) as ear:
            ear.bind(("", 7000))
            ear.settimeout(CALL_LIMIT_S)
            run("ip", "netns", "exec", place.name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
            run("ip", "netns", "exec", place.name, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0")
            stranger.call(say, forged, target, b"forged")
            stranger.call(say, "10.90.0.66", target, b"honest")
            assert ear.recvfrom(100)[0] == b"honest"


def test_what_has_ended_of_a_link_is_put_right_by_the_next_heartbeat(world: World) -> None:
    n = world.machines["n"]
    child = n.monitor_of_link()
    if child is None:
        pytest.skip("this kernel has WireGuard, so there is no process to kill")
    os.kill(child, signal.SIGKILL)
    until(lambda: n.monitor_of_link() not in {None, child}, "no other wireguard-go is started")
    until(lambda: world.reaches("n"), "the control plane does not reach it again")


def test_a_daemon_that_starts_again_has_its_place_and_its_peers(world: World) -> None:
    n = world.machines["n"]
    before, address = n.peers(), world.row("n").address
    assert n.daemon is not None
    n.daemon.send_signal(signal.SIGTERM)
    n.daemon.wait(CALL_LIMIT_S)
    with ExitStack() as stack:
        log = world.home / "n.log"
        stack.enter_context(process(n.place, log, *CLI, "host", **daemon_settings(n)))
        until(lambda: world.reaches("n"), "the control plane does not reach it again")
        assert (n.peers(), world.row("n").address) == (before, address)


def test_a_relay_that_starts_again_lets_in_whom_it_had(world: World) -> None:
    link = link_name(str(world.relay_home))
    before = world.hub_peers()
    world.relay.ip("link", "delete", link)
    with process(world.relay, world.home / "relay-again.log", *CLI, "relay", **world.relay_settings(8446)):
        until(lambda: world.hub_peers() == before, "the relay does not let in whom it had")
        until(lambda: world.reaches("a"), "the control plane does not reach its hosts again")


def test_a_terminated_host_is_gone_everywhere_at_the_next_heartbeat(world: World) -> None:
    gone = world.key("m")
    assert gone in world.machines["a"].peers()
    with world.store.hosts.lease(world.machines["m"].id) as lease:
        lease.write(replace(lease.row, state=HostState.TERMINATED))
    world.follow()
    assert gone not in world.hub_peers()
    until(lambda: gone not in world.machines["a"].peers(), "a still speaks to it")
    assert not answers(world.machines["m"].place, str(world.row("a").address), 8444)
    world.call("a")
