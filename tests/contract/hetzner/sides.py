"""The simulated Hetzner Cloud on a socket, and Hetzner's own client in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from hcloud import Client
from hcloud.images import BoundImage, Image
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer

from tests.contract.clouds import answering
from tests.fakes.clock import FakeClock
from workers.domain.runner import Shape
from workers.providers.hetzner.cloud import Hetzner as HetznerCloud
from workers.providers.hetzner.requests import Rental
from workers.rehearsal.hetzner.app import Settings, Simulation
from workers.rehearsal.hetzner.faults import Fault, FaultKind

TOKEN, READONLY = "simulated-token", "simulated-readonly-token"
CALL_LIMIT_S = 10.0

T = TypeVar("T")


def known(value: T | None) -> T:
    """Hetzner's client calls everything optional."""
    assert value is not None
    return value


@dataclass
class Hetzner:
    """One simulated project that somebody can reach."""

    simulation: Simulation
    clock: FakeClock
    url: str

    def client(self, token: str = TOKEN) -> Client:
        """Return Hetzner's own client; it does not repeat by itself, so that every answer is seen."""
        client = Client(token, api_endpoint=f"{self.url}/v1", poll_interval=0, timeout=CALL_LIMIT_S)
        client._client._retry_max_retries = 0
        return client

    def pass_time(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))

    def created(self, name: str = "one", labels: dict[str, str] | None = None) -> BoundServer:
        answer = self.client().servers.create(name, ServerType(name="cx42"), Image(name="debian-12"), labels=labels)
        return answer.server

    def image(self, labels: dict[str, str]) -> BoundImage:
        image = self.simulation.project.add_image("snapshot", "ours", disk_gb=40, labels=labels)
        return self.client().images.get_by_id(image.id)


@contextmanager
def hetzner(requests_per_hour: int = 3600) -> Iterator[Hetzner]:
    clock = FakeClock()
    settings = Settings((TOKEN,), (READONLY,), requests_per_hour=requests_per_hour)
    simulation = Simulation(settings, clock)
    with answering(simulation.flask) as url:
        yield Hetzner(simulation, clock, url)


IMAGE_LABELS = {"spot-runner/image": "pvm"}
BIG = Shape(vcpus=8, memory_mib=14 * 1024, disk_mib=65536)
RENTAL = Rental(deployment="ab12cd", overlay_port=51820, locations=("nbg1", "hel1"))


@contextmanager
def rented_from(place: Hetzner, rental: Rental = RENTAL, token: str = TOKEN) -> Iterator[HetznerCloud]:
    """Our adapter in front of a simulated project."""
    with closing(HetznerCloud.open(rental, token, place.clock, f"{place.url}/v1")) as cloud:
        yield cloud


def plant(
    place: Hetzner, kind: FaultKind, method: str = "POST", path: str = "/servers", code: str = "conflict"
) -> None:
    place.simulation.faults.plant(Fault(kind, method, path, code=code))


def bought(place: Hetzner) -> list[tuple[str, str]]:
    servers = place.simulation.project.servers.values()
    return [(one.type.name, one.location.name) for one in servers]
