"""`python -m tests.bench`: ours against the same QEMU driven by hand, side by side in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.bench.figures import Report, Series
from tests.bench.floor import ByHand, Keys, migrate, restored
from tests.e2e.busy_guest import busy_package
from tests.e2e.engine_rig import END_OF_MOVE, Rig, eventually, runner_package
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.names import HostId, MigrationId, move_name
from workers.domain.overlay import GUEST_MTU
from workers.host.disks import Stock
from workers.host.microvm import fresh_identity
from workers.host.packages import Unpacked
from workers.host.template import measure_cold_boot
from workers.host.tls import MoveKeys, readable_keys, subject
from workers.identity import make_csr

# Busy enough that memory and disk change all the time, and still of one opinion when it is checked.
WORK = json.dumps({"seconds": 600.0, "memory_mib": 16, "disk_mib": 64, "pace_s": 0.25})
WARM_UP_S = 3.0
NOTES = [
    "by hand: no confinement, no tap, no journal, no identity for the guest, no row; the overlay is made beforehand",
    "restore: both are asked AfterResume, ours ends with its link up; without TLS means RunnerStatus instead",
    "our hosts are two network namespaces joined by a bridge; by hand both ends are on loopback",
    "the row is decided in this process (the domain's own functions); the demo reports commits over HTTPS",
]
console = Console()


def warm_up() -> None:
    """Let the guest work for a while, as a job does before its host is taken away."""
    until = time.monotonic() + WARM_UP_S
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)


class Bench:
    """One run: a rig of two hosts, and what both sides start from."""

    def __init__(self, runner: Unpacked, busy: Unpacked, stack: ExitStack) -> None:
        self.runner = runner
        self._home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench.", dir="/tmp")))
        self._rig = Rig(busy)
        stack.callback(self._rig.end)
        self._stock = Stock.make(busy, self._home / "overlays")
        stack.callback(self._stock.close)
        self._keys = self._make_keys(stack)
        self._number = 0
        self.restore = Series("restore", "command to the agent's answer", "ms", limit="ratio ≤ 1.5")
        self.cold = Series("cold boot", "start to the agent's answer", "ms", limit="at least 20 restores")
        self.moved = {
            "total_s": Series("migration", "in all", "s"),
            "stopped_ms": Series("migration", "guest stopped", "ms", limit="≤ 100 ms"),
            "commit_ms": Series("migration", "of it the commit", "ms"),
            "net_ms": Series("migration", "stopped less commit", "ms", limit="ratio ≤ 1.5"),
            "memory_mib_sent": Series("migration", "memory sent", "MiB"),
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
        host, order = self._rig["a"], self._next_order()
        told = fresh_identity(order, GUEST_MTU)
        with restored(self._stock, self._home / "floor", "AfterResume", "restored", told) as (_, taken_ms):
            self.restore.floor.append(taken_ms)
        with restored(self._stock, self._home / "floor", "RunnerStatus") as (_, taken_ms):
            self.restore.plain.append(taken_ms)
        host.inside.run(host.engine.prepare(order.package))
        began = time.monotonic()
        host.inside.run(host.engine.boot(order))
        self.restore.ours.append((time.monotonic() - began) * 1000)
        host.inside.run(host.engine.stop(order.runner_id, 1))

    def boot_once(self) -> None:
        """One cold boot; there is only one way to do that."""
        self.cold.ours.append(asyncio.run(measure_cold_boot(self.runner)) * 1000)

    def migrate_once(self) -> None:
        """One move by hand with TLS, one without, one of ours, each of a guest that is as busy."""
        for side, keys in (("floor", self._keys), ("plain", None)):
            with restored(self._stock, self._home / "floor", "RunnerStatus") as (guest, _):
                self._make_busy(guest)
                self._note(side, migrate(guest, self._stock, self._home / "target", keys))
        self._note("ours", self._move_ours())

    def _make_busy(self, guest: ByHand) -> None:
        guest.call_agent("StartRunner", WORK)
        warm_up()

    def _move_ours(self) -> dict[str, float]:
        source, order, rows = self._rig["a"], self._next_order(), self._rig.rows
        source.inside.run(source.engine.boot(order))
        source.inside.run(source.engine.start_runner(order.runner_id, StartOrder(1, WORK)))
        warm_up()
        rows.figures.clear()
        row = self._rig.begin(order, "a", "b")
        if rows.wait(row.id, *END_OF_MOVE).phase is not MigrationPhase.FINISHED:
            raise SystemExit(f"the move was aborted: {rows.reasons}")
        self._rig.settle(order.runner_id)
        target = self._rig["b"]
        target.inside.run(target.engine.stop(order.runner_id, row.epoch))
        eventually(lambda: "memory_mib_sent" in rows.figures, "the source has said its figures")
        seen = rows.figures
        return {
            "total_s": seen["total_s"] + seen["resumed_at"] - seen["completed_at"],
            "stopped_ms": (seen["resumed_at"] - seen["stopped_at"]) * 1000,
            "commit_ms": (seen["commit_read_at"] - max(seen["completed_at"], seen["held_at"])) * 1000,
            "memory_mib_sent": seen["memory_mib_sent"],
        }

    def _note(self, side: str, figures: dict[str, float]) -> None:
        figures["net_ms"] = figures["stopped_ms"] - figures["commit_ms"]
        for name, series in self.moved.items():
            getattr(series, side).append(figures[name])
        console.print(f"  migration, {side}: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))

    def _next_order(self) -> BootOrder:
        self._number += 1
        return self._rig.order(self._number)


def main() -> None:
    """Run, print the table, and write the report."""
    wanted = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    wanted.add_argument("--json", type=Path, help="where to write the report")
    wanted.add_argument("--rounds", type=int, default=5)
    wanted.add_argument("--cold-rounds", type=int, default=1, help="cold boots take half a minute each")
    options = wanted.parse_args()
    load = os.getloadavg()[0]
    runner = runner_package()
    console.print("making the busy guest's package, unless it is there")
    busy = busy_package(runner)
    with ExitStack() as stack:
        bench = Bench(runner, busy, stack)
        for number in range(options.rounds):
            console.print(f"round {number + 1} of {options.rounds}")
            bench.restore_once()
            console.print(f"  restore: by hand {bench.restore.floor[-1]:.0f} ms, ours {bench.restore.ours[-1]:.0f} ms")
            bench.migrate_once()
        for _ in range(options.cold_rounds):
            bench.boot_once()
            console.print(f"  cold boot: {bench.cold.ours[-1]:.0f} ms")
        series = [bench.restore, bench.cold, *bench.moved.values()]
        report = Report(_version(), runner.manifest.machine.acceleration, load, series, NOTES)
    console.print(report.table())
    for note in NOTES:
        console.print(f"- {note}", style="dim")
    if options.json is not None:
        options.json.write_text(json.dumps(report.json(), indent=1))


def _version() -> str:
    said = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True, timeout=20)
    return said.stdout.split("version ")[1].split()[0]


if __name__ == "__main__":
    main()
