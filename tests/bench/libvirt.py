"""One libvirtd for each host: in the host's network namespace, with directories, a name and a user list of its own.

    rig's host a ── libvirtd ── QEMU            virsh (outside, over both sockets)
    rig's host b ── libvirtd ── QEMU

Debian's libvirtd, unchanged; it finds what it owns below the bench's folder, because that is mounted over its places in
a mount namespace of its own. What of its settings differs from Debian's is in `SETTINGS`, with the reason.
"""

from __future__ import annotations

import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tests.e2e.engine_rig import EngineHost, eventually
from workers.domain.errors import Refused
from workers.domain.migration import Ports
from workers.host.disks import BLOCK_BYTES, MIB, Unpacked
from workers.host.machine import TEMPLATE_MAC, TRANSLATION_CACHE_MIB

GUEST: Final = "guest"
LIMIT_S: Final = 120.0
# Over these of the machine's places libvirtd sees the bench's own.
PLACES: Final = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "run": "/run/libvirt", "log": "/var/log/libvirt"}
CACHE: Final = "/var/cache/libvirt"
PLACED: Final = PLACES | {"cache": CACHE}
SETTINGS: Final = """\
# The files are root's, like those of the QEMU by hand; no user, owner or label is changed.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
# These machines' control groups are bound to version 1 mounts; ours has the same as a part of its confinement.
cgroup_controllers = []
namespaces = []
# Without virtlogd, a process more.
stdio_handler = "file"
migrate_tls_x509_cert_dir = "/etc/libvirt/pki"
migrate_tls_x509_verify = 1
"""
# libvirtd does not start on a machine that has no such user, which is made by a package that starts services.
PASSWD: Final = "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n"
GROUP: Final = "libvirt-qemu:x:64055:\n"


