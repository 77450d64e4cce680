"""Boots a host image under software emulation until its daemon is READY, and says how long each stage took.

    ./dev image                                    builds an image for that first, with the package of debian-12
    python -m tests.images IMAGE DIGEST [MINUTES]  boots one that brings the package of this digest along

Nested emulation is slow: the daemon restores a microVM inside a machine that is emulated itself.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.contract.store_rows import a_host
from tests.images.machine import OUTSIDE, running, write_seed
from tests.integration.control_plane import ControlPlane, a_control_plane
from workers.bootstrap.image import Wish, run_build
from workers.domain.host import Host, HostState
from workers.domain.names import HostId
from workers.domain.user_data import cloud_config
from workers.host.packages import PackageShelf
from workers.identity import Authority
from workers.settings import HostSettings
from workers.store.repository import SqlStore

NAME = HostId("spot-host-of-an-image")
RECIPE = "debian-12"
LOOK_INTERVAL_S = 1.0
LIMIT_MIN = 30.0
# What the console shows on the way, in this order.
SIGNS = {
    "the kernel runs": "Linux version",
    "systemd runs": "systemd[1]:",
    "verified": "guests see: ",
    "registered": "host_registered",
    "READY": "host_ready",
}


@dataclass(frozen=True)
class Plane(ControlPlane):
    """A control plane that a machine behind QEMU's network reaches."""

    package: str = ""

    @property
    def outside_url(self) -> str:
        return f"https://{OUTSIDE}:{self.host_port}"

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "SPOT_RUNNER_HOST_URL": self.outside_url,
            "SPOT_RUNNER_HOST_NATS": '["127.0.0.0/8"]',
            "SPOT_RUNNER_RELAY_ADDRESS": OUTSIDE,
            "SPOT_RUNNER_PACKAGE": self.package,
        }


def boot(image: Path, package: str, limit_s: float, work: Path) -> Host:
    """Boot it until its host is READY, it is off, or the time is up; return the host's row."""
    near = a_control_plane(work)
    plane = Plane(near.directory, near.public_port, near.host_port, package)
    with plane.serve(), closing(plane.store()) as store:
        store.hosts.add(
            replace(a_host(NAME, state=HostState.LAUNCHING), address=None, host_class=None, deadline_at=None)
        )
        told = {
            "control_url": plane.outside_url,
            "control_ca_sha256": Authority.open(plane.home / "ca").control_ca_sha256,
            "token": store.issue_token(NAME, datetime.now(UTC) + timedelta(seconds=limit_s)),
        }
        write_seed(work / "seed", NAME, cloud_config(told))
        return watch(image, store, limit_s, work)


def watch(image: Path, store: SqlStore, limit_s: float, work: Path) -> Host:
    began, shown = time.monotonic(), 0
    with running(image, work / "seed", work) as machine:
        while True:
            is_on, text, row = machine.is_on, machine.said, store.hosts.get(NAME)
            assert row is not None
            seen = [name for name, sign in SIGNS.items() if sign in text]
            for name in seen[shown:]:
                say(f"{time.monotonic() - began:7.1f} s  {name}")
            shown = max(shown, len(seen))
            if row.state is HostState.READY or not is_on or time.monotonic() - began > limit_s:
                return row
            time.sleep(LOOK_INTERVAL_S)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it speaks to a person


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    with tempfile.TemporaryDirectory(prefix="image.") as folder:
        work = Path(folder)
        image, package, *minutes = arguments or built(work)
        row = boot(Path(image), package, 60 * float(minutes[0] if minutes else LIMIT_MIN), work)
        say(f"the host's row: {row.state}, at {row.address}, last heard at {row.heartbeat_at}")
        if row.state is not HostState.READY:
            say("\n".join((work / "console").read_text(errors="replace").splitlines()[-40:]))
            return 1
    return 0


def built(work: Path) -> list[str]:
    """Build an image whose daemon may emulate, with the package that `./dev` has built; return it and the digest."""
    settings = HostSettings()
    shelf = PackageShelf(settings.package_store, settings.package_cache)
    digest, image = shelf.named(RECIPE), work / "host.qcow2"
    asked = ("SPOT_RUNNER_ACCEL=tcg", "SPOT_RUNNER_ALLOW_TCG=1", "SPOT_RUNNER_WAKE_LIMIT_S=900")
    run_build(settings, Wish("local-qcow2", "kvm", "debian-12-kvm", image, 4096, (shelf.path(digest),), asked))
    return [str(image), digest]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
