"""`spot-runner package publish`: from the packages of this machine into the object store of the deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from workers.bootstrap.stores import open_objects
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.names import PackageDigest
from workers.domain.published import hex_of
from workers.host.manifest import MIB
from workers.host.packages import PackageShelf, digest_of
from workers.host.publishing import publish
from workers.settings import ControlSettings, HostSettings

console: Final = Console()


def run_publish(control: ControlSettings, host: HostSettings, named: str) -> None:
    """Publish a package and say how much of it had to be sent. Raises `BadInput`, or what the store says."""
    path, digest = _found(host, named)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as shown:
        task = shown.add_task("publishing", total=path.stat().st_size)
        store = open_objects(control, SystemClock())
        done = publish(path, digest, store, lambda bytes_, of: shown.update(task, completed=bytes_, total=of))
    sent = f"{done.sent_bytes / MIB:.1f} MiB of {done.index.size / MIB:.1f} MiB sent"
    console.print(f"{sent}, {len(done.index.parts)} parts; the rest was there", soft_wrap=True)
    console.print(digest, soft_wrap=True)


def _found(host: HostSettings, named: str) -> tuple[Path, PackageDigest]:
    """Return the file and the digest that it must have: its name says that."""
    if named.startswith("sha256:"):
        hex_of(PackageDigest(named))
        path = PackageShelf(host.package_store, host.package_cache).path(PackageDigest(named))
    else:
        path = Path(named).resolve()
    if not path.is_file():
        raise BadInput(f"package: {path} does not exist; build it, or name the file of one that is built")
    digest = digest_of(path)
    hex_of(digest)
    return path, digest
