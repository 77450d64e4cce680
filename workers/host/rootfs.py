"""From a recipe to a disk: what distribution packages make, then what is ours, then an ext4 that nobody mounted.

    mmdebstrap ─▶ rootfs-<key>.tar ─▶ unpacked, our files added ─▶ mke2fs -d ─▶ disk-<key>/{disk,kernel,initrd,…}

Each result lies in the cache under a digest of all that went into it, so it is
made once; what is half made has another name. Made again elsewhere it is the
same, byte for byte, as long as the distribution serves the same packages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.host.archive import obtained
from workers.host.bill import Part, bill_of
from workers.host.debian import make_tar
from workers.host.graft import graft
from workers.host.guest_files import add_ours, files_below, source_names
from workers.host.oci import Image, fetch_image, packages_of, unpack_image
from workers.host.programs import run
from workers.host.recipe import Recipe
from workers.host.settling import make_disk, settle

# Raised when this module makes something else out of the same inputs.
EDITION: Final = 2
# Of each kind; a disk takes half a GiB.
KEPT: Final = 3
# What a guest made of an image still has of Debian, by how its packages' names begin.
GRAFTED: Final = ("linux-image-", "python3", "libpython3", "libc6", "libssl", "libffi", "libexpat", "zlib1g")
KINDS: Final = ("rootfs-*.tar", "disk-*", "archive-*.tar.gz")


@dataclass(frozen=True)
class Disk:
    """A guest's disk and what boots it."""

    key: str
    directory: Path

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
    def kernel_version(self) -> str:
        return (self.directory / "kernel-version").read_text()

    @property
    def bill(self) -> Mapping[str, Any]:
        """What is inside (CycloneDX)."""
        facts: dict[str, Any] = json.loads((self.directory / "bill").read_text())
        return facts

    @property
    def sha256(self) -> str:
        """Of the disk before it was first mounted, in hex: the same for the same inputs."""
        return (self.directory / "sha256").read_text()


@dataclass(frozen=True)
class Given:
    """What comes from elsewhere than the recipe says."""

    archive: Path | None = None
    """The runner program's archive; None: it is fetched from where the recipe says, if it is needed."""
    image: str | None = None
    """An OCI image, by its reference or as a folder with its layout, in the place of the distribution."""


def made_disk(recipe: Recipe, cache: Path, given: Given = Given()) -> Disk:
    """Make the disk, or find it made. Needs root; raises `Unfit` if a program is missing or fails, and `BadInput`."""
    if given.image is None:
        return _found_disk(recipe, cache, given.archive, None)
    with tempfile.TemporaryDirectory(prefix=".image.", dir=cache) as folder:
        image = fetch_image(given.image, Path(folder) / "layout")
        return _found_disk(recipe, cache, given.archive, image)


def _found_disk(recipe: Recipe, cache: Path, archive: Path | None, image: Image | None) -> Disk:
    tar_key = digest(EDITION, recipe.rootfs, *_tree(recipe.home / "rootfs", "*.sh"))
    ours = [*_tree(recipe.home / "rootfs/files"), *_sources(recipe)]
    of_recipe = (recipe.name, recipe.machine.disk_mib, recipe.runner, recipe.release, recipe.nameservers)
    key = digest(EDITION, tar_key, *of_recipe, image and image.digest, *ours)
    directory = cache / f"disk-{key}"
    if not directory.exists():
        program = None if recipe.runner.archive is None else obtained(recipe, cache, archive)
        with _half_made(directory) as partial:
            root = partial / "root"
            parts = _make_root(recipe, _made_tar(recipe, cache / f"rootfs-{tar_key}.tar"), program, root)
            if image is not None:
                parts = _graft_image(image, root, parts)
            _make_disk(recipe, parts, partial)
    directory.touch()
    return Disk(key, directory)


def forget_old(cache: Path) -> None:
    """Remove all but the results that were used last."""
    for pattern in KINDS:
        for old in sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def digest(*inputs: object) -> str:
    """Return a short name for all of these."""
    return hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()[:16]


def _made_tar(recipe: Recipe, tar: Path) -> Path:
    if tar.exists():
        tar.touch()
        return tar
    make_tar(tar, recipe.rootfs.suite, recipe.rootfs.packages, recipe.home / "rootfs")
    return tar


def _make_root(recipe: Recipe, tar: Path, program: Path | None, root: Path) -> list[Part]:
    """Make the Debian root with what is ours, its kernel beside it; return what is inside."""
    root.mkdir()
    run(["tar", "--extract", "--file", str(tar), "--directory", str(root), "--numeric-owner"])
    add_ours(recipe, root, program)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    shutil.copyfile(kernel, root.with_name("kernel"))
    shutil.copyfile(next((root / "boot").glob("initrd.img-*")), root.with_name("initrd"))
    root.with_name("kernel-version").write_text(kernel.name.removeprefix("vmlinuz-"))
    return [*packages_of(root), _program_part(recipe)]


def _graft_image(image: Image, root: Path, parts: list[Part]) -> list[Part]:
    """Put the image's root, made a guest's, in the place of the Debian one; return what is inside then."""
    bundle = root.with_name("bundle")
    unpacked = unpack_image(image, bundle)
    graft(root, unpacked, dict(image.environment))
    shutil.rmtree(root)
    unpacked.rename(root)
    shutil.rmtree(bundle)
    grafted = [part for part in parts if part.kind != "library" or part.name.startswith(GRAFTED)]
    return [*grafted, image.part, *packages_of(root)]


def _make_disk(recipe: Recipe, parts: list[Part], into: Path) -> None:
    root, disk = into / "root", into / "disk"
    settle(root)
    (into / "bill").write_text(json.dumps(bill_of(recipe.name, parts)))
    make_disk(root, disk, recipe.machine.disk_mib)
    with disk.open("rb") as file:
        (into / "sha256").write_text(hashlib.file_digest(file, "sha256").hexdigest())
    shutil.rmtree(root)


def _program_part(recipe: Recipe) -> Part:
    pinned = recipe.runner.pinned
    return Part("application", recipe.runner.name, recipe.release.version, sha256=pinned.sha256 if pinned else None)


def _sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for source in source_names(recipe):
        yield from _tree(recipe.home / source)


def _tree(folder: Path, pattern: str = "*") -> Iterator[tuple[str, str]]:
    for path in files_below(folder, pattern):
        yield str(path.relative_to(folder.parent)), hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _half_made(directory: Path) -> Iterator[Path]:
    """Give a folder that becomes `directory` if all goes well, and nothing if it does not."""
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
