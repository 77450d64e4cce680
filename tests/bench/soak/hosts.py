"""Hosts whose daemon is the real one and whose engine keeps records instead of microVMs.

user data ─▶ registered with its one-time token ─▶ { host API, heartbeat, proof } over mutual TLS
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.bench.soak.guests import Guests, Pace
from tests.fakes.classes import VIRTUALIZED
from workers.bootstrap.host import keep_renewed
from workers.domain.errors import Refused, TryLater
from workers.domain.messages import BootOrder, HeartbeatAnswer, MoveOrder, RegistrationRequest, RunnerReport, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import HostId, PackageDigest, RunnerId
from workers.host.control import ControlClient
from workers.host.daemon import keep_beating, make_host_app
from workers.host.machine import Machine
from workers.host.proofs import Proofs
from workers.host.readiness import Readiness
from workers.identity import Leaf, make_csr, write_leaf
from workers.listener import Identity, open_port, serve

PORT: Final = 8444
RETRY_S: Final = 0.5
MACHINE: Final = Machine("pc-q35-9.2", VIRTUALIZED.acceleration, "max", vcpus=1, memory_mib=1024)


@dataclass(frozen=True)
class Stock:
    """The one package that every played host holds."""

    machine: Machine = MACHINE
    disk_mib: int = 4096


class PlayedEngine:
    """The Engine port over records: epochs are kept as the real one keeps them, and nothing moves here."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._gone: dict[RunnerId, int] = {}

    async def prepare(self, package: PackageDigest) -> Stock:
        return Stock()

    async def boot(self, order: BootOrder) -> Mapping[str, float]:
        self._refuse_old(order.runner_id, order.epoch)
        if order.epoch <= self._gone.get(order.runner_id, 0):
            raise Refused(f"{order.runner_id} was stopped here at epoch {order.epoch}; it does not come back")
        if order.runner_id not in self._guests.here:
            self._guests.boot(order)
        return {"total_ms": 0.0}

    async def start_runner(self, runner_id: RunnerId, order: StartOrder) -> None:
        guest = self._guests.here.get(runner_id)
        if guest is None:
            raise Refused(f"{runner_id} is not on this host")
        self._refuse_old(runner_id, order.epoch)
        guest.start(order.jit_config)

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        self._refuse_old(runner_id, epoch)
        await self._guests.stop(runner_id)
        self._gone[runner_id] = epoch

    async def receive(self, order: MoveOrder) -> Ports | None:
        raise Refused(f"{order.migration_id}: played hosts move nothing")

    async def send(self, order: MoveOrder) -> None:
        raise Refused(f"{order.migration_id}: played hosts move nothing")

    def reports(self) -> tuple[RunnerReport, ...]:
        return tuple(guest.report for guest in self._guests.here.values())

    def _refuse_old(self, runner_id: RunnerId, epoch: int) -> None:
        guest = self._guests.here.get(runner_id)
        if guest is not None and epoch < guest.record.order.epoch:
            raise Refused(f"{runner_id} is at epoch {guest.record.order.epoch}, so epoch {epoch} comes too late")


@dataclass(frozen=True)
class HostPace:
    """How a played host behaves."""

    work: Pace
    heartbeat_s: float


class PlayedHost:
    """One machine."""

    def __init__(self, directory: Path, host_id: HostId, address: str, told: Mapping[str, str], pace: HostPace) -> None:
        self._directory, self.host_id, self.address = directory, host_id, address
        self._told, self._pace = told, pace

    async def run(self, client: httpx.AsyncClient) -> None:
        """Live until cancelled."""
        identity = self._directory / "identity"
        control = ControlClient(self._told["control_url"], identity)
        await self._registered(control, identity)
        guests = Guests(self._directory / "microvms", client, self._pace.work)
        guests.adopt()
        engine = PlayedEngine(guests)
        proofs = Proofs(self._directory / "proofs.json", VIRTUALIZED)
        readiness = Readiness(engine, VIRTUALIZED, proofs, allow_tcg=False)

        async def hear(answer: HeartbeatAnswer) -> None:
            readiness.want(answer.packages)

        listening = open_port(self.address, PORT)
        files = Identity(identity / "certificate.pem", identity / "key.pem", identity / "control-ca.pem")
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(make_host_app(engine, readiness.heartbeat), listening, files))
            group.create_task(keep_beating(control.heartbeat, readiness.heartbeat, hear, self._pace.heartbeat_s))
            group.create_task(keep_renewed(control.renew, self.host_id, identity))
            group.create_task(readiness.prove())

    async def _registered(self, control: ControlClient, identity: Path) -> None:
        """Exchange the one-time token for a certificate, once in this machine's life."""
        if (identity / "hosts-ca.pem").exists():
            return
        key, csr = make_csr(self.host_id)
        request = RegistrationRequest(self.host_id, self._told["token"], csr, self.address)
        while True:
            try:
                answer = await control.register(request, self._told["control_ca_sha256"])
            except TryLater:
                await asyncio.sleep(RETRY_S)
            else:
                write_leaf(identity, Leaf(answer.certificate, key), answer.control_ca, answer.hosts_ca)
                return
