"""Template, restored guest and migration target are the same machine."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from workers.domain.host_class import Acceleration
from workers.host.machine import (
    FreshMemory,
    LinuxBoot,
    Machine,
    Overlay,
    PackageMemory,
    RawDisk,
    TemplateMemory,
    Wiring,
    machine_arguments,
    memory_short_kib,
)

BOOT = LinuxBoot(Path("/package/kernel"), Path("/package/initrd"), "console=ttyS0")
TEMPLATE = Wiring(TemplateMemory(Path("/work/memory")), RawDisk(Path("/work/disk")), BOOT, console=Path("/work/log"))
RESTORED = Wiring(PackageMemory(5), Overlay(6, 7), BOOT, mac="52:54:00:77:00:10", tap=8, incoming=True)
TARGET = Wiring(FreshMemory(), Overlay(6, 7), BOOT, mac="52:54:00:77:00:10", tap=8, incoming=True)


def machine(acceleration: Acceleration = Acceleration.TCG, monitor: str = "7.2") -> Machine:
    return Machine(f"pc-q35-{monitor}", acceleration, "max", 1, 1024, memory_short_kib(acceleration, monitor))


def options(wiring: Wiring, *names: str) -> list[tuple[str, str]]:
    arguments = machine_arguments(machine(), wiring)
    return [(name, value) for name, value in itertools.pairwise(arguments) if name in names]


def test_a_guest_sees_the_same_machine_wherever_it_is() -> None:
    seen = ("-machine", "-cpu", "-smp", "-m", "-kernel", "-initrd", "-append", "-accel")
    assert options(TEMPLATE, *seen) == options(RESTORED, *seen) == options(TARGET, *seen)
    devices = [
        [value.replace(wiring.mac, "MAC") for _, value in options(wiring, "-device")]
        for wiring in (TEMPLATE, RESTORED, TARGET)
    ]
    assert devices[0] == devices[1] == devices[2]
    assert len(devices[0]) == 5


def test_memory_differs_only_in_where_it_begins() -> None:
    assert (
        options(TEMPLATE, "-object")[0][1] == "memory-backend-file,id=ram,size=1048568K,share=on,mem-path=/work/memory"
    )
    assert (
        options(RESTORED, "-object")[0][1]
        == "memory-backend-file,id=ram,size=1048568K,share=off,readonly=on,rom=off,mem-path=/proc/self/fd/5"
    )
    assert options(TARGET, "-object")[0][1] == "memory-backend-ram,id=ram,size=1048568K"


@pytest.mark.parametrize("monitor", ["7.2", "8.2"])
def test_an_old_monitor_emulates_no_whole_multiple_of_64_pages(monitor: str) -> None:
    """QEMU before 9.0 loses such a guest's writes while it migrates."""
    emulated = machine(monitor=monitor)
    assert emulated.memory_kib % (64 * 4) != 0
    assert emulated.memory_kib % 8 == 0, "QEMU rounds memory up to 8 KiB"


@pytest.mark.parametrize(
    ("acceleration", "monitor"), [(Acceleration.KVM, "7.2"), (Acceleration.TCG, "9.0"), (Acceleration.TCG, "10.0")]
)
def test_who_loses_nothing_gives_all_memory(acceleration: Acceleration, monitor: str) -> None:
    assert machine(acceleration, monitor).memory_kib == 1024 * 1024


@pytest.mark.parametrize("wiring", [TEMPLATE, RESTORED, TARGET])
def test_every_qemu_is_in_its_sandbox(wiring: Wiring) -> None:
    (sandbox,) = [value for _, value in options(wiring, "-sandbox")]
    assert sandbox.split(",")[0] == "on"
    assert {"elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"} <= set(sandbox.split(","))


def test_qemu_inherits_what_it_is_told_to_use() -> None:
    assert RESTORED.fds == (5, 6, 7, 8)
    assert TARGET.fds == (6, 7, 8)


def test_what_a_guest_prints_is_bounded() -> None:
    (console, *_) = [value for _, value in options(RESTORED, "-chardev")]
    assert console == "ringbuf,id=console,size=65536"
