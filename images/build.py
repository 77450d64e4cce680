"""Making a host image as a qcow2 file: it is there when it is whole, and nothing else is left of the attempt.

root ─▶ ext4 at 2 MiB of a sparse disk ─▶ GRUB before it ─▶ FILE.partial ─▶ FILE
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from images.boot import BOOT_AT, LABEL, PREFIX, ROOT_AT, SECTOR, core, first_sector, partitions
from images.order import Order
from images.root import Workshop, make_root
from workers.domain.errors import BadInput, Unfit

MIB: Final = 1 << 20
# The end of a GPT is its second copy.
TAIL_SECTORS: Final = 2048
CONVERT_LIMIT_S: Final = 1800.0
PROGRAMS: Final = ("mmdebstrap", "tar", "unshare", "chroot", "systemctl", "mke2fs", "sfdisk", "qemu-img")
DEBIAN: Final = ("mmdebstrap", "util-linux", "systemd", "e2fsprogs", "fdisk", "qemu-utils")
# Of each kind.
KEPT: Final = 2
KINDS: Final = ("host-*.tar", "wheels-*")


def check_fit(output: Path, cache: Path, needed_mib: int, programs: Sequence[str] = PROGRAMS) -> None:
    """Refuse before anything is started. Raises `Unfit` and `BadInput`."""
    if not output.parent.is_dir():
        raise BadInput(f"--output {output}: there is no folder {output.parent}")
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise Unfit(f"{missing[0]} is not installed; an image is made with what Debian calls {', '.join(DEBIAN)}")
    for place in (output.parent, next(folder for folder in (cache, *cache.parents) if folder.exists())):
        if (left := shutil.disk_usage(place).free // MIB) < needed_mib:
            raise Unfit(f"{place} has {left} MiB left and an image needs {needed_mib}; free some")


def build(order: Order, shop: Workshop, output: Path) -> None:
    """Make the image. Needs root; raises `Unfit`; a former file of this name stays until the new one is whole."""
    shop.cache.mkdir(parents=True, exist_ok=True)
    with _alone(shop.cache), tempfile.TemporaryDirectory(prefix=".image.", dir=shop.cache) as folder:
        work = Path(folder)
        make_root(order, shop, work / "root")
        shop.progress("making the disk")
        make_disk(shop, work / "root", work / "disk", order.disk_mib)
        partial = output.with_name(f".{output.name}.partial")
        try:
            zstd = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
            shop.run(["qemu-img", "convert", *zstd, "-f", "raw", str(work / "disk"), str(partial)], CONVERT_LIMIT_S)
            partial.rename(output)
        finally:
            partial.unlink(missing_ok=True)
        forget_old(shop.cache)


def make_disk(shop: Workshop, root: Path, disk: Path, size_mib: int) -> None:
    """Make a disk that boots from a root, and remove the root. Raises `Unfit`."""
    with disk.open("wb") as file:
        file.truncate(size_mib * MIB)
    table = disk.with_name("partitions")
    table.write_text(partitions())
    shop.run(["sh", "-euc", 'exec sfdisk --quiet "$0" < "$1"', str(disk), str(table)])
    blocks_kib = (size_mib * MIB // SECTOR - ROOT_AT - TAIL_SECTORS) * SECTOR // 1024
    ext4 = ["-q", "-F", "-t", "ext4", "-L", LABEL, "-m", "1", "-E", f"offset={ROOT_AT * SECTOR}", "-d", str(root)]
    shop.run(["mke2fs", *ext4, str(disk), f"{blocks_kib}k"])
    loader = root / PREFIX.lstrip("/")
    with disk.open("r+b") as file:
        file.write(first_sector((loader / "boot.img").read_bytes()))
        file.seek(BOOT_AT * SECTOR)
        file.write(core((loader / "core.img").read_bytes()))
    shutil.rmtree(root)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Wait for another build on this machine; then whatever is half made is of one that was killed."""
    with (cache / ".image-lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for pattern in (".image.*", ".wheels.*", ".wheel.*", ".mmdebstrap.*"):
            for left in cache.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        yield


def forget_old(cache: Path) -> None:
    """Remove all but the results that were used last."""
    for pattern in KINDS:
        for old in sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
