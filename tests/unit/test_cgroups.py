"""What is written for each version of control groups; the real ones are looked at by tests/e2e/test_engine.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.domain.errors import Unfit
from workers.host.cgroups import CONTROLLERS, Limits, hierarchy

LIMITS = Limits(memory_mib=1312, cpus=2.0, tasks=97)


def mounts(directory: Path, *lines: str) -> Path:
    file = directory / "mounts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def version_2(directory: Path, offered: str = "cpuset cpu io memory pids") -> Path:
    (directory / "unified").mkdir()
    (directory / "unified/cgroup.controllers").write_text(offered)
    return mounts(directory, f"cgroup2 {directory}/unified cgroup2 rw,nosuid 0 0")


def test_version_2_has_one_group_and_hands_the_controllers_down(tmp_path: Path) -> None:
    group = hierarchy(version_2(tmp_path)).group("host", "runner")
    group.make(LIMITS)
    group.enter(42)
    (place,) = group.places
    assert place == tmp_path / "unified/spot-runner/host/runner"
    assert {file.name: file.read_text() for file in place.iterdir()} == {
        "memory.max": str(1312 << 20),
        "memory.swap.max": "0",
        "cpu.max": "200000 100000",
        "pids.max": "97",
        "cgroup.procs": "42",
    }
    for parent in (tmp_path / "unified", tmp_path / "unified/spot-runner", tmp_path / "unified/spot-runner/host"):
        assert (parent / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert group.members() == {42}


def test_version_1_has_a_group_for_each_controller(tmp_path: Path) -> None:
    lines = [f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0" for name in (*CONTROLLERS, "freezer")]
    group = hierarchy(mounts(tmp_path, *lines)).group("host", "runner")
    group.make(LIMITS)
    group.enter(42)
    written = {
        file.relative_to(tmp_path).as_posix(): file.read_text() for place in group.places for file in place.iterdir()
    }
    assert written == {
        "memory/spot-runner/host/runner/memory.limit_in_bytes": str(1312 << 20),
        "memory/spot-runner/host/runner/cgroup.procs": "42",
        "cpu/spot-runner/host/runner/cpu.cfs_period_us": "100000",
        "cpu/spot-runner/host/runner/cpu.cfs_quota_us": "200000",
        "cpu/spot-runner/host/runner/cgroup.procs": "42",
        "pids/spot-runner/host/runner/pids.max": "97",
        "pids/spot-runner/host/runner/cgroup.procs": "42",
    }


def test_version_1_is_taken_where_version_2_has_no_controllers(tmp_path: Path) -> None:
    version_2(tmp_path, offered="")
    lines = [f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0" for name in CONTROLLERS]
    found = hierarchy(mounts(tmp_path, f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0", *lines))
    assert found.version == 1


def test_a_machine_without_a_controller_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="memory, cpu, pids"):
        hierarchy(version_2(tmp_path, offered="cpu memory"))


def test_removing_what_is_not_there_is_a_success(tmp_path: Path) -> None:
    hierarchy(version_2(tmp_path)).group("host", "runner").remove()


def test_version_2_presses_the_threads_alone_and_lets_go(tmp_path: Path) -> None:
    group = hierarchy(version_2(tmp_path)).group("host", "runner")
    group.make(LIMITS)
    group.relieve()
    group.press([43], 0.25)
    place = tmp_path / "unified/spot-runner/host/runner/vcpus"
    written = {"cgroup.type": "threaded", "cpu.max": "6250 25000", "cgroup.threads": "43"}
    assert {file.name: file.read_text() for file in place.iterdir()} == written
    assert (place.parent / "cgroup.subtree_control").read_text() == "+cpu"
    group.relieve()
    assert (place / "cpu.max").read_text() == "max"


def test_pressing_a_group_that_is_gone_makes_none(tmp_path: Path) -> None:
    group = hierarchy(version_2(tmp_path)).group("host", "runner")
    group.press([43], 0.25)
    assert not (tmp_path / "unified/spot-runner").exists()


def test_version_1_presses_the_threads_alone_and_lets_go(tmp_path: Path) -> None:
    lines = [f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0" for name in CONTROLLERS]
    group = hierarchy(mounts(tmp_path, *lines)).group("host", "runner")
    group.make(LIMITS)
    group.relieve()
    group.press([43], 0.01)
    place = tmp_path / "cpu/spot-runner/host/runner/vcpus"
    written = {"cpu.cfs_period_us": "25000", "cpu.cfs_quota_us": "1000", "tasks": "43"}
    assert {file.name: file.read_text() for file in place.iterdir()} == written
    assert not (tmp_path / "memory/spot-runner/host/runner/vcpus").exists()
    group.relieve()
    assert (place / "cpu.cfs_quota_us").read_text() == "-1"
