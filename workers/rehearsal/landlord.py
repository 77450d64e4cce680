"""Who owns the market's machines: one thread that makes them, gives notice, and ends them.

    PENDING ──▶ RUNNING ──▶ TERMINATED ──▶ (forgotten)
       └───────────────────────▲     by the deadline of a notice, or because the renter asked

Requests only write wishes down and return; the owner carries them out one after the other. A machine is a network
namespace with its metadata service and its daemon. Its end is the namespace's: every process inside is killed until
none is left, whatever it was doing.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from workers.domain.errors import NoCapacity, SpotError
from workers.domain.host import POWERED_OFF
from workers.domain.names import HostId
from workers.domain.whereabouts import Machine
from workers.ports import Instance, InstanceState
from workers.rehearsal import places as at
from workers.rehearsal.commands import run, run_quietly
from workers.rehearsal.imds import ADDRESS as METADATA
from workers.rehearsal.imds import PORT as METADATA_PORT
from workers.rehearsal.imds import write_state
from workers.rehearsal.places import Places, host_address
from workers.rehearsal.plots import Plot
from workers.rehearsal.processes import Processes, Program, Running
from workers.rehearsal.remains import Journal, Kind, forget_tunnel, remove_cgroups, remove_namespace
from workers.rehearsal.topology import Plug, Topology, accepts, nat_of
from workers.settings import MetadataKind
from workers.wireguard import link_name

# A cloud's answer to "is it gone?" stays available long enough for a renter that looks every few seconds.
REMEMBERED_S: Final = 600.0
# A small program's start, on a machine whose processors are all busy.
METADATA_LIMIT_S: Final = 20.0
# How late an ended daemon is noticed.
LOOK_INTERVAL_S: Final = 1.0
INSTANCE_ACTION: Final = "latest/meta-data/spot/instance-action"
REBALANCE: Final = "latest/meta-data/events/recommendations/rebalance"
# A namespace of this machine has no zone, no type and no price, and nothing is made up.
MACHINE: Final = Machine(lifecycle="spot")


@dataclass(frozen=True)
class Estate:
    """What the landlord builds on: `daemon` is the host's program, `environment` what it is told beside its home."""

    places: Places
    daemon: tuple[str, ...]
    metadata: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    launch_s: float = 1.0
    """How long a machine takes before it is there at all."""
    disk_mib: int | None = None
    """How much a machine's own disk holds; None: as much as this machine's."""
    with_overlay: bool = False
    """Every second machine is another cloud's: in a private network, behind a NAT."""


@dataclass
class Rented:
    """One instance; every field belongs to the owner's lock."""

    host_id: HostId
    number: int
    user_data: str
    plot: Plot | None = None
    """Where it stands; None: where the market puts it."""
    state: InstanceState = InstanceState.PENDING
    due_at: float = 0.0
    """When it is to be made, while PENDING."""
    ends_at: float | None = None
    forgotten_at: float | None = None
    bodies: dict[str, str] = field(default_factory=dict)
    processes: Processes | None = None
    daemon: Running | None = None

    @property
    def machine(self) -> Machine:
        """What the market tells of it: behind a NAT it is seen at the NAT's address, which is this one, too."""
        return replace(MACHINE, addresses=(host_address(self.number),))

    @property
    def view(self) -> Instance:
        return Instance(id=f"i-{self.number:08x}", host_id=self.host_id, state=self.state, machine=self.machine)


