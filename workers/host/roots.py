"""Paths in a root file system that a stranger may have made: its links lead where they would inside a guest."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Final

from workers.domain.errors import BadInput

# As Linux: more links than these in one path are a circle.
LINKS_MAX: Final = 40


def inside(root: Path, path: str) -> Path | None:
    """Return where `path` is when `root` is the root directory; None if there is nothing. It is never outside."""
    steps, at, links = list(reversed(PurePosixPath(path).parts)), root, 0
    while steps:
        step = steps.pop()
        if step in {"/", "//"}:  # POSIX lets two slashes be a root of their own
            at = root
        elif step == "..":
            at = at.parent if at != root else root
        elif (at / step).is_symlink():
            links += 1
            if links > LINKS_MAX:
                return None
            steps.extend(reversed((at / step).readlink().parts))
        else:
            at = at / step
    return at if at.exists() else None


def free_place(root: Path, relative: Path) -> Path:
    """Make a place for a file of ours: its folders are there, and itself is not.

    Raises `BadInput` if one of the folders is a link, which could lead anywhere.
    """
    at = root
    for step in relative.parts[:-1]:
        at = at / step
        if at.is_symlink():
            raise BadInput(f"/{at.relative_to(root)} is a link in the root file system; it must be a folder of its own")
        at.mkdir(exist_ok=True)
    place = at / relative.name
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    return place
