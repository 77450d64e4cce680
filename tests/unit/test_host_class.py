"""Which guests a host takes: laws for all classes, and no refusal without a difference that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.fakes.classes import EMULATED, VIRTUALIZED
from workers.domain.host_class import Acceleration, HostClass, Processor, TscSource, mismatch, package_mismatch

Rule = Callable[[HostClass, HostClass], str | None]
BOTH = pytest.mark.parametrize("rule", [mismatch, package_mismatch])

# Few values of each, so that two classes drawn at random often agree in most of them.
FLAGS = st.sets(st.sampled_from(["aes", "avx", "avx2", "fpu", "pku", "sse4_2"])).map(lambda some: tuple(sorted(some)))
PROCESSORS = st.builds(
    Processor,
    vendor=st.sampled_from(["GenuineIntel", "AuthenticAMD"]),
    flags=FLAGS,
    xsave=st.sampled_from([(), ("x87", "sse"), ("x87", "sse", "avx")]),
    paging_levels=st.sampled_from([4, 5]),
)
CLASSES = st.builds(
    HostClass,
    acceleration=st.sampled_from(Acceleration),
    architecture=st.sampled_from(["x86_64", "aarch64"]),
    kernel=st.sampled_from(["6.1.0", "6.7.12-pvm"]),
    monitor=st.sampled_from(["qemu", "firecracker"]),
    monitor_version=st.sampled_from(["7.2", "10.0", "10.1"]),
    machines=st.sampled_from([("pc-q35-7.2",), ("pc-q35-7.2", "pc-q35-10.0"), ("pc-q35-10.0", "pc-q35-10.1"), ()]),
    processor=PROCESSORS,
    pinned=st.none() | PROCESSORS,
    tsc_khz=st.sampled_from([2_400_000, 2_400_500, 2_500_000]),
    tsc_source=st.sampled_from(TscSource),
)
ANY = st.builds(HostClass, processor=st.builds(Processor), pinned=st.none() | st.builds(Processor))


def sound(one: HostClass) -> HostClass:
    """Return the class of a host that can show what its own packages need, as every READY host has proved."""
    pinned = one.pinned and replace(
        one.processor, flags=one.processor.flags[:2], xsave=one.processor.xsave[:1], paging_levels=4
    )
    return replace(one, pinned=pinned, machines=one.machines or ("pc-q35-7.2",))


def repaired(offered: HostClass, needed: HostClass, name: str) -> HostClass:
    """Give `offered` what `needed` has of one property."""
    match name:
        case "machine":
            return replace(offered, machines=(*offered.machines, needed.machine))
        case "vendor" | "flags" | "xsave" | "paging_levels":
            seen = needed.guest
            if name == "paging_levels" and needed.acceleration is Acceleration.PVM:
                seen = needed.processor
            return replace(offered, processor=replace(offered.processor, **{name: getattr(seen, name)}))
        case _:
            return replace(offered, **{name: getattr(needed, name)})


def kin(one: HostClass) -> st.SearchStrategy[HostClass]:
    """Draw a class that differs from this one in two fields at most."""
    names = st.sets(st.sampled_from([field.name for field in fields(HostClass)]), max_size=2)
    return st.builds(lambda other, some: replace(one, **{name: getattr(other, name) for name in some}), CLASSES, names)


def richer(one: HostClass, more: tuple[str, ...]) -> HostClass:
    """Return the same host with more flags."""
    return replace(one, processor=replace(one.processor, flags=tuple(sorted({*one.processor.flags, *more}))))


def named(refusal: str) -> str:
    return refusal.partition(":")[0]


# ---------------------------------------------------------------- laws


@BOTH
@given(needed=ANY, offered=ANY)
def test_any_two_classes_get_an_answer_in_one_line(rule: Rule, needed: HostClass, offered: HostClass) -> None:
    refusal = rule(needed, offered)
    assert refusal is None or ": " in refusal


@BOTH
@given(one=CLASSES)
def test_a_host_takes_its_own_guests(rule: Rule, one: HostClass) -> None:
    assert rule(sound(one), sound(one)) is None


@BOTH
@given(needed=CLASSES, offered=CLASSES)
def test_what_a_refusal_names_is_what_has_to_change(rule: Rule, needed: HostClass, offered: HostClass) -> None:
    """Each named property differs, giving the host that property answers the refusal, and it is not named again."""
    before: list[str] = []
    while refusal := rule(needed, offered):
        name = named(refusal)
        assert name not in before
        assert repaired(offered, needed, name) != offered, refusal
        offered = repaired(offered, needed, name)
        before.append(name)


@given(drawn=st.data())
def test_a_guest_that_may_go_on_and_on_may_go_at_once(drawn: st.DataObject) -> None:
    """As far as the guest's own processor and machine type are known, and without the rate's drift adding up."""
    hosts = [sound(replace(drawn.draw(CLASSES), tsc_khz=2_400_000))]
    for _ in range(2):
        other = replace(drawn.draw(kin(hosts[-1])), pinned=hosts[0].pinned, tsc_khz=2_400_000)
        hosts.append(replace(other, machines=other.machines or hosts[0].machines))
    first, second, third = hosts
    assume(mismatch(first, second) is None and mismatch(second, third) is None)
    assert mismatch(first, third) is None or first.machine not in third.machines


@given(drawn=st.data(), more=FLAGS)
def test_more_flags_never_harm_a_pinned_guest(drawn: st.DataObject, more: tuple[str, ...]) -> None:
    needed = sound(drawn.draw(CLASSES.filter(lambda one: one.pinned is not None)))
    offered = drawn.draw(kin(needed))
    assume(mismatch(needed, offered) is None)
    assert mismatch(needed, richer(offered, more)) is None


@given(one=CLASSES, more=FLAGS)
def test_any_other_flag_is_wrong_for_a_guest_that_is_not_pinned(one: HostClass, more: tuple[str, ...]) -> None:
    one = replace(sound(one), pinned=None)
    other = richer(one, more)
    assert (mismatch(one, other) is None) == (mismatch(other, one) is None) == (one == other)


# ---------------------------------------------------------------- one property at a time


def with_processor(one: HostClass, **changes: object) -> HostClass:
    return replace(one, processor=replace(one.processor, **changes))  # type: ignore[arg-type]  # a test knows the fields


PVM = replace(VIRTUALIZED, acceleration=Acceleration.PVM, kernel="6.7.12-pvm", tsc_source=TscSource.HOST)


@pytest.mark.parametrize(
    ("needed", "offered", "says"),
    [
        (EMULATED, replace(EMULATED, architecture="aarch64"), "architecture: needs x86_64, this host has aarch64"),
        (EMULATED, VIRTUALIZED, "acceleration: needs tcg, this host has kvm"),
        (EMULATED, replace(EMULATED, monitor="firecracker"), "monitor: needs qemu, this host has firecracker"),
        (
            VIRTUALIZED,
            replace(VIRTUALIZED, machines=("pc-q35-9.0", "pc-q35-10.0")),
            "machine: needs pc-q35-9.2, this host has 2 from pc-q35-9.0 to pc-q35-10.0",
        ),
        (VIRTUALIZED, replace(VIRTUALIZED, machines=()), "machine: needs pc-q35-9.2, this host has none"),
        (PVM, replace(PVM, kernel="6.12.33-pvm"), "kernel: needs 6.7.12-pvm, this host has 6.12.33-pvm"),
        (PVM, with_processor(PVM, paging_levels=5), "paging_levels: needs 4, this host has 5"),
        (
            VIRTUALIZED,
            with_processor(VIRTUALIZED, vendor="AuthenticAMD"),
            "vendor: needs GenuineIntel, this host has AuthenticAMD",
        ),
        (VIRTUALIZED, with_processor(VIRTUALIZED, flags=("avx", "fpu")), "flags: needs sse4_2, which this host lacks"),
        (
            EMULATED,
            with_processor(EMULATED, flags=("avx", "fpu", "la57", "pku", "sse4_2", "xsave")),
            "flags: this host shows pku too, which the guest has never seen",
        ),
        (EMULATED, with_processor(EMULATED, xsave=("x87", "sse")), "xsave: needs avx, which this host lacks"),
        (EMULATED, with_processor(EMULATED, paging_levels=4), "paging_levels: needs 5, this host has 4"),
        (PVM, replace(PVM, tsc_khz=2_600_000), "tsc_khz: needs 2793440, this host has 2600000 and cannot scale it"),
        (EMULATED, replace(EMULATED, tsc_khz=2_600_000), "tsc_khz: needs 2793440, this host has 2600000 and cannot"),
    ],
)
@BOTH
def test_a_refusal_names_the_property_and_both_values(
    rule: Rule, needed: HostClass, offered: HostClass, says: str
) -> None:
    assert str(rule(needed, offered)).startswith(says)


@pytest.mark.parametrize(
    ("needed", "offered"),
    [
        (VIRTUALIZED, with_processor(VIRTUALIZED, paging_levels=5)),
        (VIRTUALIZED, with_processor(VIRTUALIZED, xsave=("x87", "sse", "avx", "pkru"))),
        (VIRTUALIZED, replace(VIRTUALIZED, kernel="6.12.0")),
        (VIRTUALIZED, replace(VIRTUALIZED, kernel="5.17.0")),
        (VIRTUALIZED, replace(VIRTUALIZED, tsc_khz=3_900_000)),
        (VIRTUALIZED, replace(VIRTUALIZED, pinned=None)),
        (EMULATED, replace(EMULATED, kernel="5.10.0", tsc_khz=2_793_528)),
        (PVM, replace(PVM, tsc_khz=2_793_438)),
    ],
)
@BOTH
def test_what_the_guest_does_not_notice_is_no_reason(rule: Rule, needed: HostClass, offered: HostClass) -> None:
    assert rule(needed, offered) is None


@BOTH
def test_a_monitor_takes_what_an_older_one_made_and_not_the_other_way(rule: Rule) -> None:
    """QEMU promises that a versioned machine type goes forward; `10.0` is newer than `9.2`."""
    newer = replace(VIRTUALIZED, monitor_version="10.0", machines=(*VIRTUALIZED.machines, "pc-q35-10.0"))
    assert rule(VIRTUALIZED, newer) is None
    assert rule(newer, VIRTUALIZED) == "monitor_version: needs 10.0 or newer, this host has 9.2"
    dropped = replace(newer, machines=("pc-q35-9.0", "pc-q35-10.0"))
    assert named(str(rule(VIRTUALIZED, dropped))) == "machine"


def test_a_guest_whose_rate_is_scaled_stays_where_it_can_be_scaled() -> None:
    """Its own rate is not known to the host that it leaves; a package's is that of the host that it was made on."""
    plain = replace(VIRTUALIZED, tsc_source=TscSource.HOST)
    assert mismatch(VIRTUALIZED, plain) == "tsc_source: needs scaled, this host has host"
    assert package_mismatch(VIRTUALIZED, plain) is None
    assert mismatch(plain, VIRTUALIZED) is None


def test_few_of_many_flags_are_named() -> None:
    many = tuple(f"flag{number}" for number in range(9))
    needed = with_processor(EMULATED, flags=many)
    refusal = mismatch(needed, with_processor(EMULATED, flags=many[:1]))
    assert refusal == "flags: needs flag1, flag2, flag3, flag4 and 4 more, which this host lacks"
