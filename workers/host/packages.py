"""The packages that a host keeps: found by digest, verified, unpacked once, never half.

    store/sha256-<hex>.package ──verify, unpack──▶ cache/.<hex>.partial ──rename──▶ cache/sha256-<hex>/
    store/by-name-<format>/<recipe>     a symbolic link to the newest one that this version can read

A file lock per digest lets any number of processes ask for the same package:
one unpacks it, the others wait and find it. What an earlier boot of the machine has
unpacked is unpacked anew: to bring a gigabyte to the disk takes longer than that, so
nobody waits for it, and a machine that lost its power may have lost half of a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from workers.domain.errors import BadPackage, Unfit
from workers.domain.host_class import HostClass, package_mismatch
from workers.domain.names import PackageDigest
from workers.host import manifest as manifests
from workers.host.machine import LinuxBoot
from workers.host.manifest import Entry, Manifest
from workers.host.packing import write_container
from workers.host.unpacking import Found, read_container

SUFFIX: Final = ".package"
# Versions that read different formats may share a store, for example while one is tried or taken back.
BY_NAME: Final = f"by-name-{manifests.FORMAT}"
MANIFEST_FILE: Final = "manifest.json"
BOOT_FILE: Final = "boot"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Unpacked:
    """A verified package as files that nobody writes to."""

    digest: PackageDigest
    manifest: Manifest
    directory: Path

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        return self.directory / "disk"

    @property
    def kernel(self) -> Path:
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def boot(self) -> LinuxBoot:
        """What its machine was started with."""
        return LinuxBoot(self.kernel, self.initrd, self.manifest.kernel.command_line)


class PackageShelf:
    """The packages of one machine: `store` holds them as they came, `cache` unpacked ones."""

    def __init__(self, store: Path, cache: Path, host_class: HostClass | None = None) -> None:
        """With a host class, packages that such a host cannot run are refused."""
        self._store = store
        self._cache = cache
        self._host_class = host_class

    def held(self) -> tuple[PackageDigest, ...]:
        """Return the packages that are here; each is verified before it is used."""
        names = sorted(path.name for path in self._store.glob(f"sha256-*{SUFFIX}"))
        return tuple(PackageDigest("sha256:" + name.removeprefix("sha256-").removesuffix(SUFFIX)) for name in names)

    def named(self, name: str) -> PackageDigest:
        """Return the newest package of a recipe. Raises `BadPackage` if there is none."""
        link = self._store / BY_NAME / name
        if not link.exists():
            raise BadPackage(f"package: none of recipe {name!r} in {self._store}; run `spot-runner package build`")
        return digest_of(link.resolve())

    def path(self, digest: PackageDigest) -> Path:
        """Return where the package lies, or would lie."""
        return self._store / f"{_stem(digest)}{SUFFIX}"

    def unpacked(self, digest: PackageDigest) -> Unpacked:
        """Verify and unpack, or find it unpacked. Raises `BadPackage`, and then nothing is left of the attempt."""
        directory = self._cache / _stem(digest)
        self._cache.mkdir(parents=True, exist_ok=True)
        with locked(self._cache / f".{_stem(digest)}.lock"):
            if not _is_of_this_boot(directory):
                shutil.rmtree(directory, ignore_errors=True)
                self._unpack(digest, directory)
        manifest = manifests.read((directory / MANIFEST_FILE).read_bytes())
        if self._host_class is not None:
            check_runs_on(manifest, self._host_class)
        return Unpacked(digest, manifest, directory)

    def add(self, devices: Mapping[str, Path], manifest: Callable[[Mapping[str, Entry]], Manifest]) -> PackageDigest:
        """Pack these devices, verify what was written, and only then let it be found."""
        self._store.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=self._store)
        partial = Path(name)
        try:
            with os.fdopen(fd, "wb") as target:
                written = write_container(target, devices, lambda entries: manifests.written(manifest(entries)))
                target.flush()
                os.fsync(fd)
            digest = PackageDigest(f"sha256:{written}")
            verify(partial, digest)
            partial.chmod(0o444)
            partial.rename(self.path(digest))
        finally:
            partial.unlink(missing_ok=True)
        return digest

    def name(self, name: str, digest: PackageDigest) -> None:
        """Let a recipe's name mean this package from now on."""
        folder = self._store / BY_NAME
        folder.mkdir(exist_ok=True)
        link = folder / f".{name}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / self.path(digest).name)
        link.rename(folder / name)

    def _unpack(self, digest: PackageDigest, directory: Path) -> None:
        partial = self._cache / f".{_stem(digest)}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # a killed process may have left it; the lock is ours
        partial.mkdir()
        try:
            manifest = verify(self.path(digest), digest, self._host_class, into=partial)
            for name, entry in manifest.entries.items():
                os.truncate(partial / name, entry.size)
            (partial / MANIFEST_FILE).write_bytes(manifests.written(manifest))
            (partial / BOOT_FILE).write_bytes(BOOT_ID.read_bytes())
            partial.rename(directory)
        except OSError as error:
            raise _no_room(error, self._cache) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _is_of_this_boot(directory: Path) -> bool:
    try:
        return (directory / BOOT_FILE).read_bytes() == BOOT_ID.read_bytes()
    except FileNotFoundError:
        return False


