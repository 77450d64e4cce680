from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from guest_agent import netlink, resume
from guest_agent.resume import Identity, after_resume, entropy, take_name

# <sched.h>
CLONE_NEWNET: Final = 0x40000000
TOLD: Final = {
    "seed": "00" * 32,
    "now": 1.0,
    "machine_id": "ab" * 16,
    "hostname": "spot-runner-7",
    "mac": "52:54:00:77:00:17",
    "ip": "10.77.0.23",
    "prefix_length": 16,
    "gateway": "10.77.0.1",
    "gateway_mac": "52:54:00:77:00:01",
    "mtu": 1370,
}


def test_a_guest_does_not_resume_for_a_reason_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="neither restored nor unparked"):
        after_resume("bored", dict(TOLD))


def test_an_identity_with_a_field_too_many_or_too_few_is_refused() -> None:
    with pytest.raises(TypeError, match="nickname"):
        after_resume("restored", TOLD | {"nickname": "x"})
    with pytest.raises(TypeError, match="seed"):
        after_resume("restored", {name: value for name, value in TOLD.items() if name != "seed"})


def test_names_are_written_where_programs_look_for_them(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()

    take_name("ab" * 16, "spot-runner-7", root=str(tmp_path))

    assert (tmp_path / "etc/machine-id").read_text() == "ab" * 16 + "\n"
    assert (tmp_path / "etc/hostname").read_text() == "spot-runner-7\n"
    assert "127.0.1.1 spot-runner-7" in (tmp_path / "etc/hosts").read_text()


def test_entropy_is_credited_in_bits_and_counted_in_bytes() -> None:
    assert entropy(b"\1" * 32) == struct.pack("ii", 256, 32) + b"\1" * 32


@pytest.mark.root
def test_an_interface_gets_its_address_its_neighbour_and_its_route() -> None:
    """In a network namespace of its own, with one end of a pair of virtual devices as the guest's."""

    def bring_up_twice() -> None:
        for _ in range(2):  # a call that is repeated does no harm
            netlink.bring_up("eth0", Identity(**TOLD).address)  # type: ignore[arg-type]  # values of many types
        link, address, neighbour, route = map(_shown, ("link show eth0", "-4 address show eth0", "neigh", "route"))
        assert "52:54:00:77:00:17" in link
        assert "mtu 1370" in link
        assert ",UP" in link
        assert "inet 10.77.0.23/16" in address
        assert "10.77.0.1 dev eth0 lladdr 52:54:00:77:00:01 PERMANENT" in neighbour
        assert "default via 10.77.0.1 dev eth0" in route

    _in_a_namespace(bring_up_twice)


@pytest.mark.root
def test_an_interface_gets_the_one_ipv6_address_that_it_is_told() -> None:
    """None of the kernel's own making beside it, and used at once: nobody is asked whether it is taken."""
    told = TOLD | {"ip6": "fd73:706f:7400::a4d:17", "prefix6_length": 64, "gateway6": "fd73:706f:7400::a4d:1"}

    def bring_up_twice() -> None:
        for _ in range(2):
            resume._set_ipv6("eth0", is_wanted=True)
            netlink.bring_up("eth0", Identity(**told).address)  # type: ignore[arg-type]  # values of many types
        address, neighbour, route = map(_shown, ("-6 address show eth0", "-6 neigh", "-6 route"))
        assert address.count("inet6") == 1
        assert "inet6 fd73:706f:7400::a4d:17/64 scope global" in address
        assert "tentative" not in address
        assert "fd73:706f:7400::a4d:1 dev eth0 lladdr 52:54:00:77:00:01 PERMANENT" in neighbour
        assert "default via fd73:706f:7400::a4d:1 dev eth0" in route

    _in_a_namespace(bring_up_twice)


@pytest.mark.root
def test_a_guest_that_is_told_no_ipv6_address_has_none() -> None:
    def bring_up() -> None:
        resume._set_ipv6("eth0", is_wanted=False)
        netlink.bring_up("eth0", Identity(**TOLD).address)  # type: ignore[arg-type]  # values of many types
        assert _shown("-6 address show eth0") == ""

    _in_a_namespace(bring_up)


@pytest.mark.root
def test_the_kernel_s_refusal_is_an_error_with_its_reason() -> None:
    def bring_up_nonsense() -> None:
        told = TOLD | {"prefix_length": 64}
        with pytest.raises(OSError, match="rtnetlink message 20: Invalid argument"):
            netlink.bring_up("eth0", Identity(**told).address)  # type: ignore[arg-type]  # values of many types
        assert "state DOWN" in _shown("link show eth0")

    _in_a_namespace(bring_up_nonsense)


def _shown(what: str) -> str:
    return subprocess.run(["ip", *what.split()], check=True, capture_output=True, text=True).stdout


def _in_a_namespace(check: Callable[[], None]) -> None:
    """Run a check in a child with a network of its own; what it prints is this test's output."""
    child = os.fork()
    if child == 0:
        try:
            assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
            made = "link add name eth0 type veth peer name other"
            subprocess.run(["ip", *made.split()], check=True)
            subprocess.run(["ip", "link", "set", "other", "up"], check=True)
            check()
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
