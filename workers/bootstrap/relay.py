"""`spot-runner relay`: the egress relay, the constant address of every job's connections."""

from __future__ import annotations

from pathlib import Path

from workers.domain.errors import Unfit
from workers.domain.overlay import HUB_ADDRESS, OVERLAY_NETWORK, Overlay, tunnel_mtu
from workers.identity import RELAY, next_csr, write_next
from workers.listener import Identity, open_port, parse_listen, require_root, run_until_told, serve
from workers.relay.hub import Hub
from workers.relay.network import RelayNetwork
from workers.relay.rules import OverlaySide
from workers.relay.server import Forwarder, make_relay_app
from workers.settings import RelaySettings
from workers.telemetry import start_logging
from workers.wireguard import Seat, Wireguard


class Credentials:
    """The relay's identity on its disk; the listener shows a certificate as soon as it lies there."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def request(self) -> str:
        return next_csr(RELAY, self._home)

    def take(self, certificate: str) -> None:
        write_next(self._home, certificate)


def run_relay(settings: RelaySettings) -> None:
    """Forward what the last run held, then take orders, until told to end; the kernel forwards on after that."""
    start_logging("relay")
    require_root("spot-runner relay")
    identity = _identity(settings)
    listening = open_port(*parse_listen(settings.relay_listen))
    wireguard, hub = None, None
    if settings.overlay is Overlay.WIREGUARD:
        wireguard = Wireguard(str(settings.relay_home), settings.relay_home)
        hub = Hub(wireguard, _seat(settings), settings.relay_home / "overlay.json")
    network = RelayNetwork(
        HUB_ADDRESS if hub else settings.relay_address,
        settings.relay_public_interface,
        settings.relay_forbidden,
        settings.guest_mtu,
        settings.guest_connections_max,
        OverlaySide(wireguard.name, settings.overlay_callers) if wireguard else None,
    )
    forwarder = Forwarder(network, settings.relay_home / "forwarding.json")
    run_until_told(serve(make_relay_app(forwarder, Credentials(settings.relay_home), hub), listening, identity))


def _seat(settings: RelaySettings) -> Seat:
    mtu = tunnel_mtu(settings.underlay_mtu, settings.overlay)
    return Seat(HUB_ADDRESS, OVERLAY_NETWORK.prefixlen, settings.overlay_port, mtu)


def _identity(settings: RelaySettings) -> Identity:
    home = settings.relay_home
    identity = Identity(home / "certificate.pem", home / "key.pem", home / "control-ca.pem")
    for file in (identity.certificate, identity.key, identity.trusted):
        if not file.is_file():
            raise Unfit(f"{file} is missing; the control plane writes the relay's identity, copy it to {home}")
    return identity
