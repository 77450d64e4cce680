"""What is left of a packet, by the arithmetic of the protocols that are around it."""

from __future__ import annotations

import pytest

from workers.domain.errors import BadInput
from workers.domain.overlay import GUEST_MTU, GUEST_MTU_MIN, Overlay, guest_mtu, tunnel_mtu


@pytest.mark.parametrize(
    ("underlay", "overlay", "guest"),
    [(1500, Overlay.PLAIN, 1450), (1500, Overlay.WIREGUARD, 1370), (9001, Overlay.WIREGUARD, 8871)],
)
def test_a_guest_gets_what_the_tunnels_leave(underlay: int, overlay: Overlay, guest: int) -> None:
    assert guest_mtu(underlay, overlay) == guest


def test_what_is_taken_by_default_fits_through_everything() -> None:
    assert min(guest_mtu(1500, overlay) for overlay in Overlay) == GUEST_MTU
    assert tunnel_mtu(1500, Overlay.WIREGUARD) == 1420


def test_what_ipv6_cannot_live_with_is_refused_with_the_remedy() -> None:
    assert guest_mtu(1410, Overlay.WIREGUARD) == GUEST_MTU_MIN
    with pytest.raises(BadInput, match=r"underlay_mtu: 1409 leaves a guest 1279 octets.*use a network of 1410 or more"):
        guest_mtu(1409, Overlay.WIREGUARD)
