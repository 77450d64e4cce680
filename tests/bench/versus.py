"""`./dev bench --virsh`: ours against Debian's libvirt, the same guest between the same two hosts, in one run.

    ours   package ─restore─▶ works ─▶ moved, mutual TLS, one peer admitted, the row decides
    virsh  saved image ─restore─▶ works ─▶ `virsh migrate --live --copy-storage-inc`, with --tls and without

libvirt's saved image is made as a package is: the same disk booted once, BeforeSuspend, saved. Pauses are read off the
same events of both QEMUs, STOP at the source and RESUME at the target.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import libvirt
from tests.bench.figures import OURS, Report, Series, console
from tests.bench.floor import call_agent
from tests.bench.libvirt import GUEST, Libvirt, domain, libvirt_on
from tests.bench.ours import WORK, moved_busy, warm_up
from tests.e2e.engine_rig import Rig, runner_package
from tests.e2e.scripted_guest import scripted_package
from workers.domain.errors import Bug
from workers.domain.migration import Ports
from workers.domain.names import HostId
from workers.host.packages import Unpacked
from workers.host.rules import MIGRATION_PORTS
from workers.host.tls import MoveKeys, readable_keys
from workers.identity import make_csr

VIRSH, SECURED = "virsh", "virsh_tls"
SIDES = {OURS: "ours", VIRSH: "virsh", SECURED: "virsh --tls"}
NOTES = [
    "the same kernel, disk, memory, machine type, QEMU and work, between the same two network namespaces",
    "ours: mutual TLS on both streams and one peer admitted; virsh: none as in the issue's command, or --tls on both",
    "ours: confined (own user, seccomp, control group, namespaces); virsh: root, libvirt's seccomp, no control group",
    "ours: at most 30 ms of memory left at the pause, adapted to the guest; virsh: QEMU's own 300 ms",
    "ours: the pause holds the row's commit, decided in this process; virsh: libvirt's own handshake",
    "neither uses post-copy; disks are not flushed to the platter on either side",
    "in all: first order to nothing left at the source, or to virsh's return; it includes the target's start",
]


class Versus:
    """One run: two hosts, each with an engine of ours and a libvirtd."""

    def __init__(self, busy: Unpacked, stack: ExitStack) -> None:
        self._busy = busy
        self._home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virsh.", dir="/var/tmp")))
        self.rig = Rig(busy)
        stack.callback(self.rig.end)
        self.a, self.b = (self._libvirt(name, stack) for name in ("a", "b"))
        self._disk, self._image = self._home / "disk", self._home / "image"
        self._xml = self._home / "guest.xml"
        self._number = 0
        self._port = MIGRATION_PORTS[0]
        for host in self.rig.hosts.values():  # as on every host that is ready
            host.inside.run(host.engine.prepare(busy.digest))
        self.series = {
            "finished_s": Series("migration", "in all", "s", limit="ratio ≤ 1.0"),
            "running_s": Series("migration", "until it runs at the target", "s"),
            "stopped_ms": Series("migration", "guest stopped", "ms", limit="ratio ≤ 1.0"),
            "memory_mib_sent": Series("migration", "memory sent", "MiB"),
            "disk_mib_sent": Series("migration", "disk sent", "MiB"),
        }

    def _libvirt(self, name: str, stack: ExitStack) -> Libvirt:
        host = self.rig[name]
        key, request = make_csr(HostId(host.id))
        authority = self.rig.authority
        keys = MoveKeys(key, authority.host_certificate(request, host.id, host.address), authority.hosts_ca)
        with readable_keys(keys, self._home, 0) as place:
            return stack.enter_context(libvirt_on(host, self._home / f"virsh-{name}", place))

    def make_image(self) -> None:
        """Boot the package's disk once under libvirt, and save the guest when it has settled."""
        libvirt.copy_sparsely(self._busy.disk, self._disk)
        self._xml.write_text(domain(self._busy, self._disk, "raw"))
        self.a.virsh("create", self._xml)
        call_agent(self.a.agent, "RunnerStatus")
        call_agent(self.a.agent, "BeforeSuspend")
        self.a.virsh("save", GUEST, self._image)
        self._disk.chmod(0o400)
        self._xml.write_text(domain(self._busy, self._disk, "qcow2"))

    def move_once(self) -> None:
        """One move of ours, and one of libvirt's each way."""
        self._number += 1
        self._note(OURS, moved_busy(self.rig, self.rig.order(self._number)))
        self._note(VIRSH, self._move_theirs(tls=False))
        self._note(SECURED, self._move_theirs(tls=True))

    def _move_theirs(self, *, tls: bool) -> dict[str, float]:
        for end in (self.a, self.b):
            end.lay_overlay(self._disk)
        self.a.virsh("restore", self._image, "--xml", self._xml)
        try:
            call_agent(self.a.agent, "StartRunner", WORK)
            with self.a.hearing() as at_source, self.b.hearing() as at_target:
                warm_up()
                began_at, began = time.time(), time.monotonic()
                libvirt.migrate(self.a, self.b, self._ports(), tls=tls)
                finished_s = time.monotonic() - began
            if b"running" not in (said := call_agent(self.b.agent, "RunnerStatus")):
                raise Bug(f"the guest's work did not survive: {said!r}")
            sent = self.b.sent_mib()
        finally:
            for end in (self.a, self.b):
                end.forget()
        stopped_at, resumed_at = libvirt.moment(at_source, "STOP"), libvirt.moment(at_target, "RESUME")
        stopped_ms = (resumed_at - stopped_at) * 1000
        return {"finished_s": finished_s, "running_s": resumed_at - began_at, "stopped_ms": stopped_ms, **sent}

    def _ports(self) -> Ports:
        """Return two that no move of libvirt's has used yet."""
        self._port += 2
        return Ports(memory=self._port - 2, disk=self._port - 1)

    def _note(self, side: str, figures: dict[str, float]) -> None:
        for name, series in self.series.items():
            series.samples[side].append(figures[name])
        console.print(f"  {SIDES[side]}: " + ", ".join(f"{name} {figures[name]:.1f}" for name in self.series))


def run(rounds: int) -> dict[str, Any]:
    """Measure so many times, print the table, and return the report."""
    load = os.getloadavg()[0]
    busy = scripted_package(runner_package())
    with ExitStack() as stack:
        versus = Versus(busy, stack)
        console.print("booting the guest under libvirt, to save it")
        versus.make_image()
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            versus.move_once()
        version = versus.a.version()
    report = Report(
        busy.manifest.machine.acceleration, load, SIDES, (VIRSH, SECURED), list(versus.series.values()), NOTES
    )
    console.print(report.table())
    for note in NOTES:
        console.print(f"- {note}", style="dim")
    return report.json() | {"libvirt": version}
