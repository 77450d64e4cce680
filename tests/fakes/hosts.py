"""Hosts and their daemons: they register, beat, boot microVMs, and move them as the row allows.

The daemon here speaks to the production receiver (`webhook.words.Words`), so
what a host may say is judged by the code that judges it in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.fakes.classes import VIRTUALIZED
from tests.fakes.cloud import FakeCloud, Machine
from tests.fakes.github import FakeGitHub
from tests.fakes.guests import Guest
from tests.fakes.parked import ParkedGuests
from tests.fakes.relay import FakeRelay
from tests.fakes.store import UNDECIDED, MemoryStore
from tests.fakes.trouble import Trouble
from webhook.words import Words
from workers.domain.errors import Refused, TryLater, Unreachable
from workers.domain.host import Host
from workers.domain.messages import (
    BootOrder,
    Heartbeat,
    Load,
    MonitorState,
    MoveOrder,
    Notice,
    NoticeKind,
    RegistrationRequest,
    RowView,
    RunnerReport,
    Word,
)
from workers.domain.migration import LINE_FIGURE, MigrationPhase, Ports, Said
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.ports import InstanceState

PREPARE_TIME = timedelta(seconds=4)
# Which makes a move take about as long as `copy_takes` at its slowest.
LOAD = Load(memory_mib=900.0, disk_mib=20.0, dirty_mib_s=5.0)
FIGURES = {LINE_FIGURE: 100.0}
PORTS = Ports(memory=40001, disk=40002)
_FORWARD = {MigrationPhase.COMMITTED, MigrationPhase.FINISHED}


class PlainAuthority:
    control_ca = "control"
    hosts_ca = "hosts"

    def host_certificate(self, csr_pem: str, host_id: HostId, address: str) -> str:
        return f"{host_id} at {address}"

    def move_certificate(self, csr_pem: str, host_id: HostId, migration_id: MigrationId) -> str:
        return f"{host_id} in {migration_id}"


@dataclass
class Vm:
    guest: Guest
    epoch: int
    is_running: bool = True


@dataclass
class Sending:
    order: MoveOrder
    ready_at: datetime
    has_paused: bool = False
    manifest: str | None = None


@dataclass
class Receiving:
    order: MoveOrder
    guest: Guest | None = None


@dataclass
class Daemon:
    """What one host keeps."""

    registered_at: datetime | None = None
    is_ready: bool = False
    vms: dict[RunnerId, Vm] = field(default_factory=dict)
    epochs: dict[RunnerId, int] = field(default_factory=dict)
    sending: dict[MigrationId, Sending] = field(default_factory=dict)
    receiving: dict[MigrationId, Receiving] = field(default_factory=dict)

    def admit(self, runner_id: RunnerId, epoch: int) -> None:
        known = self.epochs.get(runner_id, 0)
        if epoch < known:
            raise Refused(f"{runner_id}: epoch {epoch} is over, this host knows {known}")
        self.epochs[runner_id] = epoch


class FakeHosts:
    """`ports.HostApi`, and the machines behind it."""

    def __init__(
        self,
        cloud: FakeCloud,
        github: FakeGitHub,
        relay: FakeRelay,
        store: MemoryStore,
        words: Words,
        trouble: Trouble,
        wire: Trouble,
        parked: ParkedGuests,
    ) -> None:
        """`trouble` befalls what is asked of hosts, `wire` what they say themselves."""
        self._clock, self._random = trouble.clock, trouble.random
        self._cloud, self._github, self._relay = cloud, github, relay
        self._store, self._words, self._trouble, self._wire = store, words, trouble, wire
        self._parked = parked
        self.daemons: dict[HostId, Daemon] = {}
        self.job_takes = timedelta(seconds=90)
        self.load = LOAD
        """Of every guest."""
        self.copy_takes = timedelta(seconds=8)
        self.lost_words: set[Said] = set()
        self.is_listener_down = False
        """Nobody hears what hosts say, though all of them are well."""
        self.failures = 0.0
        """Of boots and of migrations, each time that one could fail."""

    # ------------------------------------------------------------ ports.HostApi

    def boot(self, host: Host, order: BootOrder) -> None:
        with self._asked(host, "boot", order.runner_id) as daemon:
            daemon.admit(order.runner_id, order.epoch)
            if self._fails():
                raise Refused(f"{host.id} cannot boot {order.runner_id}")
            if order.runner_id not in daemon.vms:
                daemon.vms[order.runner_id] = Vm(Guest(order.runner_id, self.job_takes), order.epoch)

    def start_runner(self, host: Host, runner_id: RunnerId, epoch: int, jit_config: str) -> None:
        with self._asked(host, "start_runner", runner_id) as daemon:
            daemon.admit(runner_id, epoch)
            if runner_id not in daemon.vms:
                raise Refused(f"{host.id} has no {runner_id}")
            daemon.vms[runner_id].guest.start(jit_config)

    def stop(self, host: Host, runner_id: RunnerId, epoch: int) -> None:
        with self._asked(host, "stop", runner_id) as daemon:
            daemon.admit(runner_id, epoch)
            moving = [row for row in self._store.migrations.open() if row.runner_id == runner_id]
            assert not any(row.phase in UNDECIDED for row in moving), f"{runner_id} is stopped while it moves"
            daemon.vms.pop(runner_id, None)
            for moves in (daemon.sending, daemon.receiving):
                for key in [key for key, move in moves.items() if move.order.runner.runner_id == runner_id]:
                    del moves[key]

    def receive(self, host: Host, order: MoveOrder) -> Ports | None:
        with self._asked(host, "receive", order.migration_id) as daemon:
            if self._fails():
                raise Refused(f"{host.id} cannot receive {order.runner.runner_id}")
            daemon.receiving.setdefault(order.migration_id, Receiving(order))
            return PORTS if order.park is None else None

    def send(self, host: Host, order: MoveOrder) -> None:
        with self._asked(host, "send", order.migration_id) as daemon:
            if order.runner.runner_id not in daemon.vms:
                raise Refused(f"{host.id} has no {order.runner.runner_id}")
            assert order.ports == (PORTS if order.park is None else None)
            ready_at = self._clock.now() + self.copy_takes * self._random.uniform(0.5, 2)
            daemon.sending.setdefault(order.migration_id, Sending(order, ready_at))

    @contextmanager
    def _asked(self, host: Host, verb: str, about: str) -> Iterator[Daemon]:
        with self._trouble.befalls("host", verb, about):
            if not self._is_up(host.id):
                raise Unreachable(f"{host.id} does not answer")
            yield self.daemons[host.id]

    def _is_up(self, host_id: HostId) -> bool:
        daemon = self.daemons.get(host_id)
        return daemon is not None and daemon.registered_at is not None and self._cloud.is_alive(host_id)

    def _fails(self) -> bool:
        return self._random.random() < self.failures

    # ------------------------------------------------------------ time

    def pass_time(self) -> None:
        for host_id in self._cloud.alive():
            machine = self._cloud.machines[host_id]
            if machine.instance.state is InstanceState.RUNNING:
                self._live(host_id, machine)

    def _live(self, host_id: HostId, machine: Machine) -> None:
        daemon = self.daemons.setdefault(host_id, Daemon())
        if daemon.registered_at is None:
            self._register(host_id, machine, daemon)
            return
        self._run_guests(host_id, machine, daemon)
        self._beat(host_id, machine, daemon)
        for key in list(daemon.sending):
            self._go_on_sending(host_id, key, daemon)
        for key in list(daemon.receiving):
            self._go_on_receiving(host_id, key, daemon)

    def running(self) -> list[RunnerId]:
        """Return whose guests run anywhere, as often as they do."""
        return [key for daemon in self._alive() for key, vm in daemon.vms.items() if vm.is_running]

    def kept(self) -> list[RunnerId]:
        """Return whose microVMs are on any host, running or not."""
        return [key for daemon in self._alive() for key in daemon.vms]

    def _alive(self) -> list[Daemon]:
        return [self.daemons[host_id] for host_id in self._cloud.alive() if host_id in self.daemons]

    def _run_guests(self, host_id: HostId, machine: Machine, daemon: Daemon) -> None:
        for runner_id, vm in daemon.vms.items():
            if vm.is_running:
                entry = self._relay.table.get(runner_id)
                is_connected = entry is not None and entry.host_address == machine.address
                vm.guest.run(host_id, self._clock.now(), self._github, is_connected=is_connected)

    def _register(self, host_id: HostId, machine: Machine, daemon: Daemon) -> None:
        if self._store.hosts.is_leased(host_id):
            return
        request = RegistrationRequest(host_id, machine.user_data["token"], "csr", machine.address)
        try:
            with self._wire.befalls("listener", "register", host_id):
                self._words.register(request)
                daemon.registered_at = self._clock.now()
        except (Unreachable, Refused):
            pass  # said again in a second; a token that is used up keeps this machine from ever being one of ours

    def _beat(self, host_id: HostId, machine: Machine, daemon: Daemon) -> None:
        now = self._clock.now()
        is_free = not self._store.hosts.is_leased(host_id)
        assert daemon.registered_at is not None
        ready = is_free and now - daemon.registered_at >= PREPARE_TIME
        reports = tuple(self._report(runner_id, vm) for runner_id, vm in daemon.vms.items())
        left = machine.seconds_left(now)
        try:
            with self._wire.befalls("listener", "heartbeat", host_id):
                if self.is_listener_down:
                    raise Unreachable("the host listener is down")
                self._words.heartbeat(host_id, Heartbeat("boot", ready, None, VIRTUALIZED, (), reports))
                if left is not None and is_free:
                    self._words.notice(host_id, Notice(NoticeKind.INTERRUPTION, left))
        except (TryLater, Refused):
            pass  # said again in a second; a terminated host hears nothing else

    def _report(self, runner_id: RunnerId, vm: Vm) -> RunnerReport:
        monitor = MonitorState.RUNNING if vm.is_running else MonitorState.PAUSED
        return RunnerReport(runner_id, vm.epoch, monitor, vm.guest.state, load=self.load, hold=vm.guest.hold)

    # ------------------------------------------------------------ both sides of a migration

    def _go_on_sending(self, host_id: HostId, key: MigrationId, daemon: Daemon) -> None:
        sending, view = daemon.sending[key], self._look(host_id, key)
        vm = daemon.vms.get(sending.order.runner.runner_id)
        if view is None or vm is None:
            return
        if view.phase is MigrationPhase.ABORTED:
            vm.is_running = True
            del daemon.sending[key]
        elif view.phase in _FORWARD:
            self._wipe(host_id, key, daemon)
        elif sending.has_paused:
            self._say(host_id, key, Said.PAUSED, sending.order, sending.manifest)
        elif self._fails() or view.seconds_left <= 0:
            self._say(host_id, key, Said.ABORTED, sending.order)
        elif view.may_pause and self._clock.now() >= sending.ready_at and self._hand_over(key, sending, vm):
            self._say(host_id, key, Said.PAUSED, sending.order, sending.manifest)

    def _hand_over(self, key: MigrationId, sending: Sending, vm: Vm) -> bool:
        """Pause the guest and let the target have the last of it."""
        if sending.order.park is not None:
            return self._deposit(sending, vm)
        assert sending.order.peer is not None
        peer = self.daemons.get(sending.order.peer)
        if peer is None or key not in peer.receiving or not self._is_up(sending.order.peer):
            return False
        vm.is_running, sending.has_paused = False, True
        peer.receiving[key].guest = vm.guest
        return True

    def _deposit(self, sending: Sending, vm: Vm) -> bool:
        """Pause the guest and put all of it into the store; if that fails it runs on."""
        assert vm.guest.ran_on is not None
        try:
            sending.manifest = self._parked.put(vm.guest.ran_on, sending.order, vm.guest)
        except (TryLater, Refused):
            return False
        vm.is_running, sending.has_paused = False, True
        return True

    def _wipe(self, host_id: HostId, key: MigrationId, daemon: Daemon) -> None:
        order = daemon.sending[key].order
        vm = daemon.vms[order.runner.runner_id]
        assert not vm.is_running, f"{key} was committed although its source runs"
        view = self._say(host_id, key, Said.WIPED, order)
        if view is not None:
            del daemon.vms[order.runner.runner_id], daemon.sending[key]

    def _go_on_receiving(self, host_id: HostId, key: MigrationId, daemon: Daemon) -> None:
        receiving, view = daemon.receiving[key], self._look(host_id, key)
        if view is None:
            return
        if view.phase is MigrationPhase.ABORTED:
            del daemon.receiving[key]
        elif view.phase in _FORWARD:
            self._let_run(host_id, key, daemon)
        elif receiving.order.park is not None and receiving.guest is None:
            self._take_out(host_id, key, receiving)
        elif view.phase is MigrationPhase.PAUSED and receiving.guest is not None:
            self._say(host_id, key, Said.COMMITTED, receiving.order)

    def _take_out(self, host_id: HostId, key: MigrationId, receiving: Receiving) -> None:
        try:
            receiving.guest = self._parked.take(host_id, receiving.order)
        except Refused:
            self._say(host_id, key, Said.ABORTED, receiving.order)
        except TryLater:
            pass  # tried again in a second

    def _let_run(self, host_id: HostId, key: MigrationId, daemon: Daemon) -> None:
        receiving = daemon.receiving[key]
        runner_id, epoch = receiving.order.runner.runner_id, receiving.order.runner.epoch
        assert receiving.guest is not None, f"{key} was committed although its target does not hold the guest"
        daemon.admit(runner_id, epoch)
        daemon.vms.setdefault(runner_id, Vm(receiving.guest, epoch))
        if self._say(host_id, key, Said.RUNNING, receiving.order) is not None:
            del daemon.receiving[key]

    def _look(self, host_id: HostId, key: MigrationId) -> RowView | None:
        try:
            with self._wire.befalls("listener", "look", key):
                return self._words.look(host_id, key)
        except Unreachable:
            return None

    def _say(
        self, host_id: HostId, key: MigrationId, said: Said, order: MoveOrder, manifest: str | None = None
    ) -> RowView | None:
        if said in self.lost_words:
            return None
        try:
            with self._wire.befalls("listener", said.value, key):
                return self._words.say(host_id, key, said, Word(order.runner.epoch, FIGURES, manifest=manifest))
        except Unreachable:
            return None
