"""One microVM on this host: its directory, its journal entry, its QEMU, its tap and the channel to its guest.

    prepare ─▶ start ─▶ (restore, run, wake │ receive a move) ─▶ serve ─▶ wipe
    adopt ─────────────────────────────────────────────────────┘

It does what it is told and decides nothing; who owns the guest is the engine's and the moves' business.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from workers.domain.errors import Bug, SpotError, Unreachable
from workers.domain.hold import HoldWish
from workers.domain.messages import BootOrder, GuestRunnerState, Load, MonitorState, RunnerReport
from workers.domain.names import GATEWAY6, GATEWAY_MAC, GUEST_NETWORK6, HostId, monitor_user
from workers.domain.overlay import GuestNetwork
from workers.domain.runner import Shape
from workers.host.cgroups import hierarchy
from workers.host.confinement import Confinement, limits_for
from workers.host.disks import OVERLAY, Stock
from workers.host.guest import GuestCaller
from workers.host.journal import Entry, Journal, Standing
from workers.host.loads import carried, dirty_mib_s, vcpu_threads
from workers.host.machine import FreshMemory, Overlay, PackageMemory, Wiring
from workers.host.parts import EngineParts
from workers.host.qemu import Qemu

CALL_LIMIT_S: Final = 5.0
# Right after a boot QEMU may be taking its first look at all memory, during which the guest stands still.
START_RUNNER_LIMIT_S: Final = 8.0
STATUS_INTERVAL_S: Final = 1.0
# QEMU's word for a guest that it has stopped because a write found no room.
DISK_FULL: Final = "io-error"
# A plan is made within a second of a notice, from what was measured before; measuring takes some milliseconds.
MEASURE_INTERVAL_S: Final = 10.0

log = structlog.get_logger()


class Microvm:
    """One runner's microVM; calls that change it are made one at a time, by whoever owns it."""

    def __init__(self, parts: EngineParts, journal: Journal, entry: Entry) -> None:
        self.parts = parts
        self.entry = entry
        self.directory = parts.home / "runners" / entry.runner_id
        self.user = monitor_user(self.order.number)
        self.is_standing_still = False
        self._journal = journal
        self._group = hierarchy().group(parts.host_id, entry.runner_id)
        self._qemu: Qemu | None = None
        self._guest = self._caller()
        self._status: tuple[GuestRunnerState, int | None] = (GuestRunnerState.UNKNOWN, None)
        self._hold: HoldWish | None = None
        self._load: Load | None = None
        self._watches: tuple[asyncio.Task[None], ...] = ()

    @property
    def order(self) -> BootOrder:
        """What the runner is, with the epoch of its entry."""
        if self.entry.order is None:
            raise Bug(f"{self.entry.runner_id} is gone, so it has no microVM")
        return self.entry.order

    @property
    def qemu(self) -> Qemu:
        """Its QEMU; raises `Unreachable` if it has none."""
        if self._qemu is None:
            raise Unreachable(f"{self.entry.runner_id} has no monitor on this host")
        return self._qemu

    @property
    def overlay(self) -> Path:
        """The file that holds what the guest has written to its disk."""
        return self.directory / OVERLAY

    @property
    def has_ended(self) -> bool:
        """Nothing runs here, whatever the journal wants."""
        return self._qemu is None or self._qemu.ended.done()

    async def write(self, entry: Entry) -> None:
        """Write the journal; when this returns the change may be acted on."""
        await asyncio.to_thread(self._journal.write, entry)
        self.entry = entry

    # ------------------------------------------------------------ to life

    def make_overlay(self, stock: Stock) -> int:
        """Make its directory anew, and an empty overlay in it; return that open. Blocks for some milliseconds."""
        self._make_directory()
        return stock.open_overlay(self.directory)

    async def start(self, stock: Stock, *, fresh: bool, overlay: int | None = None) -> None:
        """Start QEMU with a tap and an overlay of its own; it waits for a state.

        Its memory begins as the package's, or, if `fresh`, as zeros. The overlay is empty, or this one of
        `make_overlay`'s, which is closed here in the end.
        """
        memory = FreshMemory() if fresh else PackageMemory(stock.memory)
        tap, file = await asyncio.gather(
            asyncio.to_thread(
                self.parts.network.open_tap, self.order.number, self.order.address, self.user, self.order.network
            ),
            asyncio.to_thread(self.make_overlay, stock) if overlay is None else _itself(overlay),
        )
        try:
            disk = Overlay(file, stock.base)
            mac = self.order.address.mac
            wiring = Wiring(memory, disk, stock.boot, mac=mac, tap=tap, incoming=True)
            confinement = self._confinement(stock)
            self._qemu = await Qemu.start(stock.machine, wiring, self.directory, confinement.spawn)
        finally:
            os.close(tap)
            os.close(file)
        self.is_standing_still = True

    async def restore(self, stock: Stock) -> None:
        """Load the package's device state, remember the process, and let the guest run."""
        state = os.open(stock.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            process = replace(self.entry, process=self.qemu.name, package_mib=stock.memory_used_mib)
            await asyncio.gather(self.qemu.restore(state), self.write(process))
        finally:
            os.close(state)
        await self.run()

    async def run(self) -> float:
        """Let the guest run; return the Unix time at which it did."""
        at = await self.qemu.run()
        self.is_standing_still = False
        return at

    async def go_on(self) -> None:
        """Let the guest run again if its monitor has stopped it at a disk that was full; it tries that write again.

        Only for a guest that is owned and has no part in a migration: nobody else's pause is ended by it.
        """
        if self.entry.standing is Standing.OWNED and not self.has_ended and await self.qemu.status() == DISK_FULL:
            log.warning("guest_stood_at_full_disk", runner=self.entry.runner_id)
            await self.run()

    async def wake(self) -> None:
        """Make a restored guest somebody of its own; returns when its agent has answered."""
        told = fresh_identity(self.order, self.parts.network.mtu)
        await self.call("AfterResume", "restored", told, limit_s=self.parts.wake_limit_s)

    async def join(self) -> None:
        """Put the guest on the network."""
        await asyncio.to_thread(self.parts.network.attach, self.order.number)

    async def adopt(self) -> bool:
        """Find the QEMU that an earlier daemon started; False if there is none any more."""
        if self.entry.process is None:
            return False
        self._qemu = await Qemu.adopt(self.directory, self.entry.process)
        if self._qemu is None:
            return False
        self._guest = self._caller(was_open=True)
        self.is_standing_still = await self._qemu.status() != "running"
        await self.relieve()  # whoever pressed it is no more
        return True

    # ------------------------------------------------------------ alive

    async def call(self, function: str, *args: object, limit_s: float = CALL_LIMIT_S) -> Any:  # noqa: ANN401 - see Guest
        """Let the guest's agent carry out one function."""
        return await self._guest.call(function, *args, limit_s=limit_s)

    async def tell_place(self, measured: Mapping[str, float | None]) -> None:
        """Tell the guest where it is and what was measured on the way, for the job's own information.

        One that does not listen does no harm.
        """
        facts = told_place(self.order, self.parts.host_id, self.entry.moves)
        try:
            await self.call("Placed", {**facts, **measured})
        except SpotError as error:
            log.warning("guest_not_told", runner=self.entry.runner_id, because=str(error))

    async def end_connections(self) -> None:
        """After a move: let the guest end the connections that its new host knows nothing of, if that is its way."""
        if self.order.network is not GuestNetwork.NAT:
            return
        try:
            ended = await self.call("ResetConnections")
            log.info("connections_ended", runner=self.entry.runner_id, count=ended)
        except SpotError as error:
            log.warning("connections_not_ended", runner=self.entry.runner_id, because=str(error))

    def serve(self) -> None:
        """Begin to ask the guest how its runner program is, and to measure its load, again and again."""
        if not self._watches:
            watches = {"status": self._watch_status(), "load": self._watch_load()}
            self._watches = tuple(
                asyncio.create_task(watch, name=f"{what} of {self.entry.runner_id}") for what, watch in watches.items()
            )

    async def rest(self) -> None:
        """Stop asking, and let go of the guest channel."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches = ()
        await self._guest.close()

    def report(self) -> RunnerReport:
        """Return what is known now."""
        guest, exit_code = self._status
        return RunnerReport(
            self.entry.runner_id, self.entry.epoch, self._monitor(), guest, exit_code, load=self._load, hold=self._hold
        )

    async def press(self, cap: float) -> None:
        """Let the guest's processors run for this part of the time only; what sends it is not slowed."""
        cpus = cap * self.order.shape.vcpus
        await asyncio.to_thread(lambda: self._group.press(vcpu_threads(self.qemu.name.pid), cpus))

    async def relieve(self) -> None:
        """Let the guest's processors run as they may; a guest that was not pressed is a success."""
        await asyncio.to_thread(self._group.relieve)

    # ------------------------------------------------------------ to an end

    async def wipe(self) -> None:
        """End QEMU and remove all that it left; nothing there is a success. The journal is the caller's."""
        await self.rest()
        if self._qemu is not None:
            await self._qemu.kill()
        await asyncio.to_thread(self._remove)
        self._qemu = None

    async def release(self) -> None:
        """Let go of everything and leave the guest as it is, for the next daemon to adopt."""
        await self.rest()
        if self._qemu is not None:
            await self._qemu.release()
            self._qemu = None

    def _remove(self) -> None:
        for pid in self._group.members():  # one that was started when the daemon ended, before it was written down
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.parts.network.close(self.order.number)
        self._group.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _make_directory(self) -> None:
        """Make it anew: the monitor's user may go through it and read what is lent to it, and change nothing."""
        self.directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        os.chown(self.directory, 0, self.user)
        self.directory.chmod(0o710)

    def _confinement(self, stock: Stock) -> Confinement:
        machine = stock.machine
        shape = Shape(machine.vcpus, machine.memory_mib, stock.disk_mib)
        limits = limits_for(shape, machine.acceleration)
        return Confinement(self.user, self._group, limits, stock.disk_mib, machine.acceleration)

    def _caller(self, *, was_open: bool = False) -> GuestCaller:
        return GuestCaller(self.directory / "agent", self.parts.connect_guest, was_open=was_open)

    def _monitor(self) -> MonitorState:
        if self.has_ended:
            return MonitorState.GONE
        if self.entry.standing in {Standing.RECEIVING, Standing.BOOTING}:
            return MonitorState.INCOMING
        return MonitorState.PAUSED if self.is_standing_still else MonitorState.RUNNING

    async def _watch_status(self) -> None:
        while not self.has_ended:
            try:
                status = await self.call("RunnerStatus")
                self._status = (GuestRunnerState(status["state"]), status["exit_code"])
                self._hold = HoldWish(**status["hold"]) if "hold" in status else None
            except SpotError as error:
                log.debug("guest_silent", runner=self.entry.runner_id, because=str(error))
            await asyncio.wait((self.qemu.ended,), timeout=STATUS_INTERVAL_S)

    async def _watch_load(self) -> None:
        while not self.has_ended:
            if self.entry.standing is Standing.OWNED:
                try:
                    await self._measure()
                except SpotError as error:
                    log.debug("load_not_measured", runner=self.entry.runner_id, because=str(error))
            await asyncio.wait((self.qemu.ended,), timeout=MEASURE_INTERVAL_S)

    async def _measure(self) -> None:
        load = await carried(self.qemu, self.overlay, self.entry.package_mib)
        # How much it writes takes seconds to find out, and a guest that has just come may have to leave at once.
        self._load = self._load or load
        self._load = replace(load, dirty_mib_s=await dirty_mib_s(self.qemu))


async def _itself(file: int) -> int:
    return file


def told_place(order: BootOrder, host_id: HostId, moves: int) -> dict[str, object]:
    """Return what a guest is told of where it is (docs/protocols.md); None for what is not known."""
    where = order.whereabouts
    return {
        "runner_id": order.runner_id,
        "host_id": host_id,
        "moves": moves,
        "hold_limit_s": order.hold_limit_s,
        "provider": where.provider,
        "region": where.machine.region,
        "zone": where.machine.zone,
        "instance_type": where.machine.instance_type,
        "lifecycle": where.machine.lifecycle,
        "package": order.package,
        "usd_per_hour": where.usd_per_hour,
    }


def fresh_identity(order: BootOrder, mtu: int) -> dict[str, object]:
    """Return what a restored guest is told, so that it becomes somebody of its own (docs/protocols.md)."""
    address = order.address
    return {
        "seed": secrets.token_hex(32),
        "now": time.time(),
        "machine_id": secrets.token_hex(16),
        "hostname": order.runner_id,
        "mac": address.mac,
        "ip": address.ip,
        "prefix_length": address.prefix_length,
        "gateway": address.gateway,
        "gateway_mac": GATEWAY_MAC,
        "mtu": mtu,
        "ip6": address.ip6,
        "prefix6_length": GUEST_NETWORK6.prefixlen,
        "gateway6": GATEWAY6,
    }
