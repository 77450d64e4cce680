"""`spot-runner image`: pin the inputs of host images, and make them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from images import versions as inputs
from images.build import build, check_fit
from images.order import Baked, Order, check_room, checked_order, read_settings
from images.pinning import at_hand, check_can_be_pinned, check_is_pinned, read_pin, write_pin
from images.root import Workshop
from images.versions import Kernel
from workers.bootstrap.unwinding import unwound_on_sigterm
from workers.domain.errors import BadInput, Unfit
from workers.host import debian
from workers.host.guest_files import copy_tree
from workers.host.manifest import MIB
from workers.host.packages import digest_of, verify
from workers.host.programs import run
from workers.settings import HostSettings

console: Final = Console()


def run_pin(source: str, package: str | None, versions: Path | None) -> str:
    """Read the package of a kernel, write into the versions file which one it is, and say so."""
    file = versions or inputs.FILE
    kernel = inputs.load(file).named_kernel(source)
    check_can_be_pinned(source, kernel, package)
    with at_hand(package or kernel.url or "") as read:
        pin = read_pin(kernel, read, package)
    write_pin(file, source, pin)
    return f"{file}: {source} is {pin.version}, sha256:{pin.sha256}"


@dataclass(frozen=True)
class Wish:
    """What is asked for on the command line."""

    cloud: str
    kernel: str
    source: str
    output: Path | None
    disk_mib: int
    packages: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    kernel_package: Path | None = None


def run_build(settings: HostSettings, wish: Wish) -> None:
    """Make an image, or refuse in one sentence before anything is started."""
    order = checked_order(inputs.load(), wish.cloud, wish.kernel, wish.source, wish.disk_mib)
    order = replace(order, settings=read_settings(wish.settings))
    check_kernel_package(order, wish.kernel_package)
    if (output := wish.output) is None:
        raise BadInput("--output: name the file that is to be made")
    checkout = Path(inputs.__file__).parents[1]
    if not (checkout / "requirements.txt").exists():
        raise BadInput(
            f"image build puts the daemon of its own tree into the image, and {checkout} is none; use a clone"
        )
    cache = settings.build_cache / "images"  # of our own: what lies there half made is removed
    check_fit(output, cache, 2 * wish.disk_mib)
    order = replace(order, packages=tuple(_baked(file) for file in wish.packages))
    check_room(_size_mib(order), wish.disk_mib, "--disk-mib", "write more")
    if os.geteuid() != 0:
        raise Unfit("image build makes a root file system, so it needs root; run it with sudo")
    with unwound_on_sigterm(), console.status("reading the kernel") as status:
        shop = Workshop(checkout, cache, run, debian.make_tar, copy_tree, _more_sources(order), status.update)
        with kernel_at_hand(order.kernel, wish.kernel_package) as package:
            build(replace(order, kernel_package=package), shop, output)
    console.print(f"{output}: {output.stat().st_size / MIB:.0f} MiB, {order.source} for {order.cloud}", soft_wrap=True)


def check_kernel_package(order: Order, given: Path | None) -> None:
    """Raise `BadInput` if a kernel's package is given that is not wanted, or none that is."""
    if given is not None and order.kernel.kind == "distribution":
        raise BadInput(f"--kernel-package: {order.source} is {order.kernel.distribution}'s own, so there is no file")
    if given is None and order.kernel.kind != "distribution" and order.kernel.package_url is None:
        raise BadInput(f"--kernel-package: {order.source} was pinned from a file; name that file")


@contextmanager
def kernel_at_hand(kernel: Kernel, given: Path | None) -> Iterator[Path | None]:
    """Give a kernel's package, fetched if it is not given, that is the pinned one. Raises `BadInput` and `TryLater`."""
    place = str(given) if given else kernel.package_url
    if place is None:
        yield None
        return
    with at_hand(place) as file:
        check_is_pinned(kernel, file)
        yield file


def _more_sources(order: Order) -> tuple[str, ...]:
    if not order.debian.backports_monitor:
        return ()
    suite = order.debian.suite
    source = debian.backports(suite)
    if source is None:
        raise Unfit(
            f"--source {order.source}: {suite}'s own QEMU is too old for a host, and only a machine that runs {suite} "
            "knows where its backports are; build it there, or name a --source of Debian 13"
        )
    return (source,)


def _size_mib(order: Order) -> int:
    return -(-sum(package.file.stat().st_size for package in order.packages) // MIB)


def _baked(file: Path) -> Baked:
    """Read a package to its end: what a host could not use need not be carried to it."""
    path = file.resolve()
    digest = digest_of(path)
    verify(path, digest)
    return Baked(digest, path)
