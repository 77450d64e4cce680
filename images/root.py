"""The root file system of a host: the distribution's, then the daemon with its environment, then what is set for it.

mmdebstrap ─▶ host-<key>.tar, kept ─▶ unpacked ─▶ kernel, wheels installed in it, off line ─▶ units, settings, packages
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.boot import EARLY, LABEL, MODULES, PREFIX, menu
from images.debians import Debian
from images.order import Order
from images.tools import CopyTree, MakeTar, Run
from images.versions import Kernel

FILES: Final = Path(__file__).with_name("rootfs")
# Where apt finds the monitor that is new enough; the same in an image that is made here and in a builder at a cloud.
PREFERENCES: Final = FILES / "preferences"
# What mmdebstrap runs, and what they read.
HOOKS: Final = ("customize.sh", "prepare.sh", PREFERENCES.name)
INSTALLER: Final = "kernel.sh"
# Raised when this module makes something else out of the same inputs.
EDITION: Final = 1
PACKAGES: Final = (
    *("systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "zstd", "procps", "ca-certificates"),
    *("systemd-resolved", "systemd-timesyncd", "cloud-init", "cloud-guest-utils", "e2fsprogs"),
    *("qemu-system-x86", "qemu-utils", "nftables", "iproute2", "wireguard-tools", "openssl"),
    *("python3", "python3-venv", "grub-pc-bin", "grub-common"),
)
# What the installer takes in the root: Debian's kernels depend on linux-base.
INSTALLED_WITH: Final = {"deb": ("linux-base",), "rpm-repository": ("rpm2cpio", "cpio")}
SUFFIXES: Final = {"deb": ".deb", "rpm-repository": ".rpm"}
PROGRAM: Final = "opt/spot-runner"
SHELF: Final = "var/cache/spot-runner/packages"
SERVICE: Final = "spot-runner-host.service"
ENABLED: Final = (SERVICE, "spot-runner-silence.timer", "spot-runner-life.timer")
_OF_A_VERSION: Final = re.compile(r" ; python_full_version [<>=!]+ '[0-9.]+'(?= \\$)", re.MULTILINE)
FETCH_LIMIT_S: Final = 900.0
# mount(8) only in a namespace of its own: whatever happens to us, nothing is left mounted.
IN_ROOT: Final = 'mount -t proc proc "$0/proc"; mount --bind /dev "$0/dev"; exec chroot "$0" "$@"'


@dataclass(frozen=True)
class Workshop:
    """Where and with what images are made."""

    checkout: Path
    """The tree of spot-runner whose daemon goes into them."""
    cache: Path
    run: Run
    make_tar: MakeTar
    copy_tree: CopyTree
    more_sources: tuple[str, ...] = ()
    progress: Callable[[str], None] = lambda _: None


def make_root(order: Order, shop: Workshop, root: Path) -> None:
    """Make the whole root in this folder, which is not there yet. Needs root; raises `Unfit`."""
    shop.progress("making Debian's root file system")
    tar = _distribution(order, shop)
    shop.progress("fetching what the daemon needs")
    wheels = _wheels(order.debian, shop)
    root.mkdir()
    shop.run(["tar", "--extract", "--file", str(tar), "--directory", str(root), "--numeric-owner"])
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    if order.kernel_package is not None:
        shop.progress("installing the kernel")
        _install_kernel(shop, order.kernel_package, SUFFIXES[order.kernel.kind], root)
    shop.progress("installing the daemon")
    _install_program(shop, wheels, root)
    add_ours(order, shop, root)
    _add_loader(order, shop, root)


def packages_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the distribution's packages that a host with this kernel has."""
    of_kernel = (kernel.package or "",) if kernel.kind == "distribution" else INSTALLED_WITH[kernel.kind]
    return (*PACKAGES, *of_kernel)


def _distribution(order: Order, shop: Workshop) -> Path:
    packages, suite = packages_of(order.kernel), order.debian.suite
    scripts = [(FILES / name).read_bytes() for name in HOOKS]
    tar = shop.cache / f"host-{_key(EDITION, suite, packages, shop.more_sources, scripts)}.tar"
    if not tar.exists():
        shop.make_tar(tar, suite, packages, FILES, shop.more_sources)
    tar.touch()
    return tar


def _wheels(debian: Debian, shop: Workshop) -> Path:
    """Return a folder with every wheel that the lock names, each of its hash, for the Python of this Debian."""
    locked = (shop.checkout / "requirements.txt").read_text()
    kept = shop.cache / f"wheels-{_key(EDITION, debian.python, debian.platforms, locked)}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix=".wheels.", dir=shop.cache) as work:
            wheels, lock = Path(work) / "wheels", Path(work) / "requirements.txt"
            lock.write_text(for_any_python(locked))
            platforms = [f"--platform={one}" for one in debian.platforms]
            target = ["--only-binary=:all:", f"--python-version={debian.python}", *platforms]
            wanted = ["--require-hashes", "--requirement", str(lock), "--dest", str(wheels)]
            shop.run([*_pip(shop, Path(work)), "download", "--quiet", *target, *wanted], FETCH_LIMIT_S)
            wheels.rename(kept)
    kept.touch()
    return kept


