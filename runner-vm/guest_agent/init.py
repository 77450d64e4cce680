"""The first process of a guest whose image brings none: it starts the agent, and buries who has lost their parent.

The initial ramdisk has mounted /dev, /proc, /sys and /run, and has loaded what talks to the host.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

MOUNTS: Final = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),  # noqa: S108 - the mount point itself
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
)
PORTS: Final = Path("/sys/class/virtio-ports")
LINKS: Final = Path("/dev/virtio-ports")
AGENT: Final = ("-I", "-m", "guest_agent")
# As systemd gives what it starts. The kernel's own is 4096 at most, and no job of a user's could open more.
OPEN_FILES: Final = (1024, 524_288)
AGAIN_INTERVAL_S: Final = 1.0
# linux/reboot.h; and of linux/sockios.h and linux/if.h, what switches an interface on.
POWER_OFF: Final = 0x4321FEDC
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1


def main(interpreter: str) -> None:
    """Make the guest ready for the agent and keep it running with this interpreter; never returns."""
    for kind, place in MOUNTS:
        _mount(kind, place)
    switch_on("lo")
    link_ports()
    set_limits()
    signal.signal(signal.SIGTERM, lambda *_: power_off())
    agent = subprocess.Popen([interpreter, *AGENT])
    while True:
        if os.wait()[0] == agent.pid:
            time.sleep(AGAIN_INTERVAL_S)
            agent = subprocess.Popen([interpreter, *AGENT])


def _mount(kind: str, place: str) -> None:
    if os.path.ismount(place):
        return
    Path(place).mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
        print(f"init: {place}: {os.strerror(ctypes.get_errno())}", flush=True)  # noqa: T201 - the serial line is its log


def switch_on(interface: str) -> None:
    """Let an interface carry packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        wish = struct.pack("16sh14x", interface.encode(), 0)
        name, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, wish))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | IFF_UP))


def link_ports(ports: Path = PORTS, links: Path = LINKS) -> None:
    """Name the ports to the host as udev would."""
    links.mkdir(parents=True, exist_ok=True)
    for port in ports.glob("*"):
        link = links / (port / "name").read_text().strip()
        if not link.is_symlink():
            link.symlink_to(Path("..") / port.name)


def set_limits(open_files: tuple[int, int] = OPEN_FILES) -> None:
    """Let this process, and whatever it starts, open so many files at once, and so many at most if it asks."""
    resource.setrlimit(resource.RLIMIT_NOFILE, open_files)


def power_off() -> None:
    """Write everything out and end the guest at once."""
    os.sync()
    ctypes.CDLL(None).reboot(POWER_OFF)


if __name__ == "__main__":
    main(sys.argv[1])
