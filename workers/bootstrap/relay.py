"""`spot-runner relay`: the egress relay, the constant address of every job's connections."""

from __future__ import annotations

from workers.domain.errors import Unfit
from workers.listener import Identity, open_port, parse_listen, require_root, run_until_told, serve
from workers.relay.network import RelayNetwork
from workers.relay.server import Forwarder, make_relay_app
from workers.settings import RelaySettings
from workers.telemetry import start_logging


def run_relay(settings: RelaySettings) -> None:
    """Forward what the last run held, then take orders, until told to end; the kernel forwards on after that."""
    start_logging("relay")
    require_root("spot-runner relay")
    identity = _identity(settings)
    listening = open_port(*parse_listen(settings.relay_listen))
    network = RelayNetwork(
        settings.relay_address,
        settings.relay_public_interface,
        settings.relay_forbidden,
        settings.guest_mtu,
        settings.guest_connections_max,
    )
    forwarder = Forwarder(network, settings.relay_home / "forwarding.json")
    run_until_told(serve(make_relay_app(forwarder), listening, identity))


def _identity(settings: RelaySettings) -> Identity:
    home = settings.relay_home
    identity = Identity(home / "certificate.pem", home / "key.pem", home / "control-ca.pem")
    for file in (identity.certificate, identity.key, identity.trusted):
        if not file.is_file():
            raise Unfit(f"{file} is missing; the control plane writes the relay's identity, copy it to {home}")
    return identity
