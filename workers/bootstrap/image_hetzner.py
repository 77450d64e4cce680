"""`spot-runner image build --cloud hetzner`: a server there makes itself the image."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from images import versions as inputs
from images.builder import Program, builder_user_data, with_voucher
from images.order import check_room, checked_order, read_digests, read_settings
from images.versions import Versions
from workers.bootstrap.rented import hetzner_token
from workers.bootstrap.unwinding import unwound_on_sigterm
from workers.bootstrap.vouching import find_published
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.overlay import OVERLAY_PORT
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.builder import INSTALL_LIMIT, Builder, Order
from workers.providers.hetzner.requests import Rental
from workers.settings import ControlSettings

LARGER: Final = "name a larger one first in SPOT_RUNNER_HETZNER_SERVER_TYPES"


@dataclass(frozen=True)
class HetznerWish:
    """What the command was told."""

    kernel: str
    source: str
    base_image: str | None
    repository: str | None
    revision: str | None
    settings: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def run_build_hetzner(settings: ControlSettings, wish: HetznerWish, versions: Versions | None = None) -> None:
    """Make the image, or find it, and say which it is. Raises `BadInput`, `Unfit` or the port's errors."""
    there = settings.hetzner
    order = order_of(versions or inputs.load(), wish, there.server_types, there.locations)
    packages = find_published(settings, read_digests("hetzner", wish.packages))
    rental = Rental(deployment="images", overlay_port=OVERLAY_PORT)
    clock = SystemClock()
    with closing(Account.open(rental, hetzner_token(settings), clock, there.endpoint)) as account:
        for kind in account.kinds if packages.indexes else ():
            if kind.name == order.server_type:
                check_room(packages.size_mib, kind.disk_mib, f"the disk of a {kind.name}", LARGER)
        with unwound_on_sigterm(), packages.vouched(order.name, INSTALL_LIMIT) as url:
            told = order.user_data if url is None else with_voucher(order.user_data, url)
            made = Builder(account, clock, time.sleep).make(replace(order, user_data=told))
    sys.stdout.write(
        f"{made}: {order.name}; hosts boot the latest snapshot with the label spot-runner/image={order.kind}\n"
    )


def order_of(versions: Versions, wish: HetznerWish, server_types: tuple[str, ...], locations: tuple[str, ...]) -> Order:
    """Return what is ordered. Raises `BadInput` before anybody is asked."""
    image = checked_order(versions, "hetzner", wish.kernel, wish.source)
    image = replace(image, settings=read_settings(wish.settings), fetched=read_digests("hetzner", wish.packages))
    if not wish.repository or not wish.revision:
        raise BadInput("--cloud hetzner: name the --repository and --revision of spot-runner that goes into the image")
    if not server_types or not locations:
        raise BadInput(
            "--cloud hetzner: set SPOT_RUNNER_HETZNER_SERVER_TYPES and _LOCATIONS; the first of each is used"
        )
    told = builder_user_data(image, Program(wish.repository, wish.revision))
    origin = wish.base_image or image.kernel.distribution  # Hetzner calls its images so, too
    key = hashlib.sha256(f"{origin}\n{told}".encode()).hexdigest()[:12]
    return Order(
        name=f"spot-runner-{wish.source}-{key}",
        key=key,
        kind=wish.kernel,
        origin=origin,
        server_type=server_types[0],
        location=locations[0],
        user_data=told,
    )
