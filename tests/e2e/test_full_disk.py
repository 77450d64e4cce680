"""A guest whose host's disk is full stands still, and goes on when there is room: a real guest, a real small disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import EngineHost, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from tests.integration.wires import run
from workers.domain.messages import BootOrder, StartOrder
from workers.host.microvm import DISK_FULL

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(300)]

SMALL, LARGE = "size=24m", "size=256m"
WORK = {"seconds": 3.0, "memory_mib": 8, "disk_mib": 48}


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A host whose runners share a small disk, and whose engine is tended."""
    rig = Rig(scripted_package(runner_package()), ("a",))
    host, disk = rig["a"], rig["a"].parts.home / "runners"
    disk.mkdir(mode=0o711, parents=True)
    run("mount", "-t", "tmpfs", "-o", f"{SMALL},mode=711", "tmpfs", str(disk))
    tending = asyncio.run_coroutine_threadsafe(host.engine.tend(), host.inside.loop)
    yield rig
    tending.cancel()
    rig.end()
    run("umount", "--lazy", str(disk))
    shutil.rmtree(rig.home)


def stands_at_full_disk(host: EngineHost, order: BootOrder) -> bool:
    return host.inside.run(host.microvm(order.runner_id).qemu.status()) == DISK_FULL


def test_a_guest_that_found_the_disk_full_goes_on_when_there_is_room(rig: Rig) -> None:
    host, order = rig["a"], rig.order(1)
    host.inside.run(host.engine.boot(order))
    host.inside.run(host.engine.start_runner(order.runner_id, StartOrder(1, busy_script(**WORK))))
    eventually(lambda: stands_at_full_disk(host, order), "the guest has found the disk full")
    run("mount", "-o", f"remount,{LARGE}", str(host.parts.home / "runners"))
    assert host.wait_ended(order.runner_id) == 0
    assert not stands_at_full_disk(host, order)
