"""Restore and confinement with real guests, seen from outside: /proc, control groups, directories, links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.engine_rig import EngineHost, Rig, runner_package
from tests.integration.wires import run
from workers.domain.errors import BadInput, Refused
from workers.domain.messages import BootOrder, MonitorState, StartOrder
from workers.domain.names import RunnerId, monitor_user
from workers.host.processes import process_name

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(runner_package(), ("a",))
    yield rig
    rig.end()


@pytest.fixture
def host(rig: Rig) -> EngineHost:
    return rig["a"]


@pytest.fixture
def booted(rig: Rig, host: EngineHost, request: pytest.FixtureRequest) -> Iterator[BootOrder]:
    order = rig.order(_number(request))
    host.inside.run(host.engine.boot(order))
    yield order
    host.inside.run(host.engine.stop(order.runner_id, order.epoch))


def _number(request: pytest.FixtureRequest) -> int:
    """Each test its own runner, since one that is gone stays gone."""
    return 100 + request.session.items.index(request.node)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_monitor_has_a_user_of_its_own_and_no_rights(host: EngineHost, booted: BootOrder) -> None:
    pid = host.pid(booted.runner_id)
    seen = status(pid)
    user = str(monitor_user(booted.number))
    assert seen["Uid"].split() == seen["Gid"].split() == [user] * 4
    assert seen["Groups"] == ""
    assert all(int(seen[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")


def test_a_monitor_shares_no_namespace_but_the_network(host: EngineHost, booted: BootOrder) -> None:
    pid = host.pid(booted.runner_id)
    assert status(pid)["NSpid"].split()[-1] == "1"
    shared = {kind for kind in ("mnt", "ipc", "uts", "pid") if _namespace(pid, kind) == _namespace(os.getpid(), kind)}
    assert shared == set()
    assert _namespace(pid, "net") == str(Path("/run/netns", host.place.name).stat().st_ino)


def _namespace(pid: int, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").stat().st_ino)


def test_a_monitor_is_limited_in_memory_cpu_and_tasks(host: EngineHost, booted: BootOrder) -> None:
    group = host.microvm(booted.runner_id)._group
    pid = host.pid(booted.runner_id)
    assert group.members() == {pid}
    written = {
        file.name: file.read_text().strip() for place in group.places for file in place.iterdir() if _is_limit(file)
    }
    assert written["pids.max"] == str(booted.shape.vcpus + 96)
    most = int(written.get("memory.max", written.get("memory.limit_in_bytes", "0")))
    assert booted.shape.memory_mib << 20 < most < (booted.shape.memory_mib + 400) << 20
    assert written.get("cpu.max", written.get("cpu.cfs_quota_us", "")).startswith("200000")
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits


def _is_limit(file: Path) -> bool:
    return file.name in {"memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us", "pids.max"}


def test_a_monitor_holds_no_file_that_is_not_its_own(host: EngineHost, rig: Rig, booted: BootOrder) -> None:
    held = {str(fd.readlink()) for fd in Path(f"/proc/{host.pid(booted.runner_id)}/fd").iterdir()}
    files = {name for name in held if name.startswith("/") and not name.startswith(("/dev/", "/memfd:", "/proc/"))}
    directory = host.microvm(booted.runner_id).directory
    own = {str(directory / "qemu.log"), str(directory / "disk.qcow2")}
    assert files <= own | {str(rig.unpacked.disk), str(rig.unpacked.memory)}
    assert "/dev/net/tun" in held


def test_a_runners_directory_is_closed_to_others_and_its_monitor(host: EngineHost, booted: BootOrder) -> None:
    directory = host.microvm(booted.runner_id).directory
    assert (directory.stat().st_uid, directory.stat().st_gid) == (0, monitor_user(booted.number))
    assert directory.stat().st_mode & 0o777 == 0o710
    assert (directory / "monitor").stat().st_mode & 0o077 == 0


def test_guests_of_one_package_are_not_the_same_guest(host: EngineHost, rig: Rig, booted: BootOrder) -> None:
    """The second guest's memory began as the first one's did, not as what the first one made of it."""
    monitor, package = Path(f"/proc/{host.pid(booted.runner_id)}"), (rig.unpacked.memory, rig.unpacked.disk)
    maps = (monitor / "maps").read_text().splitlines()
    assert {line.split()[1] for line in maps if line.endswith(str(rig.unpacked.memory))} == {"rw-p"}, "a private copy"
    held = [fd.name for fd in (monitor / "fd").iterdir() if fd.readlink() in package]
    assert len(held) >= len(package)
    assert {_way(monitor / "fdinfo" / name) for name in held} == {os.O_RDONLY}


def _way(described: Path) -> int:
    """Return how a file is open."""
    flags = next(line.split()[1] for line in described.read_text().splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE


def test_booting_again_changes_nothing(host: EngineHost, booted: BootOrder) -> None:
    pid = host.pid(booted.runner_id)
    assert host.inside.run(host.engine.boot(booted))["total_ms"] > 0
    assert host.pid(booted.runner_id) == pid


def test_an_order_of_an_old_epoch_is_refused(rig: Rig, host: EngineHost, request: pytest.FixtureRequest) -> None:
    order = rig.order(_number(request), epoch=5)
    host.inside.run(host.engine.boot(order))
    with pytest.raises(Refused, match="old"):
        host.inside.run(host.engine.stop(order.runner_id, 4))
    with pytest.raises(Refused, match="epoch"):
        host.inside.run(host.engine.start_runner(order.runner_id, StartOrder(4, "{}")))
    assert host.report(order.runner_id) is not None
    host.inside.run(host.engine.stop(order.runner_id, 5))
    with pytest.raises(Refused, match="old"):
        host.inside.run(host.engine.boot(order))


def test_what_was_stopped_before_it_came_stays_away(rig: Rig, host: EngineHost, request: pytest.FixtureRequest) -> None:
    order = rig.order(_number(request))
    host.inside.run(host.engine.stop(order.runner_id, order.epoch))
    host.restart()
    with pytest.raises(Refused, match="old"):
        host.inside.run(host.engine.boot(order))


def test_a_name_that_is_a_path_is_refused(rig: Rig, host: EngineHost) -> None:
    with pytest.raises(BadInput, match="runner_id"):
        host.inside.run(host.engine.boot(replace(rig.order(1), runner_id=RunnerId("../../etc"))))


def test_a_machine_that_the_package_does_not_hold_is_refused(rig: Rig, host: EngineHost) -> None:
    order = rig.order(2)
    with pytest.raises(Refused, match="vCPUs"):
        host.inside.run(host.engine.boot(replace(order, shape=replace(order.shape, memory_mib=2048))))
    assert host.report(order.runner_id) is None


def test_stopping_leaves_nothing(rig: Rig, host: EngineHost, request: pytest.FixtureRequest) -> None:
    order = rig.order(_number(request))
    host.inside.run(host.engine.boot(order))
    microvm, process = host.microvm(order.runner_id), host.microvm(order.runner_id).qemu.name
    taps = run("ip", "-n", host.place.name, "-o", "link", "show", "type", "tun")
    assert f"tap{order.number}" in taps
    host.inside.run(host.engine.stop(order.runner_id, order.epoch))
    assert process_name(process.pid) != process
    assert not microvm.directory.exists()
    assert not any(place.exists() for place in microvm._group.places)
    assert f"tap{order.number}" not in run("ip", "-n", host.place.name, "-o", "link", "show", "type", "tun")


def test_a_guest_outlives_the_daemon(host: EngineHost, booted: BootOrder) -> None:
    pid = host.pid(booted.runner_id)
    host.restart()
    assert host.pid(booted.runner_id) == pid
    assert host.call(booted.runner_id, "RunnerStatus") == {"state": "waiting", "exit_code": None}


def test_a_guest_that_ended_while_nobody_looked_is_reported(host: EngineHost, booted: BootOrder) -> None:
    pid = host.pid(booted.runner_id)
    host.let_go()
    os.kill(pid, 9)
    host.take_up()
    report = host.report(booted.runner_id)
    assert report is not None
    assert report.monitor is MonitorState.GONE


def test_what_was_half_booted_is_thrown_away(rig: Rig, host: EngineHost, request: pytest.FixtureRequest) -> None:
    """The daemon ended between the start of QEMU and its name in the journal."""
    order = rig.order(_number(request))
    host.inside.run(host.engine.boot(order))
    microvm, pid = host.microvm(order.runner_id), host.pid(order.runner_id)
    entry = host.parts.home / "journal" / f"{order.runner_id}.json"
    host.let_go()
    entry.write_text(entry.read_text().replace('"owned"', '"booting"').replace(f'"pid":{pid}', '"pid":1'))
    host.take_up()
    assert process_name(pid) is None
    assert not microvm.directory.exists()
    host.inside.run(host.engine.boot(order))
    host.inside.run(host.engine.stop(order.runner_id, order.epoch))
