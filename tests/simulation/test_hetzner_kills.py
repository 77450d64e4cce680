"""Hosts at Hetzner while the worker dies in the middle of its calls, again and again: in the end nothing is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask
from hcloud import Client
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.fakes.trouble import WorkerDied
from workers.domain.errors import TryLater
from workers.domain.host import Host, HostState
from workers.domain.names import host_id
from workers.domain.runner import Shape
from workers.planning.capacity import CapacityPolicy
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.cloud import Hetzner
from workers.providers.hetzner.requests import Rental
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts
from workers.rehearsal.hetzner.app import Settings, Simulation
from workers.rehearsal.hetzner.faults import Fault, FaultKind

KILLS = 200
SPEC = Shape(vcpus=2, memory_mib=1024, disk_mib=8192)
TOKEN = "simulated"
HOSTS_MAX = 6
FAULTS = ("conflict", "server_error", "resource_unavailable", "locked", "maintenance", "timeout")


class MortalWire(BaseAdapter):
    """Carries requests to the simulator; now and then the worker dies before one is carried out, or after it."""

    def __init__(self, app: Flask, dice: random.Random, death: float) -> None:
        super().__init__()
        self._http, self._dice, self.death = app.test_client(), dice, death

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002
        timeout: object = None,
        verify: object = True,  # noqa: FBT002
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        self._perhaps_die()
        url = urlsplit(str(request.url))
        told = self._http.open(
            url.path, method=request.method, query_string=url.query, headers=dict(request.headers), data=request.body
        )
        self._perhaps_die()
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = told.status_code, str(request.url), request
        answer._content, answer.headers = told.data, CaseInsensitiveDict(told.headers.items())
        return answer

    def close(self) -> None:
        """There is nothing to close."""

    def _perhaps_die(self) -> None:
        if self._dice.random() < self.death / 2:
            raise WorkerDied


class Deployment:
    """A store, a project at Hetzner, and workers that come and go."""

    def __init__(self, seed: int) -> None:
        self.dice, self.clock, self.death, self.made = random.Random(seed), FakeClock(), 0.2, 0
        self.simulation = Simulation(Settings((TOKEN,)), self.clock)
        self.project = self.simulation.project
        self.project.stock.servers_max = 2 * HOSTS_MAX
        self.project.add_image("snapshot", "ours", disk_gb=40, labels={"spot-runner/image": "pvm"})
        self.store = MemoryStore(self.clock)

    def worker(self) -> Hosts:
        """Start a worker; the former one's memory is gone."""
        client = Client(TOKEN, api_endpoint="http://hetzner/v1")
        client._client._session.mount("http://", MortalWire(self.simulation.flask, self.dice, self.death))
        cloud = Hetzner(Account(client, Rental("ab12cd", 51820), self.clock), self.clock)
        hints = LossyHints(self.dice)
        buyer = Buyer(self.store, hints, self.clock, CapacityPolicy("hetzner", SPEC, 0, HOSTS_MAX))
        return Hosts(self.store, Clouds([cloud], Outages(self.clock)), hints, self.clock, buyer, HostPolicy({}))

    def work(self, hosts: Hosts) -> None:
        """Let some time pass and look at everything once."""
        self.clock.move(timedelta(seconds=self.dice.randint(5, 60)))
        for key in hosts.due():
            _patiently(partial(hosts.advance, key))
        if self.dice.random() < 0.3:
            _patiently(hosts.end_leaked)

    def live(self) -> None:
        """Let a worker ask for hosts, and end them, until it dies."""
        hosts = self.worker()
        while True:
            if len(self.store.hosts.open()) < HOSTS_MAX and self.dice.random() < 0.6:
                self.ask_for_a_host()
            if self.dice.random() < 0.2:
                code, method = self.dice.choice(FAULTS), self.dice.choice(("GET", "POST", "DELETE"))
                kind = self.dice.choice([FaultKind.ERROR, FaultKind.LOST, FaultKind.DOWN])
                self.simulation.faults.plant(Fault(kind, method, "/servers", code=code))
            if self.project.servers and self.dice.random() < 0.1:
                self.project.switch_off(self.dice.choice(list(self.project.servers.values())))
            self.work(hosts)

    def ask_for_a_host(self) -> None:
        self.made += 1
        name, now = host_id(f"{self.made:04}"), self.clock.now()
        self.store.hosts.add(Host(name, "hetzner", HostState.REQUESTED, now, SPEC))


def _patiently(step: Callable[[], None]) -> None:
    with suppress(TryLater):
        step()


def test_nothing_is_left_after_200_kills_and_no_host_was_ever_two_servers() -> None:
    deployment = Deployment(seed=1)
    for _ in range(KILLS):
        with pytest.raises(WorkerDied):
            deployment.live()
    deployment.death = 0.0
    deployment.simulation.faults = type(deployment.simulation.faults)()
    hosts = deployment.worker()
    end = deployment.clock.now() + timedelta(hours=1)
    while deployment.store.hosts.open() or deployment.project.servers:
        assert deployment.clock.now() < end, [one.name for one in deployment.project.servers.values()]
        deployment.work(hosts)
        deployment.project.settle()
    bought = Counter(server.name for server in deployment.project.deleted)
    assert sum(bought.values()) > KILLS / 4, "it was about something"
    assert [name for name, times in bought.items() if times > 1] == []
