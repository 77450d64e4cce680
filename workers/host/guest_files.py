"""What is ours in a guest's root: the agent, the runner program, and what starts them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput
from workers.host.archive import unpack
from workers.host.programs import run
from workers.host.recipe import Recipe

AGENT: Final = "guest_agent"
OURS: Final = "opt/spot-runner"
USER: Final = "runner"


def source_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the folders of the recipe's home whose files go to /opt/spot-runner."""
    return (AGENT, *recipe.runner.sources)


def add_ours(recipe: Recipe, root: Path, program: Path | None) -> None:
    """Add our files, and the archive `program` if there is one, to a Debian root. Needs root; raises `Unfit`."""
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    copy_tree(recipe.home / "rootfs/files", root)
    add_programs(recipe, root, program)
    run(["chroot", str(root), "python3", "-m", "compileall", "-q", f"/{OURS}"])
    run(["systemctl", f"--root={root}", "--quiet", "enable", "spot-runner-agent.service"])


def add_programs(recipe: Recipe, root: Path, program: Path | None) -> None:
    """Add the agent and the runner program, and tell the agent how to start it."""
    for source in source_names(recipe):
        copy_tree(recipe.home / source, root / OURS / source)
    told = {"command": recipe.runner.command, "warm_up": recipe.runner.warm_up}
    (root / OURS / "runner.json").write_text(json.dumps(told))
    if program is not None:
        give(unpack(program, root), *user_of(root))


def user_of(root: Path) -> tuple[int, int]:
    """Return the ids of the runner's user in a root. Raises `BadInput` if it has none."""
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == USER:
            return int(uid), int(gid)
    raise BadInput(f"the root file system has no user {USER!r}; rootfs/customize.sh makes it")


def give(folder: Path, uid: int, gid: int) -> None:
    """Let a folder and all in it be this user's. Needs root."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree as root's own, readable by all; what Python leaves beside its sources stays behind."""
    for path in files_below(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if os.access(path, os.X_OK) else 0o440 if "sudoers.d" in path.parts else 0o644)


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files of a folder that are sources, sorted."""
    return sorted(p for p in folder.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts)
