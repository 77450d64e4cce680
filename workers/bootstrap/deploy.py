"""`spot-runner deploy hetzner`: makes the machine of a control plane, which installs itself."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from workers.bootstrap.rented import hetzner_token
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.first_boot import Program, user_data
from workers.domain.overlay import OVERLAY_PORT
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.control_plane import ControlPlane, Order
from workers.providers.hetzner.requests import Rental
from workers.secret_files import secret_text
from workers.settings import ControlSettings

TOKEN_FILE: Final = "/etc/spot-runner/hetzner-token"  # noqa: S105 where it will lie
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_KEY: Final = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+={0,2}( .*)?")
# Only the machine itself knows under which address hosts will dial it.
_ENDPOINT: Final = (
    'echo "SPOT_RUNNER_OVERLAY_ENDPOINT=$(curl -fsS --retry 10 '
    f'http://169.254.169.254/hetzner/v1/metadata/public-ipv4):{OVERLAY_PORT}" >>/etc/spot-runner/control.env'
)


@dataclass(frozen=True)
class Wish:
    """What the command was told."""

    name: str
    location: str
    server_type: str | None
    ssh_key: Path
    admin_network: str
    volume_gb: int
    program: Program


def run_deploy_hetzner(settings: ControlSettings, wish: Wish) -> int:
    """Make it, or find it, and say what is left to do. Raises `BadInput`, `Unfit` or the port's errors."""
    order = order_of(wish)
    rental = Rental(deployment=wish.name, overlay_port=OVERLAY_PORT)
    clock = SystemClock()
    with closing(Account.open(rental, hetzner_token(settings), clock, settings.hetzner.endpoint)) as account:
        made = ControlPlane(account, clock, time.sleep).make(order)
    verb = "was there already" if made.was_there else "is made"
    sys.stdout.write(
        f"{wish.name} ({made.server_type} in {wish.location}) {verb}, at {made.address}. What is left:\n"
        f"- let the DNS record of {wish.program.public_name} name {made.address}\n"
        f"- ssh root@{made.address} 'install -o spot-runner -m 600 /dev/stdin {TOKEN_FILE}' < YOUR_TOKEN_FILE\n"
        f"- ssh root@{made.address} cloud-init status --wait, and go on with docs/deploying.md\n"
    )
    return 0


def order_of(wish: Wish) -> Order:
    """Return what is ordered. Raises `BadInput`."""
    if not _NAME.fullmatch(wish.name):
        raise BadInput(f"name: {wish.name!r} will not do; use small letters, digits and hyphens, 42 at most")
    try:
        network = str(ip_network(wish.admin_network))
    except ValueError as error:
        raise BadInput(f"admin_network: {error}; write a network such as 203.0.113.7/32") from error
    return Order(
        name=wish.name,
        location=wish.location,
        public_key=_public_key(wish.ssh_key),
        admin_networks=(network,),
        volume_gb=wish.volume_gb,
        user_data=lambda device: user_data_of(wish, device),
        server_type=wish.server_type,
    )


def user_data_of(wish: Wish, device: str) -> str:
    """Return what the machine is told."""
    name = wish.program.public_name
    control = {
        "SPOT_RUNNER_PUBLIC_URL": f"https://{name}",
        "SPOT_RUNNER_PUBLIC_LISTEN": "127.0.0.1:8080",
        "SPOT_RUNNER_HOST_URL": f"https://{name}:8443",
        "SPOT_RUNNER_OVERLAY": "wireguard",
        "SPOT_RUNNER_RELAY_URL": "https://127.0.0.1:8445",
        "SPOT_RUNNER_PACKAGE": wish.program.package,
        "SPOT_RUNNER_HETZNER_TOKEN_FILE": TOKEN_FILE,
        "SPOT_RUNNER_HETZNER_LOCATIONS": json.dumps([wish.location]),
    }
    relay = {"SPOT_RUNNER_RELAY_LISTEN": "127.0.0.1:8445", "SPOT_RUNNER_OVERLAY": "wireguard"}
    install = {"PUBLIC_NAME": name, "HOME_DEVICE": device}
    files = {"control.env": control, "relay.env": relay, "install.env": install}
    return user_data(wish.program, files, (_ENDPOINT,))


def _public_key(file: Path) -> str:
    text = secret_text(file, "ssh_key:", "name your public key, such as id_ed25519.pub").strip()
    if not _KEY.fullmatch(text):
        raise BadInput(f"ssh_key: {file} holds no public key; name the file that ends with .pub")
    return text
