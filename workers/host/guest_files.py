"""What is ours in a guest's root: the agent, the runner program, and what starts them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput
from workers.host.archive import unpack
from workers.host.programs import run
from workers.host.recipe import Recipe
from workers.host.roots import free_place, inside

AGENT: Final = "guest_agent"
OURS: Final = "opt/spot-runner"
USER: Final = "runner"
NAMESERVERS: Final = "etc/resolv.conf"
# An entry of /etc/group has as many, one of /etc/passwd more.
FIELDS_MIN: Final = 4


def source_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the folders of the recipe's home whose files go to /opt/spot-runner."""
    return (AGENT, *recipe.runner.sources)


def add_ours(recipe: Recipe, root: Path, program: Path | None) -> None:
    """Add our files, and the archive `program` if there is one, to a Debian root. Needs root; raises `Unfit`."""
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    copy_tree(recipe.home / "rootfs/files", root)
    add_nameservers(recipe, root)
    add_programs(recipe, root, program)
    run(["chroot", str(root), "python3", "-m", "compileall", "-q", f"/{OURS}"])
    run(["systemctl", f"--root={root}", "--quiet", "enable", "spot-runner-agent.service"])


def add_nameservers(recipe: Recipe, root: Path) -> None:
    """Say whom programs in the guest ask for the address of a name."""
    told = free_place(root, Path(NAMESERVERS))
    told.write_text("".join(f"nameserver {one}\n" for one in recipe.nameservers))
    told.chmod(0o644)


def add_programs(recipe: Recipe, root: Path, program: Path | None) -> None:
    """Add the agent and the runner program, and tell the agent how to start it."""
    for source in source_names(recipe):
        copy_tree(recipe.home / source, root / OURS / source)
    told = {"command": recipe.runner.command, "warm_up": recipe.runner.warm_up}
    (root / OURS / "runner.json").write_text(json.dumps(told))
    if program is not None:
        give(unpack(program, root), *user_of(root))


def entries(root: Path, name: str) -> Iterator[list[str]]:
    """Yield the fields of each entry of a file like /etc/passwd; what else stands there is no entry (passwd(5))."""
    path = inside(root, name)
    lines = path.read_text(errors="surrogateescape").splitlines() if path is not None else ()
    yield from (fields for line in lines if len(fields := line.split(":")) >= FIELDS_MIN)


def user_of(root: Path) -> tuple[int, int]:
    """Return the ids of the runner's user in a root. Raises `BadInput` if it has none."""
    for name, _, uid, gid, *_ in entries(root, "etc/passwd"):
        if name == USER and uid.isdecimal() and gid.isdecimal():
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
