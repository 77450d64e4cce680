"""An engine without microVMs: it keeps epochs as the real one does, takes orders twice, and can be made to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.domain.errors import BadPackage, Refused, SpotError, TryLater
from workers.domain.host_class import Acceleration
from workers.domain.messages import BootOrder, MonitorState, MoveOrder, RunnerReport, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import PackageDigest, RunnerId
from workers.host.machine import Machine

PORTS = Ports(memory=49152, disk=49153)
MACHINE = Machine(type="pc-q35-7.2", acceleration=Acceleration.TCG, cpu="max", vcpus=1, memory_mib=1024)


@dataclass(frozen=True)
class FakeStock:
    machine: Machine = MACHINE
    disk_mib: int = 4096


@dataclass
class FakeEngine:
    """Packages on its shelf are whole, any other is not; `trouble` is raised by the next boot."""

    epochs: dict[RunnerId, int] = field(default_factory=dict)
    gone: dict[RunnerId, int] = field(default_factory=dict)
    configured: dict[RunnerId, str] = field(default_factory=dict)
    receiving: list[MoveOrder] = field(default_factory=list)
    sending: list[MoveOrder] = field(default_factory=list)
    booted: list[BootOrder] = field(default_factory=list)
    shelf: set[PackageDigest] = field(default_factory=set)
    trouble: SpotError | None = None
    most_at_once: int = 0

    async def prepare(self, package: PackageDigest) -> FakeStock:
        if package not in self.shelf:
            raise BadPackage(f"package: {package} is not here; fetch or build it")
        return FakeStock()

    async def boot(self, order: BootOrder) -> Mapping[str, float]:
        self._refuse_old(order.runner_id, order.epoch)
        self.booted.append(order)
        self.epochs[order.runner_id] = order.epoch
        self.most_at_once = max(self.most_at_once, len(self.epochs))
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        return {"total_ms": 120.5}

    async def start_runner(self, runner_id: RunnerId, order: StartOrder) -> None:
        if runner_id not in self.epochs:
            raise TryLater(f"{runner_id} is not here yet")
        self._refuse_old(runner_id, order.epoch)
        self.configured[runner_id] = order.jit_config

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        self._refuse_old(runner_id, epoch)
        self.epochs.pop(runner_id, None)
        self.gone[runner_id] = epoch

    async def receive(self, order: MoveOrder) -> Ports:
        self.receiving.append(order)
        return PORTS

    async def send(self, order: MoveOrder) -> None:
        self.sending.append(order)

    def reports(self) -> tuple[RunnerReport, ...]:
        return tuple(RunnerReport(each, epoch, MonitorState.RUNNING) for each, epoch in self.epochs.items())

    def _refuse_old(self, runner_id: RunnerId, epoch: int) -> None:
        known = self.epochs.get(runner_id, 0)
        if epoch < known:
            raise Refused(f"{runner_id} is at epoch {known}, so epoch {epoch} comes too late")