class Landlord:
    """The market's machines. `own` runs in the thread that lives longest; everything else may come from any thread."""

    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.journal = Journal(estate.places.journal)
        self.topology = Topology(estate.places, self.journal)
        self._changed = threading.Condition()
        self._rented: dict[HostId, Rented] = {}
        self._numbers = iter(range(at.LAST_HOST - at.FIRST_HOST + 1))
        self._closing = False
        self._sells = True

    # ------------------------------------------------------------ what a renter may ask

    def launch(self, host_id: HostId, user_data: str, plot: Plot | None = None) -> Instance:
        """Order a machine; the same host gets the same one. Raises `NoCapacity` when there is none to sell."""
        with self._changed:
            if host_id not in self._rented:
                if not self._sells or self._closing:
                    raise NoCapacity("the market is sold out")
                number = next(self._numbers, None)
                if number is None:
                    raise NoCapacity("every address of the rehearsal's underlay has been given out")
                due_at = time.monotonic() + self.estate.launch_s
                self._rented[host_id] = Rented(host_id, number, user_data, plot, due_at=due_at)
                self._changed.notify_all()
            return self._rented[host_id].view

    def sell(self, *, machines: bool) -> None:
        """Have machines to sell from now on, or none."""
        with self._changed:
            self._sells = machines

    def take_all_back(self, seconds: float) -> None:
        """Give notice of every machine there is, and have none to sell: whoever was quick gets none either."""
        with self._changed:
            self._sells = False
            for rented in self._rented.values():
                if rented.state is not InstanceState.TERMINATED:
                    self.end(rented.host_id, seconds, with_notice=True)

    def instance(self, host_id: HostId) -> Instance | None:
        with self._changed:
            rented = self._rented.get(host_id)
            return None if rented is None else rented.view

    def instances(self) -> tuple[Instance, ...]:
        """Return all that are not terminated."""
        with self._changed:
            return tuple(one.view for one in self._rented.values() if one.state is not InstanceState.TERMINATED)

    def end(self, host_id: HostId, after_s: float = 0.0, *, with_notice: bool = False) -> bool:
        """End a machine after so many seconds, or sooner if that was said already; False if there is none."""
        with self._changed:
            rented = self._rented.get(host_id)
            if rented is None:
                return False
            ends_at = time.monotonic() + after_s
            rented.ends_at = ends_at if rented.ends_at is None else min(rented.ends_at, ends_at)
            if with_notice:
                self._tell(rented, INSTANCE_ACTION, {"action": "terminate", "time": _in(after_s)})
            self._changed.notify_all()
            return True

    def notice_of(self, host_id: HostId) -> str | None:
        """Return the notice that a machine's metadata service gives, or will give once it is there."""
        with self._changed:
            rented = self._rented.get(host_id)
            return None if rented is None else rented.bodies.get(INSTANCE_ACTION)

    def rebalance(self, host_id: HostId) -> bool:
        """Say that a machine is at an elevated risk of being taken back; False if there is none."""
        with self._changed:
            rented = self._rented.get(host_id)
            if rented is not None:
                self._tell(rented, REBALANCE, {"noticeTime": _in(0)})
            return rented is not None

    def withdraw(self, host_id: HostId) -> bool:
        """Take a notice back: the machine stays; False if there is none."""
        with self._changed:
            rented = self._rented.get(host_id)
            if rented is None or rented.state is InstanceState.TERMINATED:
                return False
            rented.ends_at = None
            rented.bodies.pop(INSTANCE_ACTION, None)
            write_state(self._metadata_file(rented), rented.bodies)
            return True

    def crash_daemon(self, host_id: HostId) -> bool:
        """Kill a machine's daemon, which is started again soon; False if none runs."""
        with self._changed:
            rented = self._rented.get(host_id)
            if rented is None or rented.daemon is None or not rented.daemon.is_alive:
                return False
            rented.daemon.child.kill()
            return True

    def close(self) -> None:
        """End every machine and let `own` return."""
        with self._changed:
            self._closing = True
            for rented in self._rented.values():
                rented.ends_at = 0.0
            self._changed.notify_all()

    # ------------------------------------------------------------ the owner

    def own(self) -> None:
        """Carry out what falls due until `close`; children die with the thread that started them, so this is theirs."""
        while (rented := self._next_due()) is not None:
            if rented.ends_at is not None and rented.ends_at <= time.monotonic():
                self._demolish(rented)
            else:
                self._make(rented)

    def _next_due(self) -> Rented | None:
        with self._changed:
            while True:
                moments = {moment: one for one in self._rented.values() for moment in _moments(one)}
                first = min(moments, default=None)
                now = time.monotonic()
                if first is not None and first <= now:
                    return moments[first]
                if self._closing and first is None:
                    return None
                self._changed.wait(LOOK_INTERVAL_S if first is None else min(first - now, LOOK_INTERVAL_S))
                self._forget()
                self._restart_daemons()

    def _forget(self) -> None:
        now = time.monotonic()
        gone = [key for key, one in self._rented.items() if one.forgotten_at is not None and one.forgotten_at <= now]
        for key in gone:
            del self._rented[key]

    def _restart_daemons(self) -> None:
        """Start a daemon that has ended again, as the machine's systemd would, unless it has ended its machine."""
        for rented in self._rented.values():
            if rented.state is not InstanceState.RUNNING or not rented.processes or not rented.daemon:
                continue
            if rented.daemon.child.poll() == POWERED_OFF:
                rented.ends_at = 0.0
            elif not rented.daemon.is_alive:
                print(f"{rented.host_id}: its daemon has ended and is started again", flush=True)  # noqa: T201 a log
                rented.daemon = rented.processes.again(rented.daemon)

    def _make(self, rented: Rented) -> None:
        try:
            self._start(rented)
        except SpotError as error:
            print(f"{rented.host_id} could not be made: {error}", flush=True)  # noqa: T201 the market's log
            self._demolish(rented)
            return
        with self._changed:
            rented.state = InstanceState.RUNNING

    def _start(self, rented: Rented) -> None:
        name = self.topology.add_namespace(rented.host_id)
        bodies = self._connect(rented)
        run("ip", "-n", name, "address", "add", f"{METADATA}/32", "dev", "lo")
        self.journal.note(Kind.CGROUP, rented.host_id)
        file = self._metadata_file(rented)
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._changed:
            rented.bodies |= bodies
            write_state(file, rented.bodies)
        if self.estate.disk_mib is not None:
            home = self._home(rented)
            home.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", f"size={self.estate.disk_mib}m,mode=755", "tmpfs", str(home))
        rented.processes = Processes(self.estate.places.logs, self.journal)
        metadata = (*self.estate.metadata, "--file", str(file))
        service = rented.processes.start(Program(f"{rented.host_id}.metadata", metadata, name))
        service.wait_ready(lambda: accepts(name, METADATA, METADATA_PORT), METADATA_LIMIT_S)
        environment = {**self.estate.environment, "SPOT_RUNNER_HOST_HOME": str(self._home(rented))}
        environment |= rented.plot.environment if rented.plot is not None else {}
        rented.daemon = rented.processes.start(Program(rented.host_id, self.estate.daemon, name, environment))

    def _connect(self, rented: Rented) -> Mapping[str, str]:
        """Give a machine its network, and return what its metadata service tells."""
        plot = rented.plot or self._plot(rented)
        host, port = rented.host_id, f"host{rented.number}"
        if self.estate.with_overlay:
            self.journal.note(Kind.TUNNEL, link_name(host))
        if plot.inside is None:
            self.topology.wire(host, Plug("eth0", at.UNDERLAY, plot.address), port)
        else:
            self.topology.hide(host, Plug("eth0", at.UNDERLAY, host_address(rented.number)), port, plot.inside)
        return plot.bodies(rented.user_data)

    def _plot(self, rented: Rented) -> Plot:
        """Return where the market puts a machine."""
        address, name = IPv4Address(host_address(rented.number)), rented.view.id
        if not self.estate.with_overlay:
            return Plot(MetadataKind.EC2, name, address, has_public=False)
        if rented.number % 2:
            return Plot(MetadataKind.EC2, name, at.PRIVATE_HOST, at.PRIVATE)
        return Plot(MetadataKind.EC2, name, address)

    def _demolish(self, rented: Rented) -> None:
        for role in (rented.host_id, nat_of(rented.host_id)):
            remove_namespace(self.estate.places.namespace(role))
        forget_tunnel(link_name(rented.host_id))
        if rented.processes is not None:
            rented.processes.stop()
        remove_cgroups(rented.host_id)
        if self.estate.disk_mib is not None:
            run_quietly("umount", "--lazy", str(self._home(rented)))
        shutil.rmtree(self._home(rented), ignore_errors=True)
        self._metadata_file(rented).unlink(missing_ok=True)
        with self._changed:
            rented.state = InstanceState.TERMINATED
            rented.forgotten_at = time.monotonic() + REMEMBERED_S

    def _home(self, rented: Rented) -> Path:
        # Short, because sockets lie below it, and their paths may have 107 characters.
        return self.estate.places.state / rented.host_id

    def _metadata_file(self, rented: Rented) -> Path:
        return self.estate.places.state / "metadata" / f"{rented.host_id}.json"

    def _tell(self, rented: Rented, path: str, body: Mapping[str, str]) -> None:
        rented.bodies[path] = json.dumps(body)
        if rented.state is InstanceState.RUNNING:
            write_state(self._metadata_file(rented), rented.bodies)


def _moments(rented: Rented) -> Iterator[float]:
    if rented.state is InstanceState.TERMINATED:
        return
    if rented.state is InstanceState.PENDING:
        yield rented.due_at
    if rented.ends_at is not None:
        yield rented.ends_at


def _in(seconds: float) -> str:
    """Write a moment the way EC2 does: UTC, whole seconds, rounded down."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
