"""Makes a folder, and the disk made of it, the same for the same inputs, whenever and wherever it is made.

No file is newer than EPOCH, compiled Python knows the time that its source has now, and the file system's own number,
the seed of its directories and its inodes' times follow from nothing but what is inside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.util import source_from_cache
from pathlib import Path
from stat import S_ISREG
from typing import Final

from workers.host.programs import run

# Files that a distribution made before keep their own time.
EPOCH: Final = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
ENVIRONMENT: Final[Mapping[str, str]] = {"SOURCE_DATE_EPOCH": str(EPOCH), "E2FSPROGS_FAKE_TIME": str(EPOCH)}
# Only one of these is ever mounted in a guest, so that all have the same number does no harm.
VOLUME: Final = "5707ca6e-0000-4000-8000-000000000001"
# A runner's disk never has to survive a crash, and a journal would be mirrored with every migration.
EXT4: Final = ("-O", "^has_journal", "-m", "0", "-U", VOLUME, "-E", f"lazy_itable_init=0,hash_seed={VOLUME}")
FIRST_INODE: Final = 11
ROOT_INODE: Final = 2
# Where compiled Python keeps its source's time, if its flags say that it goes by time (PEP 552).
PYC_FLAGS: Final = slice(4, 8)
PYC_TIME: Final = slice(8, 12)


def settle(root: Path) -> None:
    """Take out of a tree what tells when it was made. No link is followed: the tree may be a stranger's."""
    for path in _everything(root):
        if path.parent.name == "__pycache__" and path.suffix == ".pyc" and S_ISREG(path.lstat().st_mode):
            _correct(path)
    # Last, and each folder after all that is in it: whoever looks into a folder changes when it was last read.
    for path in _everything(root):
        _set_time(path)
    _set_time(root)


def _everything(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, topdown=False):
        yield from (Path(folder, name) for name in (*files, *folders))


def _set_time(path: Path) -> None:
    at = _clamped(path.lstat())
    os.utime(path, (at, at), follow_symlinks=False)


def _clamped(seen: os.stat_result) -> int:
    return min(int(seen.st_mtime), EPOCH)


def _correct(compiled: Path) -> None:
    """Let compiled Python go by the time that its source will have, or it would be compiled anew at each start."""
    try:
        source = Path(source_from_cache(str(compiled))).lstat()
    except (ValueError, OSError):
        return  # not named as Python names them, or of a source that is not there
    content, before = bytearray(compiled.read_bytes()), compiled.stat()
    if content[PYC_FLAGS] == bytes(4):
        content[PYC_TIME] = _clamped(source).to_bytes(4, "little")
        compiled.write_bytes(content)
        os.utime(compiled, (before.st_atime, before.st_mtime))


def make_disk(root: Path, disk: Path, size_mib: int) -> None:
    """Make an ext4 of a settled tree. Raises `Unfit`."""
    command = ["mke2fs", "-q", "-t", "ext4", *EXT4, "-d", str(root), str(disk), f"{size_mib}M"]
    run(command, more=ENVIRONMENT)
    _set_inode_times(disk)


def _set_inode_times(disk: Path) -> None:
    """Set the one time that no file system lets a program choose: mke2fs copies it from the tree's."""
    inodes = (ROOT_INODE, *range(FIRST_INODE, _inodes(disk) + 1))
    orders = disk.with_name(f"{disk.name}.times")
    orders.write_text(
        "".join(
            f"set_inode_field <{inode}> {field}\n" for inode in inodes for field in (f"ctime @{EPOCH}", "ctime_extra 0")
        )
    )
    run(["debugfs", "-w", "-f", str(orders), str(disk)], more=ENVIRONMENT)
    orders.unlink()


def _inodes(disk: Path) -> int:
    """Return how many inodes are in use; mke2fs gives them out one after the other."""
    told = run(["dumpe2fs", "-h", str(disk)])
    numbers = {name: int(number) for name, number in re.findall(r"^([A-Z][a-z]+ [a-z]+): +(\d+)$", told, re.MULTILINE)}
    return numbers["Inode count"] - numbers["Free inodes"]
