"""Rule sets as text: bounded to what they protect, safe to load again, accepted by nft's own parser."""

from __future__ import annotations

import re
import subprocess

import pytest

from workers.domain.names import RunnerId, guest_address
from workers.egress import GuestSide
from workers.host.nat import nat_rules
from workers.host.rules import Approach, host_rules, no_tap_rules, tap_name, tap_number, tap_rules
from workers.ports import Forwarding
from workers.relay.rules import owner_change, relay_rules

ENTRY = Forwarding(RunnerId("spot-runner-a"), 1, guest_address(3), "10.90.0.16")
MOVED = Forwarding(RunnerId("spot-runner-a"), 2, guest_address(3), "10.90.0.17")
TEXTS = {
    "tap": tap_rules(3, guest_address(3)),
    "host": host_rules("10.90.0.3", {}),
    "host with migrations": host_rules("10.90.0.3", {49152: "10.90.0.17", 49999: "10.90.0.18"}),
    "host with a way to a peer": host_rules("10.90.0.3", {}, [Approach(1_900_000_003, "10.90.0.17", 49152)]),
    "host without a relay": host_rules(None, {}),
    "host that does the NAT": nat_rules(GuestSide("guests-nat", None, ("198.18.0.2/32",), 4096, 1370)),
    "relay": relay_rules("eth1", (), []),
    "relay with entries": relay_rules("eth1", ("198.18.0.2/32", "10.1.0.0/16", "2001:db8:1::/48"), [ENTRY]),
}


# A machine that knows no names of protocols and services, as an image with nothing but what a host needs is.
NAMELESS = """
for file in /etc/protocols /etc/services; do test ! -e $file || mount --bind /dev/null $file; done
ip tuntap add tap3 mode tap
exec nft --check -f -
"""


@pytest.mark.root
@pytest.mark.parametrize("which", TEXTS)
def test_nft_takes_the_text_twice(which: str) -> None:
    check = ["unshare", "--net", "--mount", "sh", "-euc", NAMELESS]
    done = subprocess.run(check, input=TEXTS[which] * 2, text=True, check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.root
def test_an_owners_change_may_come_twice_and_before_its_forerunner() -> None:
    text = relay_rules("eth1", (), [])
    for before, after in ((ENTRY, MOVED), (ENTRY, MOVED), (None, MOVED), (MOVED, None), (MOVED, None)):
        text += owner_change(before, after)
    text += "list set inet spot_relay owners\n"
    shown = subprocess.run(
        ["unshare", "--net", "nft", "-f", "-"], input=text, text=True, check=True, capture_output=True, timeout=30
    ).stdout
    assert "elements" not in shown


def test_every_table_is_emptied_before_it_is_filled() -> None:
    for text in TEXTS.values():
        tables = re.findall(r"^table (\S+ \S+) {", text, flags=re.MULTILINE)
        assert tables
        for table in tables:
            assert text.index(f"flush table {table}") < text.index(f"\ntable {table} {{")


def test_a_tap_knows_its_guest_alone() -> None:
    text = tap_rules(3, guest_address(3))
    assert set(re.findall(r"52:54:00:77:..:..", text)) == {"52:54:00:77:00:13", "52:54:00:77:00:01"}
    assert "policy drop" in text


def test_a_tap_that_never_was_can_be_forgotten() -> None:
    assert no_tap_rules(3).splitlines() == ["add table netdev spot_tap3", "delete table netdev spot_tap3"]


def test_names_of_taps_are_read_back() -> None:
    assert [tap_number(name) for name in (tap_name(0), tap_name(65518), "tap", "tapx", "eth0", "12")] == [
        0,
        65518,
        None,
        None,
        None,
        None,
    ]


def test_overlapping_forbidden_networks_become_one() -> None:
    assert "10.1.0.0/16" not in TEXTS["relay with entries"]
    assert "198.18.0.2/32" in TEXTS["relay with entries"]
