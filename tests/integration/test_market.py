"""The spot market, with real namespaces; in place of the host daemon stands a program that only tries to stay alive."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from workers.rehearsal import remains
from workers.rehearsal.drill.saboteur import fill_up
from workers.rehearsal.landlord import Estate
from workers.rehearsal.places import Places
from workers.rehearsal.processes import Processes, Program
from workers.rehearsal.remains import Journal, wait_until
from workers.rehearsal.topology import Topology, standing_in

pytestmark = pytest.mark.root

URL = "http://198.18.0.10:8700"
SPEC = {"vcpus": 2, "memory_mib": 2048, "disk_mib": 4096}
LIMIT_S = 20.0
DISK_MIB = 16
# It is in a control group as a microVM would be, ignores SIGTERM, and has a child like itself in another session.
STUBBORN = """
GROUPS = "/sys/fs/cgroup/pids", "/sys/fs/cgroup"
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(75))
home = pathlib.Path(os.environ["SPOT_RUNNER_HOST_HOME"])
home.mkdir(exist_ok=True)
group = next(g for g in map(pathlib.Path, GROUPS) if g.exists()) / "spot-runner" / home.name / "microvm"
group.mkdir(parents=True, exist_ok=True)
(group / "cgroup.procs").write_text(str(os.getpid()))
if os.fork() == 0:
    os.setsid()
    (home / "child").write_text(str(os.getpid()))
while True:
    time.sleep(60)
