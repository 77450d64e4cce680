"""From a recipe to a disk: what distribution packages make, then what is ours, then an ext4 that nobody mounted.

    mmdebstrap ─▶ rootfs-<key>.tar ─▶ unpacked, our files added ─▶ mke2fs -d ─▶ disk-<key>/{disk,kernel,initrd,contents}

Each result lies in the cache under a digest of all that went into it, so it is
made once; what is half made has another name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit
from workers.host.recipe import Recipe

MMDEBSTRAP_LIMIT_S: Final = 1800
STEP_LIMIT_S: Final = 300
# Raised when this module makes something else out of the same inputs.
EDITION: Final = 1
# Of each kind; a disk takes half a GiB.
KEPT: Final = 3
AGENT: Final = "guest_agent"
OURS: Final = "opt/spot-runner"
# A runner's disk never has to survive a crash, and a journal would be mirrored with every migration.
EXT4: Final = ("-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0")


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
    def contents(self) -> dict[str, str]:
        """Debian packages and their versions."""
        facts: dict[str, str] = json.loads((self.directory / "contents").read_text())
        return facts


def made_disk(recipe: Recipe, cache: Path) -> Disk:
    """Make the disk, or find it made. Needs root; raises `Unfit` if a program is missing or fails."""
    tar_key = digest(EDITION, recipe.rootfs, *_tree(recipe.home / "rootfs", "*.sh"))
    ours = [*_tree(recipe.home / "rootfs/files"), *_sources(recipe)]
    key = digest(EDITION, tar_key, recipe.machine.disk_mib, recipe.runner, *ours)
    directory = cache / f"disk-{key}"
    if not directory.exists():
        with _half_made(directory) as partial:
            _make_disk(recipe, _made_tar(recipe, cache / f"rootfs-{tar_key}.tar"), partial)
    directory.touch()
    return Disk(key, directory)


def forget_old(cache: Path) -> None:
    """Remove all but the results that were used last."""
    for pattern in ("rootfs-*.tar", "disk-*"):
        for old in sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def digest(*inputs: object) -> str:
    """Return a short name for all of these."""
    return hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()[:16]


def _made_tar(recipe: Recipe, tar: Path) -> Path:
    if tar.exists():
        tar.touch()
        return tar
    partial = tar.with_suffix(".partial")
    hooks = recipe.home / "rootfs"
    options = [
        *("--mode=root", "--variant=minbase", "--quiet", "--format=tar", "--skip=output/dev"),
        f"--include={','.join(recipe.rootfs.packages)}",
        f"--setup-hook={hooks / 'prepare.sh'}",
        f"--customize-hook={hooks / 'customize.sh'}",
    ]
    sources = _sources_lists(recipe.rootfs.suite)
    run(["mmdebstrap", *options, recipe.rootfs.suite, str(partial), *sources], limit_s=MMDEBSTRAP_LIMIT_S)
    partial.rename(tar)
    return tar


def _sources_lists(suite: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """Return this machine's own package sources if it runs the same suite; else mmdebstrap knows the usual ones."""
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    sources = sorted((apt / "sources.list.d").glob("*.sources"))
    return [str(path) for path in lists + sources if path.exists() and _serves(path, suite)]


def _serves(path: Path, suite: str) -> bool:
    """Say whether a list of package sources is for this suite and its updates and for nothing else."""
    suites = {name for line in path.read_text(errors="replace").splitlines() for name in _suites(line)}
    return bool(suites) and all(name == suite or name.startswith(f"{suite}-") for name in suites)


def _suites(line: str) -> list[str]:
    """`Suites: bookworm bookworm-updates`, or `deb [options] uri bookworm main`."""
    match re.sub(r"\[.*?\]", "", line).split():
        case ["Suites:", *names]:
            return names
        case ["deb", _, name, *_]:
            return [name]
        case _:
            return []


def _make_disk(recipe: Recipe, tar: Path, into: Path) -> None:
    root = into / "root"
    root.mkdir()
    run(["tar", "--extract", "--file", str(tar), "--directory", str(root), "--numeric-owner"])
    _add_ours(recipe, root)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    (into / "kernel-version").write_text(kernel.name.removeprefix("vmlinuz-"))
    (into / "contents").write_text(json.dumps(_contents(root)))
    shutil.copyfile(kernel, into / "kernel")
    shutil.copyfile(next((root / "boot").glob("initrd.img-*")), into / "initrd")
    run(["mke2fs", "-q", "-t", "ext4", *EXT4, "-d", str(root), str(into / "disk"), f"{recipe.machine.disk_mib}M"])
    shutil.rmtree(root)


def _add_ours(recipe: Recipe, root: Path) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    _copy(recipe.home / "rootfs/files", root)
    for source in (AGENT, *recipe.runner.sources):
        _copy(recipe.home / source, root / OURS / source)
    (root / OURS / "runner.json").write_text(json.dumps({"command": recipe.runner.command}))
    run(["chroot", str(root), "python3", "-m", "compileall", "-q", f"/{OURS}"])
    run(["systemctl", f"--root={root}", "--quiet", "enable", "spot-runner-agent.service"])


def _copy(source: Path, target: Path) -> None:
    """Copy a tree as root's own, readable by all; what Python leaves beside its sources stays behind."""
    for path in _files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if os.access(path, os.X_OK) else 0o440 if "sudoers.d" in path.parts else 0o644)


def _contents(root: Path) -> dict[str, str]:
    listed = run(
        ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", "--showformat=${Package} ${Version}\n"]
    )
    return dict(line.split() for line in listed.splitlines())


def _sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for source in (AGENT, *recipe.runner.sources):
        yield from _tree(recipe.home / source)


def _tree(folder: Path, pattern: str = "*") -> Iterator[tuple[str, str]]:
    for path in _files(folder, pattern):
        yield str(path.relative_to(folder.parent)), hashlib.sha256(path.read_bytes()).hexdigest()


def _files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(p for p in folder.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts)


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


def run(command: Sequence[str], limit_s: float = STEP_LIMIT_S) -> str:
    """Run a program to its end and return what it printed. Raises `Unfit` with its last words."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s)
    except FileNotFoundError as error:
        raise Unfit(f"{command[0]} is not installed; `./dev` installs what a build needs") from error
    except subprocess.TimeoutExpired as error:
        raise Unfit(f"{command[0]} did not end within {limit_s:g} s") from error
    except subprocess.CalledProcessError as error:
        raise Unfit(f"{command[0]} failed: {(error.stderr or '').strip()[-400:]}") from error
    return done.stdout
