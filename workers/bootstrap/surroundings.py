"""What every host is told: little before it has registered, the rest with the answer to that."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from workers.domain.errors import Unfit
from workers.domain.messages import Surroundings
from workers.domain.overlay import HUB_ADDRESS, Overlay
from workers.identity import Authority
from workers.settings import ControlSettings


def user_data_of(settings: ControlSettings) -> Mapping[str, str]:
    """Return what machines are told when they are rented, but for the token that is each one's own."""
    return {
        "control_url": settings.host_url,
        "control_ca_sha256": Authority.open(settings.home / "ca").control_ca_sha256,
    }


def host_nats(settings: ControlSettings) -> tuple[str, ...]:
    """Return the networks behind which hosts are seen. Raises `Unfit` for what is none."""
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in settings.host_nats)
    except ValueError as error:
        raise Unfit(f"SPOT_RUNNER_HOST_NATS: {error}; name networks, such as 203.0.113.7/32") from error


def surroundings_of(settings: ControlSettings) -> Surroundings:
    """Return what hosts have to know of this deployment. Raises `BadInput`."""
    relay = HUB_ADDRESS if settings.overlay is Overlay.WIREGUARD else settings.relay_address
    return Surroundings(relay or None, settings.guest_mtu, settings.overlay)
