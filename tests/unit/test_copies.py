"""Whoever counts the copies of a guest goes on while hosts, processes and threads come and go."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from workers.host.copies import groups_of, running_copies

LOOKS = 300


def lay(root: Path, *groups: str) -> Path:
    for group in groups:
        (root / group).mkdir(parents=True)
    return root


def test_every_runner_of_every_host_is_found(tmp_path: Path) -> None:
    root = lay(tmp_path, "spot-host-a/spot-runner-1", "spot-host-a/spot-runner-2", "spot-host-b/spot-runner-1")
    (root / "spot-host-a/cgroup.procs").write_text("")
    assert sorted(found[:2] for found in groups_of(root)) == [
        ("spot-host-a", "spot-runner-1"),
        ("spot-host-a", "spot-runner-2"),
        ("spot-host-b", "spot-runner-1"),
    ]


def test_a_host_that_is_removed_between_two_looks_is_passed_over(tmp_path: Path) -> None:
    groups = groups_of(lay(tmp_path, *(f"spot-host-{one}/spot-runner-{one}" for one in "abc")))
    first = next(groups)
    gone = next(other for other in "abc" if other != first[0][-1])
    shutil.rmtree(tmp_path / f"spot-host-{gone}")
    assert {found[0] for found in (first, *groups)} == {f"spot-host-{one}" for one in "abc" if one != gone}


def test_nothing_that_comes_and_goes_ends_the_looking(tmp_path: Path) -> None:
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            lay(tmp_path, "spot-host-a/spot-runner-1", "spot-host-b/spot-runner-2")
            shutil.rmtree(tmp_path / "spot-host-a")
            shutil.rmtree(tmp_path / "spot-host-b")

    landlord = threading.Thread(target=come_and_go)
    landlord.start()
    try:
        seen = {host for _ in range(LOOKS) for host, _, _ in groups_of(tmp_path)}
    finally:
        over.set()
        landlord.join()
    assert seen <= {"spot-host-a", "spot-host-b"}


def test_what_cannot_be_read_for_another_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("no folder")
    with pytest.raises(NotADirectoryError):
        list(groups_of(tmp_path / "root"))


def test_without_any_guest_there_is_nothing_to_see(tmp_path: Path) -> None:
    assert list(groups_of(tmp_path / "never made")) == []


def test_a_process_without_virtual_processors_is_no_copy() -> None:
    assert os.getpid() not in {pid for copies in running_copies().values() for _, pid in copies}