def for_any_python(lock: str) -> str:
    """Return a lock whose entries do not depend on the Python that fetches; the one in the root decides."""
    return _OF_A_VERSION.sub("", lock)


def _pip(shop: Workshop, work: Path) -> list[str]:
    """Return how a pip is called that is nobody's but ours: the environment that we run in may have none."""
    shop.run([sys.executable, "-m", "venv", str(work / "pip")])
    return [str(work / "pip/bin/python"), "-m", "pip", "--disable-pip-version-check"]


def _install_program(shop: Workshop, wheels: Path, root: Path) -> None:
    """Install the daemon as the lock says, from files alone, with the root's own Python."""
    with tempfile.TemporaryDirectory(prefix=".wheel.", dir=shop.cache) as work:
        pip = _pip(shop, Path(work))
        shop.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", work, str(shop.checkout)], FETCH_LIMIT_S)
        shutil.copytree(wheels, root / "wheels")
        for wheel in Path(work).glob("spot_runner-*.whl"):
            shutil.copy(wheel, root / "wheels")
    shutil.copy(shop.checkout / "requirements.txt", root / "wheels")
    program = f"/{PROGRAM}/bin/python"
    install = [program, "-m", "pip", "install", "--quiet", "--no-index", "--find-links=/wheels"]
    in_root(shop, root, ["python3", "-m", "venv", f"/{PROGRAM}"])
    in_root(shop, root, [*install, "--require-hashes", "--requirement=/wheels/requirements.txt"])
    in_root(shop, root, [*install, "--no-deps", "spot-runner"])
    in_root(shop, root, [f"/{PROGRAM}/bin/spot-runner", "host", "--help"])
    shutil.rmtree(root / "wheels")


def _install_kernel(shop: Workshop, package: Path, suffix: str, root: Path) -> None:
    """Let the kernel of this package be the root's only one."""
    work = root / "kernel"
    work.mkdir()
    shutil.copy(package, work / f"kernel{suffix}")
    shutil.copy(FILES / INSTALLER, work)
    in_root(shop, root, [f"/kernel/{INSTALLER}", "/", f"/kernel/kernel{suffix}"])
    shutil.rmtree(work)


def in_root(shop: Workshop, root: Path, command: list[str]) -> str:
    """Run a program of this root, with /proc and /dev, which are gone again when it has ended, or was killed."""
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", IN_ROOT, str(root)]
    return shop.run([*alone, *command], FETCH_LIMIT_S)


def add_ours(order: Order, shop: Workshop, root: Path) -> None:
    """Add units, settings, what the kernel is to load, and packages."""
    shop.copy_tree(FILES / "files", root)
    units = root / "etc/systemd/system"
    shutil.copy(shop.checkout / "infra/systemd" / SERVICE, units)
    lock = (shop.checkout / "requirements.txt").read_bytes()
    described = description(order, {"lock_sha256": hashlib.sha256(lock).hexdigest()})
    table = f"LABEL={LABEL} / ext4 defaults,noatime 0 1\n"
    for name, content in {**settings_files(order), "etc/spot-runner/image.json": described, "etc/fstab": table}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (root / SHELF).mkdir(parents=True, exist_ok=True)
    for package in order.packages:
        shutil.copy(package.file, root / SHELF / f"{package.digest.replace(':', '-')}.package")
    shop.run(["systemctl", f"--root={root}", "--quiet", "enable", *ENABLED])


def settings_files(order: Order) -> dict[str, str]:
    """Return what the daemon and the kernel are told, by the file that says it."""
    lines = {
        "etc/spot-runner/host.env": [f"{name}='{value}'" for name, value in order.host_settings.items()],
        "etc/modules-load.d/spot-runner.conf": order.kernel.modules,
        "etc/modprobe.d/spot-runner.conf": [f"blacklist {name}" for name in order.kernel.blacklist],
    }
    return {name: "".join(f"{line}\n" for line in content) for name, content in lines.items()}


def description(order: Order, program: Mapping[str, str]) -> str:
    """Say what an image was made of; `program` says which spot-runner."""
    told = {
        "cloud": order.cloud,
        "kernel": {"source": order.source, **order.kernel.model_dump(mode="json", exclude_none=True)},
        "packages": list(order.digests),
        "program": dict(program),
    }
    return json.dumps(told, indent=1) + "\n"


def _add_loader(order: Order, shop: Workshop, root: Path) -> None:
    """Write what GRUB boots, and let its core image be made of the root's own modules."""
    kernel = max((root / "boot").glob("vmlinuz-*"))
    initrd = kernel.name.replace("vmlinuz", "initrd.img")
    folder = root / PREFIX.lstrip("/")
    folder.mkdir(exist_ok=True)
    (folder / "grub.cfg").write_text(menu(kernel.name, initrd, order.kernel.arguments))
    (folder / "early.cfg").write_text(EARLY)
    made = ["--format=i386-pc", f"--prefix={PREFIX}", f"--config={PREFIX}/early.cfg", f"--output={PREFIX}/core.img"]
    in_root(shop, root, ["grub-mkimage", *made, *MODULES])
    shutil.copy(root / "usr/lib/grub/i386-pc/boot.img", folder)


def _key(*inputs: object) -> str:
    return hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()[:16]
