"""The same inputs make the same disk, whenever and in whatever order its files came to be."""

from __future__ import annotations

import hashlib
import os
import py_compile
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from workers.host.settling import EPOCH, make_disk, settle

OLD, NEWER = 1_600_000_000, EPOCH + 5_000
FILES = {
    "etc/hosts": OLD,
    "usr/lib/python3/made.py": NEWER,
    "usr/lib/python3/old.py": OLD,
    **{f"many/{number}": NEWER for number in range(200)},
}


def _tree(root: Path, names: list[str], later_s: int) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
        os.utime(path, (later_s, FILES[name] + later_s * (FILES[name] == NEWER)))
    for source in (root / "usr/lib/python3").glob("*.py"):
        py_compile.compile(str(source), dfile=f"/usr/lib/python3/{source.name}", doraise=True)
    (root / "link").symlink_to("etc/hosts")
    return root


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def two_trees(tmp_path: Path) -> list[Path]:
    names = list(FILES)
    return [_tree(tmp_path / "one", names, 0), _tree(tmp_path / "two", names[::-1], 77)]


def test_two_builds_of_the_same_inputs_are_the_same_disk(two_trees: list[Path], tmp_path: Path) -> None:
    disks = [tmp_path / "disk-1", tmp_path / "disk-2"]
    for root, disk in zip(two_trees, disks, strict=True):
        settle(root)
        make_disk(root, disk, 64)

    assert _sha256(disks[0]) == _sha256(disks[1])
    checked = subprocess.run(["e2fsck", "-fn", disks[0]], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".times")] == []


def test_every_time_that_a_disk_holds_is_an_old_one(two_trees: list[Path], tmp_path: Path) -> None:
    root, disk = two_trees[0], tmp_path / "disk"
    settle(root)
    make_disk(root, disk, 64)

    assert [path for path in root.rglob("*") if path.lstat().st_mtime > EPOCH] == []
    told = subprocess.run(
        ["debugfs", "-R", "show_super_stats -h", disk], capture_output=True, text=True, timeout=60, check=True
    ).stdout + "".join(_inode_times(disk, inode) for inode in ("/", "/usr", "/many", "/many/7", "/usr/lib/python3"))
    years = {line.split()[-1] for line in told.splitlines() if "time" in line and ":" in line and line[-4:].isdigit()}
    assert years <= {"2020", "2026"}
    assert f"{datetime.now(UTC):%b %e}" not in told, "nothing of today is in it"


def _inode_times(disk: Path, name: str) -> str:
    command = ["debugfs", "-R", f"stat {name}", str(disk)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_one_byte_more_is_another_disk(two_trees: list[Path], tmp_path: Path) -> None:
    with (two_trees[1] / "etc/hosts").open("a") as file:
        file.write("x")
    os.utime(two_trees[1] / "etc/hosts", (OLD, OLD))
    for number, root in enumerate(two_trees):
        settle(root)
        make_disk(root, tmp_path / f"disk-{number}", 64)

    assert _sha256(tmp_path / "disk-0") != _sha256(tmp_path / "disk-1")


def test_what_is_compiled_goes_by_its_source_s_time_afterwards(two_trees: list[Path]) -> None:
    settle(two_trees[0])

    for source in (two_trees[0] / "usr/lib/python3").glob("*.py"):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[8:12], "little") == int(source.stat().st_mtime)
        assert source.stat().st_mtime == min(FILES[f"usr/lib/python3/{source.name}"], EPOCH)


def test_no_link_of_a_stranger_s_tree_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside/__pycache__"
    outside.mkdir(parents=True)
    victim = outside / "x.cpython-311.pyc"
    victim.write_bytes(bytes(64))
    (tmp_path / "outside/x.py").write_text("")
    root = tmp_path / "root"
    (root / "a/__pycache__").mkdir(parents=True)
    (root / "a/x.py").write_text("")
    (root / "a/__pycache__/x.cpython-311.pyc").symlink_to(victim)
    (root / "__pycache__").symlink_to(outside)
    before = (victim.read_bytes(), victim.stat().st_mtime_ns)

    settle(root)

    assert (victim.read_bytes(), victim.stat().st_mtime_ns) == before
