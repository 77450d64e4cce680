"""Restore and migration, ours against the same QEMU driven by hand, side by side in one run."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.figures import OURS, Report, Series, console
from tests.bench.floor import ByHand, Keys, Seat, Way, migrate, restored
from tests.bench.ours import WORK, moved_busy, warm_up
from tests.e2e.engine_rig import Rig, runner_package
from tests.e2e.scripted_guest import scripted_package
from workers.domain.messages import BootOrder
from workers.domain.names import HostId, MigrationId, move_name
from workers.domain.overlay import GUEST_MTU
from workers.host.disks import Stock
from workers.host.microvm import fresh_identity
from workers.host.packages import Unpacked
from workers.host.template import measure_cold_boot
from workers.host.tls import MoveKeys, readable_keys, subject
from workers.identity import make_csr

FLOOR, PLAIN = "floor", "plain"
SIDES = {OURS: "ours", FLOOR: "by hand", PLAIN: "by hand, no TLS"}
NOTES = [
    "by hand: no confinement, no tap, no journal, no identity for the guest, no row; the overlay is made beforehand",
    "restore: both are asked AfterResume, ours ends with its link up; without TLS means RunnerStatus instead",
    "all three move between the same two network namespaces, joined by a bridge, through the same packet filters",
    "the row is decided in this process (the domain's own functions); the demo reports commits over HTTPS",
]


class Bench:
    """One run: a rig of two hosts, and what both sides start from."""

    def __init__(self, runner: Unpacked, busy: Unpacked, stack: ExitStack) -> None:
        self.runner = runner
        self._home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench.", dir="/tmp")))
        self._rig = Rig(busy)
        stack.callback(self._rig.end)
        self._stock = Stock.make(busy, self._home / "overlays")
        self._seat = Seat(self._rig["a"], self._stock, self._home / "floor")
        stack.callback(self._stock.close)
        self._keys = self._make_keys(stack)
        self._number = 0
        for host in self._rig.hosts.values():  # as on every host that is ready
            host.inside.run(host.engine.prepare(busy.digest))
        self.restore = Series("restore", "command to the agent's answer", "ms", limit="ratio ≤ 1.5")
        self.cold = Series("cold boot", "start to the agent's answer", "ms", limit="at least 20 restores")
        self.moved = {
            "total_s": Series("migration", "in all", "s"),
            "stopped_ms": Series("migration", "guest stopped", "ms", limit="≤ 100 ms"),
            "commit_ms": Series("migration", "of it the commit", "ms"),
            "net_ms": Series("migration", "stopped less commit", "ms", limit="ratio ≤ 1.5"),
            "memory_mib_sent": Series("migration", "memory sent", "MiB"),
            "before_ms": Series("migration", "agent's answer before it", "ms"),
            "after_ms": Series("migration", "guest goes on to agent's answer", "ms"),
        }

    def _make_keys(self, stack: ExitStack) -> Keys:
        source, target = HostId("spot-host-source"), HostId("spot-host-target")
        move = MigrationId("spot-move-floor")
        ends = self._lay_out(source, move, stack), self._lay_out(target, move, stack)
        return Keys(*ends, move_name(target, move), subject(source, move))

    def _lay_out(self, name: HostId, move: MigrationId, stack: ExitStack) -> Path:
        place = self._home / name
        place.mkdir()
        key, request = make_csr(name)
        authority = self._rig.authority
        keys = MoveKeys(key, authority.move_certificate(request, name, move), authority.hosts_ca)
        return stack.enter_context(readable_keys(keys, place, 0))

    def restore_once(self) -> None:
        """One restore by hand, one of ours."""
        host, order, samples = self._rig["a"], self._next_order(), self.restore.samples
        told = fresh_identity(order, GUEST_MTU)
        with restored(self._seat, "AfterResume", "restored", told) as (_, taken_ms):
            samples[FLOOR].append(taken_ms)
        with restored(self._seat, "RunnerStatus") as (_, taken_ms):
            samples[PLAIN].append(taken_ms)
        began = time.monotonic()
        host.inside.run(host.engine.boot(order))
        samples[OURS].append((time.monotonic() - began) * 1000)
        host.inside.run(host.engine.stop(order.runner_id, 1))
        console.print(f"  restore: by hand {samples[FLOOR][-1]:.0f} ms, ours {samples[OURS][-1]:.0f} ms")

    def boot_once(self) -> None:
        """One cold boot; there is only one way to do that."""
        self.cold.samples[OURS].append(asyncio.run(measure_cold_boot(self.runner)) * 1000)
        console.print(f"  cold boot: {self.cold.samples[OURS][-1]:.0f} ms")

    def migrate_once(self) -> None:
        """One move by hand with TLS, one without, one of ours, each of a guest that is as busy."""
        for side, keys in ((FLOOR, self._keys), (PLAIN, None)):
            with restored(self._seat, "RunnerStatus") as (guest, _):
                self._make_busy(guest)
                way = Way(self._rig["a"], self._rig["b"], keys)
                self._note(side, migrate(guest, self._stock, self._home / "target", way))
        self._note(OURS, moved_busy(self._rig, self._next_order()))

    def _make_busy(self, guest: ByHand) -> None:
        guest.call_agent("StartRunner", WORK)
        warm_up()

    def _note(self, side: str, figures: dict[str, float]) -> None:
        figures["net_ms"] = figures["stopped_ms"] - figures["commit_ms"]
        for name, series in self.moved.items():
            series.samples[side].append(figures[name])
        shown = ", ".join(f"{name} {figures[name]:.1f}" for name in self.moved)
        console.print(f"  migration, {SIDES[side]}: {shown}")

    def _next_order(self) -> BootOrder:
        self._number += 1
        return self._rig.order(self._number)


def run(rounds: int, cold_rounds: int) -> dict[str, Any]:
    """Measure everything so many times, print the table, and return the report."""
    load = os.getloadavg()[0]
    runner = runner_package()
    console.print("making the busy guest's package, unless it is there")
    busy = scripted_package(runner)
    with ExitStack() as stack:
        bench = Bench(runner, busy, stack)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            bench.restore_once()
            bench.migrate_once()
        for _ in range(cold_rounds):
            bench.boot_once()
        series = [bench.restore, bench.cold, *bench.moved.values()]
    report = Report(runner.manifest.machine.acceleration, load, SIDES, (FLOOR,), series, NOTES)
    console.print(report.table())
    for note in NOTES:
        console.print(f"- {note}", style="dim")
    return report.json()