def _no_room(error: OSError, directory: Path) -> Unfit:
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return Unfit(f"{directory} cannot be written: {error.strerror}; make it writable for root")
    free = shutil.disk_usage(directory).free // manifests.MIB
    return Unfit(f"the disk of {directory} is full ({free} MiB left), so no package is unpacked; give it a larger one")


def verify(
    path: Path, digest: PackageDigest | None = None, host_class: HostClass | None = None, into: Path | None = None
) -> Manifest:
    """Read a package to its end and hold it against its manifest, its digest and this host. Raises `BadPackage`."""
    try:
        with path.open("rb") as source:
            found = read_container(source, into)
    except FileNotFoundError as error:
        raise BadPackage(f"package: {path} does not exist; fetch or build it") from error
    if digest is not None and digest != f"sha256:{found.sha256}":
        raise BadPackage(f"package: {path.name} has digest sha256:{found.sha256}, not {digest}; fetch it again")
    manifest = manifests.read(found.manifest)
    _compare(found, manifest)
    if host_class is not None:
        check_runs_on(manifest, host_class)
    return manifest


def digest_of(path: Path) -> PackageDigest:
    """Return the digest that a package's file is named after; its content is not looked at."""
    return PackageDigest(path.name.removesuffix(SUFFIX).replace("-", ":", 1))


def _compare(found: Found, manifest: Manifest) -> None:
    if missing := [name for name in manifest.entries if name not in found.entries]:
        raise BadPackage(f"{missing[0]}: missing; fetch or build the package again")
    if unnamed := [name for name in found.entries if name not in manifest.entries]:
        raise BadPackage(f"{unnamed[0]}: the manifest does not name it; fetch or build the package again")
    for name, entry in found.entries.items():
        named = manifest.entries[name]
        if entry.size != manifests.padded(named.size):
            raise BadPackage(f"{name}: size is {entry.size}, the manifest says {manifests.padded(named.size)}")
        if entry.sha256 != named.sha256:
            raise BadPackage(f"{name}: sha256 is {entry.sha256}, the manifest says {named.sha256}")


def check_runs_on(manifest: Manifest, host_class: HostClass) -> None:
    """Raise `BadPackage`, naming the property, if a host of this class cannot run the package."""
    if difference := package_mismatch(manifest.host_class, host_class):
        raise BadPackage(f"manifest: {difference}; build the package on a host of this class")


def _stem(digest: PackageDigest) -> str:
    algorithm, _, hex_ = digest.partition(":")
    if algorithm != "sha256" or len(hex_) != 64 or set(hex_) - set("0123456789abcdef"):  # noqa: PLR2004 - 256 bits
        raise BadPackage(f"package: {digest!r} is no digest; write sha256: and 64 hex digits")
    return f"sha256-{hex_}"


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """Wait for, and hold, a lock among all processes of this machine."""
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