"""


@contextlib.contextmanager
def rehearsal(letter: str) -> Iterator[Places]:
    places = Places(f"{letter}{os.getpid() % 1000000}")
    with remains.alone(places):
        remains.sweep(places)
        yield places
        remains.sweep(places)
        shutil.rmtree(places.logs)


class Market:
    """The real market program, asked from inside its own network."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.journal = Journal(places.journal)
        Topology(places, self.journal).build()
        python = sys.executable
        daemon, metadata = (python, "-c", STUBBORN), (python, "-m", "workers.rehearsal.imds")
        estate = Estate(places, daemon, metadata, launch_s=0.2, disk_mib=DISK_MIB)
        file = places.run / "market.json"
        body = {"estate": TypeAdapter(Estate).dump_python(estate, mode="json"), "listen": ["198.18.0.10", 8700]}
        file.write_text(json.dumps(body))
        self.processes = Processes(places.logs, self.journal)
        command = (python, "-m", "workers.rehearsal.market", str(file))
        self.program = self.processes.start(Program("market", command, places.namespace("internet")))
        self.program.wait_ready(lambda: self.answers("GET", "/instances", 200), LIMIT_S)

    def ask(self, method: str, path: str, body: object = None, content: bytes | None = None) -> httpx.Response:
        with standing_in(self.places.namespace("internet")), httpx.Client(trust_env=False) as client:
            return client.request(method, URL + path, json=body, content=content)

    def answers(self, method: str, path: str, status: int) -> bool:
        try:
            return self.ask(method, path).status_code == status
        except httpx.TransportError:
            return False

    def launch(self, host: str, user_data: str = "") -> dict[str, Any]:
        answer = self.ask("PUT", f"/instances/{host}", {"spec": SPEC, "user_data": user_data})
        assert answer.status_code == 200, answer.text
        instance: dict[str, Any] = answer.json()
        return instance

    def state(self, host: str) -> str:
        return str(self.ask("GET", f"/instances/{host}").json()["state"])

    def wait_state(self, host: str, state: str, limit_s: float = LIMIT_S) -> None:
        assert wait_until(lambda: self.state(host) == state, limit_s), self.state(host)

    def running(self, host: str, user_data: str = "") -> None:
        """Launch a host and wait until its program and the program's child are there."""
        self.launch(host, user_data)
        self.wait_state(host, "running")
        child = self.home(host) / "child"
        assert wait_until(lambda: child.exists() and bool(child.read_text()), LIMIT_S)

    def home(self, host: str) -> Path:
        return self.places.state / host

    def metadata(self, host: str, method: str, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with standing_in(self.places.namespace(host)), httpx.Client(trust_env=False) as client:
            return client.request(method, f"http://169.254.169.254/{path}", headers=named)

    def token(self, host: str) -> str:
        ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
        return self.metadata(host, "PUT", "latest/api/token", **ttl).text

    def read(self, host: str, path: str) -> httpx.Response:
        return self.metadata(host, "GET", path, X_aws_ec2_metadata_token=self.token(host))


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """One market for many tests; each rents hosts of its own."""
    with rehearsal("m") as places:
        market = Market(places)
        yield market
        market.processes.stop()


@pytest.fixture
def doomed_market() -> Iterator[Market]:
    """A market that the test ends."""
    with rehearsal("d") as places:
        market = Market(places)
        yield market
        market.processes.stop()


def gone(market: Market, host: str, programs: frozenset[int]) -> bool:
    namespace = market.places.namespace(host)
    alive = [pid for pid in programs if remains.start_time(pid)]
    left = [place for place in (remains.NETNS / namespace, market.home(host)) if place.exists()]
    return not alive and not left and not remains.cgroups(host)


def test_launching_takes_its_time_and_asking_twice_gives_the_same_machine(market: Market) -> None:
    first = market.launch("h-a", "one")
    assert first["state"] == "pending"
    market.wait_state("h-a", "running")
    assert market.launch("h-a", "other")["id"] == first["id"]
    assert [one["host_id"] for one in market.ask("GET", "/instances").json()].count("h-a") == 1


def test_the_machine_reads_its_user_data_only_with_a_token(market: Market) -> None:
    market.running("h-b2", "#cloud-config\n{}\n")
    assert market.metadata("h-b2", "GET", "latest/user-data").status_code == 401
    assert market.metadata("h-b2", "GET", "latest/user-data", X_aws_ec2_metadata_token="made-up").status_code == 401
    assert market.metadata("h-b2", "PUT", "latest/api/token").status_code == 400
    assert market.read("h-b2", "latest/user-data").text == "#cloud-config\n{}\n"
    assert market.read("h-b2", "latest/meta-data/local-ipv4").text.startswith("10.90.0.")
    assert market.read("h-b2", "latest/meta-data/spot/instance-action").status_code == 404


def test_a_notice_is_served_at_once_and_ends_every_process_at_its_deadline(market: Market) -> None:
    market.running("h-c")
    programs = remains.inside(market.places.namespace("h-c"))
    assert len(programs) == 3, "metadata service, daemon, and the child that left its session"
    assert market.ask("POST", "/instances/h-c/notice", {"seconds": 3}).status_code == 204
    action = market.read("h-c", "latest/meta-data/spot/instance-action")
    assert action.json()["action"] == "terminate"
    assert market.state("h-c") == "running", "the deadline is not over"
    market.wait_state("h-c", "terminated")
    assert gone(market, "h-c", programs)


def test_a_machines_own_disk_can_be_full_and_goes_with_it(market: Market) -> None:
    market.running("h-s")
    market.running("h-s2")
    home = market.home("h-s")
    fill_up(home / "filler")
    with pytest.raises(OSError, match="No space left"):
        (home / "more").write_bytes(bytes(1 << 20))
    (market.home("h-s2") / "another").write_bytes(bytes(1 << 20))
    market.ask("DELETE", "/instances/h-s")
    market.wait_state("h-s", "terminated")
    assert not [point for point in remains.mounts(market.places) if point == str(home)]
    assert not home.exists()


def test_a_daemon_that_ends_by_itself_is_started_again(market: Market) -> None:
    market.running("h-r")
    (daemon,) = filter(has_child, remains.inside(market.places.namespace("h-r")))
    (market.home("h-r") / "child").unlink()
    os.kill(daemon, 9)
    assert wait_until((market.home("h-r") / "child").exists, LIMIT_S)
    assert market.state("h-r") == "running"


def test_a_daemon_that_has_ended_its_machine_is_not_started_again(market: Market) -> None:
    market.running("h-p")
    (daemon,) = filter(has_child, remains.inside(market.places.namespace("h-p")))
    os.kill(daemon, signal.SIGUSR1)
    market.wait_state("h-p", "terminated")
    assert not remains.inside(market.places.namespace("h-p"))


def has_child(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_withdrawn_notice_is_not_served_any_more_and_the_machine_stays(market: Market) -> None:
    market.running("h-w")
    assert market.ask("POST", "/instances/h-w/notice", {"seconds": 600}).status_code == 204
    assert market.read("h-w", "latest/meta-data/spot/instance-action").status_code == 200
    assert market.ask("DELETE", "/instances/h-w/notice").status_code == 204
    assert market.read("h-w", "latest/meta-data/spot/instance-action").status_code == 404
    market.ask("POST", "/instances/h-w/notice", {"seconds": 0.2})
    market.wait_state("h-w", "terminated")
    assert market.ask("DELETE", "/instances/h-w/notice").status_code == 404


def test_a_daemon_can_be_made_to_crash(market: Market) -> None:
    market.running("h-y")
    (daemon,) = filter(has_child, remains.inside(market.places.namespace("h-y")))
    assert market.ask("POST", "/instances/h-y/crash").status_code == 204
    assert wait_until(lambda: not Path(f"/proc/{daemon}").exists(), LIMIT_S)
    assert wait_until(lambda: any(map(has_child, remains.inside(market.places.namespace("h-y")))), LIMIT_S)


def test_a_second_notice_does_not_put_the_deadline_off(market: Market) -> None:
    market.running("h-d")
    market.ask("POST", "/instances/h-d/notice", {"seconds": 1})
    market.ask("POST", "/instances/h-d/notice", {"seconds": 3000})
    market.wait_state("h-d", "terminated")


def test_no_seconds_means_gone_without_a_notice_and_the_others_stay(market: Market) -> None:
    market.running("h-e")
    market.running("h-e2")
    programs = remains.inside(market.places.namespace("h-e"))
    assert market.ask("POST", "/instances/h-e/notice", {"seconds": 0}).status_code == 204
    market.wait_state("h-e", "terminated")
    assert gone(market, "h-e", programs)
    assert market.state("h-e2") == "running"
    assert len(remains.inside(market.places.namespace("h-e2"))) == 3


def test_terminating_twice_or_one_that_never_was_does_no_harm(market: Market) -> None:
    market.running("h-f")
    for _ in range(2):
        assert market.ask("DELETE", "/instances/h-f").status_code == 204
    market.wait_state("h-f", "terminated")
    assert market.ask("DELETE", "/instances/h-f").status_code == 204
    assert market.ask("DELETE", "/instances/never-was").status_code == 204
    assert market.ask("GET", "/instances/never-was").status_code == 404
    assert "h-f" not in {one["host_id"] for one in market.ask("GET", "/instances").json()}


def test_a_machine_that_is_ended_before_it_was_made_never_comes_to_be(market: Market) -> None:
    market.launch("h-g")
    market.ask("DELETE", "/instances/h-g")
    market.wait_state("h-g", "terminated")
    assert gone(market, "h-g", frozenset())


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("PUT", "/instances/h-bad", b"{"),
        ("PUT", "/instances/h-bad", b'{"spec": {"vcpus": 1}, "user_data": ""}'),
        ("PUT", "/instances/h-bad", json.dumps({"spec": SPEC, "user_data": {}}).encode()),
        ("PUT", "/instances/..%2f..%2fetc", json.dumps({"spec": SPEC, "user_data": ""}).encode()),
        ("PUT", "/instances/h-bad", json.dumps({"spec": SPEC, "user_data": "", "more": 1}).encode()),
        ("POST", "/instances/h-bad/notice", b'{"seconds": -1}'),
        ("POST", "/instances/h-bad/notice", b'{"seconds": "soon"}'),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(market: Market, method: str, path: str, content: bytes) -> None:
    answer = market.ask(method, path, content=content)
    assert answer.status_code in {400, 404}, answer.text
    assert market.ask("GET", "/instances/h-bad").status_code == 404


def test_notice_for_nobody_is_not_found(market: Market) -> None:
    assert market.ask("POST", "/instances/nobody/notice", {"seconds": 1}).status_code == 404
    assert market.ask("POST", "/instances/nobody/rebalance").status_code == 404


def test_when_the_market_ends_its_machines_end_too(doomed_market: Market) -> None:
    doomed_market.running("h-k")
    programs = remains.inside(doomed_market.places.namespace("h-k"))
    doomed_market.processes.stop()
    assert gone(doomed_market, "h-k", programs)


def test_sweeping_ends_what_a_killed_market_left_and_nothing_else(doomed_market: Market) -> None:
    doomed_market.running("h-l")
    programs = remains.inside(doomed_market.places.namespace("h-l"))
    remnants = doomed_market.journal.remnants()
    os.kill(doomed_market.program.child.pid, 9)
    doomed_market.program.child.wait()
    assert any(remains.start_time(pid) for pid in programs), "the stubborn ones live on, so there is something to sweep"
    bystander = socket.socketpair()
    remains.sweep(doomed_market.places)
    assert remains.leftovers(doomed_market.places, remnants) == ()
    assert not any(remains.start_time(pid) for pid in programs)
    bystander[0].close()
    bystander[1].close()