@dataclass(frozen=True)
class Libvirt:
    """One running libvirtd."""

    host: EngineHost
    home: Path

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.home}/run/libvirt-sock"

    @property
    def agent(self) -> Path:
        """The socket of the channel to its guest's agent."""
        return self.home / "lib" / "agent"

    @property
    def overlay(self) -> Path:
        """What its guest has written to its disk."""
        return self.home / "lib" / "disk.qcow2"

    def virsh(self, *words: str | Path) -> str:
        """Carry out one command. Raises `Refused` with what virsh said."""
        command = ["virsh", "--quiet", "--connect", self.uri, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
        if done.returncode:
            raise Refused(f"virsh {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def lay_overlay(self, disk: Path) -> None:
        """Make the guest's disk, empty, over this one."""
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, self.overlay)

    def forget(self) -> None:
        """End the guest, wherever it is."""
        with suppress(Refused):  # it is not here
            self.virsh("destroy", GUEST)

    def version(self) -> str:
        """Return libvirt's version, for example `9.0.0`."""
        return self.virsh("version").partition("library: libvirt ")[2].split()[0]

    def sent_mib(self) -> dict[str, float]:
        """Return what was sent of the guest that has just come; libvirt does not count the disk, so its file is."""
        said = self.virsh("domjobinfo", GUEST, "--completed", "--rawstats")
        memory = int(re.findall(r"memory_processed: +(\d+)", said)[0])
        disk = self.overlay.stat().st_blocks * BLOCK_BYTES
        return {"memory_mib_sent": memory / MIB, "disk_mib_sent": disk / MIB}

    @contextmanager
    def hearing(self) -> Iterator[Path]:
        """Write down what QEMU says by itself; the file is whole when the block has ended."""
        file = self.home / "events"
        with file.open("wb") as output:
            command = ["virsh", "--connect", self.uri, "qemu-monitor-event", "--loop", "--timeout", str(int(LIMIT_S))]
            ear = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            try:
                yield file
            finally:
                ear.send_signal(signal.SIGINT)
                ear.wait(LIMIT_S)


def moment(events: Path, name: str) -> float:
    """Return when QEMU said this last, as Unix time by QEMU's own stamp."""
    said = re.findall(rf"event {name} at (\d+\.\d+) for domain", events.read_text())
    return float(said[-1])


@contextmanager
def libvirt_on(host: EngineHost, home: Path, keys: Path) -> Iterator[Libvirt]:
    """Start a libvirtd on a host of the rig; nothing of it is left in the end, on the machine neither.

    `keys` is a directory as QEMU wants it, with this host's certificate.
    """
    _prepare(home, keys)
    with _machine_places():
        log = (home / "libvirtd.log").open("wb")
        with log:
            daemon = subprocess.Popen(
                ["ip", "netns", "exec", host.place.name, "unshare", "--mount", "--uts", "sh", "-c", _entrance(home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        libvirt = Libvirt(host, home)
        try:
            eventually(lambda: _answers(libvirt, daemon), f"libvirtd in {home} answers")
            yield libvirt
        finally:
            libvirt.forget()
            daemon.terminate()
            daemon.wait(LIMIT_S)


def _prepare(home: Path, keys: Path) -> None:
    for name in PLACED:
        (home / name).mkdir(parents=True)
    (home / "etc" / "libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\nauth_unix_rw = "none"\n')
    (home / "etc" / "qemu.conf").write_text(SETTINGS)
    for name, line in (("passwd", PASSWD), ("group", GROUP)):
        (home / name).write_text(Path("/etc", name).read_text() + line)
    _run("cp", "--recursive", keys, home / "etc" / "pki")


def _entrance(home: Path) -> str:
    mounts = [f"mount --bind {home}/{name} {place}" for name, place in PLACED.items()]
    users = [f"mount --bind {home}/{name} /etc/{name}" for name in ("passwd", "group")]
    daemon = "exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid"
    return " && ".join([f"hostname {home.name}", *mounts, *users, daemon])


@contextmanager
def _machine_places() -> Iterator[None]:
    """Make the places that are mounted over, and remove those that were not there."""
    absent = [path for path in map(Path, PLACED.values()) if not path.exists()]
    for path in absent:
        path.mkdir(parents=True)
    try:
        yield
    finally:
        for path in absent:
            path.rmdir()


def _answers(libvirt: Libvirt, daemon: subprocess.Popen[bytes]) -> bool:
    if daemon.poll() is not None:
        raise SystemExit(f"libvirtd ended at once: {(libvirt.home / 'libvirtd.log').read_text()[-600:]}")
    try:
        return "QEMU" in libvirt.virsh("version")
    except Refused:
        return False


def domain(package: Unpacked, disk: Path, kind: str) -> str:
    """Return the guest's machine as libvirt describes it: the same devices as workers/host/machine.py's.

    The disk is a raw file (`raw`), or the overlay in libvirt's own place over it (`qcow2`).
    """
    manifest = package.manifest
    below = f"<backingStore type='file'><format type='raw'/><source file='{disk}'/></backingStore>"
    source, store = (disk, "") if kind == "raw" else (Path(PLACES["lib"], "disk.qcow2"), below)
    return f"""\
<domain type='qemu'>
  <name>{GUEST}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, GUEST)}</uuid>
  <memory unit='KiB'>{manifest.machine.memory_kib}</memory>
  <vcpu>{manifest.machine.vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{manifest.machine.type}'>hvm</type>
    <kernel>{package.kernel}</kernel>
    <initrd>{package.initrd}</initrd>
    <cmdline>{escape(manifest.kernel.command_line)}</cmdline>
  </os>
  <features>
    <acpi/><apic/><vmport state='off'/><tcg><tb-cache unit='MiB'>{TRANSLATION_CACHE_MIB}</tb-cache></tcg>
  </features>
  <cpu mode='maximum'/>
  <clock offset='utc'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{kind}' cache='unsafe' discard='unmap' detect_zeroes='unmap'/>
      <source file='{source}'/>{store}
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <interface type='ethernet'>
      <mac address='{TEMPLATE_MAC}'/><model type='virtio'/><driver name='qemu'/><rom enabled='no'/>
    </interface>
    <serial type='null'/>
    <channel type='unix'>
      <source mode='bind' path='{PLACES["lib"]}/agent'/><target type='virtio' name='agent'/>
    </channel>
    <memballoon model='none'/>
    <rng model='virtio'><backend model='builtin'/></rng>
  </devices>
</domain>
"""


def migrate(source: Libvirt, target: Libvirt, ports: Ports, *, tls: bool) -> None:
    """Do what the issue's command does: `virsh migrate --live --copy-storage-inc`; returns when virsh does.

    Each move needs other ports: libvirt 9 does not give the disk's back.
    """
    place, network, address = target.host.place, target.host.parts.network, target.host.address
    for port in (ports.memory, ports.disk):
        place.call(network.admit, port, source.host.address)
    where = ("--migrateuri", f"tcp://{address}:{ports.memory}", "--disks-port", str(ports.disk))
    how = ("--live", "--copy-storage-inc", *(["--tls"] if tls else []))
    try:
        source.virsh("migrate", *how, GUEST, target.uri, *where, "--listen-address", address)
    finally:
        for port in (ports.memory, ports.disk):
            place.call(network.dismiss, port)


def copy_sparsely(source: Path, target: Path) -> None:
    """Copy a file that is mostly holes; takes seconds."""
    _run("cp", "--sparse=always", "--reflink=auto", source, target)
    target.chmod(0o600)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
