"""Twelve kinds of real processors: whose guests may go where, and what is said when they may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.processors import AMD, FAMILIES, INTEL, answers, cpuinfo, emulated, host, unpinned
from workers.domain.errors import Unfit
from workers.domain.host_class import Acceleration, HostClass, TscSource, mismatch, package_mismatch
from workers.host.cpuinfo import first_cpu
from workers.host.kvm import Kvm
from workers.host.measuring import check_kernel, read_monitor, virtualizing

# From the row's host to the column's, in the order of FAMILIES. `.` may go; v vendor, s tsc_source, t tsc_khz, f flags.
LETTERS = {"v": "vendor", "s": "tsc_source", "t": "tsc_khz", "f": "flags"}
PINNED = """
westmere         . t t . . . . . v v v v
haswell          t . t . . . . . v v v v
broadwell        t t . . . . . . v v v v
skylake          s s s . . . . . v v v v
ice_lake         s s s . . . . . v v v v
azure_ice_lake   s s s . . . . . v v v v
sapphire_rapids  s s s . . . . . v v v v
granite_rapids   s s s . . . . . v v v v
naples           v v v v v v v v . . . .
rome             v v v v v v v v . . . .
milan            v v v v v v v v . . . .
bergamo          v v v v v v v v . . . .
"""
UNPINNED = """
westmere         . f f f f f f f v v v v
haswell          f . f f f f f f v v v v
broadwell        f f . f f f f f v v v v
skylake          f f f . f f f f v v v v
ice_lake         f f f f . f f f v v v v
azure_ice_lake   f f f f f . f f v v v v
sapphire_rapids  f f f f f f . . v v v v
granite_rapids   f f f f f f . . v v v v
naples           v v v v v v v v . f f f
rome             v v v v v v v v f . f f
milan            v v v v v v v v f f . f
bergamo          v v v v v v v v f f f .
"""
# Two that tick at 2.0 GHz, and two at 2.4 GHz within 25 ppm: of an emulated guest's machine nothing else is seen.
EMULATED = """
westmere         . t t t t t t . t t t t
haswell          t . t t t t t t t t t t
broadwell        t t . t t t t t t t t t
skylake          t t t . t t t t t t t t
ice_lake         t t t t . t . t t t t t
azure_ice_lake   t t t t t . t t t t t t
sapphire_rapids  t t t t . t . t t t t t
granite_rapids   . t t t t t t . t t t t
naples           t t t t t t t t . t t t
rome             t t t t t t t t t . t t
milan            t t t t t t t t t t . t
bergamo          t t t t t t t t t t t .
"""


@pytest.mark.parametrize(("made", "table"), [(host, PINNED), (unpinned, UNPINNED), (emulated, EMULATED)])
def test_whose_guests_may_go_where(made: Callable[[str], HostClass], table: str) -> None:
    for line in table.strip().splitlines():
        source, *letters = line.split()
        for target, letter in zip(FAMILIES, letters, strict=True):
            refusal = mismatch(made(source), made(target))
            assert (refusal or ".").partition(":")[0] == LETTERS.get(letter, "."), (source, target, refusal)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        (host("milan"), host("ice_lake"), "vendor: needs AuthenticAMD, this host has GenuineIntel"),
        (host("broadwell"), host("haswell"), "tsc_khz: needs 2394370, this host has 2598435 and cannot scale it"),
        (host("skylake"), host("haswell"), "tsc_source: needs scaled, this host has host"),
        (unpinned("azure_ice_lake"), unpinned("ice_lake"), "flags: needs hle, rtm, which this host lacks"),
        (
            unpinned("ice_lake"),
            unpinned("skylake"),
            "flags: needs avx512_bitalg, avx512_vbmi2, avx512_vnni, avx512_vpopcntdq and 13 more, which",
        ),
        (
            unpinned("milan"),
            unpinned("bergamo"),
            "flags: this host shows avic, avx512_bf16, avx512_bitalg, avx512_vbmi2 and 14 more too, which",
        ),
        (emulated("naples"), emulated("rome"), "tsc_khz: needs 2195825, this host has 2495220 and cannot scale it"),
        (host("rome"), emulated("rome"), "acceleration: needs kvm, this host has tcg"),
    ],
)
def test_the_refusal_says_what_differs(source: HostClass, target: HostClass, says: str) -> None:
    assert str(mismatch(source, target)).startswith(says)


def test_a_package_keeps_the_rate_of_the_host_that_it_was_made_on() -> None:
    assert package_mismatch(host("haswell"), host("granite_rapids")) is None, "it is scaled there"
    assert str(package_mismatch(host("granite_rapids"), host("haswell"))).startswith("tsc_khz")
    assert package_mismatch(host("granite_rapids"), host("westmere")) is None, "both tick at 2.4 GHz"


@pytest.mark.parametrize(
    ("family", "tsc_khz", "tsc_source", "paging_levels", "xsave_last"),
    [
        ("westmere", 2_399_940, TscSource.HOST, 4, None),
        ("haswell", 2_598_435, TscSource.HOST, 4, "avx"),
        ("broadwell", 2_394_370, TscSource.HOST, 4, "avx"),
        ("skylake", 3_699_850, TscSource.SCALED, 4, "hi16_zmm"),
        ("ice_lake", 2_000_000, TscSource.SCALED, 5, "pkru"),
        ("azure_ice_lake", 2_793_435, TscSource.SCALED, 5, "hi16_zmm"),
        ("sapphire_rapids", 2_000_000, TscSource.SCALED, 5, "xtiledata"),
        ("granite_rapids", 2_400_000, TscSource.SCALED, 5, "xtiledata"),
        ("naples", 2_195_825, TscSource.SCALED, 4, "avx"),
        ("rome", 2_495_220, TscSource.SCALED, 4, "avx"),
        ("milan", 2_445_275, TscSource.SCALED, 4, "pkru"),
        ("bergamo", 2_246_425, TscSource.SCALED, 5, "pkru"),
    ],
)
def test_what_a_family_is(
    family: str, tsc_khz: int, tsc_source: TscSource, paging_levels: int, xsave_last: str | None
) -> None:
    one = host(family)
    assert one.processor.vendor == ("GenuineIntel" if family in INTEL else "AuthenticAMD")
    assert (one.tsc_khz, one.tsc_source, one.processor.paging_levels) == (tsc_khz, tsc_source, paging_levels)
    assert (one.processor.xsave[-1] if one.processor.xsave else None) == xsave_last
    assert set(one.pinned.flags) <= set(one.processor.flags) if one.pinned else False, "every server can show it"


def test_at_least_eight_families_of_both_vendors_are_known() -> None:
    assert len(INTEL) >= 5
    assert len(AMD) >= 3


# ---------------------------------------------------------------- what was recorded of a real QEMU


@pytest.mark.parametrize("version", [(7, 2), (8, 1)])
def test_a_qemu_that_would_open_a_package_s_memory_for_writing_is_refused(version: tuple[int, int]) -> None:
    older = (
        answers("tcg").replace('"major": 10', f'"major": {version[0]}').replace('"minor": 0', f'"minor": {version[1]}')
    )
    with pytest.raises(Unfit, match=r"is {}\.{}; install qemu-system-x86 8\.2 or newer".format(*version)):
        read_monitor(older)


def test_qemu_s_answers_are_read() -> None:
    monitor = read_monitor(answers("tcg"))
    assert monitor.version == "10.0"
    assert monitor.machines == tuple(f"pc-q35-{one}" for one in (7.1, 7.2, 8.0, 8.1, 8.2, 9.0, 9.1, 9.2, 10.0))
    assert monitor.processor.vendor == "AuthenticAMD"
    assert monitor.processor.xsave == ("x87", "sse", "avx", "bndregs", "bndcsr", "pkru"), "as its guest's kernel says"
    assert {"sse4_1", "pni", "lm", "nx", "avx2"} <= set(monitor.processor.flags)
    assert {"i64", "xd", "check", "kvm", "x_migrate_smi_count"}.isdisjoint(monitor.processor.flags)


def test_a_kvm_that_hides_what_the_processor_has_is_no_target() -> None:
    """On this host /proc/cpuinfo has SSE3 to AES, and 57 bits of addresses that its own kernel does not use."""
    cpu = first_cpu(cpuinfo("azure_ice_lake"))
    cpu = replace(cpu, flags=cpu.flags - {"la57"})
    hiding = virtualizing(Acceleration.PVM, read_monitor(answers("pvm")), Kvm(0xE7, cpu.tsc_khz, False), cpu, "6.18")
    assert "aes" in cpu.flags
    assert "la57" in hiding.processor.flags
    assert hiding.processor.paging_levels == 4
    refusal = "flags: needs aes, pni, popcnt, sse4_1 and 2 more, which this host lacks"
    assert package_mismatch(hiding, hiding) == refusal


def test_kvm_s_own_limit_on_xsave_counts() -> None:
    """A kernel or a hypervisor may withhold AMX although the processor and QEMU know it."""
    recorded = read_monitor(answers("pvm"))
    monitor = replace(recorded, processor=host("sapphire_rapids").processor)
    cpu = first_cpu(cpuinfo("sapphire_rapids"))
    limited = virtualizing(Acceleration.KVM, monitor, Kvm(0x2E7, cpu.tsc_khz, True), cpu, "6.1.0")
    refusal = mismatch(unpinned("sapphire_rapids"), replace(limited, pinned=None, kernel="6.1.0"))
    assert refusal == "xsave: needs xtilecfg, xtiledata, which this host lacks"


@pytest.mark.parametrize("release", ["5.10.0-32-amd64", "5.16.9", "4.18.0-553.el8", "rc"])
def test_a_kernel_that_breaks_moved_guests_makes_no_host(release: str) -> None:
    with pytest.raises(Unfit, match=r"use Linux 5\.17 or newer"):
        check_kernel(release)


@pytest.mark.parametrize("release", ["5.17", "6.1.0-41-cloud-amd64", "6.18.44-fc-v657", "10.0.0"])
def test_a_kernel_that_keeps_them_is_taken(release: str) -> None:
    check_kernel(release)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no line 'bogomips'"),
        ("bogomips : 1.0\nflags : fpu\n", "has no line 'vendor_id'"),
        ("bogomips : fast\nvendor_id : GenuineIntel\nflags : fpu\n", "bogomips is 'fast', no number"),
        ("bogomips : inf\nvendor_id : GenuineIntel\nflags : fpu\n", "bogomips is 'inf', no number"),
        ("processor : 0\nBogoMIPS : 50.00\nFeatures : fp asimd\n", "only x86-64 machines"),
    ],
)
def test_what_is_no_cpuinfo_of_ours_is_refused_by_line(text: str, says: str) -> None:
    with pytest.raises(Unfit, match=says):
        first_cpu(text)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('{"QMP": {}}', "no answer about its version"),
        ('{"id": "version", "error": {"class": "GenericError", "desc": "not now"}}', "not now"),
        ('{"id": "version", "return": {"qemu": {"major": 8, "minor": 2}}}\n{"id": "machines", "return": []}', "q35"),
    ],
)
def test_a_monitor_that_does_not_answer_makes_no_host(lines: str, says: str) -> None:
    with pytest.raises(Unfit, match=says):
        read_monitor(lines)
