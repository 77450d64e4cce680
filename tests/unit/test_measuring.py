"""What this very machine says of itself, by its own QEMU, kernel and KVM."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.unit.processors import FAMILIES, host
from webhook import bodies
from workers.domain.errors import Unfit
from workers.domain.host_class import Acceleration, HostClass, TscSource, mismatch, package_mismatch
from workers.domain.messages import Heartbeat
from workers.host.acceleration import KVM
from workers.host.cpuinfo import CPUINFO, first_cpu
from workers.host.kvm import ask_kvm
from workers.host.measuring import measure_host_class

HEARTBEAT = TypeAdapter(Heartbeat)
# A host says it every few seconds, and its row keeps it.
CLASS_BYTES_MAX = 4096


@pytest.mark.guest
def test_an_emulating_host_is_what_its_monitor_and_its_counter_are() -> None:
    measured = measure_host_class(Acceleration.TCG)

    assert mismatch(measured, measured) is None
    assert package_mismatch(measured, measured) is None
    assert measured.machine.startswith("pc-q35-")
    assert len(measured.machines) > 1, "packages of an older monitor go on here"
    assert measured.processor.vendor == "AuthenticAMD"
    assert measured.tsc_source is TscSource.HOST
    assert all(part.isdigit() for part in measured.monitor_version.split("."))


def opens_kvm() -> bool:
    return os.access(KVM, os.R_OK | os.W_OK)


@pytest.mark.skipif(not opens_kvm(), reason="there is no /dev/kvm")
def test_kvm_and_the_kernel_know_one_rate() -> None:
    kvm, cpu = ask_kvm(KVM), first_cpu(CPUINFO.read_text())
    assert abs(kvm.tsc_khz - cpu.tsc_khz) * 1_000_000 < 1000 * cpu.tsc_khz
    assert kvm.xcr0 & 0b11 in {0, 0b11}, "x87 and SSE come together"


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_no_kvm_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    before = open_files()
    with pytest.raises(Unfit, match="kvm does not say what it can do"):
        ask_kvm(tmp_path / "kvm")
    with pytest.raises(Unfit, match="does not open"):
        ask_kvm(tmp_path / "none")
    assert open_files() == before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_is_small_and_comes_through_a_heartbeat_as_it_was(family: str) -> None:
    one: HostClass = host(family)
    assert len(json.dumps(asdict(one))) < CLASS_BYTES_MAX
    beat = Heartbeat("boot", True, None, one, (), ())
    assert bodies.read(HEARTBEAT, HEARTBEAT.dump_json(beat)) == beat
