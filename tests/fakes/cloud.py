"""A cloud that takes its time, runs out, and takes machines back with or without a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

from tests.fakes.trouble import Trouble
from workers.domain.errors import NoCapacity
from workers.domain.market import ANYWHERE, Sources, SpotPool
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine as Told
from workers.ports import Clock, Instance, InstanceState

BOOT_TIME = timedelta(seconds=8)
END_TIME = timedelta(seconds=3)


@dataclass
class Machine:
    instance: Instance
    user_data: Mapping[str, str]
    address: str
    boots_until: datetime
    taken_back_at: datetime | None = None
    ends_at: datetime | None = None

    def seconds_left(self, now: datetime) -> float | None:
        return None if self.taken_back_at is None else max(0.0, (self.taken_back_at - now).total_seconds())


class FakeCloud:
    def __init__(self, clock: Clock, trouble: Trouble, name: str = "fake") -> None:
        self._clock, self._trouble, self._name = clock, trouble, name
        self.machines: dict[HostId, Machine] = {}
        self.is_sold_out = False
        self.sold_out: set[SpotPool | None] = set()
        self.asked_for: dict[HostId, Sources] = {}
        self._addresses = count(16)

    @property
    def name(self) -> str:
        return self._name

    def launch(
        self, host_id: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE
    ) -> Instance:
        with self._trouble.befalls("cloud", "launch", host_id):
            self.asked_for[host_id] = sources
            if host_id not in self.machines:
                if self.is_sold_out or sources.pick in self.sold_out:
                    raise NoCapacity("sold out")
                pick = sources.pick
                told = Told(zone=pick.zone, instance_type=pick.instance_type, lifecycle="spot") if pick else None
                instance = Instance(f"i-{host_id}", host_id, InstanceState.PENDING, told)
                address = f"10.90.0.{next(self._addresses)}"
                self.machines[host_id] = Machine(instance, dict(user_data), address, self._clock.now() + BOOT_TIME)
            return self.machines[host_id].instance

    def terminate(self, host_id: HostId) -> None:
        with self._trouble.befalls("cloud", "terminate", host_id):
            machine = self.machines.get(host_id)
            if machine is not None and machine.ends_at is None:
                machine.ends_at = self._clock.now() + END_TIME

    def describe(self, host_id: HostId) -> Instance | None:
        with self._trouble.befalls("cloud", "describe", host_id):
            machine = self.machines.get(host_id)
            return machine.instance if machine else None

    def owned(self) -> Iterable[Instance]:
        with self._trouble.befalls("cloud", "owned", ""):
            return [machine.instance for machine in self.machines.values() if self.is_alive(machine.instance.host_id)]

    # ------------------------------------------------------------ what befalls machines

    def is_alive(self, host_id: HostId) -> bool:
        machine = self.machines.get(host_id)
        return machine is not None and machine.instance.state is not InstanceState.TERMINATED

    def alive(self) -> list[HostId]:
        return [host_id for host_id in self.machines if self.is_alive(host_id)]

    def kill(self, host_id: HostId) -> None:
        self._enter(host_id, InstanceState.TERMINATED)

    def switch_off(self, host_id: HostId) -> None:
        self._enter(host_id, InstanceState.STOPPED)

    def take_back(self, host_id: HostId, notice: timedelta) -> None:
        self.machines[host_id].taken_back_at = self._clock.now() + notice

    def pass_time(self) -> None:
        now = self._clock.now()
        for host_id in self.alive():
            machine = self.machines[host_id]
            ends = [at for at in (machine.taken_back_at, machine.ends_at) if at is not None]
            if ends and now >= min(ends):
                self.kill(host_id)
            elif machine.instance.state is InstanceState.PENDING and now >= machine.boots_until:
                self._enter(host_id, InstanceState.RUNNING)

    def _enter(self, host_id: HostId, state: InstanceState) -> None:
        machine = self.machines.get(host_id)
        if machine is not None:
            machine.instance = replace(machine.instance, state=state)
