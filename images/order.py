"""What is asked for when an image is made, and what can be refused before anything is started. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from images.debians import DEBIANS, Debian
from images.versions import CloudName, Kernel, Versions
from workers.domain.errors import BadInput
from workers.domain.names import PackageDigest
from workers.domain.published import hex_of

# Which metadata the daemon asks, by cloud (`SPOT_RUNNER_METADATA_KIND`).
METADATA: Final[Mapping[CloudName, str]] = {"aws": "ec2", "hetzner": "hetzner", "local-qcow2": "file"}
DISK_MIB_MIN: Final = 2048
_SETTING: Final = re.compile(r"(SPOT_RUNNER_[A-Z0-9_]+)=([^\x00-\x1f\x7f'\"\\]*)")


@dataclass(frozen=True)
class Baked:
    """A package that an image brings along, out of a file of the machine that makes it."""

    digest: str
    file: Path


@dataclass(frozen=True)
class Order:
    """An image of one cloud, made with one kernel."""

    cloud: CloudName
    source: str
    kernel: Kernel
    disk_mib: int = 4096
    settings: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[Baked, ...] = ()
    fetched: tuple[PackageDigest, ...] = ()
    """Packages that an image's builder at a cloud fetches out of the object store."""
    kernel_package: Path | None = None
    """The file of a kernel that is not the distribution's, where the image is made here; held against its pin."""

    @property
    def debian(self) -> Debian:
        """What it is made of."""
        return DEBIANS[self.kernel.distribution]

    @property
    def digests(self) -> tuple[str, ...]:
        """Which packages the image brings along."""
        return (*(package.digest for package in self.packages), *self.fetched)

    @property
    def host_settings(self) -> Mapping[str, str]:
        """What the daemon reads, `settings` last: they are the operator's word."""
        return {
            "SPOT_RUNNER_ACCEL": self.kernel.acceleration.value,
            "SPOT_RUNNER_METADATA_KIND": METADATA[self.cloud],
            **self.settings,
        }


def checked_order(versions: Versions, cloud: str, acceleration: str, source: str, disk_mib: int = 4096) -> Order:
    """Return an order that can be carried out. Raises `BadInput`, naming what will not do."""
    if cloud not in METADATA:
        raise BadInput(f"--cloud {cloud}: write one of {', '.join(METADATA)}")
    kernel = versions.pinned_kernel(source)
    if kernel.acceleration.value != acceleration:
        raise BadInput(f"--kernel {acceleration}: {source} is for {kernel.acceleration.value}; name another --source")
    if cloud not in kernel.clouds:
        raise BadInput(f"--cloud {cloud}: {source} is for {', '.join(kernel.clouds)}; name another --source")
    if kernel.distribution not in DEBIANS:
        raise BadInput(f"--source {source}: images are made of {', '.join(DEBIANS)}, not of {kernel.distribution}")
    if cloud != "local-qcow2" and kernel.kind == "rpm-repository" and kernel.file is None:
        raise BadInput(f"--source {source}: pin it by its https URL: a builder at the cloud fetches it")
    if disk_mib < DISK_MIB_MIN:
        raise BadInput(f"--disk-mib {disk_mib}: the system itself needs {DISK_MIB_MIN}; the disk grows on its machine")
    return Order(kernel.clouds[kernel.clouds.index(cloud)], source, kernel, disk_mib)


def read_digests(cloud: str, texts: Sequence[str]) -> tuple[PackageDigest, ...]:
    """Read which published packages an image at a cloud brings along; their order is of no account.

    Raises `BadInput`, above all for a file.
    """
    for text in texts:
        if not text.startswith("sha256:"):
            raise BadInput(
                f"--package {text}: with --cloud {cloud} it is the digest of a published package; run "
                f"`spot-runner package publish {text}`, and name the digest that it prints"
            )
        hex_of(PackageDigest(text))
    return tuple(PackageDigest(text) for text in sorted(set(texts)))


def check_room(packages_mib: int, disk_mib: int, disk: str, remedy: str) -> None:
    """Raise `BadInput` if the packages have no room beside the system on the disk that `disk` names."""
    needed = DISK_MIB_MIN + packages_mib
    if packages_mib and disk_mib < needed:
        raise BadInput(
            f"{disk}: {disk_mib} MiB are too few, since the system needs {DISK_MIB_MIN} and the packages "
            f"{packages_mib}; {remedy}"
        )


def read_settings(texts: Sequence[str]) -> Mapping[str, str]:
    """Read `NAME=VALUE` as the daemon's settings. Raises `BadInput`."""
    found = {}
    for text in texts:
        match = _SETTING.fullmatch(text)
        if match is None:
            raise BadInput(f"--setting {text!r}: write SPOT_RUNNER_…=VALUE, without quotes or backslashes in it")
        found[match[1]] = match[2]
    return found
